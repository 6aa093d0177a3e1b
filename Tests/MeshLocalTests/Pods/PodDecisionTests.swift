import MeshKubernetes
import MeshLocal
import Testing

struct PodDecisionTests {
    @Test(arguments: [
        ("plain", "plain"), ("$(A)", "1"), ("x$(A)y$(B)", "x1y2"), ("$(NONE)", "$(NONE)"), ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"), ("$(A", "$(A"), ("$", "$"), ("$$", "$"), ("$()", "$()"), ("$($(A))", "$($(A))"),
    ])
    func variablesAreExpandedAsTheAPISays(_ text: String, _ expected: String) {
        #expect(VariableExpansion.expand(text) { ["A": "1", "B": "2"][$0] } == expected)
    }

    @Test func capabilitiesAreTheStandardOnesWithWhatIsAddedAndDropped() throws {
        let admin: UInt64 = 1 << 12
        let bind: UInt64 = 1 << 10
        #expect(try LinuxCapabilities.effective(add: [], drop: []) == 0xa804_25fb)
        #expect(try LinuxCapabilities.effective(add: ["NET_ADMIN"], drop: ["ALL"]) == admin)
        #expect(
            try LinuxCapabilities.effective(add: ["cap_net_admin"], drop: ["NET_BIND_SERVICE"]) == 0xa804_25fb & ~bind
                | admin)
        #expect(try LinuxCapabilities.effective(add: ["ALL"], drop: []) == LinuxCapabilities.all)
        #expect(throws: LinuxCapabilities.UnknownName.self) { try LinuxCapabilities.effective(add: ["FLY"], drop: []) }
    }

    @Test func restartsWaitLongerEachTimeUpToTheLimit() {
        let delays = RestartDelays()
        let expected = [0, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]
        #expect((0..<8).map { delays.delayMilliseconds(consecutive: $0) } == expected)
        #expect(delays.delayMilliseconds(consecutive: .max) == 300_000)
        #expect(!delays.isLongRun(milliseconds: 599_999))
        #expect(delays.isLongRun(milliseconds: 600_000))
    }

    @Test(
        arguments: [
            (3600, 0, true), (3600, 2879, true), (3600, 2880, false), (3600, -60, true), (3600, -61, false),
            (600, 479, true), (600, 480, false), (1_000_000, 86_399, true), (1_000_000, 86_400, false), (0, 0, false),
        ] as [(Int64, Int64, Bool)])
    func aTokenIsReplacedWellBeforeItEndsAndOnceADay(life: Int64, age: Int64, isKept: Bool) {
        #expect(VolumeRefresh().keepsToken(issued: 1000, expires: 1000 + life, now: 1000 + age) == isKept)
    }

    private func probe(_ fields: [String: JSONValue]) throws -> Kubernetes.Probe {
        try JSONValue.object(fields).decoded()
    }

    @Test func probesCountInARow() throws {
        var counter = ProbeCounter(try probe(["successThreshold": 2, "failureThreshold": 3]))
        let verdicts = [true, true, false, false, true, false, false, false, true].map { counter.record(isSuccess: $0) }
        #expect(verdicts == [nil, true, nil, nil, nil, nil, nil, false, nil])
    }

    @Test func earlyProbesStayWithinTheFirstPeriod() throws {
        for seconds in [1, 10, 60] {
            let schedule = ProbeSchedule(try probe(["periodSeconds": .int(Int64(seconds))]))
            #expect(schedule.earlyPausesMilliseconds.reduce(0, +) < seconds * 1000)
            #expect(schedule.earlyPausesMilliseconds.first == 20)
        }
        #expect(ProbeSchedule(try probe(["periodSeconds": -5, "timeoutSeconds": 0])).periodMilliseconds == 1000)
    }

    @Test func aGRPCAnswerIsUnderstoodHoweverItIsCut() {
        func frame(_ type: UInt8, _ flags: UInt8, _ payload: [UInt8]) -> [UInt8] {
            [0, 0, UInt8(payload.count), type, flags, 0, 0, 0, 1] + payload
        }
        let serving = frame(4, 0, []) + frame(1, 4, [0x88]) + frame(0, 0, [0, 0, 0, 0, 2, 0x08, 1])
        for cut in 0...serving.count {
            var health = GRPCHealth()
            let first = health.receive(serving[..<cut])
            let verdict = first ?? health.receive(serving[cut...])
            #expect(verdict == .serving)
        }
        var other = GRPCHealth()
        #expect(
            other.receive(frame(0, 0, [0, 0, 0, 0, 2, 0x08, 2])) == .failed("service unhealthy, status NOT_SERVING"))
        var reset = GRPCHealth()
        #expect(reset.receive(frame(3, 0, [0, 0, 0, 7])) == .failed("the call was reset"))
        var http1 = GRPCHealth()
        #expect(http1.receive(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)) == .failed("the answer is not HTTP/2"))
    }

    @Test func bytesOfAnySortDoNotTrapTheGRPCProbe() {
        for _ in 0..<5_000 {
            var health = GRPCHealth()
            for _ in 0..<4 {
                _ = health.receive(
                    (0..<Int.random(in: 0...60)).map { _ in UInt8.random(in: 0...(Bool.random() ? 3 : 255)) })
            }
        }
    }

    @Test func linesAreCutAndComeBack() {
        var cutter = LineCutter()
        var stored: [UInt8] = []
        let time = "2026-01-31T09:05:00.250000Z"
        let keep: ([UInt8], Bool) -> Void = {
            stored += StoredLogLine.encode(time: time, stream: "stdout", isWhole: $1, $0)
        }
        cutter.append(Array("one\n\ntw".utf8), keep)
        cutter.append(Array("o\n".utf8) + [UInt8](repeating: 120, count: 20_000), keep)
        cutter.finish(keep)
        var isContinuation = false
        var text: [UInt8] = []
        for line in stored.split(separator: 10, omittingEmptySubsequences: false).dropLast() {
            guard
                let (bytes, goesOn) = StoredLogLine.decode(
                    line, timestamps: false, since: nil, isContinuation: isContinuation)
            else { continue }
            text += bytes
            isContinuation = goesOn
        }
        #expect(String(decoding: text, as: UTF8.self) == "one\n\ntwo\n" + String(repeating: "x", count: 20_000) + "\n")
        #expect(StoredLogLine.decode(stored[...], timestamps: true, since: "2027", isContinuation: false) == nil)
        #expect(StoredLogLine.decode([1, 2, 3], timestamps: true, since: nil, isContinuation: false) == nil)
    }

    @Test func aContainerSeesTheHostsFilesButNotItsKernelsOrThePlatforms() {
        let text = """
            22 1 254:0 / / rw - ext4 /dev/vda rw
            23 22 0:21 / /proc rw - proc proc rw
            24 22 0:22 / /home/with\\040space rw - xfs /dev/vdb rw
            25 22 0:23 / /run/netns/x rw - nsfs nsfs rw
            26 22 0:24 / /tmp rw shared:1 - tmpfs tmpfs rw
            27 22 0:25 / /var/lib/apus/pods/u/volumes/v rw - tmpfs tmpfs rw
            28 22 0:26 / /etc/hosts rw - ext4 /dev/vda rw
            29 22 0:27 / /odd:name rw - ext4 /dev/vda rw
            nonsense
            """
        #expect(HostMounts.parse(text, hiding: ["/var/lib/apus"]).map(\.path) == ["/home/with space", "/tmp"])
    }
}
