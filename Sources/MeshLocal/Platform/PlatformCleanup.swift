import CApus
import Foundation

/// Removes what a platform's record names, and nothing else. Everything may be gone already.
enum PlatformCleanup {
    /// What was removed, in words.
    static func clean(_ journal: PlatformJournal, dataDirectory: String) -> [String] {
        let record = journal.value
        var removed: [String] = []
        // A spawner ends with its platform by itself; this is for one that is just about to.
        if let spawner = record.spawner, spawner.isRunning {
            kill(spawner.id, SIGKILL)
            removed.append("process \(spawner.id) (spawner)")
        }
        let ip = SystemTool.find("ip")
        for name in record.sandboxes.sorted() {
            let count = endProcesses(in: BridgeNetwork.namespaceDirectory + "/" + name)
            if count > 0 { removed.append("\(count) processes in \(name)") }
            let exists = access(BridgeNetwork.namespaceDirectory + "/" + name, F_OK) == 0
            if let ip { BridgeNetwork.removeSandbox(name, ip: ip) }
            if exists { removed.append("network namespace \(name)") }
        }
        for path in mounts(under: dataDirectory, recorded: record.mounts) {
            if apus_unmount(path) == 0 { removed.append("mount \(path)") }
        }
        // Links, tables and settings are those of the network namespace where they were made.
        if record.networkNamespace == 0 || record.networkNamespace == BridgeNetwork.namespaceInode() {
            removed += cleanNetwork(record, ip)
        }
        removeTree(dataDirectory + "/pods")
        removeTree(dataDirectory + "/stage")
        journal.remove()
        return removed
    }

    private static func cleanNetwork(_ record: PlatformRecord, _ ip: SystemTool?) -> [String] {
        var removed: [String] = []
        if let nft = SystemTool.find("nft") {
            if let table = record.table, (try? nft.runAndWait(["delete", "table", "inet", table])) != nil {
                removed.append("nftables table inet \(table)")
            }
            for rule in record.firewallRules where (try? HostFirewall(nft: nft).close(rule)) != nil {
                removed.append("firewall rules in \(rule.family) \(rule.table) \(rule.chain)")
            }
        }
        if let bridge = record.bridge, BridgeNetwork.hasLink(bridge),
            (try? ip?.runAndWait(["link", "delete", "dev", bridge])) != nil
        {
            removed.append("bridge \(bridge)")
        }
        for setting in record.settings.reversed() where KernelSetting.read(setting.path) != setting.formerValue {
            if KernelSetting.write(setting.path, setting.formerValue) {
                removed.append("setting \(setting.path), back to \(setting.formerValue)")
            }
        }
        return removed
    }

    /// Kills what still runs in a network namespace: it is the namespace that says whose the processes are.
    private static func endProcesses(in namespace: String) -> Int {
        let inode = apus_inode(namespace)
        // A file without its mount is an ordinary file, whose inode no process has as its namespace; the type tells.
        guard inode != 0, isNamespace(namespace) else { return 0 }
        var count = 0
        for entry in directoryEntries("/proc") {
            guard let id = Int32(entry), id != getpid(), apus_inode("/proc/\(id)/ns/net") == inode else { continue }
            if kill(id, SIGKILL) == 0 { count += 1 }
        }
        return count
    }

    private static func isNamespace(_ path: String) -> Bool {
        let mounts = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        return mounts.split(separator: "\n").contains { line in
            let fields = line.split(separator: " ")
            return fields.count > 4 && (fields[4] == path || "/var" + path == fields[4]) && line.contains(" - nsfs ")
        }
    }

    /// The innermost first. Only what lies in the data directory, whatever the record says.
    private static func mounts(under dataDirectory: String, recorded: Set<String>) -> [String] {
        let mounts = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        let present = mounts.split(separator: "\n").compactMap { line -> String? in
            let fields = line.split(separator: " ")
            return fields.count > 4 ? String(fields[4]) : nil
        }
        let ours = present.filter { $0.hasPrefix(dataDirectory + "/pods/") }
        return Set(ours).union(recorded.intersection(present)).sorted(by: >)
    }
}
