/// Rows of cells, printed in columns as wide as their widest cell.
package struct TextTable {
    private let header: [String]
    private var rows: [[String]] = []

    package init(_ header: String...) { self.header = header }
    package init(header: [String]) { self.header = header }

    var isEmpty: Bool { rows.isEmpty }

    package mutating func add(_ cells: String...) { rows.append(cells) }
    package mutating func add(cells: [String]) { rows.append(cells) }

    /// The last column is not padded; columns are three spaces apart.
    package var text: String {
        let all = [header] + rows
        let widths = header.indices.map { column in
            all.reduce(0) { max($0, column < $1.count ? TextTable.width($1[column]) : 0) }
        }
        return all.map { row in
            row.enumerated().map { column, cell in
                column == row.count - 1
                    ? cell : cell + String(repeating: " ", count: max(0, widths[column] - TextTable.width(cell)) + 3)
            }.joined()
        }.joined(separator: "\n") + "\n"
    }

    /// Columns that a text takes on a terminal: colour codes take none.
    private static func width(_ cell: String) -> Int {
        var count = 0
        var isEscape = false
        for character in cell {
            if character == "\u{1B}" {
                isEscape = true
            } else if isEscape {
                isEscape = character != "m"
            } else {
                count += 1
            }
        }
        return count
    }
}
