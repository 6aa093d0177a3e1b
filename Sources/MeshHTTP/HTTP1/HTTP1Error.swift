/// Why bytes are not an HTTP/1 message that may be forwarded.
///
/// The raw value is the stable code that metrics, logs and the `apus-reason` field carry.
package enum HTTP1Error: String, Error, Sendable, CaseIterable {
    // The request line (RFC 9112 §2.2, §3).
    case tooManyEmptyLines = "too_many_empty_lines"
    case malformedRequestLine = "malformed_request_line"
    case invalidMethod = "invalid_method"
    case invalidTargetCharacter = "invalid_target_character"
    case invalidTargetForm = "invalid_target_form"
    case targetTooLong = "target_too_long"
    case unsupportedVersion = "unsupported_version"
    case http2Preface = "http2_preface"

    // The status line (RFC 9112 §4).
    case malformedStatusLine = "malformed_status_line"
    case invalidStatus = "invalid_status"
    case unrequestedUpgrade = "unrequested_upgrade"

    // Field lines (RFC 9112 §5).
    case headTooLarge = "head_too_large"
    case tooManyFields = "too_many_fields"
    case bareLineFeed = "bare_line_feed"
    case bareCarriageReturn = "bare_carriage_return"
    case obsoleteLineFolding = "obsolete_line_folding"
    case missingColon = "missing_colon"
    case emptyFieldName = "empty_field_name"
    case invalidFieldName = "invalid_field_name"
    case whitespaceBeforeColon = "whitespace_before_colon"
    case controlCharacterInValue = "control_character_in_value"

    // Who is addressed, and how the connection goes on (RFC 9112 §3.2, §9; RFC 9110 §7.6.1, §10.1.1).
    case missingHost = "missing_host"
    case duplicateHost = "duplicate_host"
    case invalidHost = "invalid_host"
    case hostDiffersFromTarget = "host_differs_from_target"
    case connectionNamesFramingField = "connection_names_framing_field"
    case tooManyConnectionOptions = "too_many_connection_options"
    case unsupportedExpectation = "unsupported_expectation"

    // The length of the body (RFC 9112 §6).
    case contentLengthWithTransferEncoding = "content_length_with_transfer_encoding"
    case duplicateContentLength = "duplicate_content_length"
    case invalidContentLength = "invalid_content_length"
    case duplicateTransferEncoding = "duplicate_transfer_encoding"
    case unsupportedTransferEncoding = "unsupported_transfer_encoding"
    case transferEncodingInHTTP10 = "transfer_encoding_in_http_1_0"
    case transferEncodingWithoutBody = "transfer_encoding_without_body"
    case connectWithBody = "connect_with_body"

    // The chunked coding (RFC 9112 §7.1).
    case invalidChunkSize = "invalid_chunk_size"
    case chunkSizeTooLarge = "chunk_size_too_large"
    case chunkLineTooLong = "chunk_line_too_long"
    case invalidChunkExtension = "invalid_chunk_extension"
    case chunkExtensionsTooLarge = "chunk_extensions_too_large"
    case chunkEndMissing = "chunk_end_missing"
    case trailersTooLarge = "trailers_too_large"
    case forbiddenTrailerField = "forbidden_trailer_field"

    package var code: String { rawValue }

    /// What a client that sent such a request is answered. An upstream's response with any of these is the caller's 502.
    package var status: Int {
        switch self {
        case .targetTooLong: 414
        case .unsupportedExpectation: 417
        case .headTooLarge, .tooManyFields, .trailersTooLarge: 431
        case .unsupportedTransferEncoding: 501
        case .unsupportedVersion, .http2Preface: 505
        default: 400
        }
    }
}
