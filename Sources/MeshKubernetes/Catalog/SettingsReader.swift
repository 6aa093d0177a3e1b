package import MeshCore

/// The mesh's settings as the platform holds them: the ConfigMap `apus-settings` and an annotation on namespaces.
package struct SettingsReader: Sendable {
    package static let plaintextKey = "plaintext"
    package static let unknownDestinationsKey = "unknown-destinations"
    package static let trustDomainKey = "trust-domain"

    /// What is in force while the ConfigMap says nothing.
    private let initial: MeshSettings
    package private(set) var settings: MeshSettings

    package init(initial: MeshSettings) {
        self.initial = initial
        settings = initial
    }

    /// Takes over the ConfigMap's `data`, nil when there is none; a value that cannot be used leaves the setting as it
    /// was.
    package mutating func set(data: [String: String]?) -> [AnnotationProblem] {
        var problems: [AnnotationProblem] = []
        let data = data ?? [:]
        if let value = data[SettingsReader.plaintextKey] {
            if let policy = MeshSettings.PlaintextPolicy(rawValue: value) {
                settings.plaintext = policy
            } else {
                problems.append(problem(SettingsReader.plaintextKey, value, SettingsReader.plaintextValues))
            }
        } else {
            settings.plaintext = initial.plaintext
        }
        if let value = data[SettingsReader.unknownDestinationsKey] {
            if let policy = MeshSettings.UnknownDestinationPolicy(rawValue: value) {
                settings.unknownDestinations = policy
            } else {
                problems.append(problem(SettingsReader.unknownDestinationsKey, value, "allow or deny"))
            }
        } else {
            settings.unknownDestinations = initial.unknownDestinations
        }
        if let value = data[SettingsReader.trustDomainKey], value != settings.trustDomain {
            problems.append(
                problem(
                    SettingsReader.trustDomainKey, value,
                    "\(settings.trustDomain), with which the control plane runs: restart it to change the trust domain")
            )
        }
        return problems
    }

    /// The annotation `apus.dev/plaintext` of a namespace, nil when it has none or is gone.
    package mutating func set(namespace: String, plaintext: String?) -> [AnnotationProblem] {
        guard let plaintext else {
            settings.plaintextByNamespace[namespace] = nil
            return []
        }
        guard let policy = MeshSettings.PlaintextPolicy(rawValue: plaintext) else {
            return [problem(MeshAnnotation.plaintext, plaintext, SettingsReader.plaintextValues)]
        }
        settings.plaintextByNamespace[namespace] = policy
        return []
    }

    private static let plaintextValues = "strict or permissive"

    private func problem(_ name: String, _ value: String, _ expected: String) -> AnnotationProblem {
        AnnotationProblem(name: name, value: value, expected: expected)
    }
}
