import Foundation
import MeshAddress
import MeshCore
import MeshTelemetry
import Testing

@Suite struct PrometheusTests {
    private func lines(_ text: PrometheusText) -> [String] {
        String(decoding: text.bytes, as: UTF8.self).split(separator: "\n").map(String.init)
    }

    private func page(_ snapshot: MetricsSnapshot) -> PrometheusText {
        var text = PrometheusText()
        snapshot.write(into: &text)
        text.finish()
        return text
    }

    /// A page with all families, labels that need escaping included.
    private func fullPage() -> PrometheusText {
        let registry = MetricsRegistry()
        registry.edge(edge("catalog")).record(200, milliseconds: 3, bytes: 100)
        registry.edge(edge("catalog")).record(503, reason: .noHealthyUpstream)
        registry.edge(edge("odd \"name\"\\\nwith lines")).record(200)
        registry.edge(edge("grpc", protocol: .grpc)).record(
            ResponseKey(status: 200, grpcStatus: 14), durationNanoseconds: 1, requestBytes: 0, responseBytes: 0)
        var counts = StreamCounts()
        counts.connectionsOpened = 3
        counts.sentBytes = 1 << 40
        registry.edge(edge("db", protocol: .opaque)).add(counts)
        var text = PrometheusText()
        registry.snapshot().write(into: &text)
        text.finish()
        return text
    }

    @Test("A request appears under Istio's names and labels")
    func labels() throws {
        let registry = MetricsRegistry()
        registry.edge(edge("catalog")).record(503, reason: .connectFailed, milliseconds: 3, bytes: 100)
        let page = lines(page(registry.snapshot()))
        let request = try #require(page.first { $0.hasPrefix("istio_requests_total{") })
        let expected = [
            "reporter=\"source\"", "source_workload=\"web\"", "source_workload_namespace=\"shop\"",
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/web\"", "source_app=\"web\"", "source_version=\"v1\"",
            "source_canonical_service=\"web\"", "source_canonical_revision=\"v1\"", "source_cluster=\"Kubernetes\"",
            "destination_workload=\"catalog\"", "destination_workload_namespace=\"shop\"",
            "destination_principal=\"unknown\"",
            "destination_app=\"unknown\"", "destination_version=\"unknown\"",
            "destination_canonical_service=\"catalog\"",
            "destination_canonical_revision=\"latest\"", "destination_cluster=\"Kubernetes\"",
            "destination_service=\"catalog.shop.svc.cluster.local\"", "destination_service_name=\"catalog\"",
            "destination_service_namespace=\"shop\"", "request_protocol=\"http\"",
            "connection_security_policy=\"mutual_tls\"",
            "response_code=\"503\"", "response_flags=\"UF\"", "apus_reason=\"connect_failed\"",
        ]
        #expect(request == "istio_requests_total{\(expected.joined(separator: ","))} 1")
        func bucket(_ metric: String, _ bound: String) -> String? {
            page.first { $0.hasPrefix("\(metric)_bucket{") && $0.contains("le=\"\(bound)\"") }?.split(separator: " ")
                .last.map(String.init)
        }
        #expect(bucket("istio_request_duration_milliseconds", "1") == "0")
        #expect(bucket("istio_request_duration_milliseconds", "5") == "1")
        #expect(bucket("istio_request_bytes", "50") == "0")
        #expect(bucket("istio_request_bytes", "100") == "1")
        #expect(bucket("istio_response_bytes", "+Inf") == "1")
        #expect(page.contains { $0.hasPrefix("istio_request_bytes_sum{") && $0.hasSuffix(" 100") })
    }

    @Test("The bounds are Envoy's defaults, each inclusive")
    func bounds() {
        let registry = MetricsRegistry()
        let cell = registry.edge(edge("a"))
        for bound in FixedHistogram.bounds {
            for offset in [0, 1000] as [Int64] {
                cell.record(
                    ResponseKey(status: 200), durationNanoseconds: Int64(bound * 1_000_000) + offset, requestBytes: 0,
                    responseBytes: 0)
            }
        }
        let counts = lines(page(registry.snapshot())).filter {
            $0.hasPrefix("istio_request_duration_milliseconds_bucket{")
        }
        .compactMap { $0.split(separator: " ").last }.compactMap { Int($0) }
        #expect(counts == (0..<19).map { 2 * $0 + 1 } + [38])
    }

    @Test("Edges that differ only by pod are one series, since a page may have each only once")
    func uniqueSeries() {
        let registry = MetricsRegistry()
        registry.edge(edge("a", pod: "a-1")).record(200)
        registry.edge(edge("a", pod: "a-2")).record(200)
        registry.edge(edge("a", pod: "a-2")).record(404)
        let requests = lines(page(registry.snapshot())).filter { $0.hasPrefix("istio_requests_total{") }
        #expect(requests.count == 2)
        #expect(requests.contains { $0.contains("response_code=\"200\"") && $0.hasSuffix(" 2") })
        let all = lines(fullPage()).filter { !$0.hasPrefix("#") }.map { $0.prefix { $0 != "}" } }
        #expect(Set(all).count == all.count)
    }

    @Test(
        "An unknown destination is named by its address, what is not known is `unknown`, and TCP has no response code")
    func unknownDestination() throws {
        let registry = MetricsRegistry()
        var counts = StreamCounts()
        counts.connectionsOpened = 1
        counts.receivedBytes = 7
        registry.edge(
            EdgeLabels(
                reporter: .source, source: EdgePeerLabels(workload: "web"),
                destination: EdgePeerLabels(address: IPAddress("192.0.2.1")), service: nil, port: 5432,
                applicationProtocol: .opaque, security: .none)
        ).add(counts)
        let line = try #require(
            lines(page(registry.snapshot())).first { $0.hasPrefix("istio_tcp_received_bytes_total{") })
        #expect(line.hasSuffix(" 7"))
        #expect(line.contains("destination_service=\"192.0.2.1:5432\",destination_service_name=\"unknown\""))
        #expect(line.contains("request_protocol=\"tcp\",connection_security_policy=\"none\""))
        #expect(!line.contains("response_code"))
    }

    @Test("promtool accepts the page; of its style it objects only to the unit that Istio chose")
    func promtool() throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/promtool")
        process.arguments = ["check", "metrics"]
        let input = Pipe()
        let output = Pipe()
        process.standardInput = input
        process.standardError = output
        process.standardOutput = output
        try process.run()
        try input.fileHandleForWriting.write(contentsOf: Data(fullPage().bytes))
        try input.fileHandleForWriting.close()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let objections = said.split(separator: "\n").filter { !$0.hasPrefix("istio_request_duration_milliseconds ") }
        #expect(objections.isEmpty, "\(said)")
        #expect(process.terminationReason == .exit && [0, 3].contains(process.terminationStatus), "\(said)")
    }

    @Test("A page that would be too large leaves out samples, says how many, and ends no histogram in the middle")
    func limit() throws {
        let registry = MetricsRegistry()
        for number in 0..<200 { registry.edge(edge("e\(number)")).record(200) }
        var text = PrometheusText(limitBytes: 500_000)
        registry.snapshot().write(into: &text)
        text.finish()
        #expect(text.omittedSamples > 0)
        #expect(text.bytes.count < 600_000)
        let page = lines(text)
        #expect(page.last == "apus_metrics_omitted_samples \(text.omittedSamples)")
        let buckets = page.count { $0.hasPrefix("istio_request_duration_milliseconds_bucket") }
        let totals = page.count { $0.hasPrefix("istio_request_duration_milliseconds_count") }
        #expect(buckets == 20 * totals)
    }

    @Test("docs/metrics.md names every metric of the page")
    func documentation() throws {
        let documented = Set(Documentation.rows(of: try Documentation.page("metrics.md")).map(\.name))
        let written = lines(fullPage()).filter { $0.hasPrefix("# TYPE ") }.map { String($0.split(separator: " ")[2]) }
            .filter { !$0.hasPrefix("apus_test") }
        #expect(Set(IstioMetric.allCases.map(\.name)).isSubset(of: written))
        for name in written + ["apus_metrics_omitted_samples"] { #expect(documented.contains(name), "\(name)") }
    }
}
