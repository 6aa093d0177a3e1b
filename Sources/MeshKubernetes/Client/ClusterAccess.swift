import Foundation

/// Where an API server is and how to prove who is asking.
package struct ClusterAccess: Sendable {
    package enum Token: Sendable {
        case none
        case fixed(String)
        /// Read again while the program runs: the platform exchanges a service account's token within the hour.
        case file(String)
    }

    /// `https://10.96.0.1:443`, without a slash at its end.
    package var server: String
    /// PEM of the roots that verify the server; nil leaves the system's.
    package var certificateAuthority: [UInt8]?
    package var token: Token
    /// PEM of the client's certificate chain and key.
    package var clientCertificate: [UInt8]?
    package var clientKey: [UInt8]?
    /// The name that the server's certificate must have when it is not the URL's host.
    package var tlsServerName: String?
    package var skipsServerVerification: Bool
    /// The namespace that commands use when none is given.
    package var namespace: String

    package init(
        server: String, certificateAuthority: [UInt8]? = nil, token: Token = .none, clientCertificate: [UInt8]? = nil,
        clientKey: [UInt8]? = nil, tlsServerName: String? = nil, skipsServerVerification: Bool = false,
        namespace: String = "default"
    ) {
        self.server = server.hasSuffix("/") ? String(server.dropLast()) : server
        self.certificateAuthority = certificateAuthority
        self.token = token
        self.clientCertificate = clientCertificate
        self.clientKey = clientKey
        self.tlsServerName = tlsServerName
        self.skipsServerVerification = skipsServerVerification
        self.namespace = namespace
    }
}

/// Why no API server can be reached with what was given, in words for the operator.
package struct ClusterAccessError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

extension ClusterAccess {
    package static let serviceAccountDirectory = "/var/run/secrets/kubernetes.io/serviceaccount"

    /// As a pod: address from the environment, token and roots from the mounted service account.
    package static func inCluster(
        environment: [String: String] = ProcessInfo.processInfo.environment, directory: String = serviceAccountDirectory
    ) throws(ClusterAccessError) -> ClusterAccess {
        guard let host = environment["KUBERNETES_SERVICE_HOST"], !host.isEmpty else {
            throw ClusterAccessError("KUBERNETES_SERVICE_HOST is not set: not in a pod; give a kubeconfig instead")
        }
        let port = environment["KUBERNETES_SERVICE_PORT"] ?? "443"
        guard let number = UInt16(port), number > 0 else {
            throw ClusterAccessError("KUBERNETES_SERVICE_PORT is '\(port)', expected a port from 1 to 65535")
        }
        let authority = try read("\(directory)/ca.crt", purpose: "the API server's roots")
        let namespace = (try? read("\(directory)/namespace", purpose: "")).map { String(decoding: $0, as: UTF8.self) }
        return ClusterAccess(
            server: "https://\(host.contains(":") ? "[\(host)]" : host):\(number)", certificateAuthority: authority,
            token: .file("\(directory)/token"),
            namespace: namespace?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "default")
    }

    static let fileLimitBytes = 1 << 20

    static func read(_ path: String, purpose: String) throws(ClusterAccessError) -> [UInt8] {
        guard let handle = FileHandle(forReadingAtPath: path) else {
            throw ClusterAccessError("\(path) cannot be read: it should hold \(purpose)")
        }
        defer { try? handle.close() }
        guard let data = try? handle.read(upToCount: fileLimitBytes + 1), !data.isEmpty, data.count <= fileLimitBytes
        else {
            throw ClusterAccessError(
                "\(path) is empty or longer than \(fileLimitBytes) bytes: it should hold \(purpose)")
        }
        return Array(data)
    }
}
