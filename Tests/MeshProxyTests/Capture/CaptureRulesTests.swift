import MeshProxy
import Testing

@Suite struct CaptureRulesTests {
    @Test func theRulesOfAPlainPod() {
        #expect(
            CaptureRules().script == """
                table inet apus_capture
                delete table inet apus_capture
                table inet apus_capture {
                    chain outbound {
                        type nat hook output priority -100; policy accept;
                        meta skuid 1337 return
                        ip daddr 127.0.0.0/8 return
                        ip6 daddr ::1 return
                        meta l4proto tcp redirect to :15001
                    }
                    chain inbound {
                        type nat hook prerouting priority dstnat; policy accept;
                        iifname "lo" return
                        tcp dport { 15020, 15021 } return
                        meta l4proto tcp redirect to :15006
                    }
                    chain invalid {
                        type filter hook input priority filter; policy accept;
                        iifname != "lo" meta l4proto tcp ct state invalid counter drop
                    }
                }

                """)
    }

    @Test func skippedPortsReturnBeforeTheRedirection() {
        let rules = CaptureRules(skippedInboundPorts: [9090, 22, 9090], skippedOutboundPorts: [5432])
        let lines = rules.script.split(separator: "\n").map { $0.drop { $0 == " " } }
        #expect(lines.contains("tcp dport { 5432 } return"))
        #expect(lines.contains("tcp dport { 22, 9090, 15020, 15021 } return"))
        let skip = lines.firstIndex(of: "tcp dport { 5432 } return")
        let redirect = lines.firstIndex(of: "meta l4proto tcp redirect to :15001")
        #expect(skip != nil && redirect != nil && skip! < redirect!)
    }

    @Test(
        arguments: [
            ("", []), (" ", []), ("80", [80]), ("80,443", [80, 443]), (" 80 , 443 ", [80, 443]), ("65535", [65535]),
        ] as [(String, [UInt16])])
    func portListsAreRead(text: String, ports: [UInt16]) throws {
        #expect(try parsePortList(text, setting: "x") == ports)
    }

    @Test(arguments: ["0", "65536", "-1", "+80", "80,", ",80", "80;443", "http", "8 0", "80,,443", "٨٠"])
    func whatIsNoPortIsRefusedByName(text: String) {
        let error = #expect(throws: PortListError.self) { try parsePortList(text, setting: "APUS_SKIP_INBOUND_PORTS") }
        #expect(error?.description.hasPrefix("APUS_SKIP_INBOUND_PORTS: '") == true)
    }
}
