import Foundation
import MeshHTTP
import MeshTelemetry
import Testing

/// The pages of docs/, as rows of their tables.
enum Documentation {
    static func page(_ name: String) throws -> String {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        return try String(contentsOf: root.appending(path: "docs/\(name)"), encoding: .utf8)
    }

    /// Rows whose first cell is a name in backquotes: that name, and the other cells.
    static func rows(of page: String) -> [(name: String, cells: [String])] {
        page.split(separator: "\n").compactMap { line in
            guard line.hasPrefix("| `") else { return nil }
            let cells = line.dropFirst().dropLast().split(separator: "|").map {
                $0.trimmingCharacters(in: .whitespaces)
            }
            guard let first = cells.first, first.hasPrefix("`"), first.hasSuffix("`") else { return nil }
            return (String(first.dropFirst().dropLast()), Array(cells.dropFirst()))
        }
    }
}

@Suite struct ReasonTests {
    @Test("Codes are unique, stable words, and lead back to their reasons")
    func codes() {
        #expect(Set(Reason.allCases.map(\.code)).count == Reason.allCases.count)
        for reason in Reason.allCases {
            #expect(Reason(code: reason.code) == reason)
            #expect(reason.code.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 95 })
            #expect(!reason.explanation.isEmpty)
            if let status = reason.status { #expect((400...505).contains(status)) }
        }
        #expect(Reason(code: "no_such_reason") == nil)
    }

    @Test("docs/reasons.md explains every reason with its status, and no other")
    func page() throws {
        let rows = Documentation.rows(of: try Documentation.page("reasons.md"))
        #expect(rows.map(\.name).sorted() == Reason.allCases.map(\.code).sorted())
        for row in rows {
            let reason = try #require(Reason(code: row.name))
            #expect(row.cells.first == (reason.status.map { "\($0)" } ?? "–"))
            #expect(row.cells.dropFirst().allSatisfy { !$0.isEmpty })
        }
    }

    @Test("Every error that a request can have is a reason with the same status")
    func requestErrors() {
        let ofResponses: Set<HTTP1Error> = [
            .malformedStatusLine, .invalidStatus, .unrequestedUpgrade, .transferEncodingWithoutBody,
        ]
        for error in HTTP1Error.allCases {
            let reason = Reason(requestError: error.code)
            #expect((reason == nil) == ofResponses.contains(error), "\(error)")
            if let reason { #expect(reason.status == error.status, "\(error)") }
        }
    }
}
