import MeshKubernetes
import MeshLocal
import Testing

@Suite struct RollingUpdateTests {
    private typealias Revision = RollingUpdate.Revision

    @Test(arguments: [
        (4, IntOrString.string("25%"), IntOrString.string("25%"), 1, 1), (3, .string("25%"), .string("25%"), 1, 0),
        (10, .string("30%"), .string("30%"), 3, 3), (1, .string("25%"), .string("25%"), 1, 0),
        (5, .int(0), .string("10%"), 0, 1),
        (2, .int(3), .int(9), 3, 2), (0, .string("25%"), .string("25%"), 0, 1),
    ])
    func percentagesAreRoundedSoThatTheUpdateMoves(
        replicas: Int, surge: IntOrString, unavailable: IntOrString, expectedSurge: Int, expectedUnavailable: Int
    ) {
        let update = RollingUpdate(replicas: replicas, maxSurge: surge, maxUnavailable: unavailable)
        #expect(update.maxSurge == expectedSurge)
        #expect(replicas == 0 || update.maxUnavailable == expectedUnavailable)
    }

    @Test(
        arguments: [
            // A first roll-out takes all at once.
            (Revision(name: "new", replicas: 0, available: 0), [], ["new": 4]),
            // Up to the surge.
            (
                Revision(name: "new", replicas: 0, available: 0), [Revision(name: "old", replicas: 4, available: 4)],
                ["new": 1]
            ),
            // The surge is used: one old one may go, as one may be unavailable.
            (
                Revision(name: "new", replicas: 1, available: 0), [Revision(name: "old", replicas: 4, available: 4)],
                ["old": 3]
            ),
            // Nothing may go before the new one is available.
            (Revision(name: "new", replicas: 2, available: 0), [Revision(name: "old", replicas: 3, available: 3)], [:]),
            (
                Revision(name: "new", replicas: 2, available: 2), [Revision(name: "old", replicas: 3, available: 3)],
                ["old": 1]
            ),
            // Pods that serve nobody go first, whatever their age.
            (
                Revision(name: "new", replicas: 1, available: 1),
                [Revision(name: "a", replicas: 3, available: 3), Revision(name: "b", replicas: 1, available: 0)],
                ["b": 0, "a": 2]
            ),
            // The wanted number went down.
            (Revision(name: "new", replicas: 6, available: 6), [], ["new": 4]),
            // Done.
            (Revision(name: "new", replicas: 4, available: 4), [Revision(name: "old", replicas: 0, available: 0)], [:]),
            // Pods that are on their way out are not counted as serving.
            (Revision(name: "new", replicas: 3, available: 1), [Revision(name: "old", replicas: 2, available: 4)], [:]),
        ] as [(Revision, [Revision], [String: Int])])
    private func oneStep(new: Revision, old: [Revision], expected: [String: Int]) {
        let update = RollingUpdate(replicas: 4, maxSurge: .int(1), maxUnavailable: .int(1))
        #expect(update.step(new: new, old: old) == expected)
    }

    /// Any mix of surge, unavailability and pods that become ready late ends, and never falls below what must be available.
    @Test func everyUpdateEndsAndKeepsItsPromise() {
        var random = SeededGenerator(state: 7)
        for _ in 0..<300 {
            let replicas = Int.random(in: 1...12, using: &random)
            let update = RollingUpdate(
                replicas: replicas, maxSurge: .int(Int.random(in: 0...4, using: &random)),
                maxUnavailable: .int(Int.random(in: 0...4, using: &random)))
            var new = Revision(name: "new", replicas: 0, available: 0)
            var old = [Revision(name: "old", replicas: replicas, available: replicas)]
            var rounds = 0
            while new.available < replicas || old[0].replicas > 0 {
                rounds += 1
                guard rounds < 500 else {
                    Issue.record("\(update) does not end")
                    return
                }
                for (name, count) in update.step(new: new, old: old) {
                    if name == "new" { new.replicas = count } else { old[0].replicas = count }
                }
                old[0].available = min(old[0].available, old[0].replicas)
                new.available = min(new.available, new.replicas)
                #expect(new.available + old[0].available >= replicas - update.maxUnavailable)
                #expect(new.replicas + old[0].replicas <= replicas + update.maxSurge)
                if new.available < new.replicas, Bool.random(using: &random) { new.available += 1 }
            }
        }
    }
}

struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ state >> 31
    }
}

@Suite struct JobPlanTests {
    private static func plan(_ change: (inout JobPlan.Input) -> Void) -> JobPlan {
        var input = JobPlan.Input()
        change(&input)
        return JobPlan(input)
    }

    @Test func podsAreMadeUpToParallelismAndToWhatIsLeft() {
        #expect(
            Self.plan {
                $0.parallelism = 3; $0.completions = 5
            }.create == 3)
        #expect(
            Self.plan {
                $0.parallelism = 3; $0.completions = 5; $0.succeeded = 4
            }.create == 1)
        #expect(
            Self.plan {
                $0.parallelism = 3; $0.completions = 5; $0.succeeded = 3; $0.active = 3
            }.delete == 1)
        #expect(
            Self.plan {
                $0.parallelism = 3; $0.completions = nil
            }.create == 3)
        #expect(
            Self.plan {
                $0.parallelism = 3; $0.completions = nil; $0.succeeded = 1; $0.active = 2
            }.create == 0)
    }

    @Test func aJobEndsWhenEnoughHaveSucceededOrTooManyFailed() {
        #expect(
            Self.plan {
                $0.completions = 2; $0.succeeded = 2; $0.active = 1
            } == JobPlan.ended(.complete, delete: 1))
        #expect(
            Self.plan {
                $0.completions = nil; $0.succeeded = 1
            }.ending == .complete)
        #expect(
            Self.plan {
                $0.backoffLimit = 2; $0.failed = 2
            }.ending == nil)
        guard
            case .failed("BackoffLimitExceeded", _) = Self.plan({
                $0.backoffLimit = 2; $0.failed = 3
            }).ending
        else {
            Issue.record("the limit of failures was not seen")
            return
        }
        guard
            case .failed("BackoffLimitExceeded", _) = Self.plan({
                $0.backoffLimit = 3; $0.restartsInPlace = true; $0.active = 1; $0.restarts = 3
            }).ending
        else {
            Issue.record("restarts in place were not counted")
            return
        }
        guard
            case .failed("DeadlineExceeded", _) = Self.plan({
                $0.activeDeadlineSeconds = 5; $0.secondsSinceStart = 5
            }).ending
        else {
            Issue.record("the deadline was not seen")
            return
        }
    }

    @Test func failuresAreFollowedByAGrowingWait() {
        let first = Self.plan {
            $0.failed = 1; $0.millisecondsSinceFailure = 4_000
        }
        #expect(first.create == 0 && first.waitMilliseconds == 6_000)
        #expect(
            Self.plan {
                $0.failed = 1; $0.millisecondsSinceFailure = 10_000
            }.create == 1)
        #expect(
            Self.plan {
                $0.failed = 3; $0.millisecondsSinceFailure = 0
            }.waitMilliseconds == 40_000)
        #expect(
            Self.plan {
                $0.backoffLimit = 60; $0.failed = 60; $0.millisecondsSinceFailure = 0
            }.waitMilliseconds == 360_000)
    }

    @Test func aSuspendedJobHasNoPods() {
        let plan = Self.plan {
            $0.isSuspended = true; $0.active = 2; $0.activeDeadlineSeconds = 1; $0.secondsSinceStart = 100
        }
        #expect(plan.delete == 2 && plan.create == 0 && plan.ending == nil)
    }
}

extension JobPlan {
    fileprivate static func ended(_ ending: Ending, delete: Int) -> JobPlan {
        var input = JobPlan.Input()
        input.completions = 0
        input.active = delete
        return JobPlan(input)
    }
}

@Suite struct SlicePlanTests {
    private static let ports: JSONValue = [["name": "http", "port": 80]]
    private static func endpoint(_ number: Int, ready: Bool = true) -> JSONValue {
        [
            "addresses": [.string("10.0.\(number / 250).\(number % 250)")], "conditions": ["ready": .bool(ready)],
            "targetRef": ["uid": .string("u\(number)")],
        ]
    }

    @Test func aServiceWithoutPodsKeepsOneEmptySlice() {
        let first = SlicePlan([], present: [])
        #expect(first.create == [SlicePlan.Group(ports: [], endpoints: [])])
        let again = SlicePlan([], present: [SlicePlan.Slice(name: "a", ports: [], endpoints: [])])
        #expect(again.create.isEmpty && again.update.isEmpty && again.delete.isEmpty)
    }

    @Test func aSliceHoldsAHundred() {
        let plan = SlicePlan(
            [SlicePlan.Group(ports: Self.ports, endpoints: (0..<250).map { Self.endpoint($0) })], present: [])
        #expect(plan.create.map(\.endpoints.count) == [100, 100, 50])
    }

    @Test func aPodThatGoesTouchesItsSliceAlone() {
        let present = [
            SlicePlan.Slice(name: "a", ports: Self.ports, endpoints: (0..<100).map { Self.endpoint($0) }),
            SlicePlan.Slice(name: "b", ports: Self.ports, endpoints: (100..<150).map { Self.endpoint($0) }),
        ]
        let left = (0..<150).filter { $0 != 120 }.map { Self.endpoint($0, ready: $0 != 3) }
        let gone = SlicePlan([SlicePlan.Group(ports: Self.ports, endpoints: left)], present: present)
        #expect(gone.create.isEmpty && gone.delete.isEmpty)
        #expect(gone.update.map(\.name) == ["a", "b"])
        #expect(gone.update[1].endpoints.count == 49)
        #expect(gone.update[0].endpoints[3] == Self.endpoint(3, ready: false))
    }

    @Test func aSliceThatIsEmptyOrOfOtherPortsIsRemoved() {
        let present = [
            SlicePlan.Slice(name: "a", ports: Self.ports, endpoints: [Self.endpoint(1)]),
            SlicePlan.Slice(name: "b", ports: Self.ports, endpoints: [Self.endpoint(2)]),
            SlicePlan.Slice(name: "c", ports: [], endpoints: []),
        ]
        let plan = SlicePlan([SlicePlan.Group(ports: Self.ports, endpoints: [Self.endpoint(1)])], present: present)
        #expect(plan.update.isEmpty && plan.create.isEmpty && Set(plan.delete) == ["b", "c"])
    }

    @Test func podsBecomeEndpointsByTheirPortsAndConditions() {
        func pod(_ name: String, port: Int, ready: Bool = true, terminating: Bool = false, phase: String = "Running")
            -> KubernetesObject
        {
            var metadata: JSONValue = ["name": .string(name), "namespace": "shop", "uid": .string("uid-" + name)]
            if terminating { metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z" }
            return KubernetesObject([
                "kind": "Pod", "metadata": metadata,
                "spec": [
                    "nodeName": "machine",
                    "containers": [["ports": [["name": "web", "containerPort": .int(Int64(port))]]]],
                ],
                "status": [
                    "phase": .string(phase), "podIP": .string("10.0.0.\(port % 200)"),
                    "conditions": [["type": "Ready", "status": ready ? "True" : "False"]],
                ],
            ])
        }
        let service = KubernetesObject([
            "kind": "Service", "metadata": ["name": "s"],
            "spec": ["ports": [["name": "http", "port": 80, "targetPort": "web"]]],
        ])
        let groups = ServiceEndpoints.groups(
            service,
            [
                pod("a", port: 8080), pod("b", port: 8080, ready: false), pod("c", port: 9090, terminating: true),
                pod("d", port: 8080, phase: "Succeeded"),
            ])
        #expect(groups.map { $0.ports[0]?["port"] } == [8080, 9090])
        let conditions = groups.flatMap(\.endpoints).map { $0["conditions"] }
        #expect(
            conditions == [
                ["ready": true, "serving": true, "terminating": false],
                ["ready": false, "serving": false, "terminating": false],
                ["ready": false, "serving": true, "terminating": true],
            ])
        var publishing = service
        publishing.json[path: "spec", "publishNotReadyAddresses"] = true
        let all = ServiceEndpoints.groups(publishing, [pod("b", port: 8080, ready: false)])
        #expect(all[0].endpoints[0][path: "conditions", "ready"] == true)
    }
}
