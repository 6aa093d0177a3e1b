"""Sends a fixed number of GET requests at an even rate over kept connections, and prints a JSON line a second with what
came back. Plain HTTP over sockets, nothing of a mesh.

TARGETS   host names or addresses, separated by spaces, asked in turn
RATE      requests each second
COUNT     requests in all; 0 goes on until it is ended
WORKERS   connections
"""
import collections
import json
import os
import socket
import threading
import time

TARGETS = os.environ["TARGETS"].split()
RATE = float(os.environ.get("RATE", "20"))
COUNT = int(os.environ.get("COUNT", "0"))
WORKERS = int(os.environ.get("WORKERS", "1"))
lock = threading.Lock()
seen = {"sent": 0, "answers": 0, "failures": 0, "errors": [], "servers": collections.Counter(), "done": False}


class Connection:
    """One kept connection to one host."""

    def __init__(self, host):
        self.host, self.socket, self.rest = host, None, b""

    def get(self):
        if self.socket is None:
            self.socket, self.rest = socket.create_connection((self.host, 80), timeout=15), b""
        self.socket.sendall(b"GET / HTTP/1.1\r\nhost: " + self.host.encode() + b"\r\nuser-agent: caller\r\n\r\n")
        while b"\r\n\r\n" not in self.rest:
            self.more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(fields.get("content-length", "0"))
        while len(self.rest) < length:
            self.more()
        body, self.rest = self.rest[:length], self.rest[length:]
        if fields.get("connection", "").lower() == "close":
            self.close()
        return int(lines[0].split(" ")[1]), fields, body.decode("latin-1")

    def more(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("closed in the middle of an answer")
        self.rest += piece

    def close(self):
        if self.socket is not None:
            self.socket.close()
        self.socket = None


def work(number):
    connections = [Connection(host) for host in TARGETS]
    mine = (COUNT - number + WORKERS - 1) // WORKERS
    turn = 0
    due = time.monotonic() + number / RATE
    while COUNT == 0 or turn < mine:
        time.sleep(max(0.0, due - time.monotonic()))
        due += WORKERS / RATE
        connection = connections[turn % len(connections)]
        turn += 1
        with lock:
            seen["sent"] += 1
        began = time.time()
        try:
            status, fields, body = connection.get()
            problem = None if status == 200 else f'{status} {fields.get("apus-reason")} {body[:200]}'
        except OSError as error:
            connection.close()
            problem = repr(error)
        with lock:
            if problem is None:
                seen["answers"] += 1
                seen["servers"][body.split(" the-marker")[0]] += 1
            else:
                seen["failures"] += 1
                seen["errors"] = (seen["errors"] + [f"{began:.3f} {connection.host}: {problem}"])[-8:]


workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(WORKERS)]
for worker in workers:
    worker.start()
while True:
    time.sleep(1)
    with lock:
        seen["done"] = COUNT > 0 and seen["answers"] + seen["failures"] == COUNT
        print(json.dumps({"time": time.time(), **seen}), flush=True)
