import Foundation
import MeshAddress

/// A plain, blocking socket: the peer of what is tested. Every call gives up after `patienceSeconds`.
final class BlockingSocket: @unchecked Sendable {
    private(set) var descriptor: Int32

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        var patience = timeval(tv_sec: patienceSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close() }

    // MARK: Making

    /// `receiveBuffer` bounds what the kernel takes before this socket reads.
    static func connected(to address: SocketAddress, receiveBuffer: Int32? = nil) throws -> BlockingSocket {
        let socket = BlockingSocket(make(address))
        if var size = receiveBuffer {
            setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        let result = withKernelAddress(address) { connect(socket.descriptor, $0, $1) }
        guard result == 0 else { throw RigFailure("connect \(address): \(errno)") }
        return socket
    }

    static func listening(
        on ip: IPAddress = .loopback4, backlog: Int32 = 16
    ) throws -> (BlockingSocket, SocketAddress) {
        let (socket, address) = try bound(to: ip)
        guard listen(socket.descriptor, backlog) == 0 else { throw RigFailure("listen: \(errno)") }
        return (socket, address)
    }

    /// Has a port that nobody else gets and that refuses connections.
    static func bound(to ip: IPAddress) throws -> (BlockingSocket, SocketAddress) {
        let socket = BlockingSocket(make(SocketAddress(ip, 0)))
        let result = withKernelAddress(SocketAddress(ip, 0)) { bind(socket.descriptor, $0, $1) }
        guard result == 0 else { throw RigFailure("bind: \(errno)") }
        return (socket, SocketAddress(ip, try socket.localPort()))
    }

    func accepted() throws -> BlockingSocket {
        let descriptor = accept(descriptor, nil, nil)
        guard descriptor >= 0 else { throw RigFailure("accept: \(errno)") }
        return BlockingSocket(descriptor)
    }

    private static func make(_ address: SocketAddress) -> Int32 {
        socket(address.ip.isV4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
    }

    private func localPort() throws -> UInt16 {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard result == 0 else { throw RigFailure("getsockname: \(errno)") }
        return withUnsafeBytes(of: storage) { UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)) }
    }

    private static func withKernelAddress<R>(
        _ address: SocketAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
    ) -> R {
        if address.ip.isV4 {
            var value = sockaddr_in()
            value.sin_family = sa_family_t(AF_INET)
            value.sin_port = address.port.bigEndian
            value.sin_addr.s_addr = (address.ip.v4 ?? 0).bigEndian
            return withUnsafePointer(to: &value) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, 16) }
            }
        }
        var value = sockaddr_in6()
        value.sin6_family = sa_family_t(AF_INET6)
        value.sin6_port = address.port.bigEndian
        withUnsafeMutableBytes(of: &value.sin6_addr) { $0.copyBytes(from: address.ip.bytes) }
        return withUnsafePointer(to: &value) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, 28) }
        }
    }

    // MARK: Using

    func write(_ bytes: [UInt8]) throws {
        var offset = 0
        while offset < bytes.count {
            let sent = bytes[offset...].withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { throw RigFailure("send: \(errno)") }
            offset += sent
        }
    }

    func write(_ text: String) throws { try write(Array(text.utf8)) }

    /// What is there, 64 KiB at most; empty at the end. Throws on a reset.
    func readSome(upTo count: Int = 65_536) throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: count)
        let received = recv(descriptor, &buffer, count, 0)
        guard received >= 0 else { throw RigFailure("recv: \(errno)") }
        return Array(buffer[..<received])
    }

    func read(_ count: Int) throws -> [UInt8] {
        var result: [UInt8] = []
        while result.count < count {
            let some = try readSome(upTo: min(65_536, count - result.count))
            if some.isEmpty { throw RigFailure("the end came after \(result.count) of \(count) bytes") }
            result += some
        }
        return result
    }

    func readText(_ count: Int) throws -> String { String(decoding: try read(count), as: UTF8.self) }

    func readToEnd() throws -> [UInt8] {
        var result: [UInt8] = []
        while case let some = try readSome(), !some.isEmpty { result += some }
        return result
    }

    func finishWriting() { shutdown(descriptor, Int32(SHUT_WR)) }

    func close() {
        if descriptor >= 0 { Foundation.close(descriptor) }
        descriptor = -1
    }

    func reset() {
        var value = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
        close()
    }
}
