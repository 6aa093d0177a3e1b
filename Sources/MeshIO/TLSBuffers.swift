internal import CNIOBoringSSL
internal import Glibc

/// The memory through which every TLS session of a loop receives and sends ciphertext, so that an idle session holds none.
///
/// At most one session has input in it at a time (sessions read from the loop's turn only), and output is sent before
/// anything else is called: nothing of one session is ever seen by another.
final class TLSBuffers {
    struct State {
        /// The session's BIO whose input this is.
        var reader: UnsafeMutableRawPointer?
        var input: UnsafeRawPointer?
        var inputCount = 0
        let output: UnsafeMutableRawPointer
        var outputCount = 0
        var alertSent: UInt8?
    }

    /// Four full records with what surrounds them, or the largest handshake flight that BoringSSL makes.
    static let outputCapacity = 160 * 1024
    /// The payload of one record (RFC 8446 §5.1).
    static let recordCapacity = 16 * 1024

    let state: UnsafeMutablePointer<State>
    /// Where a head and a body are joined to one record.
    let joined: UnsafeMutableRawPointer

    init() {
        state = .allocate(capacity: 1)
        let output = UnsafeMutableRawPointer.allocate(byteCount: TLSBuffers.outputCapacity, alignment: 16)
        state.initialize(to: State(output: output))
        joined = .allocate(byteCount: TLSBuffers.recordCapacity, alignment: 16)
    }

    deinit {
        state.pointee.output.deallocate()
        state.deinitialize(count: 1)
        state.deallocate()
        joined.deallocate()
    }

    /// A BIO over this memory; it does not keep it.
    func makeBIO() -> OpaquePointer? {
        guard let bio = BIO_new(TLSBuffers.method.pointer) else { return nil }
        BIO_set_data(bio, state)
        return bio
    }

    /// A pointer that is made once, never changed and read by every thread.
    private struct Method: @unchecked Sendable {
        let pointer: OpaquePointer?
    }

    private static let method: Method = {
        let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "apus")
        BIO_meth_set_read(method) { bio, destination, count in
            guard let bio, let destination, let state = TLSBuffers.state(of: bio) else { return -1 }
            BIO_clear_retry_flags(bio)
            let available = state.pointee.reader == UnsafeMutableRawPointer(bio) ? state.pointee.inputCount : 0
            guard available > 0, let input = state.pointee.input else {
                BIO_set_retry_read(bio)
                return -1
            }
            let taken = min(Int(count), available)
            memcpy(destination, input, taken)
            state.pointee.input = input + taken
            state.pointee.inputCount = available - taken
            return Int32(taken)
        }
        BIO_meth_set_write(method) { bio, source, count in
            guard let bio, let source, let state = TLSBuffers.state(of: bio) else { return -1 }
            let used = state.pointee.outputCount
            guard count >= 0, Int(count) <= TLSBuffers.outputCapacity - used else { return -1 }
            memcpy(state.pointee.output + used, source, Int(count))
            state.pointee.outputCount = used + Int(count)
            return count
        }
        BIO_meth_set_ctrl(method) { _, command, _, _ in command == BIO_CTRL_FLUSH ? 1 : 0 }
        BIO_meth_set_create(method) { bio in
            BIO_set_init(bio, 1)
            return 1
        }
        return Method(pointer: method)
    }()

    static func state(of bio: OpaquePointer) -> UnsafeMutablePointer<State>? {
        BIO_get_data(bio)?.assumingMemoryBound(to: State.self)
    }
}
