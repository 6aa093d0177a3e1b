import MeshHTTP
import Testing

@Suite struct BodyScannerTests {
    private func scan(_ framing: BodyFraming, _ text: String) -> BodyScanner.Step {
        var scanner = BodyScanner(framing)
        return bytes(text).withUnsafeBytes { scanner.scan($0) }
    }

    @Test("A malformed chunked body is refused with its reason", arguments: Messages.badBodies)
    func badBody(message: Messages.Bad) {
        guard case .invalid(let error, _) = scan(.chunked, message.text) else {
            Issue.record("\(scan(.chunked, message.text))")
            return
        }
        #expect(error == message.error)
    }

    @Test("Only what was checked may pass: an unfinished line is held back")
    func holdsLines() {
        #expect(scan(.chunked, "5;name=va") == .more(count: 0))
        #expect(scan(.chunked, "5\r\nhel") == .more(count: 6))
        #expect(scan(.chunked, "5\r\nhello\r") == .more(count: 8))
        #expect(scan(.chunked, "5\r\nhello\r\n0\r\nX: unfini") == .more(count: 13))
        #expect(scan(.chunked, "5\r\nhello\r\nzz\r\n") == .invalid(.invalidChunkSize, count: 10))
        #expect(scan(.chunked, "0\r\n\r\nGET") == .done(count: 5))
    }

    @Test("The payload of chunks is the same wherever they are split, and nothing else passes")
    func payload() {
        let message = bytes("5;a=b\r\nhello\r\n0001\r\n,\r\n6\r\n world\r\n0\r\nX: y\r\n\r\nGET")
        for split in 0...message.count {
            var scanner = BodyScanner(.chunked)
            var payload: [UInt8] = []
            var held: [UInt8] = []
            var isDone = false
            for (index, piece) in [message[..<split], message[split...]].enumerated() {
                held += piece
                let step = held.withUnsafeBytes { scanner.scanPayload($0) { payload += $0 } }
                switch step {
                case .more(let count): held.removeFirst(count)
                case .done(let count):
                    held.removeFirst(count)
                    isDone = true
                case .invalid(let error, _): Issue.record("\(error) when split at \(split)")
                }
                if isDone, index == 0 { held += message[split...] }
                if isDone { break }
            }
            #expect(isDone)
            #expect(String(decoding: payload, as: UTF8.self) == "hello, world")
            #expect(String(decoding: held, as: UTF8.self) == "GET")
        }
    }

    @Test("A payload that breaks off is told as broken")
    func brokenPayload() {
        var scanner = BodyScanner(.chunked)
        var payload: [UInt8] = []
        let step = bytes("3\r\nabcX").withUnsafeBytes { scanner.scanPayload($0) { payload += $0 } }
        #expect(step == .invalid(.chunkEndMissing, count: 6))
        #expect(payload == bytes("abc"))
    }

    @Test("A length ends where it says, over any pieces")
    func length() {
        var scanner = BodyScanner(.length(10))
        #expect(bytes("abc").withUnsafeBytes { scanner.scan($0) } == .more(count: 3))
        #expect(!scanner.isDone && !scanner.mayEndWithConnection)
        #expect(bytes("defghijKLM").withUnsafeBytes { scanner.scan($0) } == .done(count: 7))
        #expect(scanner.isDone)
    }

    @Test("No body is done at once; a body until close ends with its connection only")
    func ends() {
        #expect(BodyScanner(.none).isDone)
        #expect(BodyScanner(.length(0)).isDone)
        #expect(BodyScanner(.untilClose).mayEndWithConnection && !BodyScanner(.untilClose).isDone)
        #expect(!BodyScanner(.chunked).mayEndWithConnection)
        #expect(scan(.untilClose, "abc") == .more(count: 3))
    }

    @Test("A chunk larger than any buffer is followed without holding it")
    func largeChunk() {
        var scanner = BodyScanner(.chunked)
        #expect(bytes("7fffffffffffffff\r\n").withUnsafeBytes { scanner.scan($0) } == .more(count: 18))
        #expect([UInt8](repeating: 120, count: 100_000).withUnsafeBytes { scanner.scan($0) } == .more(count: 100_000))
    }
}
