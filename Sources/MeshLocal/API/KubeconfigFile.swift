import Foundation
import MeshKubernetes

/// The file with which `kubectl` and `apus` find the platform.
enum KubeconfigFile {
    static func text(server: String, authorityPEM: String, token: String) -> String {
        """
        apiVersion: v1
        kind: Config
        clusters:
        - name: apus
          cluster:
            server: \(server)
            certificate-authority-data: \(Array(authorityPEM.utf8).base64)
        users:
        - name: admin
          user:
            token: \(token)
        contexts:
        - name: apus
          context:
            cluster: apus
            user: admin
        current-context: apus

        """
    }

    /// Written beside and renamed, so that nobody reads half of it, and never readable by anyone else.
    static func write(_ text: String, to path: String) throws {
        let temporary = "\(path).\(UInt32.random(in: 0 ... .max))"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure(path) }
        let bytes = Array(text.utf8)
        let written = bytes.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
        guard written == bytes.count, rename(temporary, path) == 0 else {
            unlink(temporary)
            throw failure(path)
        }
    }

    private static func failure(_ path: String) -> StatusError {
        StatusError.internalError("cannot write the kubeconfig \(path): \(String(cString: strerror(errno)))")
    }
}
