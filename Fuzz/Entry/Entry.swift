/// What libFuzzer calls. `Target` is declared in a file that `Fuzz/run` writes for each target.
@_cdecl("LLVMFuzzerTestOneInput")
package func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    do throws(PropertyFailure) {
        try Target.check(UnsafeRawBufferPointer(start: bytes, count: count))
    } catch {
        fatalError("\(Target.name): \(error)")
    }
    return 0
}
