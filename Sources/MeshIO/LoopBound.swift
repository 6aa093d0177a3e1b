/// Carries a value that belongs to one loop through a closure that must be `Sendable`.
///
/// Unchecked because the compiler cannot see which thread a closure runs on; every access checks it instead.
package struct LoopBound<Value>: @unchecked Sendable {
    private var stored: Value
    private let loop: EventLoop

    /// May be made on any thread that alone holds `value`.
    package init(_ value: Value, loop: EventLoop) {
        stored = value
        self.loop = loop
    }

    package var value: Value {
        get {
            precondition(loop.isCurrent, "a value of the loop \(loop.name) was read on another thread")
            return stored
        }
        set {
            precondition(loop.isCurrent, "a value of the loop \(loop.name) was changed on another thread")
            stored = newValue
        }
    }
}
