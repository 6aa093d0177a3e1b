import Foundation
import Hummingbird
import MeshKubernetes
import NIOCore
import NIOFoundationCompat

/// Watches: one JSON document a line, until the time is over, the client has gone or cannot keep up.
extension APIResponder {
    /// How long a watch lasts when the client does not say; a client resumes where it was.
    private static let watchSeconds = 1_800...3_600

    func watch(_ path: RequestTarget.ResourcePath, _ served: ServedKind, _ call: Call) throws -> Response {
        let watch = try api.openWatch(
            served, namespace: path.namespace, call.filter(), resourceVersion: call.query["resourceVersion"] ?? "",
            wantsBookmarks: call.query.flag("allowWatchBookmarks"))
        let seconds = min(
            max(call.query.int("timeoutSeconds") ?? Int.random(in: Self.watchSeconds), 1), Self.watchSeconds.upperBound)
        let lines = WatchLines(
            kind: served.kind, printer: call.wantsTable ? TablePrinter(served) : nil, included: call.includedObject)
        let request = call.request
        let body = ResponseBody { writer in
            let timer = Task {
                try await Task.sleep(for: .seconds(seconds))
                watch.end()
            }
            defer {
                timer.cancel()
                watch.end()
            }
            let cursor = WatchCursor(watch)
            try await request.body.consumeWithInboundCloseHandler(
                { _ in
                    // The client learns that the watch stands, even when nothing happens for long.
                    try await writer.write(ByteBuffer())
                    do {
                        while let event = try await cursor.next() { try await writer.write(lines.line(event)) }
                    } catch let error as StatusError {
                        try await writer.write(lines.line(error))
                    }
                    try await writer.finish(nil)
                }, onInboundClosed: { watch.end() })
        }
        return Response(status: .ok, headers: [.contentType: "application/json"], body: body)
    }
}

/// The text of a watch's events.
struct WatchLines: Sendable {
    var kind: ResourceKind
    var printer: TablePrinter?
    var included: TablePrinter.IncludedObject

    func line(_ event: StoreEvent) -> ByteBuffer {
        let data: Data
        if event.change == .bookmark {
            data = event.stored.bookmark(kind).json.data()
        } else if let printer {
            let object = event.stored.view(kind)
            data = printer.table(
                [object], metadata: ["resourceVersion": .string(object.resourceVersion)], including: included
            ).data()
        } else {
            data = event.stored.text(kind)
        }
        return Self.line(event.change, data)
    }

    func line(_ error: StatusError) -> ByteBuffer {
        Self.line(.error, error.json.data())
    }

    private static func line(_ change: WatchEvent.Change, _ data: Data) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: data.count + 40)
        buffer.writeString("{\"type\":\"\(change.rawValue)\",\"object\":")
        buffer.writeData(data)
        buffer.writeString("}\n")
        return buffer
    }
}
