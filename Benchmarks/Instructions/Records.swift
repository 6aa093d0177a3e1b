import Glibc
import MeshAddress
import MeshIO

/// One kilobyte to and fro over mutual TLS: what a record costs, with the loop around it.
final class Records: ListenerDelegate, ConnectionDelegate {
    private static let bytes = [UInt8](repeating: 0x78, count: 1024)

    private let loop: EventLoop
    private let server: TLSContext
    private var left: Int
    private var client: Connection?
    private var failure: String?

    static func run(count: Int, certificate: String, key: String, root: String) throws {
        let identity = TLSContext.Identity(chain: [try read(certificate)], privateKeyDER: try read(key))
        let roots = [try read(root)]
        let loop = try EventLoop(name: "records")
        let records = Records(
            loop, count: count,
            server: try .server(identity: identity, trustRoots: roots, clientCertificate: .required, alpn: ["apus/1"]))
        let listener = try Listener(
            loop: loop, address: SocketAddress(IPAddress(v4: 0x7f00_0001), 0), delegate: records)
        let context = try TLSContext.client(identity: identity, trustRoots: roots, alpn: ["apus/1"])
        records.client = Connection(
            connectingTo: listener.address, loop: loop, tls: (context, serverName: nil),
            connectTimeoutMilliseconds: 10_000,
            delegate: records)
        loop.run()
        if records.left > 0 {
            throw Instructions.Failure(reason: records.failure ?? "\(records.left) records are missing")
        }
    }

    private init(_ loop: EventLoop, count: Int, server: TLSContext) {
        self.loop = loop
        self.server = server
        left = count
    }

    private static func read(_ path: String) throws -> [UInt8] {
        guard let file = fopen(path, "r") else { throw Instructions.Failure(reason: "\(path) cannot be read") }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 16_384)
        let count = fread(&bytes, 1, bytes.count, file)
        return Array(bytes.prefix(count))
    }

    func accepted(_ socket: AcceptedSocket, from listener: Listener) {
        Connection(accepting: socket, loop: loop, delegate: self).startTLS(server)
    }

    func opened(_ connection: Connection) {
        if connection === client { send(on: connection) }
    }

    private func send(on connection: Connection) {
        Records.bytes.withUnsafeBytes { connection.write($0) }
    }

    func received(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) -> Int {
        guard bytes.count >= Records.bytes.count else { return 0 }
        if connection === client { left -= 1 }
        if left == 0 { loop.stop() } else { send(on: connection) }
        return Records.bytes.count
    }

    func readEnded(_ connection: Connection) {}

    func drained(_ connection: Connection) {}

    func closed(_ connection: Connection, _ cause: CloseCause) {
        guard left > 0 else { return }
        failure = "a connection was closed: \(cause)"
        loop.stop()
    }
}
