import Foundation
import MeshCore
import MeshIdentity
import Testing

@Suite("The certificate authority, judged by openssl")
struct CertificateAuthorityTests {
    let now = Timestamp(unixSeconds: Int64(Date().timeIntervalSince1970))
    let identity = SPIFFEID(trustDomain: "cluster.local", namespace: "shop", serviceAccount: "cart")

    func authority(lifetimeSeconds: Int64 = 86_400 * 365) throws -> CertificateAuthority {
        return try CertificateAuthority(
            trustDomain: "cluster.local",
            root: SigningRoot.create(trustDomain: "cluster.local", lifetimeSeconds: lifetimeSeconds, now: now))
    }

    @Test("A leaf verifies against its root, and not against another")
    func verifies() throws {
        let directory = try TemporaryDirectory()
        let authority = try authority()
        let issued = try authority.sign(requestDER: try CertificateRequest().requestDER, identity: identity, now: now)
        try PEM.bundle([authority.rootDER]).write(toFile: directory.path("root.pem"), atomically: true, encoding: .utf8)
        try PEM.bundle(issued.chain).write(toFile: directory.path("leaf.pem"), atomically: true, encoding: .utf8)
        try PEM.bundle([try self.authority().rootDER])
            .write(toFile: directory.path("other.pem"), atomically: true, encoding: .utf8)
        for purpose in ["sslserver", "sslclient"] {
            let good = try openssl(
                "verify", "-x509_strict", "-purpose", purpose, "-CAfile", directory.path("root.pem"),
                directory.path("leaf.pem"))
            #expect(good.status == 0, "\(good.output)")
        }
        let bad = try openssl("verify", "-CAfile", directory.path("other.pem"), directory.path("leaf.pem"))
        #expect(bad.status != 0)
    }

    @Test("A leaf has the fields of an X.509-SVID")
    func fields() throws {
        let directory = try TemporaryDirectory()
        let issued = try authority().sign(requestDER: try CertificateRequest().requestDER, identity: identity, now: now)
        try PEM.bundle(issued.chain).write(toFile: directory.path("leaf.pem"), atomically: true, encoding: .utf8)
        let text = try openssl("x509", "-in", directory.path("leaf.pem"), "-noout", "-text").output
        #expect(text.contains("Subject: \n"))
        #expect(
            text.contains(
                "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/shop/sa/cart\n"
            ))
        #expect(text.contains("X509v3 Basic Constraints: critical\n                CA:FALSE"))
        #expect(text.contains("X509v3 Key Usage: critical\n                Digital Signature\n"))
        #expect(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"))
        #expect(text.contains("prime256v1"))
        #expect(text.contains("ecdsa-with-SHA256"))
        #expect(issued.notAfter.seconds(since: now) == 86_400)
        #expect(issued.notBefore.seconds(since: now) == -30)
    }

    @Test("A serving certificate has its names besides the SPIFFE ID, and its key is PKCS#8 that openssl reads")
    func serving() throws {
        let directory = try TemporaryDirectory()
        let serving = try authority().issueServing(
            identity: identity, dnsNames: ["apus-control.apus-system.svc", "localhost"], now: now)
        try PEM.bundle(serving.certificate.chain).write(
            toFile: directory.path("leaf.pem"), atomically: true, encoding: .utf8)
        try PEM.privateKey(serving.privateKeyDER).write(
            toFile: directory.path("key.pem"), atomically: true, encoding: .utf8)
        let text = try openssl("x509", "-in", directory.path("leaf.pem"), "-noout", "-text").output
        #expect(
            text.contains("URI:spiffe://cluster.local/ns/shop/sa/cart, DNS:apus-control.apus-system.svc, DNS:localhost")
        )
        let fromKey = try openssl("pkey", "-in", directory.path("key.pem"), "-pubout")
        let fromLeaf = try openssl("x509", "-in", directory.path("leaf.pem"), "-noout", "-pubkey")
        #expect(fromKey.status == 0)
        #expect(fromKey.output == fromLeaf.output)
    }

    @Test("Serial numbers are random: 128 bits, none twice in a thousand")
    func serials() throws {
        let authority = try authority()
        let request = try CertificateRequest().requestDER
        var seen: Set<String> = []
        for _ in 0..<1000 {
            seen.insert(try authority.sign(requestDER: request, identity: identity, now: now).serial)
        }
        #expect(seen.count == 1000)
    }

    @Test("A lifetime is what was asked, within one minute and 24 hours, and never past the root's end")
    func lifetimes() throws {
        let request = try CertificateRequest().requestDER
        func seconds(_ asked: Int64?, root: Int64 = 86_400 * 365) throws -> Int64 {
            try authority(lifetimeSeconds: root)
                .sign(requestDER: request, identity: identity, lifetimeSeconds: asked, now: now).notAfter.seconds(
                    since: now)
        }
        #expect(try seconds(nil) == 86_400)
        #expect(try seconds(3600) == 3600)
        #expect(try seconds(1) == 60)
        #expect(try seconds(.max) == 86_400)
        #expect(try seconds(0) == 86_400)
        #expect(try seconds(nil, root: 7200) == 7200)
        #expect(throws: CertificateRefusal.self) { try seconds(nil, root: 30) }
    }

    @Test("A request made by openssl is refused for each thing that the authority does not grant, with the reason")
    func refusals() throws {
        let directory = try TemporaryDirectory()
        let authority = try authority()
        func refusal(_ arguments: [String], key: [String] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]) throws
            -> CertificateRefusal.Reason?
        {
            let made = try openssl(
                ["req", "-new", "-nodes", "-newkey"] + key
                    + ["-keyout", directory.path("key.pem"), "-outform", "DER", "-out", directory.path("request.der")]
                    + arguments)
            #expect(made.status == 0, "\(made.output)")
            let der = Array(try Data(contentsOf: URL(fileURLWithPath: directory.path("request.der"))))
            do {
                _ = try authority.sign(requestDER: der, identity: identity, now: now)
                return nil
            } catch {
                return error.reason
            }
        }
        #expect(try refusal(["-subj", "/"]) == nil)
        #expect(
            try refusal(["-subj", "/", "-addext", "subjectAltName=URI:spiffe://cluster.local/ns/shop/sa/cart"]) == nil)
        #expect(try refusal(["-subj", "/CN=cart"]) == .unexpectedContent)
        #expect(
            try refusal(["-subj", "/", "-addext", "subjectAltName=URI:spiffe://cluster.local/ns/shop/sa/till"])
                == .unexpectedContent)
        #expect(
            try refusal(["-subj", "/", "-addext", "subjectAltName=URI:spiffe://cluster.local/ns/shop/sa/cart,DNS:till"])
                == .unexpectedContent)
        #expect(try refusal(["-subj", "/", "-addext", "basicConstraints=CA:true"]) == .unexpectedContent)
        #expect(try refusal(["-subj", "/"], key: ["rsa:2048"]) == .unsupportedKey)
        #expect(try refusal(["-subj", "/"], key: ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]) == .unsupportedKey)
    }

    @Test("A damaged request is refused, whichever byte is wrong, and nothing traps")
    func damaged() throws {
        let authority = try authority()
        let request = try CertificateRequest().requestDER
        for index in request.indices {
            var damaged = request
            damaged[index] ^= 0x5a
            #expect(throws: CertificateRefusal.self, "byte \(index)") {
                try authority.sign(requestDER: damaged, identity: identity, now: now)
            }
        }
        for count in stride(from: 0, to: request.count, by: 3) {
            #expect(throws: CertificateRefusal.self) {
                try authority.sign(requestDER: Array(request.prefix(count)), identity: identity, now: now)
            }
        }
        #expect(throws: CertificateRefusal.self) {
            try authority.sign(requestDER: Array(repeating: 0x30, count: 1 << 16), identity: identity, now: now)
        }
    }

    @Test("An identity of another trust domain is not certified")
    func foreign() throws {
        let request = try CertificateRequest().requestDER
        #expect(throws: CertificateRefusal.self) {
            try authority().sign(
                requestDER: request, identity: SPIFFEID(trustDomain: "other", namespace: "a", serviceAccount: "b"),
                now: now)
        }
    }

    @Test("The verifier of documents agrees with the authority, and tells what is wrong")
    func verifier() throws {
        let authority = try authority()
        let issued = try authority.sign(requestDER: try CertificateRequest().requestDER, identity: identity, now: now)
        let leaf = try #require(issued.chain.first)
        let found = try SVIDVerifier.verify(
            leafDER: leaf, roots: [try self.authority().rootDER, authority.rootDER],
            allowedTrustDomains: ["cluster.local"],
            now: now)
        #expect(found.identity == identity)
        #expect(found.notAfter == issued.notAfter)
        func failure(roots: [[UInt8]], domains: Set<String> = ["cluster.local"], at moment: Timestamp) -> String? {
            do throws(SVIDVerifier.Failure) {
                _ = try SVIDVerifier.verify(leafDER: leaf, roots: roots, allowedTrustDomains: domains, now: moment)
                return nil
            } catch {
                return error.description
            }
        }
        let roots = [authority.rootDER]
        #expect(failure(roots: roots, at: now) == nil)
        #expect(failure(roots: [], at: now)?.contains("none of 0 roots") == true)
        #expect(failure(roots: roots, domains: ["other"], at: now)?.contains("not trusted") == true)
        #expect(failure(roots: roots, at: now.advanced(bySeconds: 90_000))?.contains("ended at") == true)
        #expect(failure(roots: roots, at: now.advanced(bySeconds: -90)) != nil)
        #expect(failure(roots: [leaf], at: now)?.contains("none of 1 roots") == true)
        #expect(throws: SVIDVerifier.Failure.self) {
            try SVIDVerifier.verify(
                leafDER: authority.rootDER, roots: roots, allowedTrustDomains: ["cluster.local"], now: now)
        }
    }
}
