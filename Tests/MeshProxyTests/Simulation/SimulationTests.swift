import Testing

/// The connection pool, retries and draining on schedules that no test would think of. A failure names its seed: `Simulation(seed:)` with it
/// plays the same schedule again.
@Suite(.serialized) struct SimulationTests {
    @Test(
        "Whatever the schedule, every request has one answer or a reason, and nothing is left behind", arguments: 0..<8)
    func schedules(part: Int) async throws {
        let failures = try await onOwnThread {
            var failures: [String] = []
            for seed in UInt64(part * 250)..<UInt64((part + 1) * 250) where failures.count < 3 {
                let simulation = Simulation(seed: seed)
                simulation.run()
                failures += simulation.failures
            }
            return failures
        }
        #expect(failures.isEmpty, "\(failures.joined(separator: "\n"))")
    }
}
