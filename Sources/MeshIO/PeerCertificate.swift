internal import CNIOBoringSSL

/// What is read from the certificates that a peer has shown.
enum PeerCertificate {
    static func chain(_ ssl: OpaquePointer) -> [[UInt8]] {
        guard let stack = SSL_get0_peer_certificates(ssl) else { return [] }
        return (0..<sk_CRYPTO_BUFFER_num(stack)).compactMap { index in
            guard let buffer = sk_CRYPTO_BUFFER_value(stack, index), let bytes = CRYPTO_BUFFER_data(buffer) else {
                return nil
            }
            return Array(UnsafeBufferPointer(start: bytes, count: CRYPTO_BUFFER_len(buffer)))
        }
    }

    static func uniformResourceIdentifiers(_ certificate: OpaquePointer) -> [String] {
        guard let names = X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) else { return [] }
        let stack = OpaquePointer(names)
        defer { GENERAL_NAMES_free(stack) }
        return (0..<sk_GENERAL_NAME_num(stack)).compactMap { index in
            guard let name = sk_GENERAL_NAME_value(stack, index), name.pointee.type == GEN_URI,
                let text = name.pointee.d.uniformResourceIdentifier
            else { return nil }
            let bytes = UnsafeBufferPointer(start: ASN1_STRING_get0_data(text), count: Int(ASN1_STRING_length(text)))
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    static func notAfter(_ certificate: OpaquePointer) -> Int64? {
        var seconds: Int64 = 0
        guard let time = X509_get0_notAfter(certificate), ASN1_TIME_to_posix(time, &seconds) == 1 else { return nil }
        return seconds
    }
}
