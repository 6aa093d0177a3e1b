import MeshProxy

/// From the settings of a pod to rules for nft, which root runs.
///
/// The input is the text of two port lists, with a zero byte between them. Properties: whatever the text, the script is a line of the fixed
/// text or a list of ports, and as many lines as it should be: nothing of the text gets into it but numbers from 1 to 65535.
enum CaptureRulesProperty: FuzzProperty {
    static let name = "capture-rules"

    static func check(_ input: UnsafeRawBufferPointer) throws(PropertyFailure) {
        let inbound = String(decoding: input.prefix { $0 != 0 }, as: UTF8.self)
        let outbound = String(decoding: input.drop { $0 != 0 }.dropFirst(), as: UTF8.self)
        guard let skippedInbound = try? parsePortList(inbound, setting: "inbound"),
            let skippedOutbound = try? parsePortList(outbound, setting: "outbound")
        else { return }
        for (list, source) in [(skippedInbound, inbound), (skippedOutbound, outbound)] {
            let plain = source.utf8.allSatisfy { (48...57).contains($0) || $0 == 32 || $0 == 44 }
            try require(plain && !list.contains(0), "taken from \(source.debugDescription): \(list)")
        }
        let rules = CaptureRules(skippedInboundPorts: skippedInbound, skippedOutboundPorts: skippedOutbound)
        let bare = CaptureRules(ownPorts: []).script.split(separator: "\n", omittingEmptySubsequences: false)
        var lists = 0
        var rest = bare[...]
        for line in rules.script.split(separator: "\n", omittingEmptySubsequences: false) {
            if line == rest.first {
                rest = rest.dropFirst()
            } else {
                try require(isPortLine(line), "a line that no setting may make: \(line.debugDescription)")
                lists += 1
            }
        }
        try require(rest.isEmpty && lists == (skippedOutbound.isEmpty ? 1 : 2), "\(lists) lists in \(rules.script)")
    }

    /// `tcp dport { 1, 2 } return`.
    private static func isPortLine(_ line: Substring) -> Bool {
        let start = "        tcp dport { "
        let end = " } return"
        guard line.hasPrefix(start), line.hasSuffix(end) else { return false }
        let ports = line.dropFirst(start.count).dropLast(end.count).split(
            separator: ", ", omittingEmptySubsequences: false)
        let numbers = ports.compactMap { UInt16($0) }
        return numbers.count == ports.count && numbers == Set(numbers).sorted() && !numbers.contains(0)
            && ports.allSatisfy { $0.utf8.allSatisfy { (48...57).contains($0) } }
    }
}
