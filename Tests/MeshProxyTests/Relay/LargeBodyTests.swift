import Foundation
import MeshProxy
import Synchronization
import Testing

/// Bodies far larger than any buffer.
@Suite struct LargeBodyTests {
    private static let size = 384 * 1024 * 1024
    private static let piece = [UInt8](repeating: 7, count: 1 << 20)
    /// What two sidecars with their buffers and the kernel's may hold of one body.
    private static let held = 32 * 1024 * 1024

    @Test(arguments: [false, true])
    func hundredsOfMebibytesPassBothWaysInConstantMemory(_ isChunked: Bool) async throws {
        try await onOwnThread {
            let framing = isChunked ? "Transfer-Encoding: chunked" : "Content-Length: \(Self.size)"
            let send: @Sendable (TestSocket) throws -> Void = { socket in
                for _ in 0..<Self.size / Self.piece.count {
                    if isChunked { try socket.write("100000\r\n") }
                    try socket.write(Self.piece)
                    if isChunked { try socket.write("\r\n") }
                }
                if isChunked { try socket.write("0\r\n\r\n") }
            }
            let server = try TestServer { socket, _ in
                guard let head = try socket.readHead() else { return }
                #expect(try socket.skipBody(head) == Self.size)
                try socket.write("HTTP/1.1 200 OK\r\n\(framing)\r\n\r\n")
                try send(socket)
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            let before = residentBytes()
            try client.write("POST / HTTP/1.1\r\nHost: catalog\r\n\(framing)\r\n\r\n")
            try send(client)
            let afterRequest = residentBytes()
            guard let head = try client.readHead() else { return }
            #expect(head.status == 200)
            #expect(try client.skipBody(head) == Self.size)
            #expect(afterRequest - before < Self.held)
            #expect(residentBytes() - before < Self.held)
        }
    }

    @Test func aSlowReaderSlowsTheServer() async throws {
        try await onOwnThread {
            let written = Atomic<Int>(0)
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try socket.write("HTTP/1.1 200 OK\r\nContent-Length: \(Self.size)\r\n\r\n")
                for _ in 0..<Self.size / Self.piece.count {
                    try socket.write(Self.piece)
                    written.add(Self.piece.count, ordering: .relaxed)
                }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client(receiveBuffer: 64 * 1024)
            try client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            _ = try client.readHead()
            try standstill(of: written)
            #expect(written.load(ordering: .relaxed) < Self.held)
        }
    }

    @Test func aSlowServerSlowsItsClient() async throws {
        try await onOwnThread {
            let written = Atomic<Int>(0)
            let release = Atomic<Bool>(false)
            let server = try TestServer { socket, _ in
                _ = try socket.readHead()
                try eventually("the end") { release.load(ordering: .relaxed) }
            }
            let mesh = try TestMesh(server)
            let client = try mesh.client()
            try client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(Self.size)\r\n\r\n")
            startThread {
                while (try? client.write(Self.piece)) != nil { written.add(Self.piece.count, ordering: .relaxed) }
            }
            try standstill(of: written)
            #expect(written.load(ordering: .relaxed) < Self.held)
            release.store(true, ordering: .relaxed)
        }
    }

    /// Waits until nothing more is added for a while.
    private func standstill(of count: borrowing Atomic<Int>) throws {
        var last = -1
        while count.load(ordering: .relaxed) != last {
            last = count.load(ordering: .relaxed)
            usleep(300_000)
        }
    }
}

extension TestSocket {
    /// Reads a body and forgets it; how many bytes of payload it had.
    func skipBody(_ head: Head) throws -> Int {
        if head["transfer-encoding"] == nil {
            let length = Int(head["content-length"] ?? "") ?? 0
            try skip(length)
            return length
        }
        var total = 0
        while true {
            guard let size = Int(try readLine(), radix: 16) else {
                throw Failure(description: "a chunk without a size")
            }
            try skip(size)
            _ = try readLine()
            if size == 0 { return total }
            total += size
        }
    }

    private func skip(_ count: Int) throws {
        var left = count
        while left > 0 {
            let more = try readSome(atMost: left)
            guard more > 0 else { throw Failure(description: "the stream ended \(left) bytes too soon") }
            left -= more
        }
    }
}
