import MeshAddress
import MeshIO
import Testing

@Suite struct PlaintextTests {
    @Test func bytesPassInBothDirections() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            recorder.onReceived = { connection, bytes in
                connection.write(bytes)
                return bytes.count
            }
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            try peer.write("hello")
            #expect(try peer.readText(5) == "hello")
            let connection = try recorder.waitForConnection()
            #expect(try rig.run { [connection.bytesReceived, connection.bytesSent] } == [5, 5])
            #expect(recorder.events.isEmpty, "a plaintext connection that was accepted is not told opened")
        }
    }

    @Test func bothPartsOfAWriteArriveInOrder() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder), receiveBuffer: 4096)
            let connection = try recorder.waitForConnection()
            let head = [UInt8](repeating: 1, count: 300_000)
            let body = [UInt8](repeating: 2, count: 3_000_000)
            try rig.run {
                head.withUnsafeBytes { head in body.withUnsafeBytes { connection.write(head, $0) } }
                head.withUnsafeBytes { head in body.withUnsafeBytes { connection.write(head, $0) } }
                connection.finishWriting()
            }
            #expect(try peer.readToEnd() == head + body + head + body)
        }
    }

    @Test func whatIsNotConsumedIsGivenAgainInFrontOfWhatFollows() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            recorder.onReceived = { _, bytes in bytes.last == UInt8(ascii: "\n") ? bytes.count : min(bytes.count, 2) }
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            try peer.write("abcd")
            try recorder.wait(forText: "ab")
            let connection = try recorder.waitForConnection()
            #expect(try rig.run { connection.retainedBytes } == 2)
            try peer.write("efg\n")
            try recorder.wait(forText: "abcdefg\n")
            #expect(recorder.log.value.deliveries == 2)
            #expect(try rig.run { connection.retainedBytes } == 0)
        }
    }

    @Test func retainedBytesAreOfferedAgainWhenAskedFor() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let mayConsume = Watched(false)
            recorder.onReceived = { _, bytes in mayConsume.value ? bytes.count : 0 }
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            try peer.write("abcd")
            try recorder.log.wait(for: "the first offer", until: { $0.deliveries == 1 })
            let connection = try recorder.waitForConnection()
            mayConsume.change { $0 = true }
            try rig.run { connection.deliverRetained() }
            try recorder.wait(forText: "abcd")
            #expect(recorder.log.value.deliveries == 2)
        }
    }

    @Test func readingStopsAtTheRetainedLimitAndGoesOnOnceBytesAreConsumed() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let mayConsume = Watched(false)
            let mostRetained = Watched(0)
            recorder.keepsBytes = false
            let received = Watched(0)
            recorder.onReceived = { _, bytes in
                mostRetained.change { $0 = max($0, bytes.count) }
                guard mayConsume.value else { return 0 }
                received.change { $0 += bytes.count }
                return bytes.count
            }
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            let total = 32 << 20
            let isWritten = Watched(false)
            let writer = Transfer(peer)
            Task.detached {
                try await onOwnThread {
                    try writer.value.write([UInt8](repeating: 7, count: total))
                    isWritten.change { $0 = true }
                }
            }
            let connection = try recorder.waitForConnection()
            try mostRetained.wait(for: "the limit", until: { $0 >= 80 * 1024 })
            #expect(try rig.run { connection.retainedBytes } <= 80 * 1024 + 128 * 1024)
            #expect(!isWritten.value)
            mayConsume.change { $0 = true }
            try rig.run { connection.deliverRetained() }
            try received.wait(for: "the rest", until: { $0 == total })
        }
    }

    @Test func aPausedConnectionDeliversNothingUntilItIsResumed() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder) { $0.pauseReading() })
            let connection = try recorder.waitForConnection()
            try peer.write("abc")
            peer.finishWriting()
            for _ in 0..<20 { try rig.run {} }
            #expect(recorder.text.isEmpty && recorder.events.isEmpty)
            try rig.run { connection.resumeReading() }
            try recorder.wait(for: .readEnded)
            #expect(recorder.text == "abc")
        }
    }

    @Test func pausingInsideADeliveryKeepsTheRestForLater() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            recorder.onReceived = { connection, bytes in
                connection.pauseReading()
                return 1
            }
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            try peer.write("abc")
            let connection = try recorder.waitForConnection()
            for text in ["a", "ab", "abc"] {
                try recorder.wait(forText: text)
                #expect(recorder.text == text)
                try rig.run { connection.resumeReading() }
            }
        }
    }

    @Test func aPeerThatFinishesCanStillBeAnswered() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            recorder.onReadEnded = { connection in
                connection.write("late answer")
                connection.finishWriting()
            }
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            try peer.write("question")
            peer.finishWriting()
            #expect(String(decoding: try peer.readToEnd(), as: UTF8.self) == "late answer")
            #expect(try recorder.waitUntilClosed() == .peer)
            #expect(recorder.events == [.readEnded, .closed(.peer)])
            #expect(recorder.text == "question")
        }
    }

    @Test func afterFinishingReadingGoesOn() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(
                to: rig.listen(for: recorder) { connection in
                    connection.write("bye")
                    connection.finishWriting()
                    connection.write("dropped")
                })
            #expect(String(decoding: try peer.readToEnd(), as: UTF8.self) == "bye")
            try peer.write("still here")
            try recorder.wait(forText: "still here")
            peer.close()
            #expect(try recorder.waitUntilClosed() == .peer)
        }
    }

    @Test(arguments: [false, true]) func aResetIsTold(whilePaused: Bool) async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(
                to: rig.listen(for: recorder) { if whilePaused { $0.pauseReading() } })
            _ = try recorder.waitForConnection()
            peer.reset()
            #expect(try recorder.waitUntilClosed() == .reset)
            #expect(recorder.events == [.closed(.reset)])
        }
    }

    @Test func whatThePeerSentBeforeItStoppedReadingIsDelivered() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let (listener, address) = try BlockingSocket.listening()
            recorder.onOpened = { $0.pauseReading() }
            let connection = try rig.dial(address, recorder)
            let peer = try listener.accepted()
            try peer.write("refused")
            try recorder.wait(for: .opened)
            // Closing with nothing unread is a FIN; what we send next is answered with a reset.
            peer.close()
            try rig.run {
                connection.resumeReading()
                connection.write([UInt8](repeating: 1, count: 1 << 20))
            }
            #expect(try recorder.waitUntilClosed() == .reset)
            #expect(recorder.text == "refused")
        }
    }

    @Test func aClosingConnectionStillSendsWhatIsUnsent() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder), receiveBuffer: 65_536)
            let connection = try recorder.waitForConnection()
            let bytes = (0..<6_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let unsent = try rig.run {
                connection.write(bytes)
                let unsent = connection.unsentBytes
                connection.close()
                connection.close()
                connection.write("dropped")
                return unsent
            }
            #expect(unsent > 0)
            #expect(try recorder.waitUntilClosed() == .local)
            #expect(try peer.readToEnd() == bytes)
            #expect(recorder.events == [.closed(.local)])
            try expectNothingOpen(rig)
        }
    }

    @Test func closingOverUnreadBytesDoesNotCostThePeerTheAnswer() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            recorder.onReceived = { connection, bytes in
                connection.write("413")
                connection.close()
                return 0
            }
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            for _ in 0..<20 { try peer.write([UInt8](repeating: 1, count: 20_000)) }
            #expect(try peer.readText(3) == "413")
            #expect(try peer.readSome().isEmpty)
            peer.close()
            try expectNothingOpen(rig)
        }
    }

    @Test func aPeerThatNeverReadsIsLetGoOf() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder), receiveBuffer: 4096)
            let connection = try recorder.waitForConnection()
            try rig.run {
                connection.write([UInt8](repeating: 1, count: 8 << 20))
                connection.close()
            }
            #expect(try rig.statistics.lingeringConnections == 1)
            try expectNothingOpen(rig)
            withExtendedLifetime(peer) {}
        }
    }

    @Test func abortResets() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder))
            let connection = try recorder.waitForConnection()
            try rig.run { connection.abort() }
            #expect(throws: RigFailure.self) { try peer.readToEnd() }
            #expect(try recorder.waitUntilClosed() == .local)
        }
    }

    @Test func moreUnsentThanTheLimitClosesTheConnection() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let peer = try BlockingSocket.connected(to: rig.listen(for: recorder) { $0.unsentLimit = 1 << 20 })
            let connection = try recorder.waitForConnection()
            try rig.run { for _ in 0..<64 { connection.write([UInt8](repeating: 1, count: 1 << 20)) } }
            #expect(try recorder.waitUntilClosed() == .bufferLimit)
            #expect(try rig.statistics.unsentLimitReached == 1)
            withExtendedLifetime(peer) {}
        }
    }

    enum Occasion: String, CaseIterable { case opened, received, readEnded, drained, closed }

    @Test(arguments: Occasion.allCases) func closingInsideAnyCallbackIsSafe(_ occasion: Occasion) async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let recorder = Recorder()
            let close: (Connection) -> Void = {
                $0.close()
                $0.abort()
                $0.finishWriting()
                $0.resumeReading()
                $0.deliverRetained()
                $0.write("dropped")
            }
            switch occasion {
            case .opened: recorder.onOpened = close
            case .received:
                recorder.onReceived = { connection, bytes in
                    close(connection)
                    return bytes.reduce(0) { $0 + ($1 == 1 ? 1 : 0) }
                }
            case .readEnded: recorder.onReadEnded = close
            case .drained: recorder.onDrained = close
            case .closed: recorder.onClosed = close
            }
            let (listener, address) = try BlockingSocket.listening()
            let connection = try rig.dial(address, recorder) { $0.write([UInt8](repeating: 9, count: 8 << 20)) }
            let peer = try listener.accepted()
            if occasion == .received { try peer.write([UInt8](repeating: 1, count: 1000)) }
            if occasion == .readEnded || occasion == .closed { peer.finishWriting() }
            if occasion == .drained || occasion == .closed { _ = try? peer.read(8 << 20) }
            if occasion == .closed { try rig.run { connection.finishWriting() } }
            try recorder.waitUntilClosed()
            try expectNothingOpen(rig)
            let closings = recorder.events.count { if case .closed = $0 { true } else { false } }
            #expect(closings == 1)
            guard case .closed = recorder.events.last else { throw RigFailure("closed was not the last event") }
        }
    }

    @Test func aHundredMegabytesThroughASlowReaderStayWithinTheHighWaterMark() async throws {
        try await onOwnThread {
            let rig = try LoopRig()
            let total = 100 << 20
            let pump = Pump(total: total)
            let peer = try BlockingSocket.connected(to: rig.listen(for: pump.recorder), receiveBuffer: 65_536)
            let connection = try pump.recorder.waitForConnection()
            try rig.run { pump.go(connection) }
            var received = 0
            while case let some = try peer.readSome(), !some.isEmpty { received += some.count }
            #expect(received == total)
            #expect(pump.mostUnsent <= 256 * 1024 + Pump.piece)
            #expect(pump.recorder.events.contains(.drained))
        }
    }
}

/// Writes as long as the connection is not above its high-water mark, and goes on when it has drained.
final class Pump: @unchecked Sendable {
    static let piece = 64 * 1024
    let recorder = Recorder()
    private(set) var mostUnsent = 0
    private var remaining: Int
    private let bytes = [UInt8](repeating: 5, count: Pump.piece)

    init(total: Int) {
        remaining = total
        recorder.onDrained = { [unowned self] in go($0) }
    }

    func go(_ connection: Connection) {
        while remaining > 0, !connection.isAboveHighWater, !connection.isClosed {
            connection.write(bytes)
            remaining -= bytes.count
            mostUnsent = max(mostUnsent, connection.unsentBytes)
        }
        if remaining == 0 { connection.finishWriting() }
    }
}

/// Waits until the loop holds no connection.
func expectNothingOpen(_ rig: LoopRig) throws {
    for _ in 0..<(patienceSeconds * 100) {
        let statistics = try rig.statistics
        if statistics.openConnections == 0 && statistics.lingeringConnections == 0 { return }
        pauseBriefly()
    }
    throw RigFailure("connections stay: \(try rig.statistics)")
}
