"""One small HTTP service of the example shop. It knows nothing of a mesh: plain HTTP, host names, the standard library.

NAME      what it is called in its answers
VERSION   what it says its version is
CALLS     services it asks for each answer, separated by spaces: "catalog reviews"
FAILING   "yes": every second answer is an error, as from a replica with a broken disk
"""
import http.client
import json
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("NAME", "service")
VERSION = os.environ.get("VERSION", "v1")
CALLS = os.environ.get("CALLS", "").split()
FAILING = os.environ.get("FAILING") == "yes"
answered = 0


def ask(service):
    connection = http.client.HTTPConnection(service, 80, timeout=5)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            return {"service": service, "status": response.status, "reason": response.getheader("apus-reason")}
        return json.loads(body)
    except OSError as error:
        return {"service": service, "status": 0, "reason": str(error)}
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self):
        global answered
        if self.path == "/healthz":
            return self.answer(200, {"healthy": True})
        answered += 1
        if FAILING and answered % 2 == 0:
            return self.answer(503, {"service": NAME, "error": "disk failure"})
        calls = [ask(service) for service in CALLS]
        failed = [call for call in calls if call.get("status", 200) != 200]
        self.answer(502 if failed else 200, {
            "service": NAME, "version": VERSION, "pod": socket.gethostname(), "secret": "the-shops-secret-recipe",
            "calls": calls})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
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
print(f"{NAME} {VERSION} listens on 8080", flush=True)
server.serve_forever()
print(f"{NAME} {VERSION} ends after {answered} answers", flush=True)
sys.exit(0)
