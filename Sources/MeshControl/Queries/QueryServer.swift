internal import Foundation
package import MeshAddress
internal import MeshCore
package import MeshHTTP
package import MeshIO

/// Port 15014: readiness, metrics and the queries of the CLI, answered on the loop that `overview` lives on.
package final class QueryServer {
    /// What the server reads; all on its loop.
    package protocol Source: AnyObject {
        /// Why this process cannot serve yet, one sentence each; empty when it can.
        var obstacles: [String] { get }
        func overview(_ read: (MeshOverview, HealthClock) -> HTTP1Response) -> HTTP1Response
        /// What is wrong besides, one sentence each.
        var troubles: [String] { get }
        /// Prometheus text.
        func metrics() -> [UInt8]
    }

    private let server: HTTP1Server

    package init(loop: EventLoop, address: SocketAddress, source: any Source) throws(SystemError) {
        server = try HTTP1Server(loop: loop, address: address) { [weak source] request in
            guard let source else { return .text(503, "shutting down\n") }
            return QueryServer.answer(request, source: source)
        }
    }

    package var address: SocketAddress? { server.address }

    package func close() { server.close() }

    static let paths = [
        "/ready", "/metrics", "/api/v1/status", "/api/v1/stat", "/api/v1/edges", "/api/v1/sidecars", "/api/v1/check",
    ]

    package static func answer(_ request: HTTP1Request, source: any Source) -> HTTP1Response {
        guard request.method == "GET" || request.method == "HEAD" else {
            return .text(405, "\(request.method) is not served here, only GET\n")
        }
        switch request.path {
        case "/ready":
            let obstacles = source.obstacles
            return obstacles.isEmpty ? .text(200, "ready\n") : .text(503, obstacles.map { "\($0)\n" }.joined())
        case "/metrics":
            return HTTP1Response(
                status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8", body: source.metrics())
        case "/api/v1/status":
            return source.overview { overview, now in json(overview.status(now: now)) }
        case "/api/v1/sidecars":
            return source.overview { overview, now in
                json(SidecarsReport(generatedAt: now.wall, sidecars: overview.sidecarStatuses))
            }
        case "/api/v1/stat":
            return source.overview { overview, now in
                json(
                    overview.health.stat(
                        from: filter("from", request), to: filter("to", request),
                        namespace: filter("namespace", request),
                        now: now))
            }
        case "/api/v1/edges":
            return source.overview { overview, now in
                json(overview.health.edges(namespace: filter("namespace", request), now: now))
            }
        case "/api/v1/check":
            let wrong = source.obstacles + source.troubles
            return source.overview { overview, now in json(overview.check(troubles: wrong, now: now)) }
        default:
            return .text(404, "nothing at \(request.path); there are \(paths.joined(separator: ", "))\n")
        }
    }

    private static func filter(_ name: String, _ request: HTTP1Request) -> String? {
        request.query[name].flatMap { $0.isEmpty ? nil : $0 }
    }

    private static func json(_ document: some Encodable) -> HTTP1Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return .json(200, Array(try encoder.encode(document)))
        } catch {
            return .text(500, "the report cannot be written: \(error)\n")
        }
    }
}
