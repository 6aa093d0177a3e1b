package import MeshKubernetes

/// How far a rolling update may go in one step: pure arithmetic over what is there now.
package struct RollingUpdate: Hashable, Sendable {
    package struct Revision: Hashable, Sendable {
        package var name: String
        /// As the ReplicaSet's spec has it.
        package var replicas: Int
        /// Of its pods, those that are available now.
        package var available: Int

        package init(name: String, replicas: Int, available: Int) {
            self.name = name
            self.replicas = replicas
            self.available = available
        }
    }

    package let replicas: Int
    package let maxSurge: Int
    package let maxUnavailable: Int

    /// Percentages are of the replicas: the surge is rounded up, the unavailable down, and both 0 would never move.
    package init(replicas: Int, maxSurge: IntOrString, maxUnavailable: IntOrString) {
        let surge = max(maxSurge.scaled(of: replicas, roundUp: true) ?? 0, 0)
        let unavailable = min(max(maxUnavailable.scaled(of: replicas, roundUp: false) ?? 0, 0), replicas)
        self.replicas = replicas
        self.maxSurge = surge
        self.maxUnavailable = surge == 0 && unavailable == 0 ? 1 : unavailable
    }

    /// The next numbers of those revisions that have to change; `old` is ordered by age. When nothing changes, the update is
    /// over or waits for pods.
    package func step(new: Revision, old: [Revision]) -> [String: Int] {
        let next = nextOfNew(new, old)
        guard next == new.replicas else { return [new.name: next] }
        return nextOfOld(new, old)
    }

    private func nextOfNew(_ new: Revision, _ old: [Revision]) -> Int {
        guard new.replicas < replicas else { return replicas }
        let total = new.replicas + old.reduce(0) { $0 + $1.replicas }
        let room = replicas + maxSurge - total
        return room > 0 ? min(new.replicas + room, replicas) : new.replicas
    }

    private func nextOfOld(_ new: Revision, _ old: [Revision]) -> [String: Int] {
        let total = new.replicas + old.reduce(0) { $0 + $1.replicas }
        let least = replicas - maxUnavailable
        let unavailable = max(new.replicas - new.available, 0)
        var budget = total - least - unavailable
        guard budget > 0 else { return [:] }
        var next: [String: Int] = [:]
        // Pods that serve nobody go first: they cost no availability.
        for revision in old {
            let idle = min(max(revision.replicas - revision.available, 0), budget)
            guard idle > 0 else { continue }
            next[revision.name] = revision.replicas - idle
            budget -= idle
        }
        // A pod that was to go counts no longer, though it may still be there.
        let available = new.available + old.reduce(0) { $0 + min($1.available, $1.replicas) }
        var spare = min(available - least, budget)
        for revision in old where spare > 0 {
            let current = next[revision.name] ?? revision.replicas
            let down = min(current, spare)
            guard down > 0 else { continue }
            next[revision.name] = current - down
            spare -= down
        }
        return next
    }
}
