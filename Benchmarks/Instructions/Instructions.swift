/// Does what one request asks of the sidecar, step by step, on input that never changes, so that valgrind can count its
/// instructions (Benchmarks/instructions.py). It measures nothing itself.
@main
struct Instructions {
    struct Failure: Error {
        let reason: String
    }

    static func main() throws {
        let arguments = Array(CommandLine.arguments.dropFirst())
        guard arguments.count > 1, let count = Int(arguments[1]), count > 0 else { throw usage }
        if arguments[0] == "steps" { return print(Steps.runAll(count: count)) }
        guard arguments[0] == "records", arguments.count == 5 else { throw usage }
        try Records.run(count: count, certificate: arguments[2], key: arguments[3], root: arguments[4])
    }

    private static let usage = Failure(
        reason: "usage: apus-instructions steps COUNT | records COUNT CERTIFICATE KEY ROOT, three files in DER")
}
