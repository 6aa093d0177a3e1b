import CSimulatedKernel

/// A client: sends its requests on one connection and knows what it is owed.
final class SimulatedClient: SimulatedPeer {
    struct Request {
        var number: Int
        var method: String
        var body: Int
    }

    private let port: UInt16
    private let isInbound: Bool
    private let requests: [Request]
    private let pipelines: Bool
    private var socket: SimulatedSocket?
    private var wake: Int64
    /// After so many steps it goes away in the middle of things.
    private var patience: Int
    private let leavesByReset: Bool
    private var begun = 0
    private var answered = 0
    private(set) var isDone = false
    private var hasLeft = false
    private var wasToldClose = false

    init(_ simulation: Simulation, port: UInt16, isInbound: Bool, requests: [Request], at start: Int64) {
        self.port = port
        self.isInbound = isInbound
        self.requests = requests
        wake = start
        pipelines = simulation.random.one(in: 4)
        patience = simulation.random.one(in: 5) ? simulation.random.within(1...40) : .max
        leavesByReset = simulation.random.one(in: 2)
    }

    /// Of its connection.
    var number: Int32? { socket?.number }

    /// Requests that are begun and not answered in full.
    private var open: Int { begun - answered }

    var isOver: Bool { isDone }

    func due() -> Int64? {
        if isDone { return nil }
        guard let socket else { return wake }
        if socket.hasUnsent || socket.readable > 0 || socket.end != APUS_SIM_OPEN || patience == 0 { return wake }
        if begun < requests.count, open == 0 || pipelines, !wasToldClose { return wake }
        return answered == requests.count ? wake : nil
    }

    func step(_ simulation: Simulation) {
        if socket == nil {
            let number = apus_sim_dial(port)
            guard number >= 0 else {
                isDone = true
                return
            }
            socket = SimulatedSocket(number)
            simulation.dialled(number)
            simulation.tell("client \(number) for \(requests.map(\.number)), inbound \(isInbound)")
            if simulation.random.one(in: 3) { apus_sim_set_capacity(number, simulation.random.within(64...4000)) }
            return
        }
        if patience != .max { patience -= 1 }
        if patience <= 0 { return leave(simulation, reset: leavesByReset) }
        var choices: [() -> Void] = []
        if socket?.hasUnsent == true { choices.append { self.send(simulation) } }
        if let socket, socket.readable > 0 || socket.end != APUS_SIM_OPEN {
            choices.append { self.receive(simulation) }
        }
        if begun < requests.count, open == 0 || pipelines, !wasToldClose { choices.append { self.begin(simulation) } }
        if choices.isEmpty {
            if answered == requests.count || wasToldClose { leave(simulation, reset: false) }
            return
        }
        choices[simulation.random.below(choices.count)]()
    }

    private func leave(_ simulation: Simulation, reset: Bool) {
        guard let number = socket?.number else { return }
        simulation.tell("client \(number) leaves, reset \(reset)")
        if reset { apus_sim_reset(number) } else { apus_sim_close(number) }
        hasLeft = true
        isDone = true
    }

    private func begin(_ simulation: Simulation) {
        let request = requests[begun]
        begun += 1
        simulation.tell("client \(number ?? -1) begins \(request)")
        let length = request.body > 0 ? "Content-Length: \(request.body)\r\n" : ""
        let head = "\(request.method) /\(request.number) HTTP/1.1\r\nHost: catalog\r\n\(length)\r\n"
        socket?.queue(Array(head.utf8) + [UInt8](repeating: 120, count: request.body))
    }

    private func send(_ simulation: Simulation) {
        let count = simulation.random.one(in: 2) ? simulation.random.within(1...300) : 65_536
        if socket?.send(count) == false { wake = simulation.now + 1_000_000 } else { wake = simulation.now }
    }

    private func receive(_ simulation: Simulation) {
        let count = simulation.random.one(in: 3) ? simulation.random.within(1...60) : 65_536
        if socket?.receive(count) == 0 { return ended(simulation) }
        while let socket, let head = PlainHead(socket.received) {
            guard let body = body(behind: head, socket.received) else { break }
            if head.startLine.hasPrefix("HTTP/1.1 1") {
                self.socket?.consume(head.length)
                continue
            }
            judge(head, body.payload, simulation)
            self.socket?.consume(head.length + body.length)
        }
        if let socket, answered == begun, !socket.received.isEmpty {
            simulation.fail("bytes behind the last answer: \(String(decoding: socket.received, as: UTF8.self))")
        }
        if simulation.random.one(in: 6) { wake = simulation.now + simulation.random.milliseconds(0...50) }
    }

    /// Nil when it is not all there.
    private func body(behind head: PlainHead, _ bytes: [UInt8]) -> (payload: [UInt8], length: Int)? {
        let rest = Array(bytes[head.length...])
        guard head.fields["transfer-encoding"] == "chunked" else {
            return rest.count >= head.contentLength
                ? (Array(rest[..<head.contentLength]), head.contentLength) : nil
        }
        var payload: [UInt8] = []
        var at = 0
        while let line = Array(rest[at...]).firstRange(of: [13, 10]) {
            guard let size = Int(String(decoding: rest[at..<(at + line.lowerBound)], as: UTF8.self), radix: 16) else {
                return nil
            }
            let start = at + line.upperBound
            guard rest.count >= start + size + 2 else { return nil }
            payload += rest[start..<(start + size)]
            at = start + size + 2
            if size == 0 { return (payload, at) }
        }
        return nil
    }

    private func judge(_ head: PlainHead, _ payload: [UInt8], _ simulation: Simulation) {
        guard answered < begun else { return simulation.fail("an answer to no request: \(head.startLine)") }
        let request = requests[answered]
        answered += 1
        if head.fields["connection"] == "close" { wasToldClose = true }
        simulation.tell(
            "client \(number ?? -1): \(request.number) is answered \(head.startLine) \(head.fields["apus-reason"] ?? "")"
        )
        if let id = head.fields["x-id"] {
            if id != "\(request.number)" {
                simulation.fail("request \(request.number) was given the answer to request \(id)")
            } else if payload != answerBody(request.number, payload.count) {
                simulation.fail("request \(request.number) was given another body")
            }
        } else if head.fields["apus-reason"] == nil {
            simulation.fail("request \(request.number) was answered by nobody: \(head.startLine)")
        } else {
            simulation.refusals[head.fields["apus-reason"] ?? "", default: 0] += 1
        }
        simulation.answered(request.number)
    }

    /// The connection has ended by the sidecar's doing.
    private func ended(_ simulation: Simulation) {
        isDone = true
        simulation.tell("client \(number ?? -1): ended \(socket?.end ?? 0), unsent \(socket?.hasUnsent ?? false)")
        let hasPart = !(socket?.received.isEmpty ?? true)
        let isReset = socket.map { $0.end == APUS_SIM_RESET } ?? false
        if let number = socket?.number { apus_sim_close(number) }
        guard open > 0, !hasPart, !wasToldClose, !(isInbound && simulation.isDraining) else { return }
        let request = requests[answered]
        // A reset takes with it what had not been read, answers to earlier requests included.
        if isReset, requests[answered..<begun].contains(where: { simulation.brokenOff.contains($0.number) }) { return }
        simulation.fail("request \(request.number) (\(request.method)) was lost: its connection ended without a word")
    }

    /// At the end of everything.
    func settle(_ simulation: Simulation) {
        guard !isDone else { return }
        let number = begun > answered ? "\(requests[answered].number)" : "none"
        simulation.fail("a client waits for ever: request \(number), \(answered) of \(begun) answered")
    }
}
