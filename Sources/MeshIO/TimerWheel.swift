/// A hierarchical timing wheel of one-millisecond ticks: seven levels of 64 slots, so that arming, cancelling and firing
/// cost the same for ten timers as for a hundred thousand, and the next expiry is found without a walk.
///
/// Entries are indices into one array; the wheel knows no clock. A level's slot holds what differs from the present
/// tick first in that level's six bits (Varghese and Lauck, "Hashed and hierarchical timing wheels", scheme 7).
struct TimerWheel {
    /// The longest delay: 2^40 milliseconds, some 34 years; longer ones are shortened to it.
    static let longestDelayMilliseconds = 1 << 40

    private struct Entry {
        /// The tick it is due at.
        var deadline: Int64 = 0
        /// The tick its slot was chosen for, never after `deadline`: a later deadline moves the entry only when the
        /// slot comes up, which makes rearming an idle timeout a single store.
        var placedAt: Int64 = 0
        var next: Int32 = -1
        var previous: Int32 = -1
        /// The slot, `expiredList`, or -1 when it is not armed.
        var list: Int32 = -1
        var owner: Unmanaged<LoopTimer>?
    }

    private static let levels = 7
    private static let expiredList = Int32(levels * 64)

    private var entries: ContiguousArray<Entry> = []
    private var freeEntries: ContiguousArray<Int32> = []
    private var heads = ContiguousArray<Int32>(repeating: -1, count: levels * 64 + 1)
    private var occupied = ContiguousArray<UInt64>(repeating: 0, count: levels)
    /// Everything due at or before this tick has been taken out.
    private var current: Int64
    private(set) var armedCount = 0

    init(startingAt tick: Int64) {
        current = tick
    }

    // MARK: Entries

    mutating func makeEntry(for owner: LoopTimer) -> Int32 {
        var entry = Entry()
        entry.owner = .passUnretained(owner)
        if let index = freeEntries.popLast() {
            entries[Int(index)] = entry
            return index
        }
        entries.append(entry)
        return Int32(entries.count - 1)
    }

    mutating func freeEntry(_ index: Int32) {
        disarm(index)
        entries[Int(index)].owner = nil
        freeEntries.append(index)
    }

    func isArmed(_ index: Int32) -> Bool {
        entries[Int(index)].list >= 0
    }

    mutating func arm(_ index: Int32, deadline requested: Int64) {
        let deadline = max(requested, current + 1)
        let entry = entries[Int(index)]
        if entry.list >= 0 && entry.list < TimerWheel.expiredList && deadline >= entry.placedAt {
            entries[Int(index)].deadline = deadline
            return
        }
        disarm(index)
        entries[Int(index)].deadline = deadline
        place(index)
        armedCount += 1
    }

    mutating func disarm(_ index: Int32) {
        guard entries[Int(index)].list >= 0 else { return }
        unlink(index)
        armedCount -= 1
    }

    // MARK: Time

    /// The tick at which the wheel wants to be advanced next: that of the first due entry, or an earlier one at which
    /// entries must be spread over finer slots. Nil when nothing is armed.
    var nextTick: Int64? {
        for level in 0..<TimerWheel.levels {
            guard let slot = firstSlot(level) else { continue }
            return start(level, slot)
        }
        return nil
    }

    /// The next timer that is due at `tick`, in the order of the deadlines' ticks and no longer armed. Nil when there is none,
    /// and then the wheel stands at `tick`: what is armed in between for a later tick is not handed out.
    mutating func popExpired(at tick: Int64) -> LoopTimer? {
        while heads[Int(TimerWheel.expiredList)] < 0 {
            guard let (level, slot) = firstOccupied(), start(level, slot) <= tick else {
                current = max(current, tick)
                return nil
            }
            current = start(level, slot)
            empty(Int32(level * 64 + slot))
        }
        let index = heads[Int(TimerWheel.expiredList)]
        disarm(index)
        return entries[Int(index)].owner?.takeUnretainedValue()
    }

    private func firstOccupied() -> (Int, Int)? {
        for level in 0..<TimerWheel.levels {
            if let slot = firstSlot(level) { return (level, slot) }
        }
        return nil
    }

    private func firstSlot(_ level: Int) -> Int? {
        occupied[level] == 0 ? nil : occupied[level].trailingZeroBitCount
    }

    private func start(_ level: Int, _ slot: Int) -> Int64 {
        let shift = Int64(6 * level)
        let block = (current >> (shift + 6)) << (shift + 6)
        return block + Int64(slot) << shift
    }

    private mutating func empty(_ list: Int32) {
        while case let index = heads[Int(list)], index >= 0 {
            unlink(index)
            if entries[Int(index)].deadline <= current {
                link(index, to: TimerWheel.expiredList)
            } else {
                place(index)
            }
        }
    }

    private mutating func place(_ index: Int32) {
        let deadline = entries[Int(index)].deadline
        let difference = UInt64(bitPattern: deadline ^ current)
        let level = min((63 - difference.leadingZeroBitCount) / 6, TimerWheel.levels - 1)
        let slot = Int(deadline >> Int64(6 * level)) & 63
        entries[Int(index)].placedAt = deadline
        link(index, to: Int32(level * 64 + slot))
    }

    // MARK: Lists

    private mutating func link(_ index: Int32, to list: Int32) {
        let head = heads[Int(list)]
        entries[Int(index)].list = list
        entries[Int(index)].previous = -1
        entries[Int(index)].next = head
        if head >= 0 { entries[Int(head)].previous = index }
        heads[Int(list)] = index
        if list < TimerWheel.expiredList { occupied[Int(list) / 64] |= 1 << UInt64(list % 64) }
    }

    private mutating func unlink(_ index: Int32) {
        let entry = entries[Int(index)]
        if entry.next >= 0 { entries[Int(entry.next)].previous = entry.previous }
        if entry.previous >= 0 {
            entries[Int(entry.previous)].next = entry.next
        } else {
            heads[Int(entry.list)] = entry.next
            if entry.next < 0 && entry.list < TimerWheel.expiredList {
                occupied[Int(entry.list) / 64] &= ~(1 << UInt64(entry.list % 64))
            }
        }
        entries[Int(index)].list = -1
    }
}
