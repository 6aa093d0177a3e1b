"""Answers over HTTP/1.1 (8080), gRPC (9090) and lines over TCP (7070), and ends in order on SIGTERM: whoever has asked is answered."""
import os
import signal
import socket
import socketserver
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

NAME = f'{os.environ.get("VERSION", "v1")} {socket.gethostname()}'.encode()


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(200)
        self.send_header("content-length", str(len(NAME)))
        self.end_headers()
        self.wfile.write(NAME)

    do_GET = do_POST = answer

    def log_message(self, *arguments):
        pass


class WebServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Calls(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/rollout/Ask":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: NAME)
        if details.method == "/rollout/Watch":
            return grpc.unary_stream_rpc_method_handler(self.watch)
        return None

    @staticmethod
    def watch(request, context):
        for _ in range(10):
            yield NAME
            time.sleep(0.05)


class Line(socketserver.StreamRequestHandler):
    """One line in, one line out, and the end: a client of bytes opens a connection for each question."""

    def handle(self):
        if self.rfile.readline():
            self.wfile.write(NAME + b"\n")


class LineServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128


web = WebServer(("0.0.0.0", 8080), Web)
lines = LineServer(("0.0.0.0", 7070), Line)
calls = grpc.server(futures.ThreadPoolExecutor(32))
calls.add_generic_rpc_handlers((Calls(),))
calls.add_insecure_port("0.0.0.0:9090")
ending = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ending.set())
calls.start()
for server in (web, lines):
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
print("listens on 8080, 9090 and 7070", flush=True)
ending.wait()
stopped = calls.stop(10)
web.shutdown()
lines.shutdown()
lines.server_close()
stopped.wait()
print("ended in order", flush=True)
