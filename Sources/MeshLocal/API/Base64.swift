import Foundation

extension [UInt8] {
    /// RFC 4648 §4.
    var base64: String { Data(self).base64EncodedString() }

    /// RFC 4648 §5, without padding, as a JSON Web Token has it (RFC 7515 §2).
    var base64URL: String {
        base64.replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }

    init?(base64URL text: some StringProtocol) {
        var padded = String(text).replacing("-", with: "+").replacing("_", with: "/")
        while padded.utf8.count % 4 != 0 { padded += "=" }
        guard let data = Data(base64Encoded: padded) else { return nil }
        self = Array(data)
    }
}
