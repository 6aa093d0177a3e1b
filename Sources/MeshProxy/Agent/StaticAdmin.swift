import MeshAddress
import MeshHTTP
import MeshIO
import MeshTelemetry

/// The admin port of a sidecar that believes a file: `/ready` and `/metrics`, on a loop of its own.
final class StaticAdmin: Sendable {
    private let loop: EventLoop
    private let server: LoopBound<HTTP1Server>

    /// Throws when the address cannot be listened on.
    init(_ plane: DataPlane, address: SocketAddress) throws {
        let loop = try EventLoop.spawn(name: "admin")
        self.loop = loop
        let opening = Handover<Result<LoopBound<HTTP1Server>, SystemError>>()
        loop.submit {
            do throws(SystemError) {
                let opened = try HTTP1Server(loop: loop, address: address) { request, reply in
                    StaticAdmin.answer(plane, loop, request, reply)
                }
                opening.give(.success(LoopBound(opened, loop: loop)))
            } catch {
                opening.give(.failure(error))
            }
        }
        do { server = try opening.take().get() } catch {
            loop.stop()
            throw error
        }
    }

    func stop() { loop.stop() }

    private static func answer(
        _ plane: DataPlane, _ loop: EventLoop, _ request: HTTP1Request, _ reply: @escaping (HTTP1Response) -> Void
    ) {
        switch (request.method, request.path) {
        case ("GET", "/ready"):
            reply(.text(200, "ready\n"))
        case ("GET", "/metrics"):
            let reply = LoopBound(reply, loop: loop)
            plane.metrics { snapshot in
                plane.report { reports in
                    loop.submit {
                        var text = PrometheusText()
                        text.append(snapshot, reports)
                        text.finish()
                        reply.value(
                            HTTP1Response(status: 200, contentType: PrometheusText.contentType, body: text.bytes))
                    }
                }
            }
        default:
            reply(.text(404, "only GET /ready and /metrics are served here\n"))
        }
    }
}

extension PrometheusText {
    /// What the data plane has counted.
    mutating func append(_ snapshot: MetricsSnapshot, _ reports: [LoopReport]) {
        snapshot.write(into: &self)
        let counters = reports.reduce(LoopCounters()) { $0 + $1.counters }
        for counter in counters.named {
            begin(
                "apus_proxy_\(counter.name)_total", .counter,
                counter.help.prefix(1).uppercased() + counter.help.dropFirst() + ".")
            sample(PrometheusText.Labels(), counter.value)
        }
        let gauges: [(String, String, Int)] = [
            ("requests_in_flight", "Requests under way.", reports.reduce(0) { $0 + $1.requestsInFlight }),
            ("open_connections", "Connections of clients and to endpoints.", reports.reduce(0) { $0 + $1.connections }),
            (
                "waiting_connections", "Connections whose destination is being asked for.",
                reports.reduce(0) { $0 + $1.waitingCallers }
            ),
        ]
        for (name, help, value) in gauges {
            begin("apus_proxy_\(name)", .gauge, help)
            sample(PrometheusText.Labels(), Double(value))
        }
        let accepts: [(String, String, UInt64)] = [
            (
                "accept_errors", "Times that no connection could be accepted for lack of descriptors or memory.",
                UInt64(clamping: reports.reduce(0) { $0 + $1.eventLoop.acceptErrors })
            ),
            (
                "descriptors_exhausted", "Connections closed at once because no descriptor was left.",
                UInt64(clamping: reports.reduce(0) { $0 + $1.eventLoop.descriptorsExhausted })
            ),
        ]
        for (name, help, value) in accepts {
            begin("apus_proxy_\(name)_total", .counter, help)
            sample(PrometheusText.Labels(), value)
        }
    }
}
