import MeshKubernetes

/// What is wrong with a pod's spec: what `apus up` does not support, and what no platform would accept.
enum PodValidation {
    static func spec(
        _ value: JSONValue?, _ path: String, _ settings: LocalAPISettings, isTemplate: Bool
    ) -> [FieldError] {
        guard let spec = value, spec.object != nil else { return [.required(path)] }
        var errors = PodFieldRule.podSpec.errors(in: spec, at: path)
        let containers = spec["containers"]?.array ?? []
        if containers.isEmpty { errors.append(.required("\(path).containers")) }
        let volumes = Set((spec["volumes"]?.array ?? []).compactMap { $0["name"]?.string })
        var names: Set<String> = []
        for list in ["initContainers", "containers"] {
            for (index, container) in (spec[list]?.array ?? []).enumerated() {
                let place = "\(path).\(list)[\(index)]"
                errors += self.container(container, place, volumes)
                if let name = container["name"]?.string, !names.insert(name).inserted {
                    errors.append(.duplicate("\(place).name", .string(name)))
                }
                let isSidecar = container["restartPolicy"] == "Always"
                if list == "initContainers", !isSidecar {
                    for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"]
                    where container[field]?.object != nil {
                        errors.append(
                            .forbidden(
                                "\(place).\(field)", "may not be set for init containers without restartPolicy=Always"))
                    }
                }
            }
        }
        var seen: Set<String> = []
        for (index, volume) in (spec["volumes"]?.array ?? []).enumerated() {
            let name = volume["name"]?.string ?? ""
            if let problem = LabelSyntax.problem(inDNSLabel: name) {
                errors.append(.invalid("\(path).volumes[\(index)].name", .string(name), problem))
            }
            if !seen.insert(name).inserted {
                errors.append(.duplicate("\(path).volumes[\(index)].name", .string(name)))
            }
            if (volume.object ?? [:]).filter({ $0.key != "name" && !$0.value.isNull }).count > 1 {
                errors.append(.forbidden("\(path).volumes[\(index)]", "may not specify more than 1 volume type"))
            }
        }
        let policy = spec["restartPolicy"]
        if !["Always", "OnFailure", "Never"].contains(policy?.string ?? "") {
            errors.append(.notSupported("\(path).restartPolicy", policy, ["Always", "OnFailure", "Never"]))
        }
        errors += Validation.count(spec["terminationGracePeriodSeconds"], "\(path).terminationGracePeriodSeconds")
        errors += Validation.count(spec["activeDeadlineSeconds"], "\(path).activeDeadlineSeconds")
        if let node = spec["nodeName"]?.string, !node.isEmpty, node != settings.nodeName {
            errors.append(.invalid("\(path).nodeName", .string(node), "the only node is \(settings.nodeName)"))
        }
        for (key, value) in (spec["nodeSelector"]?.object ?? [:]).sorted(by: { $0.key < $1.key })
        where nodeLabels(settings)[key] != value.string {
            errors.append(.invalid("\(path).nodeSelector", [key: value], "the only node does not have this label"))
        }
        if let hostname = spec["hostname"]?.string, let problem = LabelSyntax.problem(inDNSLabel: hostname) {
            errors.append(.invalid("\(path).hostname", .string(hostname), problem))
        }
        return errors
    }

    /// The labels of the one node.
    static func nodeLabels(_ settings: LocalAPISettings) -> [String: String] {
        [
            "kubernetes.io/hostname": settings.nodeName, "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture,
            "node.kubernetes.io/platform": "apus",
        ]
    }

    #if arch(arm64)
        private static let architecture = "arm64"
    #else
        private static let architecture = "amd64"
    #endif

    private static func container(_ container: JSONValue, _ path: String, _ volumes: Set<String>) -> [FieldError] {
        var errors: [FieldError] = []
        let name = container["name"]?.string ?? ""
        if name.isEmpty {
            errors.append(.required("\(path).name"))
        } else if let problem = LabelSyntax.problem(inDNSLabel: name) {
            errors.append(.invalid("\(path).name", .string(name), problem))
        }
        if (container["image"]?.string ?? "").isEmpty {
            errors.append(.required("\(path).image", "image: host is the machine's own files"))
        }
        for field in ["command", "args"] {
            guard let value = container[field], !value.isNull else { continue }
            guard let words = value.array else {
                errors.append(.invalid("\(path).\(field)", value, "must be a list of texts"))
                continue
            }
            for (index, word) in words.enumerated() where word.string == nil {
                errors.append(.invalid("\(path).\(field)[\(index)]", word, "must be a text; put it in quotes"))
            }
        }
        var names: Set<String> = []
        for (index, port) in (container["ports"]?.array ?? []).enumerated() {
            errors += Validation.portNumber(port["containerPort"], "\(path).ports[\(index)].containerPort")
            guard let name = port["name"]?.string, !name.isEmpty else { continue }
            errors += Validation.portName(name, "\(path).ports[\(index)].name")
            if !names.insert(name).inserted { errors.append(.duplicate("\(path).ports[\(index)].name", .string(name))) }
        }
        for (index, variable) in (container["env"]?.array ?? []).enumerated() {
            let name = variable["name"]?.string ?? ""
            if name.isEmpty || name.contains("=") {
                errors.append(.invalid("\(path).env[\(index)].name", .string(name), "must not be empty or contain '='"))
            }
            if let value = variable["value"], value.string == nil, !value.isNull {
                errors.append(.invalid("\(path).env[\(index)].value", value, "must be a text; put it in quotes"))
            }
            if variable["valueFrom"]?.object != nil, variable["value"]?.string?.isEmpty == false {
                errors.append(
                    .invalid("\(path).env[\(index)].valueFrom", nil, "may not be specified when `value` is not empty"))
            }
        }
        for (index, mount) in (container["volumeMounts"]?.array ?? []).enumerated() {
            let volume = mount["name"]?.string ?? ""
            if !volumes.contains(volume) {
                errors.append(
                    FieldError(
                        path: "\(path).volumeMounts[\(index)].name", reason: .invalid,
                        message: "Not found: \"\(volume)\""))
            }
            let target = mount["mountPath"]?.string ?? ""
            if target.isEmpty {
                errors.append(.required("\(path).volumeMounts[\(index)].mountPath"))
            } else if target.split(separator: "/").contains("..") {
                errors.append(
                    .invalid("\(path).volumeMounts[\(index)].mountPath", .string(target), "must not contain '..'"))
            }
        }
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if let value = container[probe], value.object != nil {
                errors += self.probe(value, "\(path).\(probe)", probe)
            }
        }
        return errors
    }

    private static func probe(_ probe: JSONValue, _ path: String, _ kind: String) -> [FieldError] {
        var errors: [FieldError] = []
        let handlers = ["httpGet", "tcpSocket", "grpc", "exec"].filter { probe[$0]?.object != nil }
        if handlers.isEmpty { errors.append(.required(path, "must specify a handler type")) }
        if handlers.count > 1 { errors.append(.forbidden(path, "may not specify more than 1 handler type")) }
        for field in ["initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"]
        {
            errors += Validation.count(probe[field], "\(path).\(field)")
        }
        if kind != "readinessProbe", let threshold = probe["successThreshold"]?.int, threshold != 1 {
            errors.append(.invalid("\(path).successThreshold", probe["successThreshold"], "must be 1"))
        }
        for handler in ["httpGet", "tcpSocket", "grpc"] where probe[handler]?.object != nil {
            switch probe[handler]?["port"] {
            case .string(let name) where handler != "grpc":
                errors += Validation.portName(name, "\(path).\(handler).port")
            case let port: errors += Validation.portNumber(port, "\(path).\(handler).port")
            }
        }
        if probe["exec"]?.object != nil, (probe[path: "exec", "command"]?.array ?? []).isEmpty {
            errors.append(.required("\(path).exec.command"))
        }
        return errors
    }
}
