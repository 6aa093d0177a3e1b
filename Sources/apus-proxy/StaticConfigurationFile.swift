import Foundation
import MeshProxy
import Yams

/// Reads the YAML of `run --config`, refusing members that mean nothing.
enum StaticConfigurationFile {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    static func load(_ path: String) throws -> StaticConfiguration {
        let text: String
        do { text = try String(contentsOfFile: path, encoding: .utf8) } catch {
            throw Failure(description: "\(path) cannot be read: \(error.localizedDescription)")
        }
        do {
            guard let root = try compose(yaml: text) else { throw Failure(description: "\(path) is empty") }
            try check(root, path: [])
            return try YAMLDecoder().decode(StaticConfiguration.self, from: text)
        } catch let error as Failure {
            throw Failure(description: "\(path): \(error.description)")
        } catch {
            throw Failure(description: "\(path): \(error)")
        }
    }

    private static func check(_ node: Node, path: [String]) throws {
        switch node {
        case .mapping(let mapping):
            let pattern = path.joined(separator: ".")
            for (key, value) in mapping {
                let name = key.string ?? ""
                if let allowed = StaticConfiguration.members[pattern], !allowed.contains(name) {
                    throw Failure(
                        description:
                            "\((path + [name]).joined(separator: ".")): there is no such setting; expected one of "
                            + allowed.sorted().joined(separator: ", "))
                }
                try check(value, path: path + [name])
            }
        case .sequence(let sequence):
            for element in sequence { try check(element, path: path + ["*"]) }
        case .scalar, .alias:
            break
        }
    }
}
