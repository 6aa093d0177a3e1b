import Foundation
import MeshHTTP
import Testing

/// SplitMix64: the same seed, the same bytes, on every machine.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// A message kept in a file: `<expected code, or complete>--<what it is>.request` or `.response`.
struct CorpusEntry: Sendable, CustomTestStringConvertible {
    var name: String
    var expected: String
    var kind: MessageKind
    var message: [UInt8]

    var testDescription: String { name }

    static let all: [CorpusEntry] = {
        let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(
            path: "Corpus")
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.sorted().compactMap { name in
            guard let end = name.range(of: "--"), let data = try? Data(contentsOf: folder.appending(path: name)) else {
                return nil
            }
            let kind: MessageKind = name.hasSuffix(".response") ? .response([]) : .request
            return CorpusEntry(name: name, expected: String(name[..<end.lowerBound]), kind: kind, message: Array(data))
        }
    }()
}

@Suite struct FuzzTests {
    @Test("The corpus is there")
    func corpusIsThere() { #expect(CorpusEntry.all.count >= 20) }

    @Test("A message of the corpus is judged as its name says", arguments: CorpusEntry.all)
    func corpus(entry: CorpusEntry) {
        switch receive(entry.message, as: entry.kind) {
        case .complete, .open: #expect(entry.expected == "complete")
        case .incomplete: #expect(entry.expected == "incomplete")
        case .invalid(let error): #expect(entry.expected == error.code)
        }
        expectStableCopy(of: entry.message, as: entry.kind)
    }

    @Test(
        "Mutated messages never trap, are judged alike however split, and copy to the same message",
        arguments: [1, 2, 3, 4])
    func mutations(seed: UInt64) {
        var random = SeededGenerator(state: seed)
        var seeds: [([UInt8], MessageKind)] = CorpusEntry.all.map { ($0.message, $0.kind) }
        seeds += Messages.goodRequests.map { (bytes($0.text), .request) }
        seeds += Messages.badRequests.filter { $0.text.utf8.count < 1000 }.map { (bytes($0.text), .request) }
        seeds += Messages.goodResponses.map { (bytes($0.text), .response($0.traits)) }
        seeds += Messages.badBodies.filter { $0.text.utf8.count < 1000 }.map {
            (bytes("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + $0.text), .request)
        }
        seeds = seeds.filter { $0.0.count < 2000 }
        var accepted = 0
        for _ in 0..<50_000 {
            var (message, kind) = seeds[Int(random.next() % UInt64(seeds.count))]
            for _ in 0...Int(random.next() % 4) { mutate(&message, seeds, &random) }
            let whole = receive(message, as: kind)
            var pieces: [ArraySlice<UInt8>] = []
            var from = 0
            while from < message.count {
                let to = min(message.count, from + 1 + Int(random.next() % 40))
                pieces.append(message[from..<to])
                from = to
            }
            if receive(pieces, as: kind) != whole {
                Issue.record("split differs: \(String(decoding: message, as: UTF8.self).debugDescription)")
            }
            expectStableCopy(of: message, as: kind)
            switch whole {
            case .complete, .open: accepted += 1
            case .incomplete, .invalid: break
            }
        }
        #expect((2_000..<40_000).contains(accepted), "the mutations are too tame or too wild to find anything")
    }

    private static let interesting: [[UInt8]] = [
        [0], [9], [10], [13], [13, 10], [32], [58], [44], [59], [127], [0x85], [0xa0], [0xff], bytes("\r\n\r\n"),
        bytes("\n\n"),
        bytes("Content-Length: 5\r\n"), bytes("Transfer-Encoding: chunked\r\n"), bytes("Connection: close\r\n"),
        bytes("0\r\n\r\n"),
        bytes("Host: b\r\n"), bytes("ffffffffffffffff"), bytes("9223372036854775807"), bytes("HTTP/1.0"),
        bytes("\r\n "), bytes("TE: trailers\r\n"),
        bytes("Connection: x, y\r\nX: 1\r\n"), bytes("Upgrade: websocket\r\nConnection: upgrade\r\n"),
        bytes("http://a/"),
    ]

    private func mutate(_ message: inout [UInt8], _ seeds: [([UInt8], MessageKind)], _ random: inout SeededGenerator) {
        func below(_ limit: Int) -> Int { limit <= 0 ? 0 : Int(random.next() % UInt64(limit)) }
        switch below(7) {
        case 0 where !message.isEmpty:
            message[below(message.count)] = UInt8(truncatingIfNeeded: random.next())
        case 1 where !message.isEmpty:
            message[below(message.count)] ^= 1 << UInt8(below(8))
        case 2:
            let word = FuzzTests.interesting[below(FuzzTests.interesting.count)]
            message.insert(contentsOf: word, at: below(message.count + 1))
        case 3 where !message.isEmpty:
            let from = below(message.count)
            message.removeSubrange(from..<min(message.count, from + 1 + below(8)))
        case 4 where !message.isEmpty:
            let from = below(message.count)
            let part = Array(message[from..<min(message.count, from + 1 + below(40))])
            message.insert(contentsOf: part, at: below(message.count + 1))
        case 5:
            let other = seeds[below(seeds.count)].0
            message = Array(message.prefix(below(message.count + 1))) + other.dropFirst(below(other.count + 1))
        default:
            let word = FuzzTests.interesting[below(FuzzTests.interesting.count)]
            let from = below(message.count)
            message.replaceSubrange(from..<min(message.count, from + word.count), with: word)
        }
        if message.count > 8000 { message.removeSubrange(8000...) }
    }
}
