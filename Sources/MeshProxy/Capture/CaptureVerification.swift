import CApus
import Glibc
import MeshAddress

/// The proof that a redirection works: an address that no host has is dialled, and is expected to be answered by ourselves, with
/// that address as the original destination.
///
/// Nothing leaves the namespace: the redirection turns the SYN inward, and when it does not, the attempt fails within a
/// second.
enum CaptureVerification {
    enum Outcome {
        case redirected
        /// A sidecar listens already; it is left alone.
        case portTaken
        /// The pod has no route for this family.
        case noRoute
    }

    /// Of TEST-NET-1 (RFC 5737) and of the IPv6 documentation prefix (RFC 3849).
    static let targets = [
        SocketAddress(IPAddress(v4: 0xc000_0201), 1), SocketAddress(IPAddress(high: 0x2001_0db8_0000_0000, low: 1), 1),
    ]

    static func dial(_ target: SocketAddress, expectingAt port: UInt16) throws(Capture.Failure) -> Outcome {
        let loopback: IPAddress = target.ip.isV4 ? .loopback4 : .loopback6
        guard let listener = VerifyingSocket(target.ip) else {
            // A kernel without this family has none of its connections either.
            if errno == EAFNOSUPPORT { return .noRoute }
            throw failure("cannot make a socket")
        }
        var one: Int32 = 1
        setsockopt(listener.descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
        guard listener.call(SocketAddress(loopback, port), bind) == 0, listen(listener.descriptor, 8) == 0 else {
            if errno == EADDRINUSE { return .portTaken }
            if errno == EADDRNOTAVAIL { return .noRoute }
            throw failure("cannot listen on port \(port)")
        }
        guard let dialler = VerifyingSocket(target.ip) else { throw failure("cannot make a socket") }
        guard dialler.call(target, connect) == 0 || errno == EINPROGRESS else {
            if [ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EACCES].contains(errno) { return .noRoute }
            throw failure("cannot dial \(target)")
        }
        var waiting = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, 1000) == 1 else {
            throw Capture.Failure(
                description: "the rules are in place, but a connection to \(target) did not arrive at port \(port) "
                    + "within a second; another table may accept or drop it first: see 'nft list ruleset'")
        }
        let accepted = accept(listener.descriptor, nil, nil)
        guard accepted >= 0 else { throw failure("cannot accept the verifying connection") }
        defer { Glibc.close(accepted) }
        guard let told = originalDestination(of: accepted, isV4: target.ip.isV4) else {
            throw failure("the kernel does not tell the original destination (SO_ORIGINAL_DST)")
        }
        guard told == target else {
            throw Capture.Failure(description: "the original destination of a connection to \(target) reads \(told)")
        }
        return .redirected
    }

    private static func originalDestination(of descriptor: Int32, isV4: Bool) -> SocketAddress? {
        var storage = sockaddr_storage()
        guard apus_original_destination(descriptor, isV4 ? 0 : 1, &storage) == 0 else { return nil }
        // The port is at offset 2 of both families; the address at 4 of sockaddr_in and at 8 of sockaddr_in6.
        return withUnsafeBytes(of: &storage) { raw in
            let port = UInt16(bigEndian: raw.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            return IPAddress(bytes: isV4 ? raw[4..<8] : raw[8..<24]).map { SocketAddress($0, port) }
        }
    }

    private static func failure(_ what: String) -> Capture.Failure {
        Capture.Failure(description: "\(what) to verify the redirection: \(String(cString: strerror(errno)))")
    }
}

/// A non-blocking socket that closes with its owner.
private final class VerifyingSocket {
    let descriptor: Int32

    init?(_ ip: IPAddress) {
        descriptor = socket(
            ip.isV4 ? AF_INET : AF_INET6,
            Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        if descriptor < 0 { return nil }
    }

    deinit { Glibc.close(descriptor) }

    func call(_ address: SocketAddress, _ body: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var storage = sockaddr_storage()
        let isV4 = address.ip.isV4
        withUnsafeMutableBytes(of: &storage) { raw in
            raw.storeBytes(of: sa_family_t(isV4 ? AF_INET : AF_INET6), as: sa_family_t.self)
            raw.storeBytes(of: address.port.bigEndian, toByteOffset: 2, as: UInt16.self)
            let bytes = isV4 ? Array(address.ip.bytes[12...]) : address.ip.bytes
            for (index, byte) in bytes.enumerated() { raw[(isV4 ? 4 : 8) + index] = byte }
        }
        let length = isV4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
        return withUnsafePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body(descriptor, $0, socklen_t(length)) }
        }
    }
}
