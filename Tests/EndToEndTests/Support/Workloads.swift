import Foundation

/// Manifests of what the tests run: Python programs from `Workloads`, carried by a ConfigMap.
enum Workloads {
    /// The namespace `test` and the programs.
    static func code(
        _ names: [String] = ["server.py", "caller.py", "grpc_server.py", "grpc_caller.py"]
    ) throws -> String {
        let programs = try names.map { ($0, try program($0)) }
        let data = try JSONEncoder().encode(Dictionary(uniqueKeysWithValues: programs))
        return """
            apiVersion: v1
            kind: Namespace
            metadata: {name: test}
            ---
            apiVersion: v1
            kind: ConfigMap
            metadata: {name: code, namespace: test}
            data: \(String(decoding: data, as: UTF8.self))
            """
    }

    static func path(_ name: String) throws -> String {
        guard let url = Bundle.module.url(forResource: "Workloads/\(name)", withExtension: nil) else {
            throw Failure("the test bundle has no Workloads/\(name)")
        }
        return url.path
    }

    private static func program(_ name: String) throws -> String {
        try String(contentsOfFile: try path(name), encoding: .utf8)
    }

    static func account(_ name: String) -> String {
        """
        apiVersion: v1
        kind: ServiceAccount
        metadata: {name: \(name), namespace: test}
        """
    }

    static func service(_ name: String) -> String {
        """
        apiVersion: v1
        kind: Service
        metadata: {name: \(name), namespace: test}
        spec: {selector: {app: \(name)}, ports: [{name: http, port: 80, targetPort: 8080}]}
        """
    }

    /// A deployment of `server.py` with an HTTP probe. The labels are further ones, such as `apus.dev/inject: disabled`.
    static func server(
        _ name: String, replicas: Int = 1, version: String = "v1", labels: String = "", annotations: String = ""
    ) -> String {
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: \(name), namespace: test}
        spec:
          replicas: \(replicas)
          selector: {matchLabels: {app: \(name)}}
          template:
            metadata: {labels: {app: \(name), version: \(version)\(labels.isEmpty ? "" : ", " + labels)}, annotations: {\(annotations)}}
            spec:
              serviceAccountName: \(name)
              containers:
              - name: server
                image: host
                command: [\(python), /code/server.py]
                env: [{name: NAME, value: \(name)}, {name: VERSION, value: \(version)}]
                ports: [{containerPort: 8080}]
                readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
                volumeMounts: [{name: code, mountPath: /code}]
              volumes: [{name: code, configMap: {name: code}}]
        """
    }

    static func caller(
        _ name: String = "caller", targets: String, rate: Double = 20, count: Int = 0, workers: Int = 1,
        replicas: Int = 1
    ) -> String {
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: \(name), namespace: test}
        spec:
          replicas: \(replicas)
          selector: {matchLabels: {app: \(name)}}
          template:
            metadata: {labels: {app: \(name)}}
            spec:
              serviceAccountName: \(name)
              containers:
              - name: caller
                image: host
                command: [\(python), /code/caller.py]
                env:
                - {name: TARGETS, value: "\(targets)"}
                - {name: RATE, value: "\(rate)"}
                - {name: COUNT, value: "\(count)"}
                - {name: WORKERS, value: "\(workers)"}
                volumeMounts: [{name: code, mountPath: /code}]
              volumes: [{name: code, configMap: {name: code}}]
        """
    }

    /// A deployment of one container that runs this command with the programs at /code; `more` are further fields of the container.
    static func program(
        _ name: String, _ command: [String], app: String? = nil, more: String = "", annotations: String = ""
    ) -> String {
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: \(name), namespace: test}
        spec:
          replicas: 1
          selector: {matchLabels: {program: \(name)}}
          template:
            metadata: {labels: {app: \(app ?? name), program: \(name)}, annotations: {\(annotations)}}
            spec:
              containers:
              - name: program
                image: host
                command: [\(command.map { "\"\($0)\"" }.joined(separator: ", "))]
                volumeMounts: [{name: code, mountPath: /code}]
                \(more)
              volumes: [{name: code, configMap: {name: code}}]
        """
    }

    /// The Python of the tests' own environment, which has gRPC; the Makefile makes it.
    static let pythonWithGRPC =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path + "/.build/venv/bin/python"

    /// The machine's own, where there is one: a version manager's start script costs more than the program.
    static let python = access("/usr/bin/python3", X_OK) == 0 ? "/usr/bin/python3" : "python3"
}
