import Logging
import MeshCore
import NIOCore
import Synchronization

/// Tells a Service's owner, by an Event on it, which of its annotations are ignored and why.
final class ProblemReporter: Sendable {
    /// Reports that wait to be written; beyond it they are counted and dropped, for they are in the log too.
    static let queueLimit = 256

    private struct Report: Sendable {
        let service: ObjectName
        let uid: String
        let problem: AnnotationProblem
    }

    private let api: any KubernetesAPI
    private let logger: Logger
    private let reports: AsyncStream<Report>
    private let queue: AsyncStream<Report>.Continuation

    init(api: any KubernetesAPI, logger: Logger) {
        self.api = api
        self.logger = logger
        (reports, queue) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(ProblemReporter.queueLimit))
    }

    func report(_ view: ServiceView) {
        for problem in view.problems {
            logger.warning(
                "an annotation of a Service is ignored",
                metadata: ["service": "\(view.service.name)", "problem": "\(problem)"])
            if case .dropped = queue.yield(Report(service: view.service.name, uid: view.uid, problem: problem)) {
                logger.warning("too many reports wait: one is dropped", metadata: ["service": "\(view.service.name)"])
            }
        }
    }

    /// Until cancelled.
    func run() async {
        for await report in reports {
            do {
                _ = try await api.create(
                    .event, ProblemReporter.event(report.service, report.uid, report.problem, .now))
            } catch let error as StatusError where error.code == 409 {
                continue
            } catch {
                logger.info("an Event could not be written", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Its name is made of what it says, so that a restart does not say it again.
    static func event(_ service: ObjectName, _ uid: String, _ problem: AnnotationProblem, _ now: KubernetesTime)
        -> KubernetesObject
    {
        let message = "\(problem); it is ignored"
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in "\(uid)/\(message)".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return KubernetesObject([
            "apiVersion": "v1", "kind": "Event",
            "metadata": [
                "name": .string("\(service.name.prefix(200)).\(String(hash, radix: 16))"),
                "namespace": .string(service.namespace),
            ],
            "involvedObject": [
                "apiVersion": "v1", "kind": "Service", "namespace": .string(service.namespace),
                "name": .string(service.name),
                "uid": .string(uid),
            ],
            "type": "Warning", "reason": "InvalidAnnotation", "message": .string(String(message.prefix(1024))),
            "count": 1,
            "firstTimestamp": .string(now.description), "lastTimestamp": .string(now.description),
            "source": ["component": "apus-control"], "reportingComponent": "apus-control", "reportingInstance": "",
        ])
    }
}
