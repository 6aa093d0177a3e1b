package import MeshCore

/// What two sidecars call the protocol between them.
package enum MeshProtocol {
    package static let alpn = "apus/1"
    static var alpnBytes: StaticString { "apus/1" }
}

/// The first bytes inside a connection between two sidecars: what the application speaks, and who says to be calling
/// (docs/ARCHITECTURE.md, «Between two sidecars»). The labels name; the certificate decides.
package struct Preface: Sendable, Equatable {
    package enum InnerProtocol: String, Sendable {
        case http1
        case http2
        /// TLS of the application's own.
        case tls
        case opaque
        /// The client is silent: whichever side speaks first decides.
        case undecided

        package init(_ proto: ApplicationProtocol) {
            switch proto {
            case .http1: self = .http1
            case .http2, .grpc: self = .http2
            case .tls: self = .tls
            case .opaque: self = .opaque
            }
        }
    }

    /// Two bytes of length and this many of fields.
    package static let maximumLength = 1024

    package var innerProtocol: InnerProtocol
    package var owner: String
    package var app: String
    package var version: String
    /// `namespace/name` of the service dialled; empty when an address was dialled.
    package var service: String
    /// `namespace/name` of the calling pod.
    package var pod: String

    package init(
        innerProtocol: InnerProtocol, owner: String = "", app: String = "", version: String = "", service: String = "",
        pod: String = ""
    ) {
        self.innerProtocol = innerProtocol
        self.owner = owner
        self.app = app
        self.version = version
        self.service = service
        self.pod = pod
    }

    package enum ParseResult: Sendable, Equatable {
        case needsMore
        /// The preface and how many bytes it took.
        case parsed(Preface, length: Int)
        case malformed(String)
    }

    /// A label longer than 255 bytes is cut: Kubernetes' own names are shorter.
    package var encoded: [UInt8] {
        var fields: [UInt8] = []
        func append(_ tag: UInt8, _ text: String) {
            guard !text.isEmpty else { return }
            let bytes = Array(text.utf8.prefix(255))
            guard fields.count + bytes.count + 2 <= Preface.maximumLength else { return }
            fields.append(tag)
            fields.append(UInt8(bytes.count))
            fields.append(contentsOf: bytes)
        }
        append(1, innerProtocol.rawValue)
        append(2, owner)
        append(3, app)
        append(4, version)
        append(5, service)
        append(6, pod)
        return [UInt8(fields.count >> 8), UInt8(fields.count & 255)] + fields
    }

    package static func parse(_ bytes: UnsafeRawBufferPointer) -> ParseResult {
        guard bytes.count >= 2 else { return .needsMore }
        let length = Int(bytes[0]) << 8 | Int(bytes[1])
        guard length <= maximumLength else {
            return .malformed("a preface of \(length) bytes; \(maximumLength) at most")
        }
        guard bytes.count >= 2 + length else { return .needsMore }
        var inner: InnerProtocol?
        var preface = Preface(innerProtocol: .opaque)
        var position = 2
        while position < 2 + length {
            guard position + 2 <= 2 + length else { return .malformed("a field without a length") }
            let tag = bytes[position]
            let size = Int(bytes[position + 1])
            position += 2
            guard position + size <= 2 + length else { return .malformed("field \(tag) is longer than the preface") }
            let text = String(decoding: bytes[position..<position + size], as: UTF8.self)
            position += size
            switch tag {
            case 1:
                guard let known = InnerProtocol(rawValue: text) else {
                    return .malformed("inner protocol '\(text)'; http1, http2, tls, opaque or undecided was expected")
                }
                inner = known
            case 2: preface.owner = text
            case 3: preface.app = text
            case 4: preface.version = text
            case 5: preface.service = text
            case 6: preface.pod = text
            default: break
            }
        }
        guard let inner else { return .malformed("no inner protocol") }
        preface.innerProtocol = inner
        return .parsed(preface, length: 2 + length)
    }
}
