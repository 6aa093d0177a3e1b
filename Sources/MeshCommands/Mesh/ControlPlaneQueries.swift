import Foundation
import MeshCore
import MeshKubernetes

/// Asks the control plane through the API server's proxy, which is there on either platform and checks who asks.
struct ControlPlaneQueries {
    static let namespace = "apus-system"
    static let service = "apus-control"
    static let port: UInt16 = 15014
    let client: KubernetesClient

    func get<Report: Decodable>(_ path: String, query: [(name: String, value: String)] = [], as type: Report.Type)
        async throws -> Report
    {
        let response: APIResponse
        do {
            response = try await client.proxyGet(
                .service, namespace: ControlPlaneQueries.namespace, name: ControlPlaneQueries.service,
                port: ControlPlaneQueries.port,
                path: "/api/v1/\(path)", query: query)
        } catch {
            throw CommandFailure("the control plane cannot be asked: \(error). See 'apus check'")
        }
        guard response.status == 200 else {
            let text = String(decoding: response.body.prefix(400), as: UTF8.self)
            let message = (try? JSONValue(parsing: Data(response.body)))?["message"]?.string ?? text
            throw CommandFailure("the control plane answered \(response.status): \(message). See 'apus check'")
        }
        do {
            return try JSONDecoder().decode(Report.self, from: Data(response.body))
        } catch {
            throw CommandFailure(
                "the control plane's answer to '\(path)' cannot be read: \(error). Is it of another version than this apus?"
            )
        }
    }
}

extension Encodable {
    /// As `-o json` prints it.
    func prettyJSON() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
    }
}
