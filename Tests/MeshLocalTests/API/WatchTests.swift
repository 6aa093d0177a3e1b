import Foundation
import MeshKubernetes
import MeshLocal
import Testing

@Suite struct WatchTests {
    /// The next events of a watch, bookmarks left out.
    private static func take(_ count: Int, _ stream: AsyncThrowingStream<WatchEvent, any Error>) async throws
        -> [String]
    {
        var seen: [String] = []
        for try await event in stream where event.change != .bookmark {
            seen.append("\(event.change.rawValue) \(event.object.name)")
            if seen.count == count { break }
        }
        return seen
    }

    @Test func aWatchTellsWhatHappensAfterAVersionOverHTTPS() async throws {
        try await APIFixture.run { fixture in
            let start = try await fixture.client.list(
                .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil)
            // What happened before the watch was opened is told too.
            _ = try await fixture.client.create(.configMap, .configMap("a"))
            let watch = fixture.client.watch(
                .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil,
                resourceVersion: start.resourceVersion)
            async let seen = Self.take(4, watch)
            _ = try await fixture.client.patch(
                .configMap, namespace: "default", name: "a", subresource: nil, .merge(["data": ["x": "1"]]))
            _ = try await fixture.client.create(.configMap, .configMap("other", namespace: "kube-system"))
            _ = try await fixture.client.create(.configMap, .configMap("b"))
            try await fixture.client.delete(
                .configMap, namespace: "default", name: "a", gracePeriodSeconds: nil, uid: nil)
            #expect(try await seen == ["ADDED a", "MODIFIED a", "ADDED b", "DELETED a"])
        }
    }

    @Test func anObjectThatBeginsToMatchIsNewAndOneThatStopsIsGone() async throws {
        try await APIFixture.run { fixture in
            let start = try await fixture.client.list(
                .configMap, namespace: nil, labelSelector: nil, fieldSelector: nil)
            let watch = fixture.client.watch(
                .configMap, namespace: "default", labelSelector: "on=yes", fieldSelector: nil,
                resourceVersion: start.resourceVersion)
            async let seen = Self.take(3, watch)
            _ = try await fixture.client.create(.configMap, .configMap("a"))
            for value in ["yes", "yes", "no"] {
                _ = try await fixture.client.patch(
                    .configMap, namespace: "default", name: "a", subresource: nil,
                    .merge(["metadata": ["labels": ["on": .string(value), "n": .string(UUID().uuidString)]]]))
            }
            #expect(try await seen == ["ADDED a", "MODIFIED a", "DELETED a"])
        }
    }

    @Test func aVersionThatIsNoLongerRememberedIsExpired() async throws {
        var limits = ObjectStoreLimits()
        limits.windowEvents = 5
        try await APIFixture.run(limits: limits) { fixture in
            let start = try await fixture.client.create(.configMap, .configMap("a"))
            for index in 0..<10 {
                _ = try await fixture.client.patch(
                    .configMap, namespace: "default", name: "a", subresource: nil,
                    .merge(["data": ["n": .string("\(index)")]]))
            }
            let watch = fixture.client.watch(
                .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil,
                resourceVersion: start.resourceVersion)
            await #expect { for try await _ in watch {} } throws: { ($0 as? StatusError)?.code == 410 }
        }
    }

    @Test func aWatcherThatDoesNotKeepUpIsEndedAndCounted() async throws {
        var limits = ObjectStoreLimits()
        limits.watcherEvents = 3
        try await APIFixture.run(limits: limits) { fixture in
            let start = try await fixture.api.list(.configMap, namespace: nil, labelSelector: nil, fieldSelector: nil)
            let watch = fixture.api.watch(
                .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil,
                resourceVersion: start.resourceVersion)
            for index in 0..<10 { _ = try await fixture.api.create(.configMap, .configMap("m\(index)")) }
            var seen = 0
            await #expect { for try await _ in watch { seen += 1 } } throws: { ($0 as? StatusError)?.code == 410 }
            #expect(seen == 3)
            #expect(fixture.api.store.statistics.slowWatchers == 1)
        }
    }

    @Test func bookmarksSayHowFarAWatchIs() async throws {
        try await APIFixture.run { fixture in
            let start = try await fixture.client.list(.secret, namespace: nil, labelSelector: nil, fieldSelector: nil)
            let watch = fixture.client.watch(
                .secret, namespace: nil, labelSelector: nil, fieldSelector: nil, resourceVersion: start.resourceVersion)
            async let mark: String? = {
                for try await event in watch where event.change == .bookmark { return event.object.resourceVersion }
                return nil
            }()
            let last = try await fixture.client.create(.configMap, .configMap("a"))
            try await fixture.eventually("the watch is open") { fixture.api.store.statistics.watchers > 0 }
            fixture.api.store.sendBookmarks()
            #expect(Int64(try await mark ?? "") ?? 0 >= Int64(last.resourceVersion) ?? .max)
        }
    }

    @Test func manyWatchersSeeEveryChangeOfABurst() async throws {
        try await APIFixture.run { fixture in
            let start = try await fixture.api.list(.configMap, namespace: nil, labelSelector: nil, fieldSelector: nil)
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<200 {
                    let watch = fixture.api.watch(
                        .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil,
                        resourceVersion: start.resourceVersion)
                    group.addTask {
                        var seen = 0
                        for try await event in watch where event.change == .added {
                            seen += 1
                            if seen == 500 { break }
                        }
                        return seen
                    }
                }
                try await withThrowingDiscardingTaskGroup { writers in
                    for index in 0..<500 {
                        writers.addTask { _ = try await fixture.api.create(.configMap, .configMap("m\(index)")) }
                    }
                }
                for try await seen in group { #expect(seen == 500) }
            }
            // A burst shares its transactions.
            let statistics = fixture.api.store.statistics
            #expect(statistics.commits < statistics.writes)
            try await fixture.eventually("the watchers are gone") { fixture.api.store.statistics.watchers == 0 }
        }
    }

    /// A reader is cancelled while a write is on its way to it, again and again: the runtime then has the reader's lock and asks for the
    /// storage's, and the writer has the storage's and asks for the reader's.
    @Test(.timeLimit(.minutes(1))) func watchesThatAreCancelledDuringWritesHoldNobodyUp() async throws {
        try await APIFixture.run { fixture in
            let start = try await fixture.api.list(.configMap, namespace: nil, labelSelector: nil, fieldSelector: nil)
            _ = try await fixture.api.create(.configMap, .configMap("busy"))
            for round in 0..<300 {
                let readers = (0..<8).map { _ in
                    Task {
                        let watch = fixture.api.watch(
                            .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil,
                            resourceVersion: start.resourceVersion)
                        for try await _ in watch {}
                    }
                }
                let writer = Task {
                    for step in 0..<4 {
                        _ = try await fixture.api.patch(
                            .configMap, namespace: "default", name: "busy", subresource: nil,
                            .merge(["data": ["n": .string("\(round) \(step)")]]))
                    }
                }
                await Task.yield()
                for reader in readers { reader.cancel() }
                try await writer.value
                for reader in readers { _ = await reader.result }
            }
            try await fixture.eventually("the watchers are gone") { fixture.api.store.statistics.watchers == 0 }
        }
    }

    @Test func aWatchWhoseClientIsGoneIsClosed() async throws {
        try await APIFixture.run { fixture in
            let start = try await fixture.client.list(
                .configMap, namespace: nil, labelSelector: nil, fieldSelector: nil)
            let reader = Task {
                let watch = fixture.client.watch(
                    .configMap, namespace: "default", labelSelector: nil, fieldSelector: nil,
                    resourceVersion: start.resourceVersion)
                for try await _ in watch {}
            }
            try await fixture.eventually("the watch is open") { fixture.api.store.statistics.watchers == 1 }
            reader.cancel()
            try await fixture.eventually("the watch is closed") { fixture.api.store.statistics.watchers == 0 }
        }
    }
}
