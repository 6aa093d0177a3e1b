import MeshAddress
import MeshCore
import MeshKubernetes
import Synchronization
import Testing

/// The source over HTTP: what a server says becomes catalog events, in order, and settings and complaints go their
/// ways.
@Suite(.timeLimit(.minutes(1))) struct CatalogSourceTests {
    final class Delivered: Sendable {
        private let state = Mutex<(words: [String], settings: MeshSettings?)>(([], nil))

        var words: [String] { state.withLock { $0.words } }
        var settings: MeshSettings? { state.withLock { $0.settings } }

        func add(_ events: [CatalogEvent]) {
            state.withLock { state in
                state.words += CatalogReducerTests.words(events)
                for case .settings(let settings) in events { state.settings = settings }
            }
        }

        func wait(until holds: @Sendable () -> Bool) async throws {
            while !holds() { try await Task.sleep(for: .milliseconds(2)) }
        }
    }

    static func answer(_ asked: FakeServer.Asked) -> FakeServer.Answer {
        if asked.method == "POST" { return .json(201, asked.json ?? .null) }
        let isWatch = asked.query["watch"] != nil
        let plural = asked.path.split(separator: "/").last.map(String.init) ?? ""
        let pod: JSONValue = [
            "kind": "Pod",
            "metadata": [
                "name": "web-a", "namespace": "shop", "uid": "u1", "resourceVersion": "6",
                "labels": ["apus.dev/injected": "true"],
            ],
            "spec": ["containers": [["name": "web"]]], "status": ["phase": "Running", "podIPs": [["ip": "10.97.0.5"]]],
        ]
        var deleted = pod
        deleted[path: "metadata", "deletionTimestamp"] = "2026-01-31T09:05:00Z"
        let service: JSONValue = [
            "metadata": [
                "name": "web", "namespace": "shop", "uid": "s1", "resourceVersion": "3",
                "annotations": ["apus.dev/retry-count": "many", "apus.dev/load-balancing": "random"],
            ],
            "spec": ["clusterIP": "10.96.0.12", "ports": [["name": "http", "port": 80]]],
        ]
        let slice: JSONValue = [
            "metadata": [
                "name": "web-1", "namespace": "shop", "resourceVersion": "4",
                "labels": ["kubernetes.io/service-name": "web"],
            ],
            "addressType": "IPv4", "ports": [["name": "http", "port": 8080]],
            "endpoints": [
                ["addresses": ["10.97.0.5"], "targetRef": ["kind": "Pod", "name": "web-a", "namespace": "shop"]]
            ],
        ]
        switch (plural, isWatch) {
        case ("pods", false): return .json(200, Documents.list([pod], version: 6))
        case ("pods", true) where asked.query["resourceVersion"] == "6":
            return .parts([Documents.line("MODIFIED", deleted)], then: .silence)
        case ("services", false): return .json(200, Documents.list([service], version: 6))
        case ("endpointslices", false): return .json(200, Documents.list([slice], version: 6))
        case ("namespaces", false):
            let namespace: JSONValue = [
                "metadata": ["name": "shop", "annotations": ["apus.dev/plaintext": "permissive"]]
            ]
            return .json(200, Documents.list([namespace], version: 6))
        case ("configmaps", false):
            let map: JSONValue = [
                "metadata": ["name": "apus-settings", "namespace": "apus-system"],
                "data": ["unknown-destinations": "deny"],
            ]
            return .json(200, Documents.list([map], version: 6))
        default: return .parts([], then: .silence)
        }
    }

    @Test func whatTheServerHoldsBecomesTheCatalog() async throws {
        let server = FakeServer { asked, _ in Self.answer(asked) }
        try await KubernetesClientTests.with(server) { client in
            let source = KubernetesCatalogSource(
                api: client, settings: MeshSettings(), logger: KubernetesClientTests.quiet)
            let delivered = Delivered()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await source.run { events, _ in delivered.add(events) } }
                group.addTask {
                    try await delivered.wait {
                        let words = delivered.words
                        return words.contains("synchronized") && words.contains("endpoint web 10.97.0.5 leaving")
                            && server.asked.contains { $0.method == "POST" }
                    }
                }
                try await group.next()
                group.cancelAll()
            }
            let words = delivered.words
            #expect(words.count { $0 == "synchronized" } == 1)
            #expect(words.contains("service web"))
            #expect(words.contains("workload web-a"))
            #expect(delivered.settings?.unknownDestinations == .deny)
            #expect(delivered.settings?.plaintext(in: "shop") == .permissive)
            #expect(delivered.settings?.plaintext(in: "other") == .strict)
            #expect(source.isSynchronized)
            #expect(source.informers.allSatisfy { $0.status.isSynchronized })
        }
        let complaint = try #require(server.asked.first { $0.method == "POST" })
        #expect(complaint.path == "/api/v1/namespaces/shop/events")
        #expect(complaint.json?["reason"] == "InvalidAnnotation")
        #expect(complaint.json?[path: "involvedObject", "name"] == "web")
        #expect(
            complaint.json?["message"]
                == "apus.dev/retry-count is 'many', expected a whole number from 0 to 10; it is ignored")
        let settings = try #require(server.asked.first { $0.path.hasSuffix("configmaps") })
        #expect(settings.path == "/api/v1/namespaces/apus-system/configmaps")
        #expect(settings.query["fieldSelector"] == "metadata.name=apus-settings")
    }
}
