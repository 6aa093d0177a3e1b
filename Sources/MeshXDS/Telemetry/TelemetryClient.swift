internal import MeshAPI
package import MeshCore
package import MeshHTTP
package import MeshIO

/// A sidecar's end of telemetry: one stream on the channel, opened again when it ends. Holds no report back: what
/// cannot be sent now stays with the counters and goes with the next one.
package final class TelemetryClient {
    /// Unsent bytes above which no report is taken.
    private static let unsentLimit = 64 * 1024

    private let channel: ControlChannel
    private let pod: ObjectName
    private var session: HTTP2Session?
    private var call: GRPCClientCall?
    private var backoff: Backoff
    private var timer: LoopTimer?
    private var isClosed = false
    package private(set) var sentReports: UInt64 = 0
    /// Reports that were not taken.
    package private(set) var refusedReports: UInt64 = 0
    /// Why the last stream ended; empty while there was none.
    package private(set) var lastStatus = ""

    package init(channel: ControlChannel, pod: ObjectName) {
        self.channel = channel
        self.pod = pod
        backoff = Backoff(seed: UInt64(bitPattern: Int64(pod.hashValue)) ^ 0x5bd1_e995)
        timer = LoopTimer(loop: channel.loop, target: self)
        channel.add(self)
    }

    /// False while there is no stream or the control plane does not keep up: go on counting and merge.
    package var isWritable: Bool {
        guard let call else { return false }
        return call.unsentBytes < TelemetryClient.unsentLimit && call.isWritable
    }

    /// False when the report was not taken.
    package func send(_ report: TelemetryReport) -> Bool {
        guard isWritable, let call else {
            refusedReports += 1
            return false
        }
        call.send(ResourceEncoding.bytes(TelemetryWire.encode(report)))
        sentReports += 1
        return true
    }

    package func close() {
        isClosed = true
        timer?.cancel()
        call?.finishSending()
        call = nil
        session = nil
    }

    private func openStream() {
        guard !isClosed, call == nil, let session else { return }
        call = GRPCClientCall(on: session, path: TelemetryWire.method, authority: "apus-control", delegate: self)
        if call == nil { timer?.arm(afterMilliseconds: backoff.delayMilliseconds()) }
    }
}

extension TelemetryClient: ControlChannelUser {
    func channelOpened(_ session: HTTP2Session) {
        let old = call
        call = nil
        self.session = session
        timer?.cancel()
        openStream()
        old?.finishSending()
    }

    func channelClosed(reason: String) {
        session = nil
        call = nil
        timer?.cancel()
    }
}

extension TelemetryClient: GRPCClientCallDelegate {
    package func received(_ message: UnsafeRawBufferPointer, on call: GRPCClientCall) {}

    package func writable(_ call: GRPCClientCall) {}

    package func closed(_ call: GRPCClientCall, _ status: GRPCStatus) {
        guard call === self.call else { return }
        self.call = nil
        lastStatus = status.description
        guard !isClosed, session != nil else { return }
        timer?.arm(afterMilliseconds: backoff.delayMilliseconds())
    }
}

extension TelemetryClient: TimerTarget {
    package func timerFired(_ timer: LoopTimer) { openStream() }
}
