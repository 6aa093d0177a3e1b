"""A gRPC service: echoes one message or a stream of them, and answers the standard health check (grpc.health.v1). Its health is
what the last call of SetHealth said: 1 is SERVING, 2 is NOT_SERVING. Knows nothing of a mesh."""
import os
import signal
import socket
import sys
import threading
from concurrent import futures

import grpc

health = {"": int(os.environ.get("HEALTH", "1")), "ready": int(os.environ.get("READY", "1"))}
NAME = socket.gethostname().encode()


def check(request, context):
    # HealthCheckRequest: field 1, a string; HealthCheckResponse: field 1, an enumeration.
    service = request[2:].decode() if request[:1] == b"\x0a" else ""
    if service not in health:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes([8, health[service]])


def set_health(request, context):
    service, _, value = request.decode().partition("=")
    health[service] = int(value)
    return b"done"


def echo(request, context):
    return NAME + b" " + request


def talk(requests, context):
    for request in requests:
        yield NAME + b" " + request


class Handler(grpc.GenericRpcHandler):
    methods = {
        "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(check),
        "/test.Echo/SetHealth": grpc.unary_unary_rpc_method_handler(set_health),
        "/test.Echo/Echo": grpc.unary_unary_rpc_method_handler(echo),
        "/test.Echo/Talk": grpc.stream_stream_rpc_method_handler(talk),
    }

    def service(self, call):
        return self.methods.get(call.method)


server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[Handler()])
assert server.add_insecure_port("0.0.0.0:9000")
server.start()
print("listens on 9000", flush=True)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=lambda: server.stop(1)).start())
server.wait_for_termination()
