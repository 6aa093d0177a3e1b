import Foundation
import Testing

/// The table of targets in docs/ARCHITECTURE.md against what the sources really import.
@Suite struct ImportTableTests {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Target → the targets of ours that it may import, as the table says.
    static func table() throws -> [String: Set<String>] {
        let text = try String(contentsOf: root.appendingPathComponent("docs/ARCHITECTURE.md"), encoding: .utf8)
        var table: [String: Set<String>] = [:]
        for line in text.split(separator: "\n") where line.hasPrefix("| `Mesh") || line.hasPrefix("| `CApus`") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 3 else { continue }
            let name = cells[0].replacingOccurrences(of: "`", with: "")
            let allowed = cells[2]
            if allowed.hasPrefix("all but") {
                let excluded = Set(allowed.dropFirst("all but ".count).split(separator: ",").map(targetName))
                table[name] = Set(table.keys).subtracting(excluded)
            } else {
                table[name] = Set(allowed.split(separator: ",").map(targetName).filter { $0 != "Mesh–" })
            }
        }
        return table
    }

    static func targetName(_ word: Substring) -> String {
        let word = word.trimmingCharacters(in: .whitespaces)
        return word == "CApus" ? word : "Mesh\(word)"
    }

    static func imports(of file: URL) throws -> [String] {
        try String(contentsOf: file, encoding: .utf8).split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard let at = words.firstIndex(of: "import"), at <= 2, words.count > at + 1, !line.hasPrefix("//") else {
                return nil
            }
            return String(words[at + 1])
        }
    }

    static func swiftFiles(below folder: URL) -> [URL] {
        let walker = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
        return (walker?.compactMap { $0 as? URL } ?? []).filter { $0.pathExtension == "swift" }
    }

    @Test func everyTargetIsInTheTable() throws {
        let folders = try FileManager.default.contentsOfDirectory(
            atPath: Self.root.appendingPathComponent("Sources").path)
        let table = try Self.table()
        for folder in folders where folder.hasPrefix("Mesh") {
            #expect(table[folder] != nil, "\(folder) is missing in docs/ARCHITECTURE.md")
        }
    }

    @Test func importsPointUpTheTable() throws {
        let table = try Self.table()
        #expect(table.count > 10)
        for (target, allowed) in table {
            for file in Self.swiftFiles(below: Self.root.appendingPathComponent("Sources/\(target)")) {
                for name in try Self.imports(of: file) where table[name] != nil && name != target {
                    #expect(allowed.contains(name), "\(target)/\(file.lastPathComponent) imports \(name)")
                }
            }
        }
    }

    /// What is counted is what the sidecar is made of.
    @Test func theCountedStepsAreTheSidecars() throws {
        let allowed: Set = ["MeshAddress", "MeshCore", "MeshIO", "MeshHTTP", "MeshTelemetry", "MeshProxy", "Glibc"]
        let files = Self.swiftFiles(below: Self.root.appendingPathComponent("Benchmarks/Instructions"))
        #expect(!files.isEmpty)
        for file in files {
            for name in try Self.imports(of: file) {
                #expect(allowed.contains(name), "\(file.lastPathComponent) imports \(name)")
            }
        }
    }

    @Test func theSidecarLinksNoWebFramework() throws {
        let forbidden: Set = ["Hummingbird", "AsyncHTTPClient", "FoundationNetworking", "Foundation"]
        for target in ["MeshIO", "MeshHTTP", "MeshCore", "MeshTelemetry", "MeshProxy"] {
            for file in Self.swiftFiles(below: Self.root.appendingPathComponent("Sources/\(target)")) {
                for name in try Self.imports(of: file) {
                    #expect(!forbidden.contains(name), "\(target)/\(file.lastPathComponent) imports \(name)")
                }
            }
        }
    }

    /// Generated messages are MeshXDS's own business: everybody else speaks of the mesh's values.
    @Test func messagesStayBehindTheStreams() throws {
        let sources = Self.root.appendingPathComponent("Sources")
        for target in try FileManager.default.contentsOfDirectory(atPath: sources.path) where target != "MeshXDS" {
            for file in Self.swiftFiles(below: sources.appendingPathComponent(target)) {
                #expect(
                    !(try Self.imports(of: file)).contains("MeshAPI"),
                    "\(target)/\(file.lastPathComponent) imports MeshAPI")
            }
        }
    }
}
