import FoundationEssentials
import Glibc
import MeshCore
import MeshIO
import MeshIdentity

/// The sidecar's certificate and key in its own volume in memory, so that a restart while the control plane is away keeps its identity.
/// The key never leaves the pod: the volume is mounted by the sidecar alone.
struct StoredIdentity: Codable {
    var certificates: String
    var privateKey: String
    var notBefore: Timestamp
    var notAfter: Timestamp

    private static let limitBytes = 64 * 1024

    static func load(folder: String) -> StoredIdentity? {
        guard let data = FileManager.default.contents(atPath: path(folder)), data.count <= limitBytes else {
            return nil
        }
        return try? JSONDecoder().decode(StoredIdentity.self, from: data)
    }

    /// Whole or not at all: written beside and renamed. A failure is told to the caller's log and costs only what a restart would gain.
    func save(folder: String) -> String? {
        guard let data = try? JSONEncoder().encode(self) else { return "it cannot be encoded" }
        let target = StoredIdentity.path(folder)
        let draft = target + ".new"
        let descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return String(cString: strerror(errno)) }
        let bytes = [UInt8](data)
        let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
        guard written == bytes.count, rename(draft, target) == 0 else { return String(cString: strerror(errno)) }
        return nil
    }

    var tlsIdentity: TLSContext.Identity? {
        guard let chain = try? PEM.certificates(in: certificates), !chain.isEmpty,
            let key = try? PEM.privateKey(in: privateKey)
        else { return nil }
        return TLSContext.Identity(chain: chain, privateKeyDER: key)
    }

    private static func path(_ folder: String) -> String { "\(folder)/identity.json" }
}
