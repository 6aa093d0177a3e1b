import MeshAddress
import MeshCore
import MeshHTTP
import MeshProxy
import MeshTelemetry

/// The steps of a request that need no socket. Each is a function of its own with a C name, by which valgrind tells them apart,
/// and repeats its step `count` times.
enum Steps {
    /// Runs every step; the sum of what they answered keeps the compiler from leaving any out.
    static func runAll(count: Int) -> Int {
        let input = Input.shared
        let heads = parseRequest(input, count) &+ parseLongRequest(input, count) &+ copyRequest(input, count)
        let bodies = parseResponse(input, count) &+ scanChunks(input, count) &+ detect(input, count)
        let choices = route(input, count) &+ balance(input, count) &+ observe(input, count)
        return heads &+ bodies &+ choices &+ record(input, count) &+ logLine(input, count)
    }

    @inline(never) @_silgen_name("counted_parse_request")
    static func parseRequest(_ input: Input, _ count: Int) -> Int {
        input.request.withUnsafeBytes { bytes in
            var sum = 0
            for _ in 0..<count { if case .complete(let head) = RequestHead.parse(bytes) { sum &+= head.length } }
            return sum
        }
    }

    @inline(never) @_silgen_name("counted_parse_request_with_14_more_fields")
    static func parseLongRequest(_ input: Input, _ count: Int) -> Int {
        input.longRequest.withUnsafeBytes { bytes in
            var sum = 0
            for _ in 0..<count { if case .complete(let head) = RequestHead.parse(bytes) { sum &+= head.length } }
            return sum
        }
    }

    @inline(never) @_silgen_name("counted_copy_request")
    static func copyRequest(_ input: Input, _ count: Int) -> Int {
        input.longRequest.withUnsafeBytes { bytes in
            guard case .complete(let head) = RequestHead.parse(bytes) else { return 0 }
            var sum = 0
            for _ in 0..<count { sum &+= head.copy(from: bytes, to: input.output) }
            return sum
        }
    }

    @inline(never) @_silgen_name("counted_parse_response")
    static func parseResponse(_ input: Input, _ count: Int) -> Int {
        input.response.withUnsafeBytes { bytes in
            var sum = 0
            for _ in 0..<count {
                if case .complete(let head) = ResponseHead.parse(bytes, answering: []) { sum &+= head.length }
            }
            return sum
        }
    }

    @inline(never) @_silgen_name("counted_scan_chunked_body")
    static func scanChunks(_ input: Input, _ count: Int) -> Int {
        input.chunks.withUnsafeBytes { bytes in
            var sum = 0
            for _ in 0..<count {
                var scanner = BodyScanner(.chunked)
                if case .done(let taken) = scanner.scan(bytes) { sum &+= taken }
            }
            return sum
        }
    }

    @inline(never) @_silgen_name("counted_detect")
    static func detect(_ input: Input, _ count: Int) -> Int {
        input.request.withUnsafeBytes { bytes in
            var sum = 0
            for _ in 0..<count { if ProtocolDetector.detect(bytes) == .found(.http1) { sum &+= 1 } }
            return sum
        }
    }

    @inline(never) @_silgen_name("counted_route")
    static func route(_ input: Input, _ count: Int) -> Int {
        var sum = 0
        for _ in 0..<count { sum &+= Router.route(input.service).connectTimeoutMilliseconds }
        return sum
    }

    /// Among sixteen endpoints by peak EWMA.
    @inline(never) @_silgen_name("counted_balance")
    static func balance(_ input: Input, _ count: Int) -> Int {
        var balancer = Balancer(policy: .peakEWMA)
        var random = LoopRandom(seed: 1)
        var sum = 0
        for turn in 0..<count {
            let picked = balancer.pick(
                count: input.latencies.count, random: &random, isExcluded: { _ in false },
                load: { input.latencies[$0].load(pending: $0 & 3, now: Int64(turn)) })
            sum &+= picked ?? 0
        }
        return sum
    }

    @inline(never) @_silgen_name("counted_observe_latency")
    static func observe(_ input: Input, _ count: Int) -> Int {
        var latency = PeakEWMA(now: 0)
        for turn in 1...count { latency.observe(nanoseconds: 900_000 &- Int64(turn), now: Int64(turn) &* 1000) }
        return Int(latency.nanoseconds)
    }

    @inline(never) @_silgen_name("counted_record")
    static func record(_ input: Input, _ count: Int) -> Int {
        let key = ResponseKey(status: 200)
        for turn in 0..<count {
            input.edge.record(
                key, durationNanoseconds: 200_000 &+ Int64(turn) &* 1000, requestBytes: 0, responseBytes: 100)
        }
        return count
    }

    @inline(never) @_silgen_name("counted_access_log_line")
    static func logLine(_ input: Input, _ count: Int) -> Int {
        var lines: [UInt8] = []
        for _ in 0..<count {
            lines.removeAll(keepingCapacity: true)
            input.entry.append(to: &lines, format: .json)
        }
        return lines.count
    }
}

/// What the steps are given.
final class Input {
    nonisolated(unsafe) static let shared = Input()

    let request: [UInt8]
    let longRequest: [UInt8]
    let response: [UInt8]
    let chunks: [UInt8]
    let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 16)
    let service: Service
    let latencies: [PeakEWMA]
    let registry = MetricsRegistry()
    let edge: EdgeMetrics
    let entry: AccessLogEntry

    private init() {
        let line = "GET /catalog/items?page=3 HTTP/1.1\r\nHost: catalog.shop\r\nUser-Agent: shop/1.0\r\nAccept: */*\r\n"
        request = Array("\(line)\r\n".utf8)
        var fields = ""
        for index in 0..<14 {
            fields += "X-Field-\(index): \(String(repeating: "value-", count: 3 + index % 4))\r\n"
        }
        longRequest = Array("\(line)Connection: keep-alive\r\n\(fields)\r\n".utf8)
        response = Array(
            ("HTTP/1.1 200 OK\r\nServer: shop\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json\r\n"
                + "Content-Length: 100\r\nConnection: keep-alive\r\n\r\n").utf8)
        chunks = Array(
            (String(repeating: "40\r\n\(String(repeating: "x", count: 64))\r\n", count: 4) + "0\r\n\r\n").utf8)
        service = Service(
            name: ObjectName(namespace: "shop", name: "catalog"), ports: [ServicePort(port: 80)],
            requestTimeoutMilliseconds: 5000)
        latencies = (0..<16).map { index in
            var latency = PeakEWMA(now: 0)
            latency.observe(nanoseconds: 1_000_000 + Int64(index) * 50_000, now: 0)
            return latency
        }
        let caller = EdgePeerLabels(namespace: "shop", workload: "storefront", app: "storefront", version: "v1")
        let callee = EdgePeerLabels(namespace: "shop", workload: "catalog", app: "catalog", version: "v2")
        edge = registry.edge(
            EdgeLabels(
                reporter: .source, source: caller, destination: callee, service: service.name, port: 80,
                applicationProtocol: .http1, security: .mutualTLS))
        var entry = AccessLogEntry(
            unixNanoseconds: 1_793_613_600_000_000_000, direction: .outbound, applicationProtocol: .http1)
        entry.method = "GET"
        entry.authority = "catalog.shop"
        entry.path = "/catalog/items"
        entry.status = 200
        entry.durationNanoseconds = 1_234_567
        entry.responseBytes = 100
        entry.tries = 1
        entry.sourceWorkload = "storefront"
        entry.service = service.name
        entry.isSecured = true
        entry.userAgent = "shop/1.0"
        self.entry = entry
    }
}
