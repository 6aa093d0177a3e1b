/// The answer of `/api/v1/check`, and what `apus check` adds its own findings to.
package struct CheckReport: Sendable, Hashable, Codable {
    package var generatedAt: Timestamp
    package var findings: [CheckFinding]

    package init(generatedAt: Timestamp, findings: [CheckFinding]) {
        self.generatedAt = generatedAt
        self.findings = findings
    }

    /// Whether nothing is wrong; warnings do not count.
    package var isPassed: Bool { !findings.contains { $0.result == .failed } }
}

package struct CheckFinding: Sendable, Hashable, Codable {
    package enum Result: String, Sendable, Hashable, Codable, CaseIterable {
        case passed
        case warning
        case failed
    }

    /// `platform`, `control plane`, `identity`, `injection`, `sidecars` or `services`.
    package var area: String
    package var result: Result
    /// What was looked at and what was found.
    package var message: String
    /// What to do about it; empty when there is nothing to do.
    package var remedy: String

    package init(area: String, result: Result, message: String, remedy: String = "") {
        self.area = area
        self.result = result
        self.message = message
        self.remedy = remedy
    }
}
