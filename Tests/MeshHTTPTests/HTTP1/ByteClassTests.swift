import MeshHTTP
import Testing

@Suite struct ByteClassTests {
    private static let alphanumeric = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".utf8)

    private func outcome(_ parts: [UInt8]...) -> HTTP1Error? {
        if case .invalid(let error) = receive(parts.flatMap { $0 }, as: .request) { return error }
        return nil
    }

    @Test("A field name has token bytes only", arguments: UInt8.min...UInt8.max)
    func fieldName(byte: UInt8) {
        let error = outcome(bytes("GET / HTTP/1.1\r\nHost: a\r\nX"), [byte], bytes("X: 1\r\n\r\n"))
        let isToken = ByteClassTests.alphanumeric.union("!#$%&'*+-.^_`|~".utf8).contains(byte)
        #expect((error == nil) == (isToken || byte == 0x3a))
    }

    @Test("A target has visible ASCII without a fragment", arguments: UInt8.min...UInt8.max)
    func target(byte: UInt8) {
        let error = outcome(bytes("GET /a"), [byte], bytes("b HTTP/1.1\r\nHost: a\r\n\r\n"))
        #expect((error == nil) == ((0x21...0x7e).contains(byte) && byte != 0x23))
    }

    @Test("A host has the bytes of a registered name", arguments: UInt8.min...UInt8.max)
    func host(byte: UInt8) {
        let error = outcome(bytes("GET / HTTP/1.1\r\nHost: a"), [byte], bytes("b\r\n\r\n"))
        #expect((error == nil) == ByteClassTests.alphanumeric.union("-._~!$&'()*+;=".utf8).contains(byte))
    }

    @Test("A value has no control character but the tab, wherever it stands", arguments: UInt8.min...UInt8.max)
    func value(byte: UInt8) {
        for length in 1..<34 {
            for position in 0..<length {
                var value = [UInt8](repeating: 0x80, count: length)
                for index in stride(from: 0, to: length, by: 5) { value[index] = 9 }
                value[position] = byte
                let error = outcome(bytes("GET / HTTP/1.1\r\nHost: a\r\nX:"), value, bytes("\r\n\r\n"))
                let isControl = byte < 0x20 && byte != 9 || byte == 0x7f
                if (error != nil) != isControl {
                    Issue.record("byte \(byte) at \(position) of \(length): \(String(describing: error))")
                }
            }
        }
    }
}
