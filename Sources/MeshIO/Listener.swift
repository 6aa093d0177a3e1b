internal import CApus
internal import Glibc
package import MeshAddress

package protocol ListenerDelegate: AnyObject {
    func accepted(_ socket: AcceptedSocket, from listener: Listener)
}

/// A listening TCP socket. The loop keeps it until `close()`; it keeps its delegate until then.
package final class Listener {
    /// Connections that the kernel completes ahead of `accept`.
    static let backlog: Int32 = 4096
    /// Connections accepted before other descriptors have their turn.
    private static let acceptsPerRound = 64
    /// How long it does not accept after the process ran out of descriptors or memory.
    private static let pauseMilliseconds = 100

    /// With the real port, when 0 was asked for.
    package let address: SocketAddress
    package let loop: EventLoop
    private var delegate: (any ListenerDelegate)?
    private var descriptor: Int32
    /// Given up when no other is left, so that a waiting connection can be accepted and closed instead of waiting on.
    private var reserve: Int32
    private var retry: LoopTimer?
    private var isAccepting = true

    /// Listens with SO_REUSEADDR. `any6` listens on both families, or on IPv4 alone where the machine has no IPv6.
    package init(
        loop: EventLoop, address: SocketAddress, reusePort: Bool = false, delegate: any ListenerDelegate
    ) throws(SystemError) {
        assert(loop.isCurrent, "a listener is made on its loop")
        self.loop = loop
        self.delegate = delegate
        do {
            descriptor = try Listener.listen(address, reusePort)
        } catch {
            let isWithoutIPv6 = error.code == EAFNOSUPPORT || error.code == EADDRNOTAVAIL
            guard address.ip == .any6, isWithoutIPv6 else { throw error }
            descriptor = try Listener.listen(SocketAddress(.any4, address.port), reusePort)
        }
        self.address = .local(of: descriptor)
        reserve = Listener.openReserve()
        do {
            try loop.watch(self, descriptor)
        } catch {
            Glibc.close(descriptor)
            Glibc.close(reserve)
            throw error
        }
    }

    private static func listen(_ address: SocketAddress, _ reusePort: Bool) throws(SystemError) -> Int32 {
        let descriptor = apus_socket_stream(address.family)
        guard descriptor >= 0 else { throw .current("socket for \(address)") }
        func failure(_ operation: String) -> SystemError {
            let error = SystemError.current("\(operation) \(address)")
            Glibc.close(descriptor)
            return error
        }
        setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
        if reusePort { setOption(descriptor, SOL_SOCKET, SO_REUSEPORT, 1) }
        if !address.ip.isV4 {
            setOption(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, address.ip == .any6 ? 0 : 1)
        }
        guard address.withKernelAddress({ bind(descriptor, $0, $1) }) == 0 else { throw failure("bind") }
        guard Glibc.listen(descriptor, backlog) == 0 else { throw failure("listen on") }
        return descriptor
    }

    private static func openReserve() -> Int32 {
        open("/dev/null", O_RDONLY | O_CLOEXEC)
    }

    /// Accepts nothing more; connections the kernel has completed wait for `close()`, which refuses them.
    package func stopAccepting() {
        guard descriptor >= 0, isAccepting else { return }
        isAccepting = false
        retry?.cancel()
        loop.setWatching(self, descriptor, false)
    }

    package func close() {
        guard descriptor >= 0 else { return }
        retry = nil
        delegate = nil
        loop.unwatch(self, descriptor)
        Glibc.close(descriptor)
        if reserve >= 0 { Glibc.close(reserve) }
        descriptor = -1
        reserve = -1
    }

    func ready() {
        var remaining = Listener.acceptsPerRound
        while remaining > 0, isAccepting, descriptor >= 0 {
            remaining -= 1
            var storage = sockaddr_storage()
            let accepted = apus_accept(descriptor, &storage)
            if accepted >= 0 {
                hand(accepted, storage)
            } else if !mayContinue(afterError: errno) {
                return
            }
        }
    }

    private func hand(_ accepted: Int32, _ storage: sockaddr_storage) {
        guard let peer = SocketAddress(storage) else {
            Glibc.close(accepted)
            return
        }
        loop.counts.acceptedConnections += 1
        delegate?.accepted(AcceptedSocket(descriptor: accepted, peer: peer), from: self)
    }

    /// The errors of accept(2): nothing waits, this one has gone, the process or the machine has nothing left.
    private func mayContinue(afterError code: Int32) -> Bool {
        switch code {
        case EAGAIN:
            return false
        case EINTR, ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, ENETUNREACH, EPERM:
            return true
        case EMFILE, ENFILE:
            shed()
            pause()
            return false
        default:
            loop.counts.acceptErrors += 1
            pause()
            return false
        }
    }

    private func shed() {
        loop.counts.acceptErrors += 1
        guard reserve >= 0 else { return }
        Glibc.close(reserve)
        var storage = sockaddr_storage()
        let accepted = apus_accept(descriptor, &storage)
        if accepted >= 0 {
            Glibc.close(accepted)
            loop.counts.descriptorsExhausted += 1
        }
        reserve = Listener.openReserve()
    }

    private func pause() {
        loop.setWatching(self, descriptor, false)
        let timer = retry ?? LoopTimer(loop: loop, target: self)
        retry = timer
        timer.arm(afterMilliseconds: Listener.pauseMilliseconds)
    }
}

extension Listener: TimerTarget {
    package func timerFired(_ timer: LoopTimer) {
        guard descriptor >= 0, isAccepting else { return }
        if reserve < 0 { reserve = Listener.openReserve() }
        loop.setWatching(self, descriptor, true)
    }
}

/// Options that every kernel has; a failure leaves the default.
func setOption(_ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Int32) {
    var value = value
    setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
}
