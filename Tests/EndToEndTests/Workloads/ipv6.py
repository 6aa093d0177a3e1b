"""Through two sidecars on machines that have no IPv4 at all, and beside it on machines that have both."""
import sys
import time

from pair import PYTHON, SIDECAR_USER, Pair, expect

SERVER = """
import socket, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
class Server(HTTPServer):
    address_family = socket.AF_INET6
def greet():
    listener = socket.create_server(("::", 3306), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"greeting"); connection.recv(100); connection.close()
threading.Thread(target=greet, daemon=True).start()
Server(("::", 8080), Handler).serve_forever()
"""
GET = """
import sys, urllib.request
try: print(urllib.request.urlopen(sys.argv[1], timeout=10).status)
except urllib.error.HTTPError as error: print(error.code, error.headers["apus-reason"])
"""
GREETED = """
import socket, sys, time
began = time.monotonic()
with socket.create_connection((sys.argv[1], 3306), timeout=10) as connection:
    text = connection.recv(100); print(text.decode(), round((time.monotonic() - began) * 1000, 1)); connection.sendall(b"bye")
"""


def check(proxy, families):
    with Pair(proxy, families) as pair:
        pair.spawn("b", PYTHON, "-c", SERVER)
        vips = {6: "fd00:99::1", 4: "10.99.0.1"}
        services = [pair.service("web", vips[family], 80, family, target=8080) for family in families]
        services += [pair.service("data", vips[family], 3306, family) for family in families]
        # The same service by both families is one service with two addresses; here two names tell them apart.
        for index, item in enumerate(services):
            item["name"] += str(index)
        pair.start("a", services)
        pair.start("b")
        for family in families:
            url = f"http://{pair.text(vips[family], 80)}/"
            pair.until(f"an answer from {url}", lambda: pair.python("a", GET, url).strip() == "200")
            for number in (1, 2):
                text, milliseconds = pair.python("a", GREETED, vips[family]).split()
                print(f"families {families}, IPv{family}: greeting {number} after {milliseconds} ms")
                expect(text == "greeting", f"the greeting over IPv{family} reads {text!r}")
        # Without an identity nobody gets in, whatever the family: the sidecar's user is not redirected.
        for family in families:
            url = f"http://{pair.text(pair.address['b'][family], 8080)}/"
            refused = pair.python("a", GET, url, user=SIDECAR_USER)
            expect(refused.split() == ["403", "mtls_required"], f"plaintext over IPv{family}: {refused!r}")
        time.sleep(1.2)
        for side in ("a", "b"):
            text = pair.log(side) + pair.metrics(side)
            expect("::ffff:" not in text, f"an IPv4-mapped address shows in what {side} says")
            expect("mutual_tls" in text, f"{side} counted nothing over mutual TLS")
            for family in families:
                own = pair.address["b"][family]
                expect(own in text, f"{side} does not name {own}")


if __name__ == "__main__":
    check(sys.argv[1], [6])
    check(sys.argv[1], [4, 6])
