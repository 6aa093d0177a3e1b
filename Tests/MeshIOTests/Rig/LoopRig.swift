import Foundation
import MeshAddress
import MeshIO

/// An event loop on a thread of its own, stopped when the rig goes.
final class LoopRig: @unchecked Sendable {
    let loop: EventLoop

    init() throws {
        loop = try EventLoop.spawn(name: "test")
    }

    deinit { loop.stop() }

    /// Runs `body` on the loop and waits for what it returns.
    @discardableResult
    func run<R>(_ body: @escaping () throws -> R) throws -> R {
        let result = Watched<Result<R, any Error>?>(nil)
        let job = Transfer(body)
        guard loop.submit({ result.change { $0 = Result { try job.value() } } }) else {
            throw RigFailure("job refused")
        }
        guard let outcome = try result.wait(for: "a job", until: { $0 != nil }) else { throw RigFailure("no result") }
        return try outcome.get()
    }

    var statistics: LoopStatistics { get throws { try run { [loop] in loop.statistics } } }

    /// Listens on loopback; each accepted connection is `recorders`' next.
    func listen(
        _ address: SocketAddress = SocketAddress(.loopback4, 0), _ accept: @escaping (AcceptedSocket, EventLoop) -> Void
    ) throws -> Listener {
        try run { [loop] in try Listener(loop: loop, address: address, delegate: AcceptBlock(loop, accept)) }
    }

    /// A listener whose one connection the recorder sees.
    func listen(
        for recorder: Recorder, _ configure: @escaping (Connection) -> Void = { _ in }
    ) throws -> SocketAddress {
        try listen { socket, loop in
            let connection = Connection(accepting: socket, loop: loop, delegate: recorder)
            recorder.adopt(connection)
            configure(connection)
        }.address
    }

    @discardableResult
    func dial(
        _ address: SocketAddress, _ recorder: Recorder, tls: (TLSContext, serverName: String?)? = nil,
        connectTimeoutMilliseconds: Int = 20_000, handshakeTimeoutMilliseconds: Int = 20_000,
        _ configure: @escaping (Connection) -> Void = { _ in }
    ) throws -> Connection {
        try run { [loop] in
            let connection = Connection(
                connectingTo: address, loop: loop, tls: tls, connectTimeoutMilliseconds: connectTimeoutMilliseconds,
                handshakeTimeoutMilliseconds: handshakeTimeoutMilliseconds, delegate: recorder)
            recorder.adopt(connection)
            configure(connection)
            return connection
        }
    }
}

/// Carries what the test knows to be used on one thread at a time.
struct Transfer<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}

final class AcceptBlock: ListenerDelegate {
    private let loop: EventLoop
    private let block: (AcceptedSocket, EventLoop) -> Void

    init(_ loop: EventLoop, _ block: @escaping (AcceptedSocket, EventLoop) -> Void) {
        self.loop = loop
        self.block = block
    }

    func accepted(_ socket: AcceptedSocket, from listener: Listener) { block(socket, loop) }
}

extension Connection {
    func write(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { write($0) }
    }

    func write(_ text: String) { write(Array(text.utf8)) }
}
