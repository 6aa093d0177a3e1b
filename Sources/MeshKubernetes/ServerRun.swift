package import Logging
package import ServiceLifecycle

/// Runs a server until the calling task is cancelled, and then ends it in order: it stops accepting first, and only then are its connections
/// given up. A server whose task is cancelled outright drops a connection that was accepted in the same moment without closing it, which
/// SwiftNIO takes for a programming error and traps.
///
/// - Parameter graceMilliseconds: what requests under way get once nothing is accepted any more.
package func serveUntilCancelled(_ server: any Service, graceMilliseconds: Int = 200, logger: Logger) async throws {
    var configuration = ServiceGroupConfiguration(services: [server], logger: logger)
    configuration.maximumGracefulShutdownDuration = .milliseconds(graceMilliseconds)
    let group = ServiceGroup(configuration: configuration)
    let serving = Task { try await group.run() }
    try await withTaskCancellationHandler {
        do {
            try await serving.value
        } catch  where Task.isCancelled {
            // How the connections that were left ended is of no interest to who ended them.
        }
    } onCancel: {
        Task { await group.triggerGracefulShutdown() }
    }
}
