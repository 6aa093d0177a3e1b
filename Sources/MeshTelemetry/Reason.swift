/// Why a sidecar refused, failed or answered a request itself. One code per cause: the field `apus-reason` of its reply, the
/// label `apus_reason`, the field `reason` of the access log and of reports to the control plane.
///
/// docs/reasons.md says of each what happened and what to do; a test keeps the two in step. Codes are never renamed.
package enum Reason: UInt8, Sendable, CaseIterable {
    case destinationTimeout, unknownDestinationDenied, queueFull, notRedirected, loopDetected, noHealthyUpstream,
        connectFailed, connectTimeout, tlsFailed, identityMissing, identityMismatch, upstreamReset,
        upstreamTruncated, perTryTimeout, requestTimeout, retryBudgetExhausted, invalidResponse, methodNotSupported,
        headTimeout, bodyTimeout, requestBodyTooLarge, mtlsRequired, clientGone, idleTimeout, draining
    // A request that is not forwarded because two parsers could read it in two ways, or because it exceeds a limit.
    case invalidRequestTooManyEmptyLines, invalidRequestMalformedRequestLine, invalidRequestInvalidMethod,
        invalidRequestInvalidTargetCharacter, invalidRequestInvalidTargetForm, invalidRequestTargetTooLong,
        invalidRequestUnsupportedVersion, invalidRequestHttp2Preface, invalidRequestHeadTooLarge,
        invalidRequestTooManyFields, invalidRequestBareLineFeed, invalidRequestBareCarriageReturn,
        invalidRequestObsoleteLineFolding, invalidRequestMissingColon, invalidRequestEmptyFieldName,
        invalidRequestInvalidFieldName, invalidRequestWhitespaceBeforeColon, invalidRequestControlCharacterInValue,
        invalidRequestMissingHost, invalidRequestDuplicateHost, invalidRequestInvalidHost,
        invalidRequestHostDiffersFromTarget, invalidRequestConnectionNamesFramingField,
        invalidRequestTooManyConnectionOptions, invalidRequestUnsupportedExpectation,
        invalidRequestContentLengthWithTransferEncoding, invalidRequestDuplicateContentLength,
        invalidRequestInvalidContentLength, invalidRequestDuplicateTransferEncoding,
        invalidRequestUnsupportedTransferEncoding, invalidRequestTransferEncodingInHTTP10,
        invalidRequestConnectWithBody, invalidRequestInvalidChunkSize, invalidRequestChunkSizeTooLarge,
        invalidRequestChunkLineTooLong, invalidRequestInvalidChunkExtension, invalidRequestChunkExtensionsTooLarge,
        invalidRequestChunkEndMissing, invalidRequestTrailersTooLarge, invalidRequestForbiddenTrailerField

    /// Lower-case letters, digits and underscores.
    package var code: String { row.code }
    /// What an HTTP client is answered; nil when it is told nothing, because it has gone or has seen half an answer.
    package var status: Int? { row.status }
    /// The word of Istio's label `response_flags`; empty for none.
    package var responseFlags: String { row.responseFlags }
    /// What happened, for a person.
    package var explanation: String { row.explanation }

    package init?(code: String) {
        guard let reason = Reason.byCode[code] else { return nil }
        self = reason
    }

    /// The reason for refusing a request that MeshHTTP's `HTTP1Error` of that code describes; nil for an error that only a
    /// response can have.
    package init?(requestError code: String) {
        self.init(code: "invalid_request_" + code)
    }

    private var row: Row { Reason.rows[Int(rawValue)] }

    private static let byCode = Dictionary(uniqueKeysWithValues: rows.map { ($0.code, $0.reason) })

    private struct Row {
        let reason: Reason
        let code: String
        let status: Int?
        let responseFlags: String
        let explanation: String

        init(_ reason: Reason, _ code: String, _ status: Int?, _ responseFlags: String, _ explanation: String) {
            self.reason = reason
            self.code = code
            self.status = status
            self.responseFlags = responseFlags
            self.explanation = explanation
        }
    }

    /// In the order of the raw values, which a test checks.
    private static let rows: [Row] = [
        Row(
            .destinationTimeout, "destination_timeout", 503, "NR",
            "what runs at the dialled address was not known in time"),
        Row(
            .unknownDestinationDenied, "unknown_destination_denied", 403, "UAEX",
            "the mesh knows nothing at the dialled address, and policy denies it"),
        Row(.queueFull, "queue_full", 503, "UO", "a queue of this sidecar had reached its limit"),
        Row(.notRedirected, "not_redirected", nil, "NR", "a sidecar's own port was dialled, not redirected to"),
        Row(.loopDetected, "loop_detected", nil, "NR", "the connection led back to the sidecar it came from"),
        Row(.noHealthyUpstream, "no_healthy_upstream", 503, "UH", "the service has no endpoint that may be used"),
        Row(
            .connectFailed, "connect_failed", 503, "UF",
            "the endpoint refused the connection or could not be reached"),
        Row(.connectTimeout, "connect_timeout", 503, "UF", "the endpoint did not accept the connection in time"),
        Row(.tlsFailed, "tls_failed", 503, "UF", "the TLS handshake with the endpoint failed"),
        Row(.identityMissing, "identity_missing", 503, "UF", "this sidecar has no certificate yet"),
        Row(
            .identityMismatch, "identity_mismatch", 503, "UF",
            "the peer proved another identity than the one expected"),
        Row(.upstreamReset, "upstream_reset", 502, "UC", "the endpoint closed the connection before it answered"),
        Row(.upstreamTruncated, "upstream_truncated", nil, "UC", "the endpoint broke off within its answer"),
        Row(.perTryTimeout, "per_try_timeout", 504, "UT", "the endpoint did not answer within the time of one try"),
        Row(.requestTimeout, "request_timeout", 504, "UT", "the request took longer than its service allows"),
        Row(
            .retryBudgetExhausted, "retry_budget_exhausted", 503, "URX",
            "a retry was due, and the retry budget had none left"),
        Row(.invalidResponse, "invalid_response", 502, "UPE", "the endpoint's answer was not valid HTTP"),
        Row(.methodNotSupported, "method_not_supported", 501, "DPE", "the method is not served by the sidecar"),
        Row(.headTimeout, "head_timeout", 408, "DT", "the request's head did not arrive in time"),
        Row(.bodyTimeout, "body_timeout", 408, "DT", "the request's body came to a halt"),
        Row(.requestBodyTooLarge, "request_body_too_large", 413, "DPE", "the body exceeds what this port takes"),
        Row(
            .mtlsRequired, "mtls_required", 403, "UAEX",
            "policy is strict, and the caller has no identity of the mesh"),
        Row(.clientGone, "client_gone", nil, "DC", "the client closed its connection before it had the whole answer"),
        Row(.idleTimeout, "idle_timeout", nil, "SI", "nothing moved on the connection for too long"),
        Row(.draining, "draining", 503, "", "this sidecar is stopping"),
        Row(
            .invalidRequestTooManyEmptyLines, "invalid_request_too_many_empty_lines", 400, "DPE",
            "more than one empty line stood before the request"),
        Row(
            .invalidRequestMalformedRequestLine, "invalid_request_malformed_request_line", 400, "DPE",
            "the request line is not method, target and version with single spaces"),
        Row(
            .invalidRequestInvalidMethod, "invalid_request_invalid_method", 400, "DPE",
            "the method is not a token of at most 32 bytes"),
        Row(
            .invalidRequestInvalidTargetCharacter, "invalid_request_invalid_target_character", 400, "DPE",
            "the target has a byte that is not visible ASCII, or a fragment"),
        Row(
            .invalidRequestInvalidTargetForm, "invalid_request_invalid_target_form", 400, "DPE",
            "the target has none of the four forms, or not the one its method demands"),
        Row(
            .invalidRequestTargetTooLong, "invalid_request_target_too_long", 414, "DPE",
            "the target is longer than 16 KiB"),
        Row(
            .invalidRequestUnsupportedVersion, "invalid_request_unsupported_version", 505, "DPE",
            "the version is neither HTTP/1.0 nor HTTP/1.1"),
        Row(
            .invalidRequestHttp2Preface, "invalid_request_http2_preface", 505, "DPE",
            "an HTTP/2 connection came where HTTP/1 is spoken"),
        Row(
            .invalidRequestHeadTooLarge, "invalid_request_head_too_large", 431, "DPE",
            "the head is larger than 60 KiB"),
        Row(
            .invalidRequestTooManyFields, "invalid_request_too_many_fields", 431, "DPE",
            "the head has more than 200 fields"),
        Row(.invalidRequestBareLineFeed, "invalid_request_bare_line_feed", 400, "DPE", "a line ends with LF alone"),
        Row(
            .invalidRequestBareCarriageReturn, "invalid_request_bare_carriage_return", 400, "DPE",
            "a CR stands without its LF"),
        Row(
            .invalidRequestObsoleteLineFolding, "invalid_request_obsolete_line_folding", 400, "DPE",
            "a field line begins with white space"),
        Row(.invalidRequestMissingColon, "invalid_request_missing_colon", 400, "DPE", "a field line has no colon"),
        Row(
            .invalidRequestEmptyFieldName, "invalid_request_empty_field_name", 400, "DPE",
            "a field line has no name"),
        Row(
            .invalidRequestInvalidFieldName, "invalid_request_invalid_field_name", 400, "DPE",
            "a field name has a byte that no token has"),
        Row(
            .invalidRequestWhitespaceBeforeColon, "invalid_request_whitespace_before_colon", 400, "DPE",
            "white space stands between a field name and its colon"),
        Row(
            .invalidRequestControlCharacterInValue, "invalid_request_control_character_in_value", 400, "DPE",
            "a field value has a control character"),
        Row(
            .invalidRequestMissingHost, "invalid_request_missing_host", 400, "DPE",
            "an HTTP/1.1 request has no Host"),
        Row(
            .invalidRequestDuplicateHost, "invalid_request_duplicate_host", 400, "DPE",
            "the request has more than one Host"),
        Row(
            .invalidRequestInvalidHost, "invalid_request_invalid_host", 400, "DPE",
            "Host or the target names no valid host and port"),
        Row(
            .invalidRequestHostDiffersFromTarget, "invalid_request_host_differs_from_target", 400, "DPE",
            "Host and the target of a CONNECT differ"),
        Row(
            .invalidRequestConnectionNamesFramingField, "invalid_request_connection_names_framing_field", 400, "DPE",
            "Connection names Host or Content-Length as fields to drop"),
        Row(
            .invalidRequestTooManyConnectionOptions, "invalid_request_too_many_connection_options", 400, "DPE",
            "Connection lists more than 32 options"),
        Row(
            .invalidRequestUnsupportedExpectation, "invalid_request_unsupported_expectation", 417, "DPE",
            "Expect asks for something other than 100-continue"),
        Row(
            .invalidRequestContentLengthWithTransferEncoding, "invalid_request_content_length_with_transfer_encoding",
            400, "DPE",
            "the request has both Content-Length and Transfer-Encoding"),
        Row(
            .invalidRequestDuplicateContentLength, "invalid_request_duplicate_content_length", 400, "DPE",
            "the request has more than one Content-Length"),
        Row(
            .invalidRequestInvalidContentLength, "invalid_request_invalid_content_length", 400, "DPE",
            "Content-Length is not one plain decimal number"),
        Row(
            .invalidRequestDuplicateTransferEncoding, "invalid_request_duplicate_transfer_encoding", 400, "DPE",
            "the request has more than one Transfer-Encoding"),
        Row(
            .invalidRequestUnsupportedTransferEncoding, "invalid_request_unsupported_transfer_encoding", 501, "DPE",
            "Transfer-Encoding is not exactly chunked"),
        Row(
            .invalidRequestTransferEncodingInHTTP10, "invalid_request_transfer_encoding_in_http_1_0", 400, "DPE",
            "an HTTP/1.0 request has a Transfer-Encoding"),
        Row(
            .invalidRequestConnectWithBody, "invalid_request_connect_with_body", 400, "DPE",
            "a CONNECT request has a body"),
        Row(
            .invalidRequestInvalidChunkSize, "invalid_request_invalid_chunk_size", 400, "DPE",
            "a chunk does not begin with a plain hexadecimal size"),
        Row(
            .invalidRequestChunkSizeTooLarge, "invalid_request_chunk_size_too_large", 400, "DPE",
            "a chunk size has more than 16 digits or exceeds 2^63 - 1"),
        Row(
            .invalidRequestChunkLineTooLong, "invalid_request_chunk_line_too_long", 400, "DPE",
            "a chunk size line or a trailer line is longer than 4 KiB"),
        Row(
            .invalidRequestInvalidChunkExtension, "invalid_request_invalid_chunk_extension", 400, "DPE",
            "a chunk extension has a control character"),
        Row(
            .invalidRequestChunkExtensionsTooLarge, "invalid_request_chunk_extensions_too_large", 400, "DPE",
            "the chunk extensions exceed 4 KiB"),
        Row(
            .invalidRequestChunkEndMissing, "invalid_request_chunk_end_missing", 400, "DPE",
            "the data of a chunk is not followed by CRLF"),
        Row(
            .invalidRequestTrailersTooLarge, "invalid_request_trailers_too_large", 431, "DPE",
            "the trailer section exceeds 16 KiB or 200 fields"),
        Row(
            .invalidRequestForbiddenTrailerField, "invalid_request_forbidden_trailer_field", 400, "DPE",
            "a trailer would reframe or reroute the request"),
    ]
}
