import Foundation
import MeshKubernetes
import Testing

@Suite struct AccessTests {
    /// A folder that is there while `body` runs.
    static func inFolder(_ files: [String: String], _ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("apus-access-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        for (name, text) in files { try Data(text.utf8).write(to: folder.appendingPathComponent(name)) }
        try body(folder.path)
    }

    static let yaml = """
        apiVersion: v1
        kind: Config
        current-context: local
        clusters:
        - name: local
          cluster: {server: "https://127.0.0.1:6443/", certificate-authority-data: \(Data("ROOTS".utf8).base64EncodedString())}
        - name: files
          cluster: {server: "https://10.0.0.1:6443", certificate-authority: ca.pem, tls-server-name: kubernetes, insecure-skip-tls-verify: true}
        contexts:
        - name: local
          context: {cluster: local, user: admin, namespace: shop}
        - name: files
          context: {cluster: files, user: file-user}
        - name: lost
          context: {cluster: gone}
        - name: cloud
          context: {cluster: local, user: cloud}
        - name: half
          context: {cluster: local, user: half}
        users:
        - name: admin
          user: {token: secret}
        - name: file-user
          user: {tokenFile: token, client-certificate: cert.pem, client-key: key.pem}
        - name: cloud
          user: {exec: {command: login}}
        - name: half
          user: {client-certificate-data: QUFB}
        """

    @Test func aContextIsReadWithItsData() throws {
        let access = try Kubeconfig.access(yaml: Self.yaml, context: nil, directory: "/nowhere")
        #expect(access.server == "https://127.0.0.1:6443")
        #expect(access.certificateAuthority == Array("ROOTS".utf8))
        #expect(access.namespace == "shop")
        guard case .fixed("secret") = access.token else { return #expect(Bool(false), "\(access.token)") }
    }

    @Test func filesAreRelativeToTheKubeconfig() throws {
        try Self.inFolder(["config": Self.yaml, "ca.pem": "CA", "cert.pem": "CERT", "key.pem": "KEY", "token": "t"]) {
            folder in
            let access = try Kubeconfig.load(path: "\(folder)/config", context: "files")
            #expect(access.certificateAuthority == Array("CA".utf8))
            #expect(access.clientCertificate == Array("CERT".utf8))
            #expect(access.clientKey == Array("KEY".utf8))
            #expect(access.tlsServerName == "kubernetes")
            #expect(access.skipsServerVerification)
            #expect(access.namespace == "default")
            guard case .file("\(folder)/token") = access.token else { return #expect(Bool(false), "\(access.token)") }
        }
    }

    @Test(arguments: [
        ("nope", "contexts has no 'nope'; it has: local, files, lost, cloud, half"),
        ("lost", "clusters has no 'gone'; it has: local, files"),
        ("files", "/nowhere/ca.pem cannot be read"), ("cloud", "'exec' is not supported"),
        ("half", "must be given together"),
    ])
    func aContextThatCannotBeUsedSaysWhy(context: String, reason: String) {
        let error = #expect(throws: ClusterAccessError.self) {
            try Kubeconfig.access(yaml: Self.yaml, context: context, directory: "/nowhere")
        }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test(arguments: [
        ("", "'current-context' is not set"), ("a: [", "not YAML"),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: 'ftp://x'}}]",
            "'server' is 'ftp://x'"
        ),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: 'https://x', certificate-authority-data: '***'}}]",
            "'certificate-authority-data' is not base64"
        ),
    ])
    func aFileThatIsNoKubeconfigSaysWhy(yaml: String, reason: String) {
        let error = #expect(throws: ClusterAccessError.self) {
            try Kubeconfig.access(yaml: yaml, context: nil, directory: "/nowhere")
        }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func aPodFindsItsServer() throws {
        try Self.inFolder(["ca.crt": "ROOTS", "token": "t", "namespace": "shop\n"]) { folder in
            let access = try ClusterAccess.inCluster(
                environment: ["KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"],
                directory: folder)
            #expect(access.server == "https://[fd00::1]:6443")
            #expect(access.namespace == "shop")
            #expect(throws: ClusterAccessError.self) {
                try ClusterAccess.inCluster(environment: [:], directory: folder)
            }
            #expect(throws: ClusterAccessError.self) {
                try ClusterAccess.inCluster(
                    environment: ["KUBERNETES_SERVICE_HOST": "a", "KUBERNETES_SERVICE_PORT": "99999"], directory: folder
                )
            }
            #expect(throws: ClusterAccessError.self) {
                try ClusterAccess.inCluster(environment: ["KUBERNETES_SERVICE_HOST": "a"], directory: "\(folder)/none")
            }
        }
    }

    @Test func certificatesThatAreNoneAreRefused() {
        #expect(throws: ClusterAccessError.self) {
            try KubernetesClient(
                ClusterAccess(server: "https://127.0.0.1:1", certificateAuthority: Array("nonsense".utf8)))
        }
    }

    @Test(arguments: [
        (["KUBECONFIG": "/a:/b", "HOME": "/h"], "/a"), (["HOME": "/h"], "/h/.kube/config"),
        (["KUBECONFIG": "", "HOME": "/h"], "/h/.kube/config"),
    ])
    func theDefaultPathIsKubectls(environment: [String: String], path: String) {
        #expect(Kubeconfig.defaultPath(environment: environment) == path)
    }
}
