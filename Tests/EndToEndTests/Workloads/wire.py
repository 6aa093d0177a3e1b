"""Reads every packet on an interface and prints a JSON line five times a second: how many there were, how many had a TLS
record of application data, how many had the text. Arguments: interface, text."""
import json
import socket
import sys
import time

text = sys.argv[2].encode()
reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
reader.bind((sys.argv[1], 0))
reader.settimeout(0.2)
seen = {"packets": 0, "tls": 0, "readable": 0}
printed = 0.0
while True:
    try:
        packet = reader.recv(65535)
        seen["packets"] += 1
        seen["tls"] += b"\x17\x03\x03" in packet
        seen["readable"] += text in packet
    except socket.timeout:
        pass
    if time.monotonic() - printed > 0.2:
        printed = time.monotonic()
        print(json.dumps(seen), flush=True)
