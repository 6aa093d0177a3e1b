"""Asks one service over HTTP/1.1 (GET and POST on kept connections), gRPC (unary and streaming, one channel) and TCP (a connection
a question), and prints a JSON line a second with what came back."""
import collections
import http.client
import json
import os
import socket
import threading
import time

import grpc

HOST = os.environ["TARGET"]
PAUSE = 0.02
lock = threading.Lock()
seen = collections.defaultdict(lambda: {"answers": 0, "failures": 0, "errors": [], "servers": collections.Counter()})


def web(method):
    connection = http.client.HTTPConnection(HOST, 80, timeout=15)

    def ask():
        try:
            connection.request(method, "/", body=b"x" if method == "POST" else None)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise OSError(f"{answer.status} {answer.getheader('apus-reason')} {body[:100]}")
            return body
        except Exception:
            connection.close()
            raise

    return ask


def line():
    with socket.create_connection((HOST, 7070), timeout=15) as connection:
        connection.sendall(b"who\n")
        answer = connection.makefile("rb").readline()
        if not answer.endswith(b"\n"):
            raise OSError(f"cut off: {answer}")
        return answer


def repeat(name, ask):
    while True:
        time.sleep(PAUSE)
        began = time.time()
        try:
            server, problem = ask().strip().decode(), None
        except Exception as error:
            server, problem = None, f"{began:.3f} {error!r}"[:400]
        with lock:
            entry = seen[name]
            if problem is None:
                entry["answers"] += 1
                entry["servers"][server] += 1
            else:
                entry["failures"] += 1
                entry["errors"] = (entry["errors"] + [problem])[-4:]


channel = grpc.insecure_channel(f"{HOST}:9000", options=[("grpc.enable_retries", 0)])
unary = channel.unary_unary("/rollout/Ask")
watch = channel.unary_stream("/rollout/Watch")


def stream():
    messages = list(watch(b"", timeout=15))
    if len(messages) != 10:
        raise OSError(f"{len(messages)} messages of 10")
    return messages[0]


for name, workers, make in (
    ("get", 4, lambda: web("GET")), ("post", 4, lambda: web("POST")), ("unary", 4, lambda: lambda: unary(b"", timeout=15)),
    ("stream", 4, lambda: stream), ("line", 4, lambda: line),
):
    for _ in range(workers):
        threading.Thread(target=repeat, args=(name, make()), daemon=True).start()
while True:
    time.sleep(1)
    with lock:
        print(json.dumps({"time": time.time(), "protocols": seen}), flush=True)
