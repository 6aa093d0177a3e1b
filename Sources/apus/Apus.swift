import ArgumentParser
import MeshCommands

@main
enum Apus {
    static func main() async {
        await ApusCommand.main()
    }
}
