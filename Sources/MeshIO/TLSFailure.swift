internal import CNIOBoringSSL

/// Why a TLS context could not be made, or a connection not be secured.
package struct TLSFailure: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Stage: String, Sendable {
        case configuration, handshake, read, write
    }

    package let stage: Stage
    /// BoringSSL's name of the reason, `CERTIFICATE_VERIFY_FAILED` for instance, or a sentence of ours.
    package let reason: String
    /// Why the peer's certificate was refused, when it was: `unable to get local issuer certificate`.
    package let verification: String?
    /// The alert with which the peer refused us (RFC 8446 §6.2).
    package let alertReceived: UInt8?
    /// The alert that the peer was sent.
    package let alertSent: UInt8?

    package init(
        stage: Stage, reason: String, verification: String? = nil, alertReceived: UInt8? = nil, alertSent: UInt8? = nil
    ) {
        self.stage = stage
        self.reason = reason
        self.verification = verification
        self.alertReceived = alertReceived
        self.alertSent = alertSent
    }

    /// `handshake: CERTIFICATE_VERIFY_FAILED (certificate has expired), sent alert certificate expired`.
    package var description: String {
        var text = "\(stage.rawValue): \(reason)"
        if let verification { text += " (\(verification))" }
        if let alertReceived { text += ", received alert \(TLSFailure.name(ofAlert: alertReceived))" }
        if let alertSent { text += ", sent alert \(TLSFailure.name(ofAlert: alertSent))" }
        return text
    }

    /// The name that BoringSSL gives an alert: `unknown CA`.
    package static func name(ofAlert alert: UInt8) -> String {
        SSL_alert_desc_string_long(Int32(alert)).map { String(cString: $0) } ?? "\(alert)"
    }

    /// From the calling thread's error queue, which it empties.
    static func fromErrorQueue(_ stage: Stage, verification: String? = nil, alertSent: UInt8? = nil) -> TLSFailure {
        let first = ERR_get_error()
        ERR_clear_error()
        let reason = ERR_reason_error_string(first).map { String(cString: $0) } ?? "unknown error"
        let code = ERR_GET_REASON(first)
        let isAlert = ERR_GET_LIB(first) == Int32(ERR_LIB_SSL) && (1000..<1256).contains(code)
        return TLSFailure(
            stage: stage, reason: first == 0 ? "the connection broke off" : reason, verification: verification,
            alertReceived: isAlert ? UInt8(clamping: code - 1000) : nil, alertSent: alertSent)
    }
}
