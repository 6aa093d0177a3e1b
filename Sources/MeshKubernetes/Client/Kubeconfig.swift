import Foundation

/// Reads the file that kubectl and its kin use: clusters, users, contexts.
package enum Kubeconfig {
    /// The file that `KUBECONFIG` names (the first one, when it is a list), else `~/.kube/config`.
    package static func defaultPath(environment: [String: String] = ProcessInfo.processInfo.environment) -> String {
        if let first = environment["KUBECONFIG"]?.split(separator: ":").first { return String(first) }
        return "\(environment["HOME"] ?? "/root")/.kube/config"
    }

    /// - Parameter context: nil takes `current-context`.
    package static func load(path: String, context: String? = nil) throws(ClusterAccessError) -> ClusterAccess {
        let bytes = try ClusterAccess.read(path, purpose: "a kubeconfig")
        let directory = (path as NSString).deletingLastPathComponent
        do {
            return try access(yaml: String(decoding: bytes, as: UTF8.self), context: context, directory: directory)
        } catch {
            throw ClusterAccessError("\(path): \(error.description)")
        }
    }

    /// - Parameter directory: what relative file names are relative to.
    package static func access(yaml: String, context: String?, directory: String) throws(ClusterAccessError)
        -> ClusterAccess
    {
        let document: JSONValue
        do {
            document = try YAMLReader.documents(yaml).first ?? .null
        } catch {
            throw ClusterAccessError(error.description)
        }
        guard let contextName = context ?? document["current-context"]?.string, !contextName.isEmpty else {
            throw ClusterAccessError("no context is given and 'current-context' is not set")
        }
        let contextValues = try entry(contextName, in: document, list: "contexts", member: "context")
        let cluster = try entry(
            contextValues["cluster"]?.string ?? "", in: document, list: "clusters", member: "cluster")
        let user: JSONValue
        if let name = contextValues["user"]?.string, !name.isEmpty {
            user = try entry(name, in: document, list: "users", member: "user")
        } else {
            user = [:]
        }
        guard let server = cluster["server"]?.string, let url = URL(string: server), let scheme = url.scheme,
            url.host != nil,
            scheme == "https" || scheme == "http"
        else {
            throw ClusterAccessError(
                "clusters: 'server' is '\(cluster["server"]?.string ?? "absent")', expected an http or https URL")
        }
        for unsupported in ["exec", "auth-provider", "username"] where user[unsupported] != nil {
            throw ClusterAccessError("users: '\(unsupported)' is not supported; use a token or a client certificate")
        }
        let file = Files(directory: directory)
        var access = ClusterAccess(server: server, namespace: contextValues["namespace"]?.string ?? "default")
        access.certificateAuthority = try file.bytes(cluster, "certificate-authority")
        access.skipsServerVerification = cluster["insecure-skip-tls-verify"]?.bool ?? false
        access.tlsServerName = cluster["tls-server-name"]?.string
        access.clientCertificate = try file.bytes(user, "client-certificate")
        access.clientKey = try file.bytes(user, "client-key")
        guard (access.clientCertificate == nil) == (access.clientKey == nil) else {
            throw ClusterAccessError("users: 'client-certificate' and 'client-key' must be given together")
        }
        if let path = user["tokenFile"]?.string {
            access.token = .file(file.path(path))
        } else if let token = user["token"]?.string {
            access.token = .fixed(token)
        }
        return access
    }

    private static func entry(_ name: String, in document: JSONValue, list: String, member: String)
        throws(ClusterAccessError)
        -> JSONValue
    {
        let entries = document[list]?.array ?? []
        guard let found = entries.first(where: { $0["name"]?.string == name })?[member] else {
            let known = entries.compactMap { $0["name"]?.string }.joined(separator: ", ")
            throw ClusterAccessError("\(list) has no '\(name)'; it has: \(known.isEmpty ? "none" : known)")
        }
        return found
    }

    private struct Files {
        let directory: String

        func path(_ path: String) -> String { path.hasPrefix("/") ? path : "\(directory)/\(path)" }

        /// `<field>-data` in base64, else the file that `<field>` names.
        func bytes(_ values: JSONValue, _ field: String) throws(ClusterAccessError) -> [UInt8]? {
            if let text = values["\(field)-data"]?.string, !text.isEmpty {
                guard let data = Data(base64Encoded: text, options: .ignoreUnknownCharacters), !data.isEmpty else {
                    throw ClusterAccessError("'\(field)-data' is not base64")
                }
                return Array(data)
            }
            guard let name = values[field]?.string, !name.isEmpty else { return nil }
            return try ClusterAccess.read(path(name), purpose: field)
        }
    }
}
