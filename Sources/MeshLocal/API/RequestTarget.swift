import Foundation

/// What a request's path names.
package enum RequestTarget: Hashable, Sendable {
    /// `/healthz`, `/livez`, `/readyz`.
    case health
    case version
    /// `/api` and `/apis`.
    case coreVersions, groups
    case group(String)
    /// `/api/v1` and `/apis/GROUP/VERSION`.
    case resources(group: String, version: String)
    case openAPI
    /// `/openapi/v2`, for clients of before Kubernetes 1.27.
    case formerOpenAPI
    case openAPIDocument(group: String, version: String)
    case resource(ResourcePath)
    case unknown

    package struct ResourcePath: Hashable, Sendable {
        package var group: String
        package var version: String
        package var plural: String
        package var namespace: String?
        package var name: String?
        package var subresource: String?
        /// What follows `/proxy`, with its slash.
        package var rest: String

        package init(
            group: String, version: String, plural: String, namespace: String? = nil, name: String? = nil,
            subresource: String? = nil, rest: String = ""
        ) {
            self.group = group
            self.version = version
            self.plural = plural
            self.namespace = namespace
            self.name = name
            self.subresource = subresource
            self.rest = rest
        }
    }

    /// From a path as it was sent, percent-encoded.
    package init(path: String) {
        let parts = path.split(separator: "/").map { Segment(raw: String($0)) }
        let words = parts.map(\.text)
        switch words.first {
        case "healthz", "livez", "readyz": self = .health
        case "version" where words.count == 1: self = .version
        case "openapi" where words.count == 2 && words[1] == "v3": self = .openAPI
        case "openapi" where words.count == 2 && words[1] == "v2": self = .formerOpenAPI
        case "openapi" where words.count == 4 && words[1] == "v3" && words[2] == "api":
            self = .openAPIDocument(group: "", version: words[3])
        case "openapi" where words.count == 5 && words[1] == "v3" && words[2] == "apis":
            self = .openAPIDocument(group: words[3], version: words[4])
        case "api" where words.count == 1: self = .coreVersions
        case "api":
            self = Self.within(group: "", version: words[1], parts.dropFirst(2), endsInSlash: path.hasSuffix("/"))
        case "apis" where words.count == 1: self = .groups
        case "apis" where words.count == 2: self = .group(words[1])
        case "apis":
            self = Self.within(group: words[1], version: words[2], parts.dropFirst(3), endsInSlash: path.hasSuffix("/"))
        default: self = .unknown
        }
    }

    private struct Segment {
        var raw: String
        var text: String { raw.removingPercentEncoding ?? raw }
    }

    private static func within(
        group: String, version: String, _ parts: ArraySlice<Segment>, endsInSlash: Bool
    ) -> RequestTarget {
        var rest = parts
        guard let first = rest.popFirst()?.text else { return .resources(group: group, version: version) }
        var target = ResourcePath(group: group, version: version, plural: first)
        let isOfNamespace = group.isEmpty && rest.count == 2 && ["status", "finalize"].contains(rest.last?.text)
        if first == "namespaces", rest.count >= 2, !isOfNamespace {
            target.namespace = rest.removeFirst().text
            target.plural = rest.removeFirst().text
        }
        target.name = rest.popFirst()?.text
        target.subresource = rest.popFirst()?.text
        if target.subresource == "proxy" {
            target.rest = "/" + rest.map(\.raw).joined(separator: "/") + (endsInSlash && !rest.isEmpty ? "/" : "")
        } else if !rest.isEmpty {
            return .unknown
        }
        return .resource(target)
    }
}

/// The query of a request; a name may come more than once, as `command` does.
struct RequestQuery: Sendable {
    private var values: [String: [String]] = [:]

    init(_ text: String?) {
        for part in (text ?? "").split(separator: "&").prefix(1_000) {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            values[Self.decoded(pair[0]), default: []].append(pair.count == 2 ? Self.decoded(pair[1]) : "")
        }
    }

    private static func decoded(_ text: Substring) -> String {
        text.replacing("+", with: " ").removingPercentEncoding ?? String(text)
    }

    /// With one more field; a selector that is there already has to match too.
    func adding(_ name: String, _ value: String) -> RequestQuery {
        var query = self
        let present = values[name]?.last.flatMap { $0.isEmpty ? nil : $0 }
        query.values[name] = [present.map { "\($0),\(value)" } ?? value]
        return query
    }

    subscript(name: String) -> String? { values[name]?.last }
    func all(_ name: String) -> [String] { values[name] ?? [] }
    func flag(_ name: String) -> Bool { ["true", "1", ""].contains(values[name]?.last) }
    func int(_ name: String) -> Int? { values[name]?.last.flatMap { Int($0) } }
}
