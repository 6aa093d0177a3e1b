import Logging
import MeshKubernetes

/// Keeps somebody informed of every object of a kind: all of them first, then each change, and all of them again after a gap.
struct ResourceFollower: Sendable {
    enum Event: Sendable {
        case all([KubernetesObject])
        case changed(KubernetesObject)
        case deleted(KubernetesObject)
    }

    let api: any KubernetesAPI
    let kind: ResourceKind
    var fieldSelector: String?
    let log: Logger

    /// Runs until cancelled.
    func run(_ deliver: @Sendable (Event) async -> Void) async {
        var pauseMilliseconds = 50
        while !Task.isCancelled {
            do {
                let list = try await api.list(kind, namespace: nil, labelSelector: nil, fieldSelector: fieldSelector)
                await deliver(.all(list.items))
                pauseMilliseconds = 50
                try await follow(from: list.resourceVersion, deliver)
            } catch is CancellationError {
                return
            } catch let error as StatusError where error.code == 410 {
                continue
            } catch {
                if Task.isCancelled { return }
                log.warning("the watch failed", metadata: ["kind": "\(kind.kind)", "reason": "\(error)"])
            }
            try? await Task.sleep(for: .milliseconds(pauseMilliseconds))
            pauseMilliseconds = min(pauseMilliseconds * 2, 5_000)
        }
    }

    private func follow(from resourceVersion: String, _ deliver: @Sendable (Event) async -> Void) async throws {
        var version = resourceVersion
        while !Task.isCancelled {
            let before = version
            let events = api.watch(
                kind, namespace: nil, labelSelector: nil, fieldSelector: fieldSelector, resourceVersion: version)
            for try await event in events {
                switch event.change {
                case .added, .modified: await deliver(.changed(event.object))
                case .deleted: await deliver(.deleted(event.object))
                case .bookmark: break
                case .error:
                    let code = event.object.json["code"]?.int ?? 500
                    throw StatusError(
                        code: code, reason: event.object.json["reason"]?.string ?? "Unknown",
                        message: event.object.json["message"]?.string ?? "the watch failed")
                }
                if !event.object.resourceVersion.isEmpty { version = event.object.resourceVersion }
            }
            // A server that ends watches without an event at once would otherwise be asked in a loop.
            if version == before { try await Task.sleep(for: .milliseconds(100)) }
        }
    }
}
