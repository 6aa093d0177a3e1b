/// The API's rules for label keys, label values and object names; each returns what is wrong, or nil.
package enum LabelSyntax {
    /// An optional DNS prefix of 253 bytes and a slash, then a name of 63 bytes.
    package static func problem(inKey key: String) -> String? {
        let parts = key.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        if parts.count == 2 {
            if let problem = problem(inSubdomain: parts[0]) { return "the prefix of the key '\(key)' \(problem)" }
        }
        guard let name = parts.last, !name.isEmpty else { return "the key '\(key)' has an empty name" }
        return isName(name)
            ? nil
            : "the name in the key '\(key)' must have 1 to 63 letters, digits, '-', '_' or '.' and start and end with a letter or digit"
    }

    /// Empty, or 63 bytes of the characters of a name.
    package static func problem(inValue value: String) -> String? {
        value.isEmpty || isName(value[...])
            ? nil
            : "the value '\(value)' must have at most 63 letters, digits, '-', '_' or '.' and start and end with a letter or digit"
    }

    /// DNS-1123 subdomain, 253 bytes: the names of most objects.
    package static func problem(inSubdomain text: some StringProtocol) -> String? {
        guard (1...253).contains(text.utf8.count) else { return "must have 1 to 253 bytes" }
        for label in text.split(separator: ".", omittingEmptySubsequences: false)
        where problem(inDNSLabel: label, limit: 253) != nil {
            return
                "must have lower-case letters, digits, '-' and '.', each part starting and ending with a letter or digit"
        }
        return nil
    }

    /// DNS-1123 label, 63 bytes: the names of namespaces, containers and services.
    package static func problem(inDNSLabel text: some StringProtocol, limit: Int = 63) -> String? {
        let bytes = Array(text.utf8)
        guard (1...limit).contains(bytes.count) else { return "must have 1 to \(limit) bytes" }
        let isAlphanumeric = { (byte: UInt8) in (97...122).contains(byte) || (48...57).contains(byte) }
        guard bytes.allSatisfy({ isAlphanumeric($0) || $0 == UInt8(ascii: "-") }), isAlphanumeric(bytes[0]),
            isAlphanumeric(bytes[bytes.count - 1])
        else { return "must have lower-case letters, digits and '-', and start and end with a letter or digit" }
        return nil
    }

    private static func isName(_ text: Substring) -> Bool {
        let bytes = Array(text.utf8)
        guard (1...63).contains(bytes.count) else { return false }
        let isAlphanumeric = { (byte: UInt8) in
            (97...122).contains(byte) || (65...90).contains(byte) || (48...57).contains(byte)
        }
        return bytes.allSatisfy { isAlphanumeric($0) || $0 == 45 || $0 == 46 || $0 == 95 } && isAlphanumeric(bytes[0])
            && isAlphanumeric(bytes[bytes.count - 1])
    }
}
