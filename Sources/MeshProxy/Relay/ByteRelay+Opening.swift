import MeshCore
import MeshIO

/// Knows what a client's first bytes mean, for a relay that was started before there were any.
protocol ByteRelayOwner: ConnectionDelegate {
    func clientBegan(_ bytes: UnsafeRawBufferPointer) -> ByteRelay.Beginning
    /// The connection is the owner's again, its delegate, and its first bytes come anew.
    func takeBack()
}

extension ByteRelay {
    enum Beginning {
        /// Should nothing follow in time, it is relayed as this.
        case needsMore(else: ApplicationProtocol)
        case bytes(ApplicationProtocol, TLSServerName?)
        /// The owner has its own way for it.
        case elsewhere
    }

    /// Dials an endpoint for a client that is silent, and lets whichever side speaks first decide: bytes from the server are
    /// relayed, bytes from the client are what the owner says.
    static func startUndecided(
        loop: ProxyLoop, downstream: Connection, target: RouteTarget, direction: HTTPRelay.Direction, caller: Caller,
        owner: any ByteRelayOwner
    ) {
        let relay = ByteRelay(
            loop: loop, downstream: downstream, target: target, direction: direction, caller: caller,
            innerProtocol: .opaque, isUpgrade: false)
        relay.owner = owner
        loop.counters.dialledEarly &+= 1
        // Among them those that the owner is being offered at this moment.
        downstream.deliverRetained()
        relay.connect()
    }

    // MARK: - Connecting

    func connect() {
        guard let chosen = target.pick(excluding: tried) else { return fail(target.emptiness) }
        guard chosen.byteConnections < Upstream.byteConnectionLimit else { return fail(.connectionQueueFull) }
        var tls: (TLSContext, serverName: String?)?
        if chosen.isMeshed {
            guard let context = loop.clientTLS else { return fail(.identityMissing) }
            tls = (context, serverName: nil)
        }
        upstream = chosen
        chosen.pending += 1
        chosen.byteConnections += 1
        loop.counters.connectionsOpened &+= 1
        connection = Connection(
            connectingTo: chosen.address, loop: loop.eventLoop, tls: tls,
            connectTimeoutMilliseconds: target.decision.connectTimeoutMilliseconds,
            handshakeTimeoutMilliseconds: ProxyLimits.handshakeMilliseconds, delegate: self)
    }

    func releaseUpstream() {
        guard let upstream else { return }
        upstream.pending -= 1
        upstream.byteConnections -= 1
        OutlierDetector.abandoned(&upstream.health)
        self.upstream = nil
    }

    /// Nothing has been sent, so any endpoint may be tried in its place.
    private func connectFailed(_ error: ProxyError) {
        loop.counters.connectFailures &+= 1
        upstream?.failedInTransport()
        connection = nil
        phase = .connecting
        guard let failed = upstream else { return }
        releaseUpstream()
        tried.append(failed)
        guard tried.count <= target.decision.retry.count,
            target.upstreams.contains(where: { candidate in
                !tried.contains { $0 === candidate }
            })
        else {
            fail(error)
            return
        }
        loop.counters.retries &+= 1
        connect()
    }

    private func fail(_ error: ProxyError) {
        guard phase == .connecting else { return }
        phase = .closed
        self.error = error
        upstreamIsClosed = true
        if owner != nil, direction == .outbound {
            // The application may yet turn out to speak HTTP, and be told why.
            owner = nil
            end()
            Refusal.start(
                loop: loop, connection: downstream,
                refused: RefusedRequests(error: error, direction: direction, target: target, caller: caller))
        } else {
            downstream.abort()
        }
    }

    func opened(_ connection: Connection) {
        guard connection === self.connection, phase == .connecting, let upstream else { return }
        if case .mesh(let expected) = upstream.security {
            if let problem = MeshClientTLS.problem(with: connection.tls, expected: expected) {
                loop.counters.identityMismatches &+= 1
                connection.delegate = nil
                connection.abort()
                connectFailed(problem)
                return
            }
            let inner = owner == nil ? Preface.InnerProtocol(innerProtocol) : .undecided
            loop.preface(inner, to: upstream).encoded.withUnsafeBytes { connection.write($0) }
        }
        connection.detectLoss(
            idleSeconds: ProxyLimits.silenceSeconds, intervalSeconds: ProxyLimits.silenceIntervalSeconds,
            timeoutMilliseconds: ProxyLimits.lossMilliseconds)
        upstream.latency.observe(nanoseconds: loop.now &- startedNanoseconds, now: loop.now)
        upstream.succeeded()
        if owner == nil { return begin() }
        phase = .listening
        if beginning == nil { timer.arm(afterMilliseconds: loop.configuration.deadlines.byteIdleMilliseconds) }
    }

    // MARK: - Who speaks first

    /// The first bytes of either side.
    func listen(_ bytes: UnsafeRawBufferPointer, from side: Connection) -> Int {
        guard let owner else { return 0 }
        guard side === downstream else {
            // A client that has only begun to speak is not known to wait for a greeting.
            settle(beginning ?? .opaque, nil, proving: beginning == nil ? .serverFirst : nil)
            begin()
            return relay(bytes, from: side)
        }
        switch owner.clientBegan(bytes) {
        case .needsMore(let fallback):
            if beginning == nil { timer.arm(afterMilliseconds: ProxyLimits.sniffMilliseconds) }
            beginning = fallback
            return 0
        case .bytes(let found, let serverName):
            settle(found, serverName)
            guard phase == .listening else {
                downstream.pauseReading()
                return 0
            }
            begin(offered: bytes.count)
            return relay(bytes, from: side)
        case .elsewhere:
            handBack(to: owner)
            return 0
        }
    }

    /// Gives up the connection that was made too early; nothing was sent on it but whom it is from.
    private func handBack(to owner: any ByteRelayOwner) {
        loop.counters.dialledInVain &+= 1
        leave()
        downstream.delegate = owner
        owner.takeBack()
        downstream.deliverRetained()
    }

    private func leave() {
        phase = .closed
        owner = nil
        timer.cancel()
        connection?.delegate = nil
        connection?.close()
        releaseUpstream()
        loop.remove(self)
    }

    /// Neither side has said anything that is worth waiting for.
    func endUnused() {
        leave()
        downstream.delegate = nil
        downstream.close()
    }

    func waitedLong() {
        guard owner != nil, phase != .closed else { return }
        guard let beginning else {
            loop.counters.idleTimeouts &+= 1
            return endUnused()
        }
        settleSilently(beginning)
    }

    /// Without asking the owner: the client has stopped, or ended, in the middle of what would tell.
    private func settleSilently(_ found: ApplicationProtocol) {
        settle(found, found == .tls ? .invalid : nil)
        if phase == .listening { begin() } else { downstream.pauseReading() }
    }

    func endedEarly(_ side: Connection) {
        if side === downstream {
            clientHasFinished = true
            if owner != nil { settleSilently(beginning ?? .opaque) }
        } else if phase == .listening {
            settle(beginning ?? .opaque, nil)
            begin()
            downstream.finishWriting()
        }
    }

    /// Closed before anything was relayed.
    func closedEarly(_ side: Connection, _ cause: CloseCause) {
        if side === downstream {
            downstreamIsClosed = true
            upstreamIsClosed = true
            error = .clientGone
            if owner != nil { return leave() }
            phase = .closed
            connection?.delegate = nil
            connection?.abort()
            end()
        } else if side === connection {
            connectFailed(phase == .listening ? .upstreamReset : ProxyError(connecting: cause))
        }
    }
}
