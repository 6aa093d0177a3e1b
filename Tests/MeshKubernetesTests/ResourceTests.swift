import Foundation
import MeshKubernetes
import Testing

@Suite struct ResourceTests {
    @Test func aPodIsReadLeniently() throws {
        let json = try JSONValue(
            parsing: Data(
                """
                {"kind":"Pod","metadata":{"name":"a","labels":null,"deletionTimestamp":"2026-01-31T09:05:00Z","futureField":{"x":1}},
                 "spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":1,"memory":"64Mi"}},
                   "readinessProbe":{"httpGet":{"port":"http","path":"/ready"},"periodSeconds":5},"ports":[{"containerPort":8080,"name":"http"}]}]},
                 "status":{"conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[{"name":"c","state":{"running":{}}}]}}
                """.utf8))
        let pod = try KubernetesObject(json).view(Kubernetes.Pod.self)
        #expect(pod.metadata.labels.isEmpty)
        #expect(pod.metadata.deletionTimestamp?.seconds == 1_769_850_300)
        #expect(pod.spec.containers[0].resources.requests["cpu"]?.thousandths == 1000)
        #expect(pod.spec.containers[0].readinessProbe?.httpGet?.port == .string("http"))
        #expect(pod.spec.initContainers.isEmpty)
        #expect(pod.status.isReady)
        #expect(pod.status.containerStatuses[0].state.running != nil)
    }

    @Test func aFieldOfTheWrongTypeIsNamed() throws {
        let json: JSONValue = ["spec": ["containers": [["name": "a"], ["name": 5]]]]
        do {
            _ = try json.decoded(as: Kubernetes.Pod.self)
            Issue.record("it was accepted")
        } catch DecodingError.typeMismatch(_, let context) {
            #expect(context.codingPath.map(\.stringValue) == ["spec", "containers", "1", "name"])
        }
    }

    @Test func whatIsEmptyIsNotWritten() throws {
        var status = Kubernetes.ContainerStatus()
        status.name = "c"
        status.state.waiting = .init()
        status.state.waiting?.reason = "CrashLoopBackOff"
        #expect(
            try JSONValue(encoding: status)
                == [
                    "name": "c", "ready": false, "restartCount": 0,
                    "state": ["waiting": ["reason": "CrashLoopBackOff"]],
                ])
    }

    @Test(
        arguments: [
            ("1970-01-01T00:00:00Z", 0, 0), ("2000-02-29T23:59:59Z", 951_868_799, 0),
            ("2026-01-31T10:05:00+01:00", 1_769_850_300, 0),
            ("2026-01-31T09:05:00.25Z", 1_769_850_300, 250_000), ("1969-12-31T23:59:59.999999999Z", -1, 999_999),
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0), ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
        ] as [(String, Int64, Int)])
    func aTimeIsRead(text: String, seconds: Int64, microseconds: Int) throws {
        let time = try #require(KubernetesTime(text))
        #expect(time == KubernetesTime(seconds: seconds, microseconds: microseconds))
        #expect(KubernetesTime(time.microText) == time)
        #expect(KubernetesTime(time.description)?.seconds == seconds)
    }

    @Test(arguments: [
        "", "2026-01-31", "2026-01-31T09:05:00", "2026-13-31T09:05:00Z", "2026-01-31T25:05:00Z",
        "2026-01-31T09:05:00.Z", "2026-01-31T09:05:00Zx",
        "x026-01-31T09:05:00Z", "2026-01-31T09:05:00+1:00",
    ])
    func whatIsNoTimeIsRefused(text: String) {
        #expect(KubernetesTime(text) == nil)
    }

    @Test func aTimeIsWritten() {
        #expect(KubernetesTime(seconds: 1_769_850_300, microseconds: 25).description == "2026-01-31T09:05:00Z")
        #expect(KubernetesTime(seconds: 1_769_850_300, microseconds: 25).microText == "2026-01-31T09:05:00.000025Z")
        #expect(KubernetesTime(seconds: -1).description == "1969-12-31T23:59:59Z")
    }

    @Test(
        arguments: [
            ("250m", 250), ("1.5", 1500), ("2", 2000), ("64Mi", 67_108_864_000), ("1e3", 1_000_000), ("2E2", 200_000),
            ("1k", 1_000_000),
            ("100u", 1), ("", nil), ("Mi", nil), ("1Zi", nil), ("1e99", nil), ("1 Mi", nil), ("99999E", nil),
            ("0x10", nil), ("--1", nil),
        ] as [(String, Int64?)])
    func aQuantityHasItsAmount(text: String, thousandths: Int64?) {
        #expect(Quantity(text).thousandths == thousandths)
    }

    @Test(
        arguments: [
            (IntOrString.string("25%"), 10, false, 2), (.string("25%"), 10, true, 3), (.string("100%"), 7, false, 7),
            (.int(4), 10, true, 4),
            (.string("x"), 10, true, nil), (.string("-1%"), 10, true, nil), (.string("25%"), Int.max, true, nil),
        ] as [(IntOrString, Int, Bool, Int?)])
    func aPercentageIsScaled(value: IntOrString, total: Int, roundUp: Bool, expected: Int?) {
        #expect(value.scaled(of: total, roundUp: roundUp) == expected)
    }
}
