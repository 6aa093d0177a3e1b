"""What is measured: every row of the report, and which of them share their processes."""
import fnmatch
from dataclasses import dataclass, field, replace

from .proxies import Service

ALL = ("direct", "apus", "envoy", "nginx", "haproxy")
MESH = ("direct", "apus", "envoy")

# Fourteen fields besides those that the generator always sends: about what a browser behind a login sends to a service.
FIELDS = "".join(f"{name}: {value}\r\n" for name, value in (
    ("Accept-Language", "nl-NL,nl;q=0.8,en-GB;q=0.5,en;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Authorization", "Bearer " + "a1b2c3d4" * 16),
    ("Cookie", "session=" + "0f1e2d3c" * 6 + "; basket=" + "99aa" * 8 + "; consent=all"),
    ("Referer", "https://shop.bench.test/catalogue/garden/watering?page=3&sort=price"),
    ("Origin", "https://shop.bench.test"),
    ("Cache-Control", "max-age=0"),
    ("X-Request-Id", "7b6f0a52-6a3e-4a53-9d3c-0d8a2f6f1c11"),
    ("X-Forwarded-For", "192.0.2.17, 198.51.100.4"),
    ("X-Forwarded-Proto", "https"),
    ("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"),
    ("tracestate", "vendor=opaque-value"),
    ("X-Tenant", "north"),
    ("DNT", "1"),
))


@dataclass(frozen=True)
class Row:
    name: str
    tool: str       # of the load generator: http1 | http2 | tcp; "" measures memory without load
    service: str
    settings: dict
    title: str
    kind: str = "request"  # request | gigabyte | latency | memory
    proxies: tuple = ALL
    # Some rows need more time than others for a steady figure.
    stretch: float = 1


@dataclass(frozen=True)
class Cell:
    """One measurement of a round: a row through a proxy, or through a variant of it that the group has started."""
    row: Row
    proxy: str
    variant: str


@dataclass(frozen=True)
class Group:
    """Rows that share their processes. `variants` says how each proxy is started: keyword arguments of its starter."""
    name: str
    title: str
    services: tuple      # (name, protocol)
    pair: bool
    rows: tuple
    variants: dict = field(default_factory=dict)

    def blocks(self):
        """Cells that are measured in turn with each other."""
        if self.variants:
            return [[Cell(row, "apus", row.name) for row in self.rows]]
        return [[Cell(row, proxy, proxy) for proxy in row.proxies] for row in self.rows]


def http1_rows():
    def row(name, title, settings, **others):
        return Row(name, "http1", "http1", settings, title, **others)

    many = {"connections": 64}
    return (
        row("http1-small", "100-byte bodies, 64 connections", many),
        row("http1-14-headers", "14 further header fields, 100-byte bodies, 64 connections", {**many, "fields": FIELDS}),
        row("http1-10kib", "10 KiB bodies, 64 connections", {**many, "path": "/10k"}),
        row("http1-1mib", "1 MiB bodies, 16 connections", {"connections": 16, "path": "/1m"}, kind="gigabyte"),
        row("http1-small-1-connection", "one connection, one request at a time", {"connections": 1}),
        row("http1-new-connections", "a connection for every request, 16 at a time: requests/s are connections a second", {"connections": 16, "renew": 1}),
        row("http1-rate-100", "100 requests a second, evenly spaced, 16 connections", {"connections": 16, "rate": 100},
            kind="latency", stretch=2),
        row("http1-rate-1000", "1,000 requests a second, evenly spaced, 16 connections", {"connections": 16, "rate": 1000},
            kind="latency"),
    )


def connection_rows():
    http1 = {"tool": "http1", "service": "http1"}
    return (
        Row("idle", "", "http1", {}, "started, nothing asked yet", kind="memory", proxies=ALL[1:]),
        Row("http1-small-1000-connections", settings={"connections": 1000}, title="1,000 connections, all of them busy", **http1),
        Row("http1-small-10000-connections", settings={"connections": 10000, "active": 1000},
            title="10,000 connections, 1,000 of them busy at a time", proxies=("direct", "apus", "envoy", "nginx"), stretch=1.5, **http1),
    )


def http2_rows():
    rows = []
    shapes = ((16, 16), (16, 1), (1, 1))
    for connections, streams in shapes:
        shape = {"connections": connections, "streams": streams}
        words = f"{connections} connection{'s' * (connections > 1)} of {streams} stream{'s' * (streams > 1)}"
        rows.append(Row(f"http2-small-{connections}x{streams}", "http2", "http2", shape, f"GET, 100-byte bodies, {words}",
                        proxies=("direct", "apus", "envoy", "haproxy")))
    for connections, streams in shapes:
        shape = {"connections": connections, "streams": streams}
        words = f"{connections} connection{'s' * (connections > 1)} of {streams} stream{'s' * (streams > 1)}"
        rows.append(Row(f"grpc-unary-{connections}x{streams}", "http2", "grpc", {**shape, "messages": 1},
                        f"unary calls, 32-byte messages, {words}"))
        rows.append(Row(f"grpc-streaming-{connections}x{streams}", "http2", "grpc", {**shape, "messages": 100},
                        f"calls of 100 messages each way, every message answered before the next; figures for a message, {words}"))
    for rate in (100, 1000):
        rows.append(Row(f"grpc-rate-{rate}", "http2", "grpc", {"connections": 4, "streams": 16, "messages": 1, "rate": rate},
                        f"{rate:,} unary calls a second, evenly spaced, 4 connections", kind="latency", stretch=2 if rate == 100 else 1))
    return tuple(rows)


def tcp_rows():
    return (
        Row("tcp-bulk", "tcp", "tcp", {"connections": 4, "mode": "bulk"}, "as many bytes as come, 4 connections", kind="gigabyte"),
        Row("tcp-connect", "tcp", "tcp", {"connections": 16, "mode": "connect"}, "connect, one byte each way, close; 16 at a time: requests/s are connections a second"),
    )


def as_pair(rows, proxies):
    return tuple(replace(row, name=f"{row.name}-mtls-pair", proxies=tuple(one for one in row.proxies if one in proxies))
                 for row in rows)


FEATURES = {
    "http1-small-baseline": ({}, "the same sidecar as it is", {}),
    "http1-small-access-log": ({"access_log": "json"}, "access log as JSON, to a file", {}),
    "http1-small-100-services": ({"copies": 100}, "100 services, each dialled at its own address", {"ports": 100, "connections": 100}),
    "http1-small-1000-endpoints": ({"extra_endpoints": 999}, "one service of 1,000 endpoints", {}),
    "http1-small-2-loops": ({"loops": 2, "cores": "0,1"}, "two loops, on the generator's core too", {}),
}


def groups():
    http1, http2, tcp = (("http1", "http1"),), (("http2", "http2"), ("grpc", "grpc")), (("tcp", "opaque"),)
    features = tuple(Row(name, "http1", "http1", {"connections": 64, **settings}, title, proxies=("apus",))
                     for name, (_, title, settings) in FEATURES.items())
    return (
        Group("http1", "HTTP/1.1 through one proxy", http1, False, http1_rows()),
        Group("http1-mtls-pair", "HTTP/1.1 through two proxies with mutual TLS between them", http1, True, as_pair(http1_rows(), ALL)),
        Group("connections", "Memory and many connections, one proxy", http1, False, connection_rows()),
        Group("connections-mtls-pair", "Memory and many connections, two proxies with mutual TLS", http1, True,
              as_pair(connection_rows(), MESH)),
        Group("http2", "HTTP/2 and gRPC through one proxy", http2, False, http2_rows()),
        Group("http2-mtls-pair", "HTTP/2 and gRPC through two proxies with mutual TLS between them", http2, True,
              as_pair(http2_rows(), MESH)),
        Group("tcp", "TCP without a protocol, one proxy", tcp, False, tcp_rows()),
        Group("tcp-mtls-pair", "TCP without a protocol, two proxies with mutual TLS between them", tcp, True, as_pair(tcp_rows(), MESH)),
        Group("features", "What features cost (Apus alone, HTTP/1.1, 100-byte bodies)", http1, False, features,
              {name: how for name, (how, _, _) in FEATURES.items()}),
    )


def select(only):
    """The groups with the rows that `only` names: names of rows or groups, patterns with *, or beginnings of names, by comma."""
    every = groups()
    if not only:
        return every
    chosen = set()
    names = [row.name for group in every for row in group.rows]
    for word in filter(None, only.split(",")):
        exact = {name for name in names if name == word}
        exact = exact or {row.name for group in every if group.name == word for row in group.rows}
        exact = exact or set(fnmatch.filter(names, word)) or {name for name in names if name.startswith(word)}
        if not exact:
            groups_text = ", ".join(group.name for group in every)
            raise SystemExit(f"bench: ONLY={word}: no row or group of that name. Rows: {', '.join(names)}. Groups: {groups_text}.")
        chosen |= exact
    if chosen & set(FEATURES):
        chosen.add("http1-small-baseline")
    picked = (replace(group, rows=tuple(row for row in group.rows if row.name in chosen)) for group in every)
    return tuple(group for group in picked if group.rows)


def services(group, number, base):
    """The services as the proxy of this number has them: with backends of its own."""
    return [Service(name, protocol, base + number * 10 + place) for place, (name, protocol) in enumerate(group.services)]
