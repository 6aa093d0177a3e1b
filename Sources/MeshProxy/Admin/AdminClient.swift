import Dispatch
import MeshAddress
import MeshHTTP
import MeshIO
import Synchronization

/// Asks the admin port from another process of the same pod and waits for the answer: `apus-proxy admin`.
package enum AdminClient {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    private static let timeoutMilliseconds = 10_000
    /// A configuration dump of ten thousand endpoints is about 3 MiB.
    private static let bodyLimitBytes = 64 << 20

    package static func ask(_ path: String, method: String, port: UInt16 = AdminPorts().admin) throws -> (
        status: Int, body: [UInt8]
    ) {
        let loop = try EventLoop.spawn(name: "admin-client")
        defer { loop.stop() }
        let answer = Mutex<Result<HTTP1Response, HTTP1Client.Failure>?>(nil)
        let done = DispatchSemaphore(value: 0)
        loop.submit {
            HTTP1Client.send(
                HTTP1Client.Request(method: method, path: path), loop: loop, address: SocketAddress(.loopback4, port),
                timeoutMilliseconds: timeoutMilliseconds, bodyLimitBytes: bodyLimitBytes
            ) { result in
                answer.withLock { $0 = result }
                done.signal()
            }
        }
        done.wait()
        switch answer.withLock({ $0 }) {
        case .success(let response): return (response.status, response.body)
        case .failure(let failure):
            throw Failure(
                description:
                    "the sidecar's admin port 127.0.0.1:\(port) does not answer (\(failure)): is this its network namespace?"
            )
        case nil: throw Failure(description: "no answer")
        }
    }
}
