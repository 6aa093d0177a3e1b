import Foundation
import Logging
import MeshAddress
import MeshKubernetes

/// The one Node, and its sign of life.
struct NodeHeartbeat: Sendable {
    let api: any KubernetesAPI
    let name: String
    let address: IPAddress
    let capacity: NodeCapacity
    let version: String
    let log: Logger

    static let intervalSeconds = 30
    private static let podLimit = 500

    /// Makes the Node if it is missing; later statuses follow from `run`.
    func register() async throws {
        let node: JSONValue = [
            "apiVersion": "v1", "kind": "Node",
            "metadata": [
                "name": .string(name),
                "labels": [
                    "kubernetes.io/hostname": .string(name), "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": .string(NodeHeartbeat.architecture),
                    "node.kubernetes.io/instance-type": "apus",
                ],
            ],
            "spec": [:],
        ]
        do {
            _ = try await api.create(.node, KubernetesObject(node))
        } catch let error as StatusError where error.code == 409 {
            // It is there from an earlier run.
        }
        try await beat(isReady: true, began: .now)
    }

    func run() async {
        let began = KubernetesTime.now
        while !Task.isCancelled {
            try? await Task.sleep(for: .seconds(NodeHeartbeat.intervalSeconds))
            guard !Task.isCancelled else { return }
            do {
                try await beat(isReady: true, began: began)
            } catch {
                log.warning("the node's status was not written", metadata: ["reason": "\(error)"])
            }
        }
    }

    func beat(isReady: Bool, began: KubernetesTime) async throws {
        let now = JSONValue.string("\(KubernetesTime.now)")
        func condition(_ type: String, _ status: Bool, _ reason: String, _ message: String) -> JSONValue {
            [
                "type": .string(type), "status": status ? "True" : "False", "reason": .string(reason),
                "message": .string(message),
                "lastHeartbeatTime": now, "lastTransitionTime": .string("\(began)"),
            ]
        }
        let resources: JSONValue = [
            "cpu": .string("\(capacity.processors)"), "memory": .string("\(capacity.memoryBytes / 1024)Ki"),
            "pods": .string("\(NodeHeartbeat.podLimit)"),
        ]
        let status: JSONValue = [
            "addresses": [
                ["type": "InternalIP", "address": .string("\(address)")],
                ["type": "Hostname", "address": .string(name)],
            ],
            "capacity": resources, "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", false, "KubeletHasSufficientMemory", "the machine's memory is not watched"),
                condition("DiskPressure", false, "KubeletHasNoDiskPressure", "the machine's disks are not watched"),
                condition("PIDPressure", false, "KubeletHasSufficientPID", "the machine's processes are not watched"),
                isReady
                    ? condition("Ready", true, "KubeletReady", "apus up is running")
                    : condition("Ready", false, "KubeletNotReady", "apus up has stopped"),
            ],
            "nodeInfo": [
                "kubeletVersion": .string(version), "kubeProxyVersion": .string(version), "operatingSystem": "linux",
                "architecture": .string(NodeHeartbeat.architecture), "kernelVersion": .string(NodeHeartbeat.kernel),
                "osImage": .string(NodeHeartbeat.systemName), "containerRuntimeVersion": .string("apus://\(version)"),
                "machineID": "", "systemUUID": "", "bootID": "",
            ],
        ]
        _ = try await api.patch(.node, namespace: nil, name: name, subresource: "status", .merge(["status": status]))
    }

    #if arch(arm64)
        private static let architecture = "arm64"
    #else
        private static let architecture = "amd64"
    #endif

    private static var kernel: String { KernelSetting.read("kernel/osrelease") ?? "" }

    private static var systemName: String {
        let text = (try? String(contentsOfFile: "/etc/os-release", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("PRETTY_NAME=") }
        return line.map { $0.dropFirst("PRETTY_NAME=".count).filter { $0 != "\"" } } ?? "Linux"
    }
}

extension NodeCapacity {
    static var ofThisMachine: NodeCapacity {
        NodeCapacity(
            processors: ProcessInfo.processInfo.activeProcessorCount,
            memoryBytes: Int64(clamping: ProcessInfo.processInfo.physicalMemory))
    }
}
