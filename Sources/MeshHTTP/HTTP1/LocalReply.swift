/// Responses that we make ourselves, as bytes ready to send.
package enum LocalReply {
    /// Tells a client to go on with its body (RFC 9110 §15.2.1).
    package static let continueHead: StaticString = "HTTP/1.1 100 Continue\r\n\r\n"

    /// A whole response.
    ///
    /// - Parameters:
    ///   - reasonCode: written as the field `apus-reason` when given; of lower-case letters, digits and `_`.
    ///   - contentType: of the body; ignored without one.
    ///   - closes: whether `Connection: close` tells that this exchange is the connection's last. When it is not and the
    ///     request was HTTP/1.0, the reply says `keep-alive`, since that version's default is to close.
    ///   - request: for HEAD the body's length is told but the body not sent (RFC 9110 §9.3.2).
    ///   - fields: further field lines, each with its CRLF.
    package static func bytes(
        status: Int, reasonCode: String? = nil, body: [UInt8] = [], contentType: String = "text/plain; charset=utf-8",
        closes: Bool, answering request: RequestTraits = [], fields: String = ""
    ) -> [UInt8] {
        let mayHaveBody = status >= 200 && status != 204 && status != 304
        var reply: [UInt8] = []
        reply.reserveCapacity(256 + body.count + fields.utf8.count)
        reply.append(contentsOf: "HTTP/1.1 \(status) \(phrase(of: status))\r\n".utf8)
        if let reasonCode { reply.append(contentsOf: "apus-reason: \(reasonCode)\r\n".utf8) }
        if mayHaveBody {
            if !body.isEmpty { reply.append(contentsOf: "Content-Type: \(contentType)\r\n".utf8) }
            reply.append(contentsOf: "Content-Length: \(body.count)\r\n".utf8)
        }
        reply.append(contentsOf: fields.utf8)
        if closes {
            reply.append(contentsOf: "Connection: close\r\n".utf8)
        } else if request.contains(.http10) {
            reply.append(contentsOf: "Connection: keep-alive\r\n".utf8)
        }
        reply.append(contentsOf: "\r\n".utf8)
        if mayHaveBody && !request.contains(.head) { reply.append(contentsOf: body) }
        return reply
    }

    /// The reply to a request that does not parse: the connection cannot be trusted any more, so it closes.
    package static func refusal(of error: HTTP1Error, reasonCode: String) -> [UInt8] {
        bytes(status: error.status, reasonCode: reasonCode, body: Array("refused: \(error.code)\n".utf8), closes: true)
    }

    /// The reason phrase of RFC 9110 §15 and RFC 6585; empty for a status that has none.
    package static func phrase(of status: Int) -> StaticString {
        switch status {
        case 100: "Continue"
        case 101: "Switching Protocols"
        case 200: "OK"
        case 201: "Created"
        case 202: "Accepted"
        case 204: "No Content"
        case 304: "Not Modified"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 415: "Unsupported Media Type"
        case 417: "Expectation Failed"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        default: ""
        }
    }
}
