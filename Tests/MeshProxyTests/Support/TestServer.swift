import Glibc
import MeshAddress
import Synchronization

/// Runs what blocks on a thread of its own, so that the test runner's threads stay free.
func onOwnThread<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        startThread { continuation.resume(with: Swift.Result { try body() }) }
    }
}

func startThread(_ body: @escaping @Sendable () -> Void) {
    final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    let box = Unmanaged.passRetained(Box(body))
    let result = pthread_create(
        &thread, nil,
        { argument in
            if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
            return nil
        }, box.toOpaque())
    precondition(result == 0, "no thread for a test: \(result)")
    pthread_detach(thread)
}

/// Waits until `condition` holds; throws after ten seconds.
func eventually(_ what: String, _ condition: () throws -> Bool) throws {
    for _ in 0..<2000 {
        if try condition() { return }
        usleep(5000)
    }
    throw TestSocket.Failure(description: "it did not come about in ten seconds: \(what)")
}

/// Waits like `eventually`, and notices within microseconds; for what is about to happen.
func promptly(_ what: String, _ condition: () -> Bool) throws {
    let end = time(nil) + 10
    while !condition() {
        guard time(nil) < end else {
            throw TestSocket.Failure(description: "it did not come about in ten seconds: \(what)")
        }
        sched_yield()
    }
}

/// A server whose connections each run a script on a thread.
final class TestServer: Sendable {
    let address: SocketAddress
    private let descriptor: Int32
    private let accepted = Atomic<Int>(0)

    /// An address where every connection is refused for as long as this lives: bound, and not listened on.
    static func refusing() throws -> TestServer { try TestServer(boundTo: .loopback4) }

    private init(boundTo ip: IPAddress) throws {
        (descriptor, address) = try TestServer.bound(to: ip)
    }

    private static func bound(to ip: IPAddress) throws -> (Int32, SocketAddress) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard TestSocket.withKernelAddress(SocketAddress(ip, 0), { bind(descriptor, $0, $1) }) == 0 else {
            throw TestSocket.Failure(description: "bind: errno \(errno)")
        }
        var storage = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &storage) {
            _ = $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        return (descriptor, SocketAddress(ip, UInt16(bigEndian: storage.sin_port)))
    }

    convenience init(
        on ip: IPAddress = .loopback4, script: @escaping @Sendable (TestSocket, _ number: Int) throws -> Void
    ) throws {
        try self.init(boundTo: ip)
        guard listen(descriptor, 512) == 0 else { throw TestSocket.Failure(description: "listen: errno \(errno)") }
        startThread { [weak self, descriptor] in
            while true {
                let connection = accept(descriptor, nil, nil)
                guard connection >= 0 else { return }
                guard let number = self?.accepted.add(1, ordering: .relaxed).newValue else {
                    Glibc.close(connection)
                    return
                }
                startThread { try? script(TestSocket(descriptor: connection), number) }
            }
        }
    }

    /// Connections so far.
    var connections: Int { accepted.load(ordering: .relaxed) }

    deinit {
        shutdown(descriptor, Int32(SHUT_RDWR))
        Glibc.close(descriptor)
    }

    /// Answers every request of a connection with what `answer` makes of it.
    static func http(
        on ip: IPAddress = .loopback4,
        answer: @escaping @Sendable (Head, [UInt8]) throws -> String = { _, _ in ok("hello") }
    ) throws -> TestServer {
        try TestServer(on: ip) { socket, _ in
            while let head = try socket.readHead() {
                let body = try socket.readBody(head)
                try socket.write(try answer(head, body))
            }
        }
    }

    static func ok(_ body: String, fields: String = "") -> String {
        "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\(fields)\r\n\(body)"
    }
}
