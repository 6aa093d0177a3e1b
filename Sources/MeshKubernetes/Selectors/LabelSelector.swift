/// Which labels an object must have. An empty selector matches every object; what an absent selector means is the owner
/// field's own rule.
package struct LabelSelector: HasEmpty, Sendable {
    @OrEmpty package var matchLabels: [String: String]
    @OrEmpty package var matchExpressions: [LabelRequirement]

    package init() {}

    package init(matchLabels: [String: String] = [:], matchExpressions: [LabelRequirement] = []) {
        self.matchLabels = matchLabels
        self.matchExpressions = matchExpressions
    }

    package var isEmpty: Bool { matchLabels.isEmpty && matchExpressions.isEmpty }

    package func matches(_ labels: [String: String]) -> Bool {
        matchLabels.allSatisfy { labels[$0.key] == $0.value } && matchExpressions.allSatisfy { $0.matches(labels) }
    }
}

package struct LabelRequirement: Codable, Hashable, Sendable {
    package enum Operator: String, Codable, Hashable, Sendable {
        case isIn = "In"
        /// Also matches an object without the label.
        case notIn = "NotIn"
        case exists = "Exists"
        case doesNotExist = "DoesNotExist"
    }

    package var key: String
    package var `operator`: Operator
    @OrEmpty package var values: [String]

    package init(_ key: String, _ operator: Operator, _ values: [String] = []) {
        self.key = key
        self.operator = `operator`
        self.values = values
    }

    package func matches(_ labels: [String: String]) -> Bool {
        switch self.operator {
        case .isIn: labels[key].map(values.contains) ?? false
        case .notIn: labels[key].map { !values.contains($0) } ?? true
        case .exists: labels[key] != nil
        case .doesNotExist: labels[key] == nil
        }
    }
}

/// Why a selector's text cannot be used, in words for its author.
package struct SelectorError: Error, Hashable, Sendable, CustomStringConvertible {
    package let selector: String
    package let reason: String

    package var description: String { "'\(selector)' is not a selector: \(reason)" }
}

// MARK: - Text

extension LabelSelector {
    /// The longest text that is read, and the most requirements in it.
    package static let textLimitBytes = 16_384
    package static let requirementLimit = 256

    /// From the `labelSelector` query: `app=shop,tier in (web,api),!canary,track!=beta,zone`. An empty text matches
    /// everything.
    package init(parsing text: String) throws(SelectorError) {
        var parser = try LabelSelectorParser(text)
        self.init(matchExpressions: try parser.requirements())
    }

    /// The text of the `labelSelector` query.
    package var queryText: String {
        let labels = matchLabels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        return (labels + matchExpressions.map(\.queryText)).joined(separator: ",")
    }
}

extension LabelRequirement {
    var queryText: String {
        switch self.operator {
        case .isIn where values.count == 1: "\(key)=\(values[0])"
        case .notIn where values.count == 1: "\(key)!=\(values[0])"
        case .isIn: "\(key) in (\(values.joined(separator: ",")))"
        case .notIn: "\(key) notin (\(values.joined(separator: ",")))"
        case .exists: key
        case .doesNotExist: "!\(key)"
        }
    }
}

private struct LabelSelectorParser {
    private enum Token: Equatable {
        case word(String)
        case symbol(String)
    }

    private let text: String
    private var tokens: [Token] = []
    private var index = 0

    init(_ text: String) throws(SelectorError) {
        self.text = text
        guard text.utf8.count <= LabelSelector.textLimitBytes else {
            throw SelectorError(
                selector: "\(text.prefix(64))…", reason: "longer than \(LabelSelector.textLimitBytes) bytes")
        }
        var word = ""
        var characters = text.makeIterator()
        var next = characters.next()
        while let character = next {
            next = characters.next()
            switch character {
            case " ", "\t", "\n", "\r", ",", "(", ")", "=", "!":
                if !word.isEmpty { tokens.append(.word(word)) }
                word = ""
                if character == "=" || character == "!", next == "=" {
                    tokens.append(.symbol("\(character)="))
                    next = characters.next()
                } else if !character.isWhitespace {
                    tokens.append(.symbol(String(character)))
                }
            default:
                word.append(character)
            }
        }
        if !word.isEmpty { tokens.append(.word(word)) }
    }

    mutating func requirements() throws(SelectorError) -> [LabelRequirement] {
        var result: [LabelRequirement] = []
        guard !tokens.isEmpty else { return result }
        while true {
            result.append(try requirement())
            guard result.count <= LabelSelector.requirementLimit else {
                throw fail("more than \(LabelSelector.requirementLimit) requirements")
            }
            guard index < tokens.count else { return result }
            guard take(",") else { throw fail("expected ',' before \(here)") }
        }
    }

    private mutating func requirement() throws(SelectorError) -> LabelRequirement {
        if take("!") { return LabelRequirement(try key(), .doesNotExist) }
        let key = try key()
        guard index < tokens.count, tokens[index] != .symbol(",") else { return LabelRequirement(key, .exists) }
        if take("=") || take("==") { return LabelRequirement(key, .isIn, [try value()]) }
        if take("!=") { return LabelRequirement(key, .notIn, [try value()]) }
        if takeWord("in") { return LabelRequirement(key, .isIn, try values()) }
        if takeWord("notin") { return LabelRequirement(key, .notIn, try values()) }
        throw fail("expected '=', '==', '!=', 'in' or 'notin' after '\(key)', found \(here)")
    }

    private mutating func key() throws(SelectorError) -> String {
        guard index < tokens.count, case .word(let key) = tokens[index] else {
            throw fail("expected a label's key, found \(here)")
        }
        index += 1
        if let problem = LabelSyntax.problem(inKey: key) { throw fail(problem) }
        return key
    }

    /// `key=` is allowed: it asks for the empty value.
    private mutating func value() throws(SelectorError) -> String {
        guard index < tokens.count, case .word(let value) = tokens[index] else { return "" }
        index += 1
        if let problem = LabelSyntax.problem(inValue: value) { throw fail(problem) }
        return value
    }

    private mutating func values() throws(SelectorError) -> [String] {
        guard take("(") else { throw fail("expected '(' and values, found \(here)") }
        var values = [try value()]
        while take(",") { values.append(try value()) }
        guard take(")") else { throw fail("expected ')' after the values, found \(here)") }
        return values
    }

    private mutating func take(_ symbol: String) -> Bool {
        guard index < tokens.count, tokens[index] == .symbol(symbol) else { return false }
        index += 1
        return true
    }

    private mutating func takeWord(_ word: String) -> Bool {
        guard index < tokens.count, tokens[index] == .word(word) else { return false }
        index += 1
        return true
    }

    private var here: String {
        guard index < tokens.count else { return "the end" }
        return switch tokens[index] {
        case .word(let text), .symbol(let text): "'\(text)'"
        }
    }

    private func fail(_ reason: String) -> SelectorError { SelectorError(selector: text, reason: reason) }
}
