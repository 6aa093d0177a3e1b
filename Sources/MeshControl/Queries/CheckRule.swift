package import MeshCore

extension MeshOverview {
    /// What `apus check` asks the control plane: everything that is wrong, with what to do about it, and one line for
    /// each area that is not.
    ///
    /// - Parameter troubles: what the parts of the process say is wrong, a sentence each.
    package func check(troubles: [String] = [], now: HealthClock) -> CheckReport {
        var findings = controlPlaneFindings(troubles) + identityFindings(now: now.wall)
        // Of a mesh that is not known yet there is nothing to say.
        if catalog.isSynchronized { findings += sidecarFindings(now: now.wall) + serviceFindings(now: now) }
        return CheckReport(generatedAt: now.wall, findings: findings)
    }

    private static let rootWarningSeconds: Int64 = 30 * 86_400

    private func controlPlaneFindings(_ troubles: [String]) -> [CheckFinding] {
        var findings: [CheckFinding] = []
        if catalog.isSynchronized {
            findings.append(
                CheckFinding(
                    area: "control plane", result: .passed,
                    message:
                        "\(version) knows \(catalog.services.count) services, \(catalog.endpointCount) endpoints and "
                        + "\(catalog.workloads.count) pods"))
        } else {
            findings.append(
                CheckFinding(
                    area: "control plane", result: .failed,
                    message: "it has not read everything that the platform runs yet",
                    remedy: "wait a few seconds; if it stays so, look for the API's answer in the logs of apus-control")
            )
        }
        for trouble in troubles {
            findings.append(
                CheckFinding(
                    area: "control plane", result: .failed, message: trouble,
                    remedy: "see the logs of apus-control; it keeps trying"))
        }
        return findings
    }

    private func identityFindings(now: Timestamp) -> [CheckFinding] {
        guard let rootNotAfter else {
            return [
                CheckFinding(
                    area: "identity", result: .failed, message: "the certificate authority is not loaded",
                    remedy: "see the logs of apus-control; it keeps the authority in the secret apus-system/apus-ca")
            ]
        }
        var findings: [CheckFinding] = []
        let left = rootNotAfter.seconds(since: now)
        if left < Self.rootWarningSeconds {
            findings.append(
                CheckFinding(
                    area: "identity", result: left <= 0 ? .failed : .warning,
                    message: "the root that signs ends at \(rootNotAfter)",
                    remedy: "the control plane renews it by itself a year ahead; see its logs for why it has not"))
        }
        if let servingNotAfter, servingNotAfter.seconds(since: now) < VerdictRule.certificateWarningSeconds {
            findings.append(
                CheckFinding(
                    area: "identity", result: .failed,
                    message: "the control plane's own certificate ends at \(servingNotAfter)",
                    remedy: "see the logs of apus-control for why it was not renewed"))
        }
        if findings.isEmpty {
            findings.append(
                CheckFinding(
                    area: "identity", result: .passed, message: "the root that signs is valid until \(rootNotAfter)"))
        }
        return findings
    }

    private func sidecarFindings(now: Timestamp) -> [CheckFinding] {
        var findings: [CheckFinding] = []
        let statuses = sidecarStatuses
        for sidecar in statuses {
            let pod = "\(sidecar.namespace)/\(sidecar.pod)"
            switch sidecar.synchronization {
            case .current, .pending: break
            case .refused:
                let refusal = sidecar.refusals.first
                findings.append(
                    CheckFinding(
                        area: "sidecars", result: .failed,
                        message:
                            "\(pod) refused \(refusal?.type ?? "a resource") \(refusal?.name ?? ""): \(refusal?.reason ?? "")",
                        remedy: "correct what the resource says; until then the sidecar goes on with the version before"
                    ))
            case .disconnected:
                findings.append(
                    CheckFinding(
                        area: "sidecars", result: .warning, message: "\(pod) has no stream to the control plane",
                        remedy: "see its logs: apus logs \(sidecar.pod) -n \(sidecar.namespace) -c apus-proxy"))
            }
            if let end = sidecar.certificateNotAfter, end.seconds(since: now) < VerdictRule.certificateWarningSeconds {
                findings.append(
                    CheckFinding(
                        area: "sidecars", result: end <= now ? .failed : .warning,
                        message: "the certificate of \(pod) ends at \(end)",
                        remedy: "it renews at half life; see its logs for why it has not"))
            }
        }
        let known = Set(statuses.map { ObjectName(namespace: $0.namespace, name: $0.pod) })
        let silent = catalog.workloads.values.filter { $0.isMeshed && !known.contains($0.pod) }
        for workload in silent.sorted(by: { $0.pod < $1.pod }).prefix(20) {
            findings.append(
                CheckFinding(
                    area: "sidecars", result: .warning, message: "\(workload.pod) has a sidecar that never connected",
                    remedy: "see its logs: apus logs \(workload.pod.name) -n \(workload.pod.namespace) -c apus-proxy"))
        }
        if findings.isEmpty {
            findings.append(
                CheckFinding(
                    area: "sidecars", result: .passed,
                    message: "\(sidecars.connectedCount) connected, all with what they should have"))
        }
        return findings
    }

    private func serviceFindings(now: HealthClock) -> [CheckFinding] {
        let statuses = serviceStatuses(now: now)
        let bad = statuses.filter { $0.verdict == .failing || $0.verdict == .degraded }
        guard !bad.isEmpty else {
            return [
                CheckFinding(
                    area: "services", result: .passed, message: "\(statuses.count) known, none degraded or failing")
            ]
        }
        return bad.map { service in
            CheckFinding(
                area: "services", result: service.verdict == .failing ? .failed : .warning,
                message: "\(service.namespace)/\(service.name) is \(service.verdict.rawValue): "
                    + service.reasons.joined(separator: "; "))
        }
    }
}
