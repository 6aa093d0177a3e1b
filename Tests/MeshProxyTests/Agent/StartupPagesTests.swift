import MeshProxy
import Testing

@Suite("Pages of the start")
struct StartupPagesTests {
    @Test("only program text of files is given back: nothing that a page of memory alone has")
    func chosenMappings() {
        let maps = """
            55c66da18000-55c66e4f1000 r--p 00000000 fe:00 5318401                    /usr/local/bin/apus-proxy
            55c66e4f1000-55c66fe31000 r-xp 00ad9000 fe:00 5318401                    /usr/local/bin/apus-proxy
            55c66fe31000-55c66ff3f000 r--p 02419000 fe:00 5318401                    /usr/local/bin/apus-proxy
            55c66ff3f000-55c670000000 rw-p 02527000 fe:00 5318401                    /usr/local/bin/apus-proxy
            55c671000000-55c671001000 rwxp 00000000 fe:00 5318402                    /usr/lib/written.so
            7f6458000000-7f645802a000 r-xp 00000000 00:00 0 
            7f6467b63000-7f6467cb9000 r-xp 00026000 00:48 333151                     /usr/lib/with space/libc.so.6
            7ffd0d5f1000-7ffd0d5f3000 r-xp 00000000 00:00 0                          [vdso]
            """
        #expect(
            StartupPages.programText(inMaps: maps) == [
                0x55c6_6e4f_1000..<0x55c6_6fe3_1000, 0x7f64_67b6_3000..<0x7f64_67cb_9000,
            ])
    }

    @Test(
        "lines that are not mappings are passed over",
        arguments: ["", "\n\n", "x-y r-xp 0 0 0 /a", "2000-1000 r-xp 0 0 0 /a", "1000 r-xp 0 0 0 /a"])
    func oddLines(maps: String) {
        #expect(StartupPages.programText(inMaps: maps).isEmpty)
    }

    @Test("the program goes on after it, and again")
    func goesOn() {
        for round in 1...3 {
            StartupPages.release()
            #expect((1...round).reduce(0, +) == round * (round + 1) / 2)
        }
    }
}
