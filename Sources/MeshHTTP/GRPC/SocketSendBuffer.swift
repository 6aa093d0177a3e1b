internal import Glibc
internal import MeshIO

extension AcceptedSocket {
    /// What the kernel takes before a slow peer's connection counts as congested. A kernel that refuses keeps its own
    /// size.
    func setSendBuffer(bytes: Int) {
        var value = Int32(clamping: bytes)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &value, socklen_t(MemoryLayout<Int32>.size))
    }
}
