import Glibc

/// SIGTERM and SIGINT, waited for by the main thread while the loops work on theirs.
package struct TerminationSignal {
    private var set = sigset_t()

    /// Blocks both for this thread and for those that it starts from now on: call it before any other thread exists.
    package init() {
        sigemptyset(&set)
        sigaddset(&set, SIGTERM)
        sigaddset(&set, SIGINT)
        pthread_sigmask(SIG_BLOCK, &set, nil)
        signal(SIGPIPE, SIG_IGN)
    }

    /// Returns when one of them has come.
    package func wait() {
        var set = set
        var received: Int32 = 0
        while sigwait(&set, &received) != 0 {}
    }
}
