import Glibc
import MeshAddress

/// A blocking TCP socket of a test, with a deadline of ten seconds on everything.
final class TestSocket: @unchecked Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private var descriptor: Int32
    private var buffered: [UInt8] = []

    init(descriptor: Int32) {
        self.descriptor = descriptor
        var isImmediate: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &isImmediate, socklen_t(MemoryLayout<Int32>.size))
        var timeout = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { if descriptor >= 0 { Glibc.close(descriptor) } }

    static func connected(to address: SocketAddress, receiveBuffer: Int32? = nil) throws -> TestSocket {
        let descriptor = socket(address.ip.isV4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        if var size = receiveBuffer {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        let socket = TestSocket(descriptor: descriptor)
        guard withKernelAddress(address, { connect(descriptor, $0, $1) }) == 0 else {
            throw Failure(description: "connect to \(address): errno \(errno)")
        }
        return socket
    }

    static func withKernelAddress(
        _ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        guard address.ip.isV4 else {
            var storage = sockaddr_in6()
            storage.sin6_family = sa_family_t(AF_INET6)
            storage.sin6_port = address.port.bigEndian
            withUnsafeMutableBytes(of: &storage.sin6_addr) { $0.copyBytes(from: address.ip.bytes) }
            return withUnsafePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
                }
            }
        }
        var storage = sockaddr_in()
        storage.sin_family = sa_family_t(AF_INET)
        storage.sin_port = address.port.bigEndian
        storage.sin_addr.s_addr = (address.ip.v4 ?? 0).bigEndian
        return withUnsafePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    // MARK: - Writing

    func write(_ text: String) throws { try write(Array(text.utf8)) }

    func write(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw Failure(description: "send: errno \(errno) after \(sent) of \(bytes.count)") }
            sent += count
        }
    }

    func finishWriting() { shutdown(descriptor, Int32(SHUT_WR)) }

    func close() {
        Glibc.close(descriptor)
        descriptor = -1
    }

    /// Closes with a reset.
    func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        Glibc.close(descriptor)
        descriptor = -1
    }

    // MARK: - Reading

    /// Whether something comes, or has come, within the time.
    func waitForInput(milliseconds: Int32) throws -> Bool {
        if !buffered.isEmpty { return true }
        var state = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        let count = poll(&state, 1, milliseconds)
        guard count >= 0 else { throw Failure(description: "poll: errno \(errno)") }
        return count > 0
    }

    /// More bytes; empty at the end of the stream.
    func readSome() throws -> [UInt8] {
        if !buffered.isEmpty {
            defer { buffered = [] }
            return buffered
        }
        return try receive()
    }

    /// How many bytes were read and dropped, `count` at most; 0 at the end of the stream.
    func readSome(atMost count: Int) throws -> Int {
        if buffered.isEmpty { buffered = try receive() }
        let taken = min(count, buffered.count)
        buffered.removeFirst(taken)
        return taken
    }

    private func receive() throws -> [UInt8] {
        var chunk = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &chunk, chunk.count, 0)
        guard count >= 0 else { throw Failure(description: "recv: errno \(errno)") }
        return Array(chunk[..<count])
    }

    func read(_ count: Int) throws -> [UInt8] {
        while buffered.count < count {
            let more = try receive()
            guard !more.isEmpty else {
                throw Failure(description: "the stream ended after \(buffered.count) of \(count) bytes")
            }
            buffered += more
        }
        defer { buffered.removeFirst(count) }
        return Array(buffered[..<count])
    }

    func readText(_ count: Int) throws -> String { String(decoding: try read(count), as: UTF8.self) }

    func readToEnd() throws -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let more = try readSome()
            if more.isEmpty { return all }
            all += more
        }
    }

    /// A head up to and with its empty line; nil when the stream ends before one begins.
    func readHead() throws -> Head? {
        let mark = Array("\r\n\r\n".utf8)
        while true {
            if let end = buffered.indices.first(where: { buffered[$0...].starts(with: mark) }) {
                let head = Head(String(decoding: buffered[..<end], as: UTF8.self))
                buffered.removeFirst(end + 4)
                return head
            }
            let more = try receive()
            if more.isEmpty {
                guard buffered.isEmpty else { throw Failure(description: "the stream ended within a head") }
                return nil
            }
            buffered += more
        }
    }

    /// A response with its body, by Content-Length, chunked, or to the end of the stream.
    func readResponse(toHEAD: Bool = false) throws -> Response {
        guard let head = try readHead() else { throw Failure(description: "the stream ended before a response") }
        var response = Response(head: head, body: [])
        if toHEAD || head.status < 200 || head.status == 204 || head.status == 304 { return response }
        response.body = try readBody(head)
        return response
    }

    func readBody(_ head: Head) throws -> [UInt8] {
        if head["transfer-encoding"]?.lowercased() == "chunked" { return try readChunks() }
        if let length = head["content-length"].flatMap({ Int($0) }) { return try read(length) }
        return head.isResponse ? try readToEnd() : []
    }

    private(set) var trailers: [String] = []

    func readLine() throws -> String {
        while true {
            if let end = buffered.firstIndex(of: 10) {
                defer { buffered.removeFirst(end + 1) }
                return String(decoding: buffered[..<end], as: UTF8.self).replacing("\r", with: "")
            }
            let more = try receive()
            guard !more.isEmpty else { throw Failure(description: "the stream ended within a line") }
            buffered += more
        }
    }

    func readChunks() throws -> [UInt8] {
        var body: [UInt8] = []
        trailers = []
        while true {
            guard let size = Int(try readLine().split(separator: ";")[0], radix: 16) else {
                throw Failure(description: "a chunk without a size")
            }
            if size == 0 { break }
            body += try read(size)
            _ = try readLine()
        }
        while true {
            let line = try readLine()
            if line.isEmpty { return body }
            trailers.append(line)
        }
    }

    /// True when the peer has ended or reset the connection.
    func isEnded() -> Bool {
        guard buffered.isEmpty else { return false }
        guard let more = try? receive() else { return errno != EAGAIN }
        buffered += more
        return more.isEmpty
    }
}

/// The lines of a head.
struct Head: Equatable {
    let startLine: String
    let lines: [String]

    init(_ text: String) {
        let all = text.split(separator: "\r\n", omittingEmptySubsequences: false).map(String.init)
        startLine = all.first ?? ""
        lines = Array(all.dropFirst())
    }

    var isResponse: Bool { startLine.hasPrefix("HTTP/") }
    var status: Int { Int(startLine.split(separator: " ").dropFirst().first ?? "") ?? 0 }

    subscript(name: String) -> String? {
        for line in lines {
            let parts = line.split(separator: ":", maxSplits: 1)
            if parts.first?.lowercased() == name {
                return parts.count > 1 ? parts[1].trimmingPrefix(" ").description : ""
            }
        }
        return nil
    }
}

struct Response {
    let head: Head
    var body: [UInt8]

    var status: Int { head.status }
    var text: String { String(decoding: body, as: UTF8.self) }
    var reason: String? { head["apus-reason"] }
}
