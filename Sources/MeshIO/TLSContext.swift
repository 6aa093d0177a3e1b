internal import CNIOBoringSSL

/// Certificates, trust and protocols of one side of TLS 1.3, shared by any number of connections and loops. To rotate a
/// certificate make another: connections keep the one they began with.
///
/// Unchecked because a BoringSSL SSL_CTX that is no longer configured may be used by several threads.
///
/// A peer's chain is verified against `trustRoots` alone, never against the machine's. No name is checked: the owner of a
/// connection decides by `TLSInformation.peerURISANs` in `opened`, before it reads or writes. There is no session
/// resumption: a peer that may no longer come in does not come in by an old ticket. Groups are X25519MLKEM768, X25519
/// and P-256.
package final class TLSContext: @unchecked Sendable {
    /// A certificate with its key.
    package struct Identity: Sendable {
        /// DER, leaf first.
        package let chain: [[UInt8]]
        /// PKCS#8 or SEC 1, in DER.
        package let privateKeyDER: [UInt8]

        package init(chain: [[UInt8]], privateKeyDER: [UInt8]) {
            self.chain = chain
            self.privateKeyDER = privateKeyDER
        }
    }

    /// What a server wants to see of a client. A certificate that is shown is always verified.
    package enum ClientCertificate: Sendable {
        case required, optional, none
    }

    let pointer: OpaquePointer
    let applicationProtocols: [String]
    /// The list as a ClientHello has it: each name with its length in front (RFC 7301 §3.1).
    private let protocolList: [UInt8]

    /// - Parameters:
    ///   - trustRoots: certificates in DER; needed unless `clientCertificate` is `.none`.
    ///   - alpn: in order of preference. When there are any, a client that offers none of them is refused.
    package static func server(
        identity: Identity, trustRoots: [[UInt8]], clientCertificate: ClientCertificate, alpn: [String]
    ) throws(TLSFailure) -> TLSContext {
        let context = try TLSContext(identity, trustRoots, alpn)
        switch clientCertificate {
        case .required:
            try context.demandRoots(trustRoots)
            SSL_CTX_set_verify(context.pointer, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        case .optional:
            try context.demandRoots(trustRoots)
            SSL_CTX_set_verify(context.pointer, SSL_VERIFY_PEER, nil)
        case .none:
            SSL_CTX_set_verify(context.pointer, SSL_VERIFY_NONE, nil)
        }
        if !alpn.isEmpty { context.selectProtocol() }
        return context
    }

    /// - Parameters:
    ///   - identity: nil for a client that shows no certificate.
    ///   - trustRoots: certificates in DER, one at least.
    ///   - alpn: what is offered. When there are any, a server that picks none of them is refused.
    package static func client(
        identity: Identity?, trustRoots: [[UInt8]], alpn: [String]
    ) throws(TLSFailure) -> TLSContext {
        let context = try TLSContext(identity, trustRoots, alpn)
        try context.demandRoots(trustRoots)
        SSL_CTX_set_verify(context.pointer, SSL_VERIFY_PEER, nil)
        let list = context.protocolList
        // Of all of BoringSSL's setters this one returns zero for success.
        guard list.isEmpty || SSL_CTX_set_alpn_protos(context.pointer, list, list.count) == 0 else {
            throw .fromErrorQueue(.configuration)
        }
        return context
    }

    /// A client that shows nothing and believes everybody, TLS 1.2 included: for the probes of an application's own TLS port, which verify
    /// nothing by definition. Never for anything that carries data.
    package static func unverifiedClient() throws(TLSFailure) -> TLSContext {
        let context = try TLSContext(nil, [], [])
        SSL_CTX_set_min_proto_version(context.pointer, UInt16(TLS1_2_VERSION))
        SSL_CTX_set_verify(context.pointer, SSL_VERIFY_NONE, nil)
        return context
    }

    private init(_ identity: Identity?, _ trustRoots: [[UInt8]], _ alpn: [String]) throws(TLSFailure) {
        ERR_clear_error()
        var list: [UInt8] = []
        for name in alpn {
            guard let length = UInt8(exactly: name.utf8.count), length > 0 else {
                throw TLSFailure(
                    stage: .configuration, reason: "\"\(name)\" is no ALPN name: 1 to 255 bytes are expected")
            }
            list.append(length)
            list.append(contentsOf: name.utf8)
        }
        guard let context = SSL_CTX_new(TLS_method()) else { throw .fromErrorQueue(.configuration) }
        pointer = context
        applicationProtocols = alpn
        protocolList = list
        let groups = [UInt16(SSL_GROUP_X25519_MLKEM768), UInt16(SSL_GROUP_X25519), UInt16(SSL_GROUP_SECP256R1)]
        guard SSL_CTX_set_min_proto_version(context, UInt16(TLS1_3_VERSION)) == 1,
            SSL_CTX_set_max_proto_version(context, UInt16(TLS1_3_VERSION)) == 1,
            SSL_CTX_set1_group_ids(context, groups, groups.count) == 1
        else { throw .fromErrorQueue(.configuration) }
        SSL_CTX_set_options(context, UInt32(SSL_OP_NO_TICKET))
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF)
        SSL_CTX_set_info_callback(context) { ssl, kind, value in
            guard kind == SSL_CB_WRITE_ALERT, let bio = SSL_get_wbio(ssl) else { return }
            TLSBuffers.state(of: bio)?.pointee.alertSent = UInt8(truncatingIfNeeded: value)
        }
        if let identity { try use(identity) }
        try trust(trustRoots)
    }

    deinit { SSL_CTX_free(pointer) }

    private func use(_ identity: Identity) throws(TLSFailure) {
        guard !identity.chain.isEmpty else {
            throw TLSFailure(stage: .configuration, reason: "the identity has no certificate")
        }
        let key = identity.privateKeyDER.withUnsafeBufferPointer { bytes in
            var start = bytes.baseAddress
            if let key = d2i_AutoPrivateKey(nil, &start, bytes.count) { return OpaquePointer?(key) }
            // It tells the two forms apart by their number of fields, which misses SEC 1 without the public key.
            start = bytes.baseAddress
            return d2i_PrivateKey(EVP_PKEY_EC, nil, &start, bytes.count)
        }
        guard let key else {
            let cause = TLSFailure.fromErrorQueue(.configuration).reason
            throw TLSFailure(
                stage: .configuration, reason: "the private key is neither PKCS#8 nor SEC 1 in DER: \(cause)")
        }
        defer { EVP_PKEY_free(key) }
        let certificates = identity.chain.map { CRYPTO_BUFFER_new($0, $0.count, nil) }
        defer { for certificate in certificates { CRYPTO_BUFFER_free(certificate) } }
        guard SSL_CTX_set_chain_and_key(pointer, certificates, certificates.count, key, nil) == 1 else {
            throw .fromErrorQueue(.configuration)
        }
    }

    private func trust(_ roots: [[UInt8]]) throws(TLSFailure) {
        let store = SSL_CTX_get_cert_store(pointer)
        for (index, root) in roots.enumerated() {
            let certificate = root.withUnsafeBufferPointer { bytes in
                var start = bytes.baseAddress
                return d2i_X509(nil, &start, bytes.count)
            }
            defer { X509_free(certificate) }
            guard certificate != nil, X509_STORE_add_cert(store, certificate) == 1 else {
                let cause = TLSFailure.fromErrorQueue(.configuration).reason
                throw TLSFailure(
                    stage: .configuration,
                    reason: "trust root \(index + 1) of \(roots.count) is no certificate in DER: \(cause)")
            }
        }
    }

    private func demandRoots(_ roots: [[UInt8]]) throws(TLSFailure) {
        if !roots.isEmpty { return }
        throw TLSFailure(
            stage: .configuration,
            reason: "no trust root is given, so that no peer could ever be verified: give one at least")
    }

    // MARK: ALPN

    private func selectProtocol() {
        let argument = Unmanaged.passUnretained(self).toOpaque()
        SSL_CTX_set_alpn_select_cb(
            pointer,
            { _, chosen, chosenCount, offered, offeredCount, argument in
                guard let argument, let chosen, let chosenCount, let offered else { return SSL_TLSEXT_ERR_ALERT_FATAL }
                let context = Unmanaged<TLSContext>.fromOpaque(argument).takeUnretainedValue()
                let list = UnsafeBufferPointer(start: offered, count: Int(offeredCount))
                guard let range = TLSContext.firstShared(context.protocolList, list) else {
                    return SSL_TLSEXT_ERR_ALERT_FATAL
                }
                chosen.pointee = offered + range.lowerBound
                chosenCount.pointee = UInt8(range.count)
                return SSL_TLSEXT_ERR_OK
            }, argument)
    }

    /// Where in `offered` the name stands that comes first in `preferred`; both in the form of RFC 7301 §3.1.
    static func firstShared(_ preferred: [UInt8], _ offered: UnsafeBufferPointer<UInt8>) -> Range<Int>? {
        preferred.withUnsafeBufferPointer { preferred in
            for wanted in names(preferred) {
                for name in names(offered) where preferred[wanted].elementsEqual(offered[name]) { return name }
            }
            return nil
        }
    }

    /// The ranges of the names, without one that is cut short.
    private static func names(_ list: UnsafeBufferPointer<UInt8>) -> [Range<Int>] {
        var ranges: [Range<Int>] = []
        var index = 0
        while index < list.count, index + 1 + Int(list[index]) <= list.count {
            ranges.append(index + 1..<index + 1 + Int(list[index]))
            index += 1 + Int(list[index])
        }
        return ranges
    }
}
