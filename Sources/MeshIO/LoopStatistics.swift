/// What a loop has done since it was made, and what it holds now.
package struct LoopStatistics: Equatable, Sendable {
    /// Connections taken from listeners.
    package var acceptedConnections = 0
    /// Connections that this side has dialled and that came to stand.
    package var establishedConnections = 0
    /// Connections in the loop's table now: connecting, open or lingering.
    package var openConnections = 0
    /// Of those, the ones closed by their owner whose last bytes are still on their way.
    package var lingeringConnections = 0
    /// Connections closed without lingering because `Connection.lingeringLimit` of them lingered already.
    package var lingeringLimitReached = 0
    /// `accept` failed for another reason than that the peer had gone.
    package var acceptErrors = 0
    /// Connections closed unseen because the process had no descriptor left.
    package var descriptorsExhausted = 0
    /// Connections closed because more was written than `Connection.unsentLimit`.
    package var unsentLimitReached = 0
    /// TLS handshakes that failed or took too long.
    package var failedHandshakes = 0
    /// Jobs refused because the queue was full or the loop had ended.
    package var rejectedJobs = 0
    package var armedTimers = 0
}
