import Dispatch
import Glibc
import MeshAddress
import MeshIO

/// Finds the control plane's addresses by the system's resolver, which blocks: on a queue of its own, one question at a time.
final class ControlAddressResolver: Sendable {
    private let host: String
    private let port: UInt16
    private let queue = DispatchQueue(label: "resolver")

    init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// `completion` runs on the loop with every address found, or with what the resolver said.
    func resolve(on loop: EventLoop, completion: @escaping @Sendable (Result<[SocketAddress], ResolverFailure>) -> Void)
    {
        if let address = IPAddress(host) {
            loop.submit { [port] in completion(.success([SocketAddress(address, port)])) }
            return
        }
        queue.async { [host, port] in
            var hints = addrinfo()
            hints.ai_family = AF_UNSPEC
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
            var list: UnsafeMutablePointer<addrinfo>?
            let status = getaddrinfo(host, nil, &hints, &list)
            defer { if let list { freeaddrinfo(list) } }
            guard status == 0 else {
                let failure = ResolverFailure(
                    description: "\(host) does not resolve: \(String(cString: gai_strerror(status)))")
                loop.submit { completion(.failure(failure)) }
                return
            }
            var found: [SocketAddress] = []
            var next = list
            while let entry = next {
                if let ip = ControlAddressResolver.address(entry.pointee), found.count < 16 {
                    found.append(SocketAddress(ip, port))
                }
                next = entry.pointee.ai_next
            }
            let addresses = found
            loop.submit { completion(.success(addresses)) }
        }
    }

    private static func address(_ info: addrinfo) -> IPAddress? {
        guard let raw = UnsafeRawPointer(info.ai_addr) else { return nil }
        switch info.ai_family {
        case AF_INET:
            return IPAddress(v4: UInt32(bigEndian: raw.loadUnaligned(as: sockaddr_in.self).sin_addr.s_addr))
        case AF_INET6:
            let address = raw.loadUnaligned(as: sockaddr_in6.self).sin6_addr
            return withUnsafeBytes(of: address) { IPAddress(bytes: $0) }
        default:
            return nil
        }
    }
}

struct ResolverFailure: Error, CustomStringConvertible {
    let description: String
}
