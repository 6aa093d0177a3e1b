package import Logging
import NIOCore
import Synchronization

/// What an informer delivers: changes in the order of the API, and when they reached this process.
package struct InformerBatch<Value: Sendable>: Sendable {
    package var changes: [InformerChange<Value>]
    /// In monotonic nanoseconds.
    package var arrivedNanoseconds: UInt64
    /// Whether this batch came from a whole list: after the first such batch, everything that existed has been
    /// delivered.
    package var isWholeList: Bool
}

/// How an informer is doing.
package struct InformerStatus: Sendable {
    package var isSynchronized = false
    package var objects = 0
    package var resourceVersion = ""
    /// Whole lists taken, the first included.
    package var lists = 0
    package var watches = 0
    package var events = 0
    package var failures = 0
    /// What failed last; nil again once a list or watch works.
    package var lastError: String?
    /// When the API last said anything, bookmarks included, in monotonic nanoseconds.
    package var lastContactNanoseconds: UInt64 = 0

    /// How long the API has said nothing.
    package func silenceMilliseconds(nowNanoseconds: UInt64) -> UInt64 {
        nowNanoseconds > lastContactNanoseconds ? (nowNanoseconds - lastContactNanoseconds) / 1_000_000 : 0
    }
}

package enum InformerLimits {
    /// Objects of one kind that an informer follows; with more it fails, and says so.
    package static let items = 1_000_000
}

/// Keeps a reduced copy of the objects of one kind: lists them, then watches from there; resumes where a watch ended,
/// lists again when the API no longer knows that place (410), and tells then what was removed meanwhile.
package final class Informer<Value: Sendable>: Sendable {
    private let api: any KubernetesAPI
    private let kind: ResourceKind
    private let namespace: String?
    private let labelSelector: String?
    private let fieldSelector: String?
    private let logger: Logger
    private let backoff: Backoff
    private let transform: @Sendable (KubernetesObject) -> Value?
    private let state = Mutex(InformerStatus())

    /// - Parameter transform: the part of an object that is kept; nil leaves the object out.
    package init(
        api: any KubernetesAPI, kind: ResourceKind, namespace: String? = nil, labelSelector: String? = nil,
        fieldSelector: String? = nil, backoff: Backoff = Backoff(), logger: Logger = Logger(label: "informer"),
        transform: @escaping @Sendable (KubernetesObject) -> Value?
    ) {
        self.api = api
        self.kind = kind
        self.namespace = namespace
        self.labelSelector = labelSelector
        self.fieldSelector = fieldSelector
        self.backoff = backoff
        self.logger = logger
        self.transform = transform
    }

    package var status: InformerStatus { state.withLock { $0 } }

    /// Runs until cancelled; no failure of the API ends it. `deliver` is called from one task, batch after batch; while
    /// it runs, nothing more is read.
    package func run(deliver: @Sendable (InformerBatch<Value>) async -> Void) async throws {
        var store = InformerStore<Value>()
        var wait = backoff
        var version: String?
        while true {
            try Task.checkCancellation()
            var watchStart: NIODeadline?
            var canRetryAtOnce = true
            let eventsBefore = status.events
            do {
                let start: String
                if let version {
                    start = version
                } else {
                    start = try await list(into: &store, deliver: deliver)
                    version = start
                }
                watchStart = .now()
                try await watch(from: start, into: &store, version: &version, deliver: deliver)
            } catch {
                try Task.checkCancellation()
                canRetryAtOnce = (error as? StatusError)?.code == 410
                if canRetryAtOnce { version = nil }
                note(error)
            }
            // A watch that told something or lasted was in order, however it ended; one that ends at once gets pauses.
            let lasted = watchStart.map { NIODeadline.now() - $0 > .seconds(5) } ?? false
            if lasted || status.events > eventsBefore { wait.reset() }
            let isFirst = wait.failures == 0
            let milliseconds = wait.nextMilliseconds(random: Double.random(in: 0..<1))
            if !(isFirst && canRetryAtOnce) { try await Task.sleep(for: .milliseconds(milliseconds)) }
        }
    }

    private func note(_ error: any Error) {
        state.withLock {
            $0.failures += 1
            $0.lastError = "\(error)"
        }
        logger.warning("the API failed; trying again", metadata: ["kind": "\(kind.plural)", "error": "\(error)"])
    }

    private func list(into store: inout InformerStore<Value>, deliver: (InformerBatch<Value>) async -> Void)
        async throws
        -> String
    {
        let (items, version) = try await items()
        let arrived = NIODeadline.now().uptimeNanoseconds
        let changes = store.replace(with: items)
        let count = store.count
        await deliver(InformerBatch(changes: changes, arrivedNanoseconds: arrived, isWholeList: true))
        state.withLock {
            $0.lists += 1
            $0.objects = count
            $0.resourceVersion = version
            $0.lastContactNanoseconds = arrived
            $0.lastError = nil
            $0.isSynchronized = true
        }
        return version
    }

    /// Reduced page by page where the API gives pages: of ten thousand whole objects only a page is held at a time.
    private func items() async throws -> (items: [InformerStore<Value>.Item], resourceVersion: String) {
        var items: [InformerStore<Value>.Item] = []
        guard let paged = api as? any KubernetesPagedAPI else {
            let list = try await api.list(
                kind, namespace: namespace, labelSelector: labelSelector, fieldSelector: fieldSelector)
            return (list.items.map { InformerStore.Item($0, transform: transform) }, list.resourceVersion)
        }
        var page = try await paged.page(
            kind, namespace: namespace, labelSelector: labelSelector, fieldSelector: fieldSelector, after: nil)
        while true {
            items += page.items.map { InformerStore.Item($0, transform: transform) }
            guard let next = page.next else { return (items, page.resourceVersion) }
            guard items.count < InformerLimits.items else {
                throw StatusError(
                    code: 413, reason: "RequestEntityTooLarge",
                    message: "list \(kind.plural): more than \(InformerLimits.items) objects")
            }
            page = try await paged.page(
                kind, namespace: namespace, labelSelector: labelSelector, fieldSelector: fieldSelector, after: next)
        }
    }

    private func watch(
        from start: String, into store: inout InformerStore<Value>, version: inout String?,
        deliver: (InformerBatch<Value>) async -> Void
    ) async throws {
        state.withLock { $0.watches += 1 }
        let events = api.watch(
            kind, namespace: namespace, labelSelector: labelSelector, fieldSelector: fieldSelector,
            resourceVersion: start)
        for try await event in events {
            let arrived = NIODeadline.now().uptimeNanoseconds
            let changes = store.apply(event, transform: transform)
            if !changes.isEmpty {
                await deliver(InformerBatch(changes: changes, arrivedNanoseconds: arrived, isWholeList: false))
            }
            let reached = event.object.resourceVersion
            if !reached.isEmpty { version = reached }
            let count = store.count
            state.withLock {
                $0.events += 1
                $0.objects = count
                if !reached.isEmpty { $0.resourceVersion = reached }
                $0.lastContactNanoseconds = arrived
                $0.lastError = nil
            }
        }
        try Task.checkCancellation()
    }
}
