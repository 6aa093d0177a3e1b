/// Does what one request asks of the sidecar, step by step, on input that never changes, so that valgrind can count its
/// instructions (Benchmarks/instructions.py). It measures nothing itself.
@main
struct Instructions {
    struct Failure: Error {
        let reason: String
    }

    static func main() throws {
        let arguments = Array(CommandLine.arguments.dropFirst())
        if arguments == ["steps"] { return print(Steps.runAll()) }
        guard arguments.count == 5, arguments[0] == "records", let count = Int(arguments[1]) else {
            throw Failure(
                reason: "usage: apus-instructions steps | records COUNT CERTIFICATE KEY ROOT, three files in DER")
        }
        try Records.run(count: count, certificate: arguments[2], key: arguments[3], root: arguments[4])
    }
}
