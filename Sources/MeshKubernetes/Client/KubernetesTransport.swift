import AsyncHTTPClient
import Foundation
import Logging
import NIOCore
import NIOFoundationCompat
import NIOHTTP1
import NIOSSL

/// What a client waits for and holds at most.
package struct ClientLimits: Sendable {
    package var connectTimeoutMilliseconds: Int64 = 5_000
    /// A whole call, its body included.
    package var callTimeoutMilliseconds: Int64 = 30_000
    /// A watch without a byte; a server sends a bookmark about every minute.
    package var watchIdleTimeoutMilliseconds: Int64 = 90_000
    /// How long the server is asked to keep a watch open.
    package var watchSeconds = 300
    package var connections = 32
    /// Each watch and followed log holds one, unless the server speaks HTTP/2.
    package var streamConnections = 64
    package var pageItems = 500
    package var listItems = 1_000_000
    package var responseBytes = 64 << 20
    package var lineBytes = 8 << 20

    package init() {}
}

/// One call of the API, whatever it is.
package struct APIRequest: Sendable {
    package var method: String
    /// Below the server's root; its segments are already escaped (`APIRequest.segment`).
    package var path: String
    package var query: [(name: String, value: String)]
    package var body: [UInt8]?
    package var contentType: String
    package var accept: String

    package init(
        _ method: String, _ path: String, query: [(name: String, value: String)] = [], body: [UInt8]? = nil,
        contentType: String = "application/json", accept: String = "application/json"
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.contentType = contentType
        self.accept = accept
    }

    private static let unreserved = CharacterSet(
        charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

    /// A name as one segment of a path, or as a value of a query.
    package static func segment(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: unreserved) ?? ""
    }

    var target: String {
        guard !query.isEmpty else { return path }
        return path + "?" + query.map { "\($0.name)=\(APIRequest.segment($0.value))" }.joined(separator: "&")
    }
}

/// An answer of any status.
package struct APIResponse: Sendable {
    package var status: Int
    package var contentType: String
    package var body: [UInt8]
}

/// Sends calls to one API server: connections, TLS, tokens, deadlines; knows no kinds.
final class KubernetesTransport: Sendable {
    let limits: ClientLimits
    private let server: String
    private let token: TokenCache
    private let calls: HTTPClient
    private let watches: HTTPClient
    private let logs: HTTPClient
    private let logger: Logger

    init(_ access: ClusterAccess, limits: ClientLimits, logger: Logger) throws(ClusterAccessError) {
        self.limits = limits
        self.logger = logger
        token = TokenCache(access.token)
        var configuration = HTTPClient.Configuration()
        configuration.tlsConfiguration = try KubernetesTransport.tls(access)
        configuration.redirectConfiguration = .disallow
        configuration.timeout.connect = .milliseconds(limits.connectTimeoutMilliseconds)
        configuration.timeout.read = .milliseconds(limits.callTimeoutMilliseconds)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = limits.connections
        // The callers retry with a back-off of their own, and want to know the reason at once.
        configuration.connectionPool.retryConnectionEstablishment = false
        var server = access.server
        if let name = access.tlsServerName, let url = URLComponents(string: server), let host = url.host {
            var renamed = url
            renamed.host = name
            configuration.dnsOverride = [name: host]
            server = renamed.string ?? server
        }
        self.server = server
        calls = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        configuration.timeout.read = .milliseconds(limits.watchIdleTimeoutMilliseconds)
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = limits.streamConnections
        watches = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        configuration.timeout.read = nil
        logs = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    func shutdown() async {
        try? await calls.shutdown()
        try? await watches.shutdown()
        try? await logs.shutdown()
    }

    private static func tls(_ access: ClusterAccess) throws(ClusterAccessError) -> TLSConfiguration {
        var tls = TLSConfiguration.makeClientConfiguration()
        do {
            if let authority = access.certificateAuthority {
                tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(authority))
            }
            if let chain = access.clientCertificate, let key = access.clientKey {
                tls.certificateChain = try NIOSSLCertificate.fromPEMBytes(chain).map { .certificate($0) }
                tls.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: key, format: .pem))
            }
        } catch {
            throw ClusterAccessError("the certificates or the key for \(access.server) are not PEM: \(error)")
        }
        if access.skipsServerVerification { tls.certificateVerification = .none }
        return tls
    }

    /// Any answer, whatever its status; a refused token is read again once.
    func call(_ request: APIRequest, purpose: String) async throws -> APIResponse {
        try await withDeadline(purpose) { [self] in
            let response = try await send(request, over: calls, purpose: purpose)
            let body = try await response.body.collect(upTo: limits.responseBytes)
            return APIResponse(
                status: Int(response.status.code), contentType: response.headers.first(name: "content-type") ?? "",
                body: Array(body.readableBytesView))
        }
    }

    /// The parts of a successful answer's body, pulled one by one: what is not read is not sent.
    /// - Parameter mayBeQuiet: a log may say nothing for hours; a watch that does so is dead.
    func stream(_ request: APIRequest, purpose: String, mayBeQuiet: Bool) async throws -> HTTPClientResponse.Body {
        do {
            let response = try await send(request, over: mayBeQuiet ? logs : watches, purpose: purpose)
            guard response.status.code == 200 else {
                let body = try await response.body.collect(upTo: 1 << 20)
                throw StatusError(
                    status: Int(response.status.code), body: Array(body.readableBytesView), purpose: purpose)
            }
            return response.body
        } catch {
            throw StatusError.from(error, purpose: purpose)
        }
    }

    private func send(_ request: APIRequest, over client: HTTPClient, purpose: String) async throws
        -> HTTPClientResponse
    {
        let response = try await attempt(request, over: client)
        guard response.status == .unauthorized, token.canChange else { return response }
        token.forget()
        logger.info("the API server refused the token; reading it again", metadata: ["purpose": "\(purpose)"])
        return try await attempt(request, over: client)
    }

    private func attempt(_ request: APIRequest, over client: HTTPClient) async throws -> HTTPClientResponse {
        var message = HTTPClientRequest(url: server + request.target)
        message.method = HTTPMethod(rawValue: request.method)
        message.headers.add(name: "accept", value: request.accept)
        message.headers.add(name: "user-agent", value: "apus")
        if let token = try token.token() { message.headers.add(name: "authorization", value: "Bearer \(token)") }
        if let body = request.body {
            message.headers.add(name: "content-type", value: request.contentType)
            message.body = .bytes(body, length: .known(Int64(body.count)))
        }
        // The head's deadline: a stream's body may go on for as long as it has something to say.
        return try await client.execute(message, timeout: .milliseconds(limits.callTimeoutMilliseconds))
    }

    private func withDeadline<Result: Sendable>(
        _ purpose: String, _ operation: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        let milliseconds = limits.callTimeoutMilliseconds
        do {
            return try await withThrowingTaskGroup(of: Result.self) { group in
                group.addTask(operation: operation)
                group.addTask {
                    try await Task.sleep(for: .milliseconds(milliseconds))
                    throw StatusError(
                        code: 504, reason: "Timeout", message: "\(purpose): no whole answer within \(milliseconds) ms")
                }
                defer { group.cancelAll() }
                guard let first = try await group.next() else { throw CancellationError() }
                return first
            }
        } catch {
            if Task.isCancelled { throw CancellationError() }
            throw StatusError.from(error, purpose: purpose)
        }
    }
}

// MARK: - Failures

extension StatusError {
    /// From an answer that is no success: its `Status` document, or the first words of whatever it is.
    init(status: Int, body: [UInt8], purpose: String) {
        if let json = try? JSONValue(parsing: body), json["kind"]?.string == "Status" {
            self.init(
                code: json["code"]?.int ?? status, reason: json["reason"]?.string ?? "Unknown",
                message: "\(purpose): \(json["message"]?.string ?? "status \(status)")", details: json["details"])
        } else {
            let words = String(decoding: body.prefix(200), as: UTF8.self).replacing("\n", with: " ")
            self.init(
                code: status, reason: StatusError.reason(status), message: "\(purpose): status \(status) \(words)")
        }
    }

    /// The API's own word for a status that came without one.
    static func reason(_ status: Int) -> String {
        switch status {
        case 400: "BadRequest"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "NotFound"
        case 405: "MethodNotAllowed"
        case 409: "Conflict"
        case 410: "Expired"
        case 413: "RequestEntityTooLarge"
        case 415: "UnsupportedMediaType"
        case 422: "Invalid"
        case 429: "TooManyRequests"
        case 500: "InternalError"
        case 503: "ServiceUnavailable"
        case 504: "Timeout"
        default: "Unknown"
        }
    }

    /// A failure on the way: `Unreachable` with code 503 when no answer came, as it is when it already has a status.
    static func from(_ error: any Error, purpose: String) -> any Error {
        switch error {
        case is CancellationError: return error
        case let error as StatusError: return error
        case let error as HTTPClientError where error == .cancelled: return CancellationError()
        case let error as HTTPClientError where error == .deadlineExceeded || error == .readTimeout:
            return StatusError(code: 504, reason: "Timeout", message: "\(purpose): no answer in time")
        case let error as ClusterAccessError:
            return StatusError(code: 401, reason: "Unauthorized", message: "\(purpose): \(error)")
        default:
            return StatusError(code: 503, reason: "Unreachable", message: "\(purpose): \(error)")
        }
    }
}
