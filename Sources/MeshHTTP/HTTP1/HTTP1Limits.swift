/// What an HTTP/1 message may measure. Each limit that is passed is a refusal with a code of its own.
package struct HTTP1Limits: Sendable, Equatable {
    /// From the first byte of the start line to the end of the empty line.
    package var headBytes = 60 * 1024
    /// The request target (RFC 9112 §3.2).
    package var targetBytes = 16 * 1024
    /// Field lines in a head, and again in a trailer section.
    package var fields = 200
    /// Options that the Connection fields of one message may list.
    package var connectionOptions = 32
    /// A chunk's size line or a trailer line, its CRLF included.
    package var chunkLineBytes = 4 * 1024
    /// All chunk extensions of one message together (RFC 9112 §7.1.1 asks for such a limit).
    package var chunkExtensionBytes = 4 * 1024
    /// A trailer section.
    package var trailerBytes = 16 * 1024

    package init() {}

    package static let standard = HTTP1Limits()
}
