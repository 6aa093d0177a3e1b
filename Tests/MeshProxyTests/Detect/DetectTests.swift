import MeshCore
import MeshProxy
import Testing

@Suite struct ProtocolDetectorTests {
    static let cases: [(String, ProtocolDetector.Result)] = [
        ("", .needsMore),
        ("G", .needsMore),
        ("GET / HTTP/1.1", .needsMore),
        ("GET / HTTP/1.1\r\n", .found(.http1)),
        ("GET / HTTP/1.0\n", .found(.http1)),
        ("M-SEARCH * HTTP/1.1\r\n", .found(.http1)),
        ("GET / HTTP/1.1 \r\n", .found(.opaque)),
        ("GET /\r\n", .found(.opaque)),
        ("PRI * HTTP/2.0\r\n\r\n", .needsMore),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", .found(.http2)),
        ("PRI * HTTP/1.1\r\n", .found(.http1)),
        ("P", .needsMore),
        ("POST /x HTTP/1.1\r\n", .found(.http1)),
        ("EHLO example.org\r\n", .found(.opaque)),
        ("USER anonymous\r\n", .found(.opaque)),
        ("*1\r\n$4\r\nPING\r\n", .found(.opaque)),
        ("\0\0\0\u{8}", .found(.opaque)),
        ("SSH-2.0-OpenSSH_9.2\r\n", .found(.opaque)),
        ("THISMETHODISFARTOOLONGTOBEAMETHOD / HTTP/1.1\r\n", .found(.opaque)),
        ("\u{16}", .needsMore),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", .found(.tls)),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{2}", .found(.opaque)),
        ("\u{16}\u{2}", .found(.opaque)),
    ]

    @Test(arguments: cases)
    func theFirstBytesTellTheProtocol(_ text: String, _ expected: ProtocolDetector.Result) {
        let bytes = Array(text.utf8)
        #expect(bytes.withUnsafeBytes { ProtocolDetector.detect($0) } == expected)
    }

    /// What has been decided on some bytes is not decided otherwise on more of them.
    @Test(arguments: cases)
    func aDecisionHoldsHoweverManyBytesHaveCome(_ text: String, _ expected: ProtocolDetector.Result) {
        let bytes = Array(text.utf8)
        var decided: ProtocolDetector.Result?
        for count in 0...bytes.count {
            let result = bytes[..<count].withUnsafeBytes { ProtocolDetector.detect($0) }
            if let decided { #expect(result == decided) } else if result != .needsMore { decided = result }
        }
        #expect((decided ?? .needsMore) == expected)
    }
}

@Suite struct ClientHelloTests {
    /// A ClientHello with the given ALPN names behind another extension, in records of at most `recordSize` bytes.
    static func hello(_ names: [String]?, serverName: [UInt8]? = nil, recordSize: Int = 16_000) -> [UInt8] {
        func counted(_ bytes: [UInt8], _ width: Int) -> [UInt8] {
            (0..<width).reversed().map { UInt8(truncatingIfNeeded: bytes.count >> (8 * $0)) } + bytes
        }
        var extensions: [UInt8] = [0, 51] + counted([UInt8](repeating: 9, count: 1216), 2)
        if let serverName { extensions += [0, 0] + counted(counted([0] + counted(serverName, 2), 2), 2) }
        if let names {
            extensions += [0, 16] + counted(counted(names.flatMap { counted(Array($0.utf8), 1) }, 2), 2)
        }
        var body: [UInt8] = [3, 3] + [UInt8](repeating: 5, count: 32)
        body += counted([UInt8](repeating: 6, count: 32), 1)
        body += counted([0x13, 1], 2) + counted([0], 1) + counted(extensions, 2)
        let message: [UInt8] = [1] + counted(body, 3)
        var result: [UInt8] = []
        var rest = message[...]
        while !rest.isEmpty {
            result += [0x16, 3, 1] + counted(Array(rest.prefix(recordSize)), 2)
            rest = rest.dropFirst(recordSize)
        }
        return result
    }

    private func hello(_ names: [String]?, recordSize: Int = 16_000) -> [UInt8] {
        Self.hello(names, recordSize: recordSize)
    }

    private func name(_ bytes: [UInt8]) -> TLSServerName? {
        guard case .hello(let hello) = bytes.withUnsafeBytes({ ClientHello.read($0) }) else { return nil }
        return hello.serverName
    }

    @Test(arguments: [16_000, 100, 1])
    func theServerNameIsRead(_ recordSize: Int) {
        func name(_ text: String) -> TLSServerName? {
            self.name(Self.hello(["h2"], serverName: Array(text.utf8), recordSize: recordSize))
        }
        #expect(name("Shop.example") == .name("shop.example"))
        #expect(name("") == .invalid)
        #expect(name("a\r\nb") == .invalid)
        #expect(name(String(repeating: "x", count: 300)) == .invalid)
        #expect(self.name(Self.hello(nil, recordSize: recordSize)) == .absent)
    }

    /// Before and behind the extension that makes a sidecar known.
    @Test func aNameDoesNotHideASidecar() {
        #expect(inspect(Self.hello(["apus/1"], serverName: Array("x".utf8))) == .mesh)
        #expect(inspect(Self.hello(["apus/1"], serverName: [0])) == .mesh)
    }

    @Test func aHelloWithoutExtensionsIsWhole() {
        let body: [UInt8] = [3, 3] + [UInt8](repeating: 5, count: 32) + [0, 0, 2, 0x13, 1, 1, 0]
        let message: [UInt8] = [1, 0, 0, UInt8(body.count)] + body
        #expect(name([0x16, 3, 1, 0, UInt8(message.count)] + message) == .absent)
    }

    private func inspect(_ bytes: [UInt8]) -> ClientHello.Result { bytes.withUnsafeBytes { ClientHello.inspect($0) } }

    @Test(arguments: [16_000, 100, 7, 1])
    func aSidecarIsKnownByItsProtocolName(_ recordSize: Int) {
        #expect(inspect(hello(["apus/1"], recordSize: recordSize)) == .mesh)
        #expect(inspect(hello(["h2", "apus/1"], recordSize: recordSize)) == .mesh)
        #expect(inspect(hello(["h2", "http/1.1"], recordSize: recordSize)) == .otherTLS)
        #expect(inspect(hello(["apus/12"], recordSize: recordSize)) == .otherTLS)
        #expect(inspect(hello(nil, recordSize: recordSize)) == .otherTLS)
    }

    @Test func everyBeginningWaitsForTheRest() {
        let whole = hello(["apus/1"], recordSize: 300)
        for count in 0..<whole.count - 1 { #expect(inspect(Array(whole[..<count])) == .needsMore, "\(count)") }
    }

    @Test func whatIsNotTLSIsSaidToBeSo() {
        #expect(inspect(Array("GET / HTTP/1.1\r\n".utf8)) == .notTLS)
        #expect(inspect([0x16, 2]) == .notTLS)
        #expect(inspect([0x16, 3, 1, 0, 5, 2]) == .notTLS)
    }

    @Test func damagedHellosNeverTrap() {
        var random = LoopRandom(seed: 3)
        let whole = Self.hello(["h2", "apus/1"], serverName: Array("shop.example".utf8), recordSize: 200)
        for _ in 0..<20_000 {
            var damaged = whole
            for _ in 0...Int(random.next() % 4) {
                damaged[Int(random.next() % UInt64(damaged.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            _ = inspect(Array(damaged.prefix(Int(random.next() % UInt64(damaged.count + 1)))))
        }
    }
}

@Suite struct DetectionPlanTests {
    @Test(
        arguments: [
            (nil, nil, .look(dialAfterMilliseconds: 5)),
            (nil, .serverFirst, .look(dialAfterMilliseconds: 0)),
            (nil, .http1, .look(dialAfterMilliseconds: 40)),
            (nil, .opaque, .look(dialAfterMilliseconds: 40)),
            (.http1, .serverFirst, .look(dialAfterMilliseconds: nil)),
            (.tls, nil, .look(dialAfterMilliseconds: 0)),
            (.opaque, .http1, .settled(.opaque)),
        ] as [(ApplicationProtocol?, LearnedProtocol?, DetectionPlan)])
    func declaredGoesBeforeLearnedAndLearnedBeforeSniffed(
        _ declared: ApplicationProtocol?, _ learned: LearnedProtocol?, _ plan: DetectionPlan
    ) {
        #expect(DetectionPlan.make(declared: declared, learned: learned) == plan)
    }

    /// Or somebody who lies about a port could have its bytes pass unseen.
    @Test(arguments: LearnedProtocol.allCases)
    func nothingThatWasLearnedKeepsBytesFromBeingLookedAt(_ learned: LearnedProtocol) {
        for declared in [nil, ApplicationProtocol.http1, .http2, .grpc] {
            guard case .look = DetectionPlan.make(declared: declared, learned: learned) else {
                Issue.record("\(String(describing: declared)) is settled")
                continue
            }
        }
    }

    private func read(_ bytes: [UInt8], _ declared: ApplicationProtocol?) -> FirstBytes {
        bytes.withUnsafeBytes { FirstBytes.read($0, declared: declared) }
    }

    @Test func declaredHTTPStaysHTTPWhateverItLooksLike() {
        #expect(read([1, 2, 3], .http1) == .found(.http1, nil))
        #expect(read([1, 2, 3], nil) == .found(.opaque, nil))
        #expect(read(Array("GET / HTTP/1.1\r\n".utf8), .tls) == .found(.tls, .invalid))
    }

    @Test func tlsIsFoundWithTheNameItAsksFor() {
        let hello = ClientHelloTests.hello(["h2"], serverName: Array("db.example".utf8))
        #expect(read(hello, nil) == .found(.tls, .name("db.example")))
        #expect(read(hello, .http1) == .found(.tls, .name("db.example")))
        #expect(read(Array(hello.prefix(3)), nil) == .needsMore(else: .opaque))
        #expect(read(Array(hello.prefix(100)), nil) == .needsMore(else: .tls))
    }
}

@Suite struct PrefaceTests {
    private let preface = Preface(
        innerProtocol: .http1, owner: "checkout", app: "checkout", version: "v2", service: "shop/catalog",
        pod: "shop/checkout-5d8f")

    private func parse(_ bytes: [UInt8]) -> Preface.ParseResult { bytes.withUnsafeBytes { Preface.parse($0) } }

    @Test func whatIsWrittenIsRead() {
        let bytes = preface.encoded
        #expect(parse(bytes + [1, 2, 3]) == .parsed(preface, length: bytes.count))
        for count in 0..<bytes.count { #expect(parse(Array(bytes[..<count])) == .needsMore) }
    }

    @Test func unknownTagsAreSkipped() {
        let fields: [UInt8] = [9, 2, 1, 1] + [1, 6] + Array("opaque".utf8)
        #expect(
            parse([0, UInt8(fields.count)] + fields)
                == .parsed(Preface(innerProtocol: .opaque), length: fields.count + 2))
    }

    @Test func malformedPrefacesAreRefused() {
        func isMalformed(_ bytes: [UInt8]) -> Bool { if case .malformed = parse(bytes) { true } else { false } }
        #expect(isMalformed([5, 0]), "longer than the limit")
        #expect(isMalformed([0, 0]), "no inner protocol")
        #expect(isMalformed([0, 1, 1]), "a field without a length")
        #expect(isMalformed([0, 3, 1, 5, 65]), "a field longer than the preface")
        #expect(isMalformed([0, 6, 1, 4] + Array("spdy".utf8)), "an unknown inner protocol")
    }

    @Test func longLabelsAreCutSoThatTheLimitHolds() {
        var long = preface
        long.owner = String(repeating: "o", count: 1000)
        long.app = long.owner
        long.version = long.owner
        long.service = long.owner
        let bytes = long.encoded
        #expect(bytes.count <= Preface.maximumLength + 2)
        guard case .parsed(let read, _) = parse(bytes) else { Issue.record("it does not parse"); return }
        #expect(read.owner.count == 255)
    }
}
