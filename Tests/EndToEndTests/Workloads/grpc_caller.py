"""Calls the gRPC service of the first argument: unary calls, then streams, then a message of 2 MiB; prints one JSON line."""
import collections
import json
import sys

import grpc

target, count = sys.argv[1], int(sys.argv[2])
MARKER = b"the-marker-that-nobody-may-read"
servers = collections.Counter()
with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)]) as channel:
    echo = channel.unary_unary("/test.Echo/Echo")
    for number in range(count):
        name, _, text = echo(MARKER + b" %d" % number, timeout=20).partition(b" ")
        assert text == MARKER + b" %d" % number, text
        servers[name.decode()] += 1
    talk = channel.stream_stream("/test.Echo/Talk")
    said = [b"%d " % number + MARKER for number in range(count)]
    heard = [answer.partition(b" ")[2] for answer in talk(iter(said), timeout=20)]
    assert heard == said, heard
    large = bytes(2 << 20)
    assert echo(large, timeout=20).partition(b" ")[2] == large
    try:
        channel.unary_unary("/test.Echo/Missing")(b"", timeout=20)
        missing = "OK"
    except grpc.RpcError as error:
        missing = error.code().name
print(json.dumps({"unary": count, "streamed": len(heard), "large": len(large), "missing": missing, "servers": servers}))
