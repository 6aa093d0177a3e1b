/// Who owns which descriptor on a loop, and what keeps a connection alive until it is closed.
///
/// A token is the descriptor in its low half and a generation in its high half: an event that was waiting when its
/// descriptor was closed and taken again by another connection does not find that other connection.
struct DescriptorTable {
    private struct Row {
        var connection: Connection?
        var listener: Listener?
        var generation: UInt32 = 0
    }

    private var rows: ContiguousArray<Row> = []

    func connection(_ token: UInt64) -> Connection? {
        let index = Int(truncatingIfNeeded: token & 0xffff_ffff)
        guard index < rows.count, rows[index].generation == UInt32(truncatingIfNeeded: token >> 32) else { return nil }
        return rows[index].connection
    }

    func listener(_ token: UInt64) -> Listener? {
        let index = Int(truncatingIfNeeded: token & 0xffff_ffff)
        guard index < rows.count, rows[index].generation == UInt32(truncatingIfNeeded: token >> 32) else { return nil }
        return rows[index].listener
    }

    func token(_ descriptor: Int32) -> UInt64 {
        let index = Int(descriptor)
        return UInt64(rows[index].generation) << 32 | UInt64(index)
    }

    mutating func insert(_ connection: Connection, _ descriptor: Int32) -> UInt64 {
        makeRoom(descriptor)
        rows[Int(descriptor)].connection = connection
        return token(descriptor)
    }

    mutating func insert(_ listener: Listener, _ descriptor: Int32) -> UInt64 {
        makeRoom(descriptor)
        rows[Int(descriptor)].listener = listener
        return token(descriptor)
    }

    mutating func remove(_ descriptor: Int32) {
        let index = Int(descriptor)
        rows[index].connection = nil
        rows[index].listener = nil
        // Half the range, so that no token is ever the loop's own wake-up token.
        rows[index].generation = (rows[index].generation &+ 1) & 0x7fff_ffff
    }

    /// `body` may remove rows.
    func forEach(_ body: (Connection?, Listener?) -> Void) {
        for row in rows { body(row.connection, row.listener) }
    }

    private mutating func makeRoom(_ descriptor: Int32) {
        while rows.count <= Int(descriptor) { rows.append(Row()) }
    }
}
