import CSimulatedKernel

/// An endpoint: takes connections as it pleases.
final class SimulatedServer {
    let index: Int
    let address: UInt32
    let port: UInt16
    /// Takes every connection, so that a retry has somewhere to go.
    let isReliable: Bool
    /// Of a hundred requests, so many are answered as they should be.
    let health: Int

    init(index: Int, address: UInt32, port: UInt16, isReliable: Bool, health: Int) {
        self.index = index
        self.address = address
        self.port = port
        self.isReliable = isReliable
        self.health = health
    }
}

/// One connection to an endpoint.
final class SimulatedServerConnection: SimulatedPeer {
    private enum Phase {
        case connecting
        case reading
        case answering
        /// Says nothing any more.
        case silent
        case closed
    }

    private enum Fault: CaseIterable {
        case answerStatus503, closeBefore, resetBefore, resetWithin, closeWithin, hang, answerAndClose, announceClose,
            answerEarly
    }

    let server: SimulatedServer
    private weak var simulation: Simulation?
    private var socket: SimulatedSocket
    private var phase = Phase.connecting
    private var wake: Int64
    private var connectFate: Int
    private var request: Int?
    private var bodyLeft = 0
    private var fault: Fault?
    private var idleNanoseconds: Int64

    init(_ server: SimulatedServer, _ number: Int32, _ simulation: Simulation) {
        self.server = server
        self.simulation = simulation
        socket = SimulatedSocket(number)
        connectFate = server.isReliable ? 0 : simulation.random.below(12)
        wake = simulation.now + simulation.random.milliseconds(0...(simulation.random.one(in: 4) ? 60 : 1))
        idleNanoseconds = simulation.random.one(in: 3) ? simulation.random.milliseconds(1...900) : .max
        apus_sim_set_capacity(number, simulation.random.one(in: 3) ? simulation.random.within(64...3000) : 65_536)
    }

    var isOver: Bool { phase == .closed }

    func due() -> Int64? {
        switch phase {
        case .connecting: return connectFate == 11 ? nil : wake
        case .reading:
            if socket.readable > 0 || socket.end != APUS_SIM_OPEN { return wake }
            return idleNanoseconds == .max ? nil : wake + idleNanoseconds
        case .answering: return wake
        case .silent: return socket.readable > 0 || socket.end != APUS_SIM_OPEN ? wake : wake + 20_000_000_000
        case .closed: return nil
        }
    }

    func step(_ simulation: Simulation) {
        switch phase {
        case .connecting:
            if connectFate == 10 {
                apus_sim_refuse(socket.number)
                phase = .closed
            } else {
                apus_sim_accept(socket.number)
                phase = .reading
            }
        case .reading: read(simulation)
        case .answering: answer(simulation)
        case .silent:
            if socket.receive(65_536) == 0 { end(.closed) }
            socket.consume(socket.received.count)
        case .closed: break
        }
    }

    private func end(_ next: Phase, reset: Bool = false) {
        simulation?.tell("connection \(socket.number) is closed, reset \(reset)")
        if reset { apus_sim_reset(socket.number) } else { apus_sim_close(socket.number) }
        phase = next
    }

    private func read(_ simulation: Simulation) {
        if socket.readable == 0 {
            // Its peer has finished, or it was idle for long enough.
            return end(.closed)
        }
        socket.receive(simulation.random.one(in: 3) ? simulation.random.within(1...40) : 65_536)
        if request == nil {
            guard let head = PlainHead(socket.received) else { return }
            begin(head, simulation)
        }
        let taken = min(bodyLeft, socket.received.count)
        socket.consume(taken)
        bodyLeft -= taken
        if bodyLeft == 0 || fault == .answerEarly || fault == .resetBefore || fault == .closeBefore {
            decide(simulation)
        }
    }

    private func begin(_ head: PlainHead, _ simulation: Simulation) {
        socket.consume(head.length)
        let words = head.startLine.split(separator: " ")
        let number = words.count == 3 ? Int(words[1].dropFirst()) : nil
        guard let number else { return simulation.fail("an endpoint was sent «\(head.startLine)»") }
        request = number
        bodyLeft = head.contentLength
        simulation.delivered(number, to: server, method: String(words[0]))
        defer {
            simulation.tell("connection \(socket.number): request \(number), \(fault.map { "\($0)" } ?? "answered")")
        }
        fault =
            simulation.random.below(100) < server.health ? nil : Fault.allCases.randomElement(using: &simulation.random)
    }

    private func decide(_ simulation: Simulation) {
        guard let request else { return }
        wake = simulation.now + simulation.random.milliseconds(0...(simulation.random.one(in: 5) ? 400 : 2))
        var status = "200 OK"
        switch fault {
        case .hang:
            phase = .silent
            return
        case .closeBefore: return end(.closed)
        case .resetBefore: return end(.closed, reset: true)
        case .answerStatus503: status = "503 Service Unavailable"
        default: break
        }
        let count = simulation.random.one(in: 4) ? simulation.random.within(1000...9000) : simulation.random.below(200)
        let closes = fault == .announceClose ? "Connection: close\r\n" : ""
        var response = Array("HTTP/1.1 \(status)\r\nX-Id: \(request)\r\n\(closes)".utf8)
        let body = answerBody(request, count)
        if simulation.random.one(in: 3) {
            response += Array("Transfer-Encoding: chunked\r\n\r\n".utf8)
            if count > 0 { response += Array("\(String(count, radix: 16))\r\n".utf8) + body + [13, 10] }
            response += Array("0\r\n\r\n".utf8)
        } else {
            response += Array("Content-Length: \(count)\r\n\r\n".utf8) + body
        }
        if fault == .resetWithin || fault == .closeWithin {
            response.removeLast(simulation.random.within(1...max(1, response.count - 1)))
            simulation.brokenOff.insert(request)
        }
        socket.queue(response)
        phase = .answering
    }

    private func answer(_ simulation: Simulation) {
        if bodyLeft > 0, socket.readable > 0 {
            socket.receive(65_536)
            let taken = min(bodyLeft, socket.received.count)
            socket.consume(taken)
            bodyLeft -= taken
        }
        if socket.hasUnsent {
            if !socket.send(simulation.random.one(in: 3) ? simulation.random.within(1...200) : 65_536) {
                wake = simulation.now + 1_000_000
            }
            if socket.end != APUS_SIM_OPEN { end(.closed) }
            return
        }
        switch fault {
        case .resetWithin: return end(.closed, reset: true)
        case .closeWithin, .answerAndClose, .announceClose: return end(.closed)
        default: break
        }
        if bodyLeft > 0 {
            if socket.end != APUS_SIM_OPEN { return end(.closed) }
            wake = simulation.now + 1_000_000
            return
        }
        request = nil
        fault = nil
        wake = simulation.now
        phase = .reading
        // A next request may be there already.
        if !socket.received.isEmpty { readAgain(simulation) }
    }

    private func readAgain(_ simulation: Simulation) {
        guard let head = PlainHead(socket.received) else { return }
        begin(head, simulation)
        let taken = min(bodyLeft, socket.received.count)
        socket.consume(taken)
        bodyLeft -= taken
        if bodyLeft == 0 { decide(simulation) }
    }
}
