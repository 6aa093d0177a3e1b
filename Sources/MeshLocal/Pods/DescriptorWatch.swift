import CApus
import Glibc
import Synchronization

/// One thread that waits for pipes and sockets of containers and says when something can be read or written.
///
/// Dispatch sources are not used: theirs have crashed on pipes whose far end closed while they were suspended.
final class DescriptorWatch: Sendable {
    /// One descriptor. It is reported once after each `arm`.
    final class Registration: Sendable {
        fileprivate let descriptor: Int32
        fileprivate let token: UInt64
        fileprivate let events: UInt32
        fileprivate let isAdded = Mutex(false)

        fileprivate init(descriptor: Int32, token: UInt64, events: UInt32) {
            self.descriptor = descriptor
            self.token = token
            self.events = events
        }
    }

    private struct State {
        var callbacks: [UInt64: @Sendable () -> Void] = [:]
        var lastToken: UInt64 = 0
    }

    static let shared = DescriptorWatch()

    private let epoll = apus_epoll_create()
    private let state = Mutex(State())

    private init() {
        precondition(epoll >= 0, "no epoll: \(lastError())")
        var thread = pthread_t()
        pthread_create(&thread, nil, { _ in DescriptorWatch.shared.loop() }, nil)
        pthread_detach(thread)
    }

    /// `callback` runs on the watch's thread and must be short. A token is never used again, so an event that was already
    /// on its way when its registration ended finds nothing.
    func register(_ descriptor: Int32, isForReading: Bool, _ callback: @escaping @Sendable () -> Void) -> Registration {
        state.withLock { state in
            state.lastToken += 1
            state.callbacks[state.lastToken] = callback
            return Registration(
                descriptor: descriptor, token: state.lastToken,
                events: isForReading ? EPOLLIN.rawValue : EPOLLOUT.rawValue)
        }
    }

    /// False when the descriptor cannot be waited for, as with an ordinary file, which is always ready.
    @discardableResult
    func arm(_ registration: Registration) -> Bool {
        registration.isAdded.withLock { isAdded in
            let events = registration.events | EPOLLONESHOT.rawValue
            let result =
                isAdded
                ? apus_epoll_modify(epoll, registration.descriptor, events, registration.token)
                : apus_epoll_add(epoll, registration.descriptor, events, 0, registration.token)
            isAdded = isAdded || result == 0
            return result == 0
        }
    }

    /// Before the descriptor is closed.
    func remove(_ registration: Registration) {
        state.withLock { state in _ = state.callbacks.removeValue(forKey: registration.token) }
        registration.isAdded.withLock { isAdded in
            if isAdded { _ = apus_watch_remove(epoll, registration.descriptor) }
            isAdded = false
        }
    }

    private func loop() -> Never {
        apus_set_thread_name("apus-watch")
        let capacity = 64
        var events = [epoll_event](repeating: epoll_event(), count: capacity)
        while true {
            let count = apus_epoll_wait(epoll, &events, Int32(capacity), -1)
            for index in 0..<max(0, Int(count)) {
                let token = apus_event_token(events, index)
                if let callback = state.withLock({ $0.callbacks[token] }) { callback() }
            }
        }
    }
}
