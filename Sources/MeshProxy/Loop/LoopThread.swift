import Glibc
import MeshIO

/// The thread of a data loop. It holds the loop's half of the data path for as long as the event loop runs, so that nothing
/// that a connection's end still needs is gone before it, and lets it go when no other thread can see it.
enum LoopThread {
    private final class Start: Sendable {
        let events: EventLoop
        let make: @Sendable () -> LoopBound<ProxyLoop>?

        init(_ events: EventLoop, _ make: @escaping @Sendable () -> LoopBound<ProxyLoop>?) {
            self.events = events
            self.make = make
        }
    }

    /// Runs `make` on a new thread and then, unless it gives nothing, the event loop.
    static func run(_ events: EventLoop, _ make: @escaping @Sendable () -> LoopBound<ProxyLoop>?) throws(SystemError) {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(Start(events, make))
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                guard let proxy = start.make() else { return nil }
                start.events.run()
                withExtendedLifetime(proxy) {}
                return nil
            }, argument.toOpaque())
        guard result == 0 else {
            argument.release()
            throw SystemError(code: result, operation: "pthread_create")
        }
        pthread_detach(thread)
    }
}
