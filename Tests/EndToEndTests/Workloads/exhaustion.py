"""A sidecar without a descriptor left neither spins nor dies, and serves again when there are some."""
import os
import sys
import time

from pair import PYTHON, Pair, expect

SERVER = """
import socket, threading
listener = socket.create_server(("", 7000), backlog=1024)
def serve(connection):
    while True:
        data = connection.recv(1000)
        if not data: break
        connection.sendall(data)
    connection.close()
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"""
HOLD = """
import socket, sys, time
held = []
for _ in range(200):
    connection = socket.socket(); connection.setblocking(False)
    connection.connect_ex(("10.99.0.1", 7000)); held.append(connection)
print("held", flush=True)
sys.stdin.read()
"""
ECHO = """
import socket
try:
    with socket.create_connection(("10.99.0.1", 7000), timeout=5) as connection:
        connection.sendall(b"\\x00ping"); print(connection.recv(100) == b"\\x00ping")
except OSError: print(False)
"""


def processor_seconds(process):
    fields = open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(proxy):
    with Pair(proxy, [4]) as pair:
        pair.spawn("b", PYTHON, "-c", SERVER)
        pair.start("b")
        sidecar = pair.start("a", [pair.service("echo", "10.99.0.1", 7000, 4, protocol="opaque")], limit=64)
        pair.until("an echo", lambda: pair.python("a", ECHO).strip() == "True")
        holder = pair.spawn("a", PYTHON, "-c", HOLD, stdin=-1, stdout=-1)
        holder.stdout.readline()
        children = open(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read().split()
        process = int(children[0]) if children else sidecar.pid
        pair.until("its descriptors to be used up", lambda: len(os.listdir(f"/proc/{process}/fd")) >= 62)
        before = processor_seconds(process)
        time.sleep(3)
        used = processor_seconds(process) - before
        print(f"{used:.2f} s of processor time in 3 s without a descriptor")
        expect(sidecar.poll() is None, "the sidecar has ended")
        expect(used < 1.5, f"it used {used} s of processor time in 3 s: it spins")
        holder.stdin.close()
        holder.wait(20)
        pair.until("an echo after the descriptors came back", lambda: pair.python("a", ECHO).strip() == "True")


if __name__ == "__main__":
    check(sys.argv[1])
