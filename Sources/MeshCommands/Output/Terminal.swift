import Foundation

/// What the user's terminal can show, and where words go.
enum Terminal {
    /// Colour on a terminal only, and not where the user has asked for none (https://no-color.org).
    static let hasColour =
        isatty(STDOUT_FILENO) == 1 && ProcessInfo.processInfo.environment["NO_COLOR", default: ""].isEmpty
    static let showsProgress = isatty(STDERR_FILENO) == 1

    enum Colour: Int {
        case red = 31
        case green = 32
        case yellow = 33
        case dim = 90
    }

    static func paint(_ text: String, _ colour: Colour) -> String {
        hasColour ? "\u{1B}[\(colour.rawValue)m\(text)\u{1B}[0m" : text
    }

    static func print(_ text: String) {
        FileHandle.standardOutput.write(Data(text.utf8))
    }

    /// A line on standard error, so that standard output stays for what was asked.
    static func note(_ text: String) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
    }
}
