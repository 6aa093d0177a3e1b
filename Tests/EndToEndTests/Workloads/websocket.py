"""WebSocket with a real client and a real server (PyPI `websockets`): through a pair of sidecars with mutual TLS, and through one without."""
import asyncio
import json
import os
import pathlib
import subprocess
import sys

VIP, PORT, PLAIN = "10.99.0.1", 8765, 18765


async def serve(port):
    from websockets.asyncio.server import serve as listen
    from websockets.http11 import Response
    from websockets.datastructures import Headers

    async def converse(socket):
        if socket.request.path == "/greet":
            await socket.send("hello before a word of yours")
        if socket.request.path == "/close":
            await socket.close(4001, "the server has enough")
            return
        async for message in socket:
            await socket.send(message)

    def admit(connection, request):
        if request.path == "/forbidden":
            return Response(403, "Forbidden", Headers({"Content-Length": "2", "Connection": "close"}), b"no")

    async with listen(converse, None, port, subprotocols=["echo.v1"], process_request=admit, max_size=None):
        await asyncio.get_running_loop().create_future()


async def call(address):
    import websockets.asyncio.client
    from websockets.exceptions import ConnectionClosedError, InvalidStatus

    def connect(url, **settings):
        return websockets.asyncio.client.connect(url, subprotocols=["echo.v1"], max_size=None, **settings)

    async with connect(f"ws://{address}/echo") as socket:
        assert socket.subprotocol == "echo.v1", socket.subprotocol
        assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
        for message in ("", "word", "ö" * 40_000, b"\x00\xff" * 700_000):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "fragments"])
        assert await socket.recv() == "in three fragments"
        await asyncio.wait_for(await socket.ping(), 10)
    assert socket.close_code == 1000, socket.close_code

    async with connect(f"ws://{address}/greet", compression=None) as socket:
        assert await socket.recv() == "hello before a word of yours"

    async with connect(f"ws://{address}/close") as socket:
        try:
            await socket.recv()
            raise AssertionError("the server's close did not arrive")
        except ConnectionClosedError as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "the server has enough")

    try:
        async with connect(f"ws://{address}/forbidden"):
            raise AssertionError("a refused handshake stood")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403

    async def one(number):
        async with connect(f"ws://{address}/echo") as socket:
            for count in range(20):
                await socket.send(f"{number}.{count}")
                assert await socket.recv() == f"{number}.{count}"

    await asyncio.gather(*(one(number) for number in range(50)))
    print("well")


def main(proxy):
    from pair import SIDECAR_USER, Pair, expect

    with Pair(proxy, (4,), prefix="apus-websocket") as pair:
        me = [sys.executable, os.path.abspath(__file__)]
        pair.start("b")
        pair.start("a", services=[pair.service("echo", VIP, PORT, 4, protocol="http1")])
        pair.spawn("b", *me, "--serve", str(PORT))
        pair.until("the server", lambda: f":{PORT} " in subprocess.run(
            pair.words("b", ["ss", "-Htln"]), capture_output=True, text=True).stdout)

        def converse(side, address):
            done = subprocess.run(pair.words(side, [*me, "--call", address]), capture_output=True, text=True, timeout=60)
            expect(done.stdout == "well\n", f"{address}: {done.stdout}{done.stderr}")

        converse("a", f"{VIP}:{PORT}")
        for side in ("a", "b"):
            expect(pair.counter(side, "upgrades") == 53, f"{pair.counter(side, 'upgrades')} upgrades counted at {side}, 53 were made")

        path = pathlib.Path(pair.folder) / "plain.yaml"
        path.write_text(json.dumps({
            "outbound": [{"listen": f"127.0.0.1:{PLAIN}", "destination": "10.99.0.9:80"}],
            "services": [{"name": "test/plain", "addresses": ["10.99.0.9"], "ports": [{"port": 80}],
                          "endpoints": [{"address": f"127.0.0.1:{PORT}"}]}]}))
        pair.spawn("b", proxy, "run", "--config", str(path), user=SIDECAR_USER, stdout=subprocess.DEVNULL)
        pair.until("the plain sidecar", lambda: f":{PLAIN} " in subprocess.run(
            pair.words("b", ["ss", "-Htln"]), capture_output=True, text=True).stdout)
        converse("b", f"127.0.0.1:{PLAIN}")


if sys.argv[1] == "--serve":
    asyncio.run(serve(int(sys.argv[2])))
elif sys.argv[1] == "--call":
    asyncio.run(call(sys.argv[2]))
else:
    main(sys.argv[1])
