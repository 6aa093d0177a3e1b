import FoundationEssentials

/// The application's probes as its author wrote them, by container and kind: what the sidecar performs when the platform asks its
/// health port (docs/decisions/0005-probes-by-rewriting.md).
package struct ProbeTable: Sendable, Equatable {
    package struct Invalid: Error, CustomStringConvertible {
        package let description: String
    }

    package struct Probe: Sendable, Equatable, Decodable {
        package struct HTTPGet: Sendable, Equatable, Decodable {
            package struct Header: Sendable, Equatable, Decodable {
                package var name: String
                package var value: String
            }
            package var path: String?
            package var port: UInt16
            package var host: String?
            package var scheme: String?
            package var httpHeaders: [Header]?
        }
        package struct TCPSocket: Sendable, Equatable, Decodable {
            package var port: UInt16
            package var host: String?
        }
        package struct GRPC: Sendable, Equatable, Decodable {
            package var port: UInt16
            package var service: String?
        }
        package var httpGet: HTTPGet?
        package var tcpSocket: TCPSocket?
        package var grpc: GRPC?
        package var timeoutSeconds: Int?
    }

    /// Container → `startup`, `liveness` or `readiness` → probe.
    private var probes: [String: [String: Probe]]

    package init(json: String) throws(Invalid) {
        guard !json.isEmpty else {
            probes = [:]
            return
        }
        do {
            probes = try JSONDecoder().decode([String: [String: Probe]].self, from: Data(json.utf8))
        } catch {
            throw Invalid(description: "\(error)")
        }
    }

    /// The probe of `/apus/probe/<container>/<kind>`; nil for any other path.
    package func probe(path: String) -> Probe? {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[0].isEmpty, parts[1] == "apus", parts[2] == "probe" else { return nil }
        return probes[String(parts[3])]?[String(parts[4])]
    }
}
