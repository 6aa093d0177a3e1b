internal import Glibc
internal import MeshAddress

extension SocketAddress {
    /// From what the kernel wrote; nil for a family other than AF_INET and AF_INET6.
    init?(_ storage: sockaddr_storage) {
        var copy = storage
        let address: SocketAddress? = withUnsafeBytes(of: &copy) { raw in
            switch Int32(storage.ss_family) {
            case AF_INET:
                let value = raw.loadUnaligned(as: sockaddr_in.self)
                return SocketAddress(
                    IPAddress(v4: UInt32(bigEndian: value.sin_addr.s_addr)), UInt16(bigEndian: value.sin_port))
            case AF_INET6:
                // Offset 8 of sockaddr_in6 is sin6_addr, sixteen bytes in network order.
                let high = UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                let low = UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
                let port = UInt16(bigEndian: raw.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
                return SocketAddress(IPAddress(high: high, low: low), port)
            default:
                return nil
            }
        }
        guard let address else { return nil }
        self = address
    }

    /// The address family its socket has.
    var family: Int32 { ip.isV4 ? AF_INET : AF_INET6 }

    /// Calls `body` with the address as the kernel reads it.
    func withKernelAddress<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        var storage = sockaddr_storage()
        let length: Int = withUnsafeMutableBytes(of: &storage) { raw in
            raw.storeBytes(of: sa_family_t(family), as: sa_family_t.self)
            raw.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
            if let v4 = ip.v4 {
                raw.storeBytes(of: v4.bigEndian, toByteOffset: 4, as: UInt32.self)
                return MemoryLayout<sockaddr_in>.size
            }
            raw.storeBytes(of: ip.high.bigEndian, toByteOffset: 8, as: UInt64.self)
            raw.storeBytes(of: ip.low.bigEndian, toByteOffset: 16, as: UInt64.self)
            return MemoryLayout<sockaddr_in6>.size
        }
        return withUnsafePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(length)) }
        }
    }

    /// The local address of a socket; the unspecified address and port 0 when it has none.
    static func local(of descriptor: Int32) -> SocketAddress {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard result == 0, let address = SocketAddress(storage) else { return SocketAddress(.any6, 0) }
        return address
    }
}
