import MeshHTTP
import Testing

/// Messages with what the framing must make of them.
enum Messages {
    struct Good: Sendable, CustomTestStringConvertible {
        var name: String
        var text: String
        var framing: BodyFraming
        /// The bytes behind the head that belong to the message.
        var body: String = ""
        var keepAlive = true
        var traits: RequestTraits = []

        var testDescription: String { name }
    }

    struct Bad: Sendable, CustomTestStringConvertible {
        var text: String
        var error: HTTP1Error
        var traits: RequestTraits = []

        var testDescription: String { "\(error.code): \(text.prefix(60).debugDescription)" }
    }

    static let goodRequests: [Good] = [
        Good(name: "plain GET", text: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", framing: .none),
        Good(name: "one empty line before it", text: "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", framing: .none),
        Good(
            name: "pipelined", text: "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            framing: .none),
        Good(
            name: "length", text: "POST /p?q=1 HTTP/1.1\r\nHost: a:8080\r\nContent-Length: 5\r\n\r\nhellorest",
            framing: .length(5), body: "hello"),
        Good(name: "length zero", text: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length:0\r\n\r\n", framing: .length(0)),
        Good(
            name: "chunked with extension and trailer",
            text: "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\tChunked \r\n\r\n"
                + "5;x=\"y\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET",
            framing: .chunked, body: "5;x=\"y\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"),
        Good(name: "HTTP/1.0", text: "GET / HTTP/1.0\r\n\r\n", framing: .none, keepAlive: false),
        Good(
            name: "HTTP/1.0 keep-alive", text: "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
            framing: .none),
        Good(
            name: "close among options", text: "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo , CLOSE\r\nFoo: 1\r\n\r\n",
            framing: .none, keepAlive: false),
        Good(
            name: "upgrade",
            text: "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
            framing: .none),
        Good(
            name: "cleartext HTTP/2 upgrade",
            text:
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
            framing: .none),
        Good(name: "absolute form", text: "GET http://a.b:80/x?y HTTP/1.1\r\nHost: A.b\r\n\r\n", framing: .none),
        Good(name: "an empty Host", text: "GET / HTTP/1.1\r\nHost:\r\n\r\n", framing: .none),
        Good(name: "absolute form, another host", text: "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", framing: .none),
        Good(name: "absolute form, another port", text: "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", framing: .none),
        Good(
            name: "absolute form without a path", text: "GET https://a?y HTTP/1.1\r\nHost: a:443\r\n\r\n",
            framing: .none),
        Good(name: "asterisk form", text: "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", framing: .none),
        Good(name: "CONNECT", text: "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", framing: .none),
        Good(name: "IPv6 host", text: "GET / HTTP/1.1\r\nHost: [fd00::1]:8080\r\n\r\n", framing: .none),
        Good(
            name: "expect", text: "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
            framing: .length(1), body: "x"),
        Good(
            name: "empty value and tabs", text: "GET / HTTP/1.1\r\nHost:a\r\nEmpty:\r\nTabbed:\ta\tb\t\r\n\r\n",
            framing: .none),
        Good(
            name: "bytes above ASCII in a value", text: "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\u{4e2d}\r\n\r\n",
            framing: .none),
        Good(name: "own method", text: "PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n", framing: .none),
        Good(
            name: "many removable fields",
            text: "GET / HTTP/1.1\r\n" + String(repeating: "Connection: x\r\nX: 1\r\n", count: 12)
                + "Host: a\r\nTE: trailers\r\n\r\n",
            framing: .none),
    ]

    static let badRequests: [Bad] =
        [
            Bad(text: "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", error: .tooManyEmptyLines),
            Bad(text: "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", error: .bareLineFeed),
            Bad(text: "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", error: .bareCarriageReturn),
            Bad(text: " GET / HTTP/1.1\r\nHost: a\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET / x HTTP/1.1\r\nHost: a\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET /\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET / http/1.1\r\nHost: a\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidMethod),
            Bad(text: "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidMethod),
            Bad(text: String(repeating: "A", count: 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidMethod),
            Bad(text: "GET\n", error: .bareLineFeed),
            Bad(text: "GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetCharacter),
            Bad(text: "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetCharacter),
            Bad(text: "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetCharacter),
            Bad(text: "GET /\u{a0} HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetCharacter),
            Bad(text: "GET a HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetForm),
            Bad(text: "GET * HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetForm),
            Bad(text: "OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetForm),
            Bad(text: "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetForm),
            Bad(text: "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetForm),
            Bad(text: "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetForm),
            Bad(text: "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", error: .invalidTargetForm),
            Bad(text: "GET / HTTP/2.0\r\nHost: a\r\n\r\n", error: .unsupportedVersion),
            Bad(text: "GET / HTTP/1.2\r\nHost: a\r\n\r\n", error: .unsupportedVersion),
            Bad(text: "GET / HTTP/0.9\r\nHost: a\r\n\r\n", error: .unsupportedVersion),
            Bad(text: "GET / HTTP/1.10\r\nHost: a\r\n\r\n", error: .malformedRequestLine),
            Bad(text: "GET / HTTP/1.1\nHost: a\r\n\r\n", error: .bareLineFeed),
            Bad(text: "GET / HTTP/1.1\rHost: a\r\n\r\n", error: .bareCarriageReturn),
            Bad(text: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", error: .http2Preface),

            Bad(text: "GET / HTTP/1.1\r\n Host: a\r\n\r\n", error: .obsoleteLineFolding),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n", error: .obsoleteLineFolding),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", error: .bareLineFeed),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\n\n", error: .bareLineFeed),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n", error: .bareCarriageReturn),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", error: .bareCarriageReturn),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\n\rX", error: .bareCarriageReturn),
            Bad(text: "GET / HTTP/1.1\r\nHost : a\r\n\r\n", error: .whitespaceBeforeColon),
            Bad(
                text: "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", error: .whitespaceBeforeColon
            ),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", error: .emptyFieldName),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", error: .missingColon),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nnocolon\n\r\n", error: .bareLineFeed),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nX@: 1\r\n\r\n", error: .invalidFieldName),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nX\u{0}: 1\r\n\r\n", error: .invalidFieldName),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: 1\r\n\r\n", error: .invalidFieldName),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{0}b\r\n\r\n", error: .controlCharacterInValue),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{7f}\r\n\r\n", error: .controlCharacterInValue),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{b}\r\n\r\n", error: .controlCharacterInValue),

            Bad(text: "GET / HTTP/1.1\r\n\r\n", error: .missingHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", error: .duplicateHost),
            Bad(text: "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", error: .duplicateHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", error: .invalidHost),
            Bad(text: "GET / HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n", error: .invalidHost),
            Bad(text: "CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", error: .hostDiffersFromTarget),
            Bad(
                text: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\n\r\n",
                error: .connectionNamesFramingField),
            Bad(text: "GET / HTTP/1.1\r\nHost: a\r\nConnection: HOST\r\n\r\n", error: .connectionNamesFramingField),
            Bad(
                text: "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + String(repeating: "x,", count: 33) + "\r\n\r\n",
                error: .tooManyConnectionOptions),
            Bad(text: "PUT / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", error: .unsupportedExpectation),

            Bad(
                text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                error: .contentLengthWithTransferEncoding),
            Bad(
                text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                error: .contentLengthWithTransferEncoding),
            Bad(
                text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                error: .duplicateContentLength),
            Bad(
                text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                error: .duplicateContentLength),
            Bad(
                text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                error: .duplicateTransferEncoding),
            Bad(
                text: "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                error: .transferEncodingInHTTP10),
            Bad(text: "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n", error: .connectWithBody),
            Bad(
                text: "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n", error: .connectWithBody
            ),
        ]
        + [
            "+5", "-1", "5,5", "5, 5", "5 5", "0x5", "5.0", "", "05", "00", "5;", "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999", "\u{661}",
        ].map {
            Bad(text: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \($0)\r\n\r\n", error: .invalidContentLength)
        }
        + [
            "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked,", ",chunked",
            "xchunked",
            "chunked;q=1", "\"chunked\"", "chun ked", "",
        ].map {
            Bad(
                text: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \($0)\r\n\r\n",
                error: .unsupportedTransferEncoding)
        }

    static let badBodies: [Bad] = [
        Bad(text: "\r\n", error: .invalidChunkSize), Bad(text: "+5\r\n", error: .invalidChunkSize),
        Bad(text: " 5\r\n", error: .invalidChunkSize), Bad(text: "5 \r\n", error: .invalidChunkSize),
        Bad(text: "0x5\r\n", error: .invalidChunkSize), Bad(text: "g\r\n", error: .invalidChunkSize),
        Bad(text: "-1\r\n", error: .invalidChunkSize), Bad(text: "5_0\r\n", error: .invalidChunkSize),
        Bad(text: "5\nhello\r\n", error: .invalidChunkSize), Bad(text: ";x\r\n", error: .invalidChunkSize),
        Bad(text: "5\rxhello", error: .bareCarriageReturn),
        Bad(text: "8000000000000000\r\n", error: .chunkSizeTooLarge),
        Bad(text: "ffffffffffffffff\r\n", error: .chunkSizeTooLarge),
        Bad(text: "00000000000000005\r\n", error: .chunkSizeTooLarge),
        Bad(text: "10000000000000005\r\n", error: .chunkSizeTooLarge),
        Bad(text: "5;a\nhello\r\n0\r\n\r\n", error: .bareLineFeed),
        Bad(text: "5;a\rb\r\nhello", error: .bareCarriageReturn),
        Bad(text: "5;a\u{0}\r\nhello", error: .invalidChunkExtension),
        Bad(text: "5;" + String(repeating: "x", count: 5000), error: .chunkLineTooLong),
        Bad(
            text: String(repeating: "1;" + String(repeating: "x", count: 1500) + "\r\na\r\n", count: 3),
            error: .chunkExtensionsTooLarge),
        Bad(text: "5\r\nhellox\r\n", error: .chunkEndMissing),
        Bad(text: "5\r\nhello\n0\r\n\r\n", error: .chunkEndMissing),
        Bad(text: "5\r\nhello\rx", error: .chunkEndMissing), Bad(text: "5\r\nhello0\r\n\r\n", error: .chunkEndMissing),
        Bad(text: "0\r\nX : 1\r\n\r\n", error: .whitespaceBeforeColon),
        Bad(text: "0\r\n X: 1\r\n\r\n", error: .obsoleteLineFolding),
        Bad(text: "0\r\nX: 1\n\r\n", error: .bareLineFeed),
        Bad(text: "0\r\nX: \u{0}\r\n\r\n", error: .controlCharacterInValue),
        Bad(text: "0\r\nnocolon\r\n\r\n", error: .missingColon), Bad(text: "0\r\n\rX", error: .bareCarriageReturn),
        Bad(text: "0\r\nContent-Length: 5\r\n\r\n", error: .forbiddenTrailerField),
        Bad(text: "0\r\nTransfer-Encoding: chunked\r\n\r\n", error: .forbiddenTrailerField),
        Bad(text: "0\r\nhost: b\r\n\r\n", error: .forbiddenTrailerField),
        Bad(text: "0\r\nConnection: close\r\n\r\n", error: .forbiddenTrailerField),
        Bad(text: "0\r\n" + String(repeating: "a: b\r\n", count: 201) + "\r\n", error: .trailersTooLarge),
        Bad(
            text: "0\r\n" + String(repeating: "a: " + String(repeating: "b", count: 4000) + "\r\n", count: 5),
            error: .trailersTooLarge),
        Bad(text: "0\r\na: " + String(repeating: "b", count: 5000), error: .chunkLineTooLong),
    ]

    static let goodResponses: [Good] = [
        Good(name: "length", text: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", framing: .length(2), body: "hi"),
        Good(
            name: "chunked", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            framing: .chunked,
            body: "2\r\nhi\r\n0\r\n\r\n"),
        Good(name: "no reason phrase", text: "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", framing: .length(0)),
        Good(
            name: "no space behind the status", text: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", framing: .length(0)),
        Good(
            name: "until close", text: "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nanything", framing: .untilClose,
            body: "anything", keepAlive: false),
        Good(
            name: "HTTP/1.0", text: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", framing: .length(2), body: "hi",
            keepAlive: false),
        Good(
            name: "to HEAD", text: "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", framing: .none, traits: .head),
        Good(
            name: "chunked to HEAD", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", framing: .none,
            traits: .head),
        Good(name: "204", text: "HTTP/1.1 204 No Content\r\n\r\n", framing: .none),
        Good(name: "304 with a length", text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", framing: .none),
        Good(
            name: "204 that claims a body", text: "HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
            framing: .none,
            keepAlive: false),
        Good(name: "100", text: "HTTP/1.1 100 Continue\r\n\r\n", framing: .none),
        Good(
            name: "101",
            text: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
            framing: .upgrade, body: "raw", keepAlive: false, traits: .upgrade),
        Good(
            name: "2xx to CONNECT", text: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw", framing: .upgrade,
            body: "raw",
            keepAlive: false, traits: .connect),
    ]

    static let badResponses: [Bad] = [
        Bad(text: "\r\nHTTP/1.1 200 OK\r\n\r\n", error: .malformedStatusLine),
        Bad(text: "HTTP/2.0 200 OK\r\n\r\n", error: .unsupportedVersion),
        Bad(text: "HTTP/1.2 200 OK\r\n\r\n", error: .unsupportedVersion),
        Bad(text: "http/1.1 200 OK\r\n\r\n", error: .malformedStatusLine),
        Bad(text: "HTTP/1.1  200 OK\r\n\r\n", error: .invalidStatus),
        Bad(text: "HTTP/1.1 099 OK\r\n\r\n", error: .invalidStatus),
        Bad(text: "HTTP/1.1 600 OK\r\n\r\n", error: .invalidStatus),
        Bad(text: "HTTP/1.1 20 OK\r\n\r\n", error: .invalidStatus),
        Bad(text: "HTTP/1.1 2000 OK\r\n\r\n", error: .invalidStatus),
        Bad(text: "HTTP/1.1 +20 OK\r\n\r\n", error: .invalidStatus),
        Bad(text: "HTTP/1.1 200\tOK\r\n\r\n", error: .malformedStatusLine),
        Bad(text: "HTTP/1.1 200 O\u{0}K\r\n\r\n", error: .malformedStatusLine),
        Bad(text: "HTTP/1.1 200 OK\n\r\n", error: .bareLineFeed), Bad(text: "HTTP/1.1 200\n\r\n", error: .bareLineFeed),
        Bad(text: "HTTP/1.1 200 OK\r\n\n", error: .bareLineFeed),
        Bad(text: "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", error: .obsoleteLineFolding),
        Bad(text: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", error: .duplicateContentLength),
        Bad(
            text: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            error: .contentLengthWithTransferEncoding),
        Bad(text: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", error: .transferEncodingInHTTP10),
        Bad(text: "HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n", error: .transferEncodingWithoutBody),
        Bad(text: "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", error: .transferEncodingWithoutBody),
        Bad(text: "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", error: .unrequestedUpgrade),
    ]
}
