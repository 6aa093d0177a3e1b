"""A small HTTP service: answers every GET with its name, version, pod and a marker, a probe with less, and /fields with the
header fields that it was sent. Knows nothing of a mesh."""
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = (f'{os.environ.get("NAME", "service")} {os.environ.get("VERSION", "v1")} {socket.gethostname()} '
        "the-marker-that-nobody-may-read\n").encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self):
        body = {"/healthz": b"healthy\n", "/fields": str(self.headers).encode()}.get(self.path, BODY)
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("0.0.0.0", 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"process {os.getpid()} listens on 8080", flush=True)
server.serve_forever()
print("ended in order", flush=True)
sys.exit(0)
