import Foundation
import Testing

/// A pod's port, as an independent TLS client on the host's side finds it.
@Suite("TLS between pods", .serialized, .timeLimit(.minutes(5)))
struct HandshakeTests {
    @Test(
        "openssl is refused without a certificate and with a stranger's, and is shown the SPIFFE ID and answered with one of the mesh"
    )
    func openSSL() async throws {
        try await Platform.with { platform in
            try await platform.apply(
                try Workloads.code(), Workloads.account("web"), Workloads.service("web"), Workloads.server("web"))
            let web = try #require(try await platform.ready(1, "app=web").first)
            let mesh = try await Authority.ofMesh(platform)
            let stranger = try await Authority.made(platform)
            let admitted = try await mesh.leaf("mesh", platform)
            let foreign = try await stranger.leaf("stranger", platform)

            let nobody = try await dial(web, trusting: mesh, with: nil, platform)
            #expect(nobody.text.contains("alert certificate required"), "\(nobody.text)")
            #expect(!nobody.output.contains("HTTP/1.1 "), "\(nobody.text)")

            let other = try await dial(web, trusting: mesh, with: foreign, platform)
            #expect(other.text.contains("tls") && other.text.contains(" alert "), "\(other.text)")
            #expect(!other.output.contains("HTTP/1.1 "), "\(other.text)")

            let member = try await dial(web, trusting: mesh, with: admitted, platform)
            #expect(member.text.contains("ALPN protocol: apus/1"), "\(member.text)")
            #expect(member.text.contains("TLSv1.3"), "\(member.text)")
            #expect(member.text.contains("Verify return code: 0 (ok)"), "\(member.text)")
            #expect(member.output.contains("HTTP/1.1 200 OK"), "\(member.text)")
            #expect(member.output.contains("the-marker-that-nobody-may-read"), "\(member.text)")
            let names = try await platform.must(
                ["openssl", "x509", "-noout", "-ext", "subjectAltName"], input: member.output)
            #expect(names.contains("URI:spiffe://cluster.local/ns/test/sa/web"), "\(names)")
        }
    }

    /// Dials the pod as a sidecar would, and asks for a page once inside. It ends when the pod does.
    private func dial(
        _ pod: JSON, trusting: Authority, with files: (key: String, certificate: String)?, _ platform: Platform
    )
        async throws -> Command
    {
        var words = [
            "timeout", "20", "openssl", "s_client", "-alpn", "apus/1", "-ign_eof", "-CAfile", trusting.certificate,
            "-connect",
            "\(pod.address):8080",
        ]
        if let files { words += ["-key", files.key, "-cert", files.certificate] }
        // The preface: seven bytes, of which field 1 is the inner protocol, five bytes long.
        let request = "\u{0}\u{7}\u{1}\u{5}http1GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"
        return try await Command.run(try platform.inside(words), input: files == nil ? nil : request)
    }
}

/// A certificate authority in files.
private struct Authority {
    let key: String
    let certificate: String

    /// The mesh's, from where its administrator finds it.
    static func ofMesh(_ platform: Platform) async throws -> Authority {
        let secret = try await platform.get("secret", "apus-ca", "-n", "apus-system")
        let data = try #require(Data(base64Encoded: secret["data"]["authority.json"].text))
        let roots = try JSON.parse(String(decoding: data, as: UTF8.self))["roots"].items
        let signing = try #require(roots.first { $0["phase"].text == "signing" })
        let authority = Authority(
            key: platform.directory + "/mesh-ca.key", certificate: platform.directory + "/mesh-ca.pem")
        try Data(signing["privateKey"].text.utf8).write(to: URL(filePath: authority.key))
        try Data(signing["certificate"].text.utf8).write(to: URL(filePath: authority.certificate))
        return authority
    }

    /// One that nobody knows.
    static func made(_ platform: Platform) async throws -> Authority {
        let authority = Authority(
            key: platform.directory + "/other-ca.key", certificate: platform.directory + "/other-ca.pem")
        try await platform.must([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "1",
            "-subj", "/O=cluster.local/CN=another root", "-keyout", authority.key, "-out", authority.certificate,
        ])
        return authority
    }

    /// A pod's certificate, good for an hour or more.
    func leaf(_ name: String, _ platform: Platform) async throws -> (key: String, certificate: String) {
        let path = platform.directory + "/" + name
        let extensions = """
            subjectAltName=critical,URI:spiffe://cluster.local/ns/test/sa/outsider
            basicConstraints=critical,CA:FALSE
            keyUsage=critical,digitalSignature
            extendedKeyUsage=clientAuth,serverAuth
            """
        try Data(extensions.utf8).write(to: URL(filePath: path + ".ext"))
        try await platform.must([
            "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/O=test",
            "-keyout", path + ".key", "-out", path + ".csr",
        ])
        try await platform.must([
            "openssl", "x509", "-req", "-in", path + ".csr", "-CA", certificate, "-CAkey", key, "-set_serial",
            "0x5a5a01",
            "-days", "1", "-extfile", path + ".ext", "-out", path + ".pem",
        ])
        return (path + ".key", path + ".pem")
    }
}
