/// Serves a unary method: one message in, one out.
package final class GRPCUnaryHandler: GRPCServerHandler {
    /// Called once with the request, if the client sends exactly one. `reply` may be called later, on the loop; after
    /// the call has ended it does nothing.
    package typealias Body = (
        _ request: UnsafeRawBufferPointer, _ call: GRPCServerCall,
        _ reply: @escaping (Result<[UInt8], GRPCStatus>) -> Void
    ) -> Void

    private let body: Body
    private var hasRequest = false

    package init(_ body: @escaping Body) {
        self.body = body
    }

    package func received(_ message: UnsafeRawBufferPointer, on call: GRPCServerCall) {
        guard !hasRequest else {
            call.finish(GRPCStatus(.invalidArgument, "a unary method takes one message"))
            return
        }
        hasRequest = true
        body(message, call) { [weak call] result in
            guard let call else { return }
            switch result {
            case .success(let response):
                call.send(response)
                call.finish(.ok)
            case .failure(let status):
                call.finish(status)
            }
        }
    }

    package func receivedEnd(on call: GRPCServerCall) {
        if !hasRequest { call.finish(GRPCStatus(.invalidArgument, "a unary method takes one message, none came")) }
    }

    package func writable(_ call: GRPCServerCall) {}

    package func closed(_ call: GRPCServerCall) {}
}
