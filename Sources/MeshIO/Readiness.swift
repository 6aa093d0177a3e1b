internal import CApus

/// The bits of an epoll event (epoll_ctl(2)).
enum Readiness {
    static let read = UInt32(APUS_EVENT_READ)
    static let write = UInt32(APUS_EVENT_WRITE)
    static let peerFinished = UInt32(APUS_EVENT_PEER_FINISHED)
    static let error = UInt32(APUS_EVENT_ERROR)
    /// After these the end of the stream must be read, for no other event will tell of it.
    static let ending = peerFinished | error | UInt32(APUS_EVENT_HANG_UP)
}
