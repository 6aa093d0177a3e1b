import Foundation
import Testing

/// What the fuzzers were given and what they have found, through the same properties: a failure that was mended stays mended.
@Suite struct ReplayTests {
    static let properties: [any FuzzProperty.Type] = [
        RequestFramingProperty.self, ResponseFramingProperty.self, BodyFramingProperty.self, HTTP2SessionProperty.self,
        GRPCFramingProperty.self, DetectionProperty.self, PrefaceProperty.self, CaptureRulesProperty.self,
        TraceContextProperty.self, DiscoveryProperty.self, JSONProperty.self, DNSProperty.self, AddressesProperty.self,
    ]

    /// One kept input.
    struct Entry: Sendable, CustomTestStringConvertible {
        var property: any FuzzProperty.Type
        var file: URL

        var testDescription: String { "\(property.name)/\(file.lastPathComponent)" }
    }

    private static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()

    static let entries: [Entry] = properties.flatMap { property in
        ["Corpus", "Failures"].flatMap { kind in
            let folder = folder.appending(path: "\(kind)/\(property.name)")
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
            return names.sorted().map { Entry(property: property, file: folder.appending(path: $0)) }
        }
    }

    @Test("Every property has kept inputs, and every folder of inputs a property")
    func corporaAreThere() throws {
        for property in ReplayTests.properties {
            #expect(ReplayTests.entries.contains { $0.property == property }, "\(property.name)")
        }
        let known = Set(ReplayTests.properties.map { $0.name })
        for kind in ["Corpus", "Failures"] {
            let path = ReplayTests.folder.appending(path: kind).path
            for name in try FileManager.default.contentsOfDirectory(atPath: path) where !name.hasPrefix(".") {
                #expect(known.contains(name), "\(kind)/\(name)")
            }
        }
    }

    @Test("Its property holds for a kept input", arguments: entries)
    func holds(entry: Entry) throws {
        let input = Array(try Data(contentsOf: entry.file))
        var failure: PropertyFailure?
        input.withUnsafeBytes { bytes in
            do throws(PropertyFailure) { try entry.property.check(bytes) } catch { failure = error }
        }
        #expect(failure == nil)
    }
}
