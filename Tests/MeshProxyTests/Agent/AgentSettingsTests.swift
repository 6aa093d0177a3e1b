import MeshAddress
import MeshCore
import MeshProxy
import MeshTelemetry
import Testing

@Suite struct AgentSettingsTests {
    static let minimum = [
        "APUS_POD_NAME": "web-1", "APUS_POD_NAMESPACE": "shop", "APUS_POD_IP": "10.97.0.5", "APUS_TRUST_BUNDLE": "PEM",
    ]

    static func settings(_ changes: [String: String] = [:]) throws -> AgentSettings {
        let environment = minimum.merging(changes) { $1 }
        return try AgentSettings { environment[$0] }
    }

    @Test func whatIsNotSaidHasADefault() throws {
        let settings = try Self.settings()
        #expect(settings.pod == ObjectName(namespace: "shop", name: "web-1"))
        #expect(settings.podAddresses == [IPAddress("10.97.0.5")])
        #expect(settings.identity.description == "spiffe://cluster.local/ns/shop/sa/default")
        #expect(settings.controlHost == "apus-control.apus-system.svc.cluster.local")
        #expect(settings.controlPort == 15010)
        #expect(settings.accessLog == .off)
        #expect(settings.logLevel == .info)
        #expect(settings.drainSeconds == 30)
        #expect(settings.owner == "web-1")
    }

    @Test func everythingCanBeSaid() throws {
        let settings = try Self.settings([
            "APUS_POD_IP": "10.97.0.5,fd00::5", "APUS_SERVICE_ACCOUNT": "web", "APUS_TRUST_DOMAIN": "example.test",
            "APUS_CONTROL_ADDRESS": "10.96.0.9:16000", "APUS_OPAQUE_PORTS": "3306,5432", "APUS_LOG_LEVEL": "debug",
            "APUS_ACCESS_LOG": "json", "APUS_DRAIN_SECONDS": "5", "APUS_OWNER": "web", "APUS_LOOPS": "2",
            "APUS_PROBES": #"{"web": {"readiness": {"httpGet": {"path": "/h", "port": 8080}, "timeoutSeconds": 3}}}"#,
        ])
        #expect(settings.podAddresses.count == 2)
        #expect(settings.identity.description == "spiffe://example.test/ns/shop/sa/web")
        #expect(settings.controlHost == "10.96.0.9" && settings.controlPort == 16000)
        #expect(settings.opaquePorts == [3306, 5432])
        #expect(settings.logLevel == .debug && settings.accessLog == .json)
        #expect(settings.drainSeconds == 5 && settings.loops == 2)
        #expect(settings.probes.probe(path: "/apus/probe/web/readiness")?.httpGet?.port == 8080)
    }

    @Test(arguments: ["APUS_POD_NAME", "APUS_POD_NAMESPACE", "APUS_POD_IP", "APUS_TRUST_BUNDLE"])
    func whatIsMissingIsNamed(variable: String) {
        let error = #expect(throws: AgentSettings.Invalid.self) { try Self.settings([variable: ""]) }
        #expect(error?.variable == variable)
    }

    @Test(arguments: [
        ("APUS_POD_IP", "10.97.0"), ("APUS_CONTROL_ADDRESS", "control"), ("APUS_CONTROL_ADDRESS", "control:0"),
        ("APUS_CONTROL_ADDRESS", ":15010"), ("APUS_CONTROL_ADDRESS", "control:99999"), ("APUS_OPAQUE_PORTS", "80x"),
        ("APUS_OPAQUE_PORTS", "0"), ("APUS_LOG_LEVEL", "loud"), ("APUS_ACCESS_LOG", "xml"),
        ("APUS_DRAIN_SECONDS", "-1"),
        ("APUS_DRAIN_SECONDS", "3601"), ("APUS_DRAIN_SECONDS", "1.5"), ("APUS_LOOPS", "0"), ("APUS_PROBES", "{"),
        ("APUS_PROBES", #"{"web": {"readiness": {"httpGet": {"port": 70000}}}}"#),
    ])
    func whatCannotBeUsedIsRefusedByName(variable: String, value: String) {
        let error = #expect(throws: AgentSettings.Invalid.self) { try Self.settings([variable: value]) }
        #expect(error?.variable == variable)
        #expect(error?.description.hasPrefix("\(variable): '") == true)
    }

    @Test(arguments: [
        "", "/", "/apus/probe", "/apus/probe/web", "/apus/probe/web/", "/apus/probe/web/liveness",
        "/apus/probe/other/readiness",
        "/apus/probe/web/readiness/", "/apus/probe//readiness", "apus/probe/web/readiness",
    ])
    func onlyAProbesOwnPathIsOne(path: String) throws {
        let table = try ProbeTable(json: #"{"web": {"readiness": {"tcpSocket": {"port": 80}}}}"#)
        #expect(table.probe(path: path) == nil)
        #expect(table.probe(path: "/apus/probe/web/readiness")?.tcpSocket?.port == 80)
    }
}
