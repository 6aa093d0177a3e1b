#!/usr/bin/env python3
"""What `make demo` runs: the shop on one machine, and eleven claims about the mesh, each with the figures it rests on.

On a terminal the shop stays up until Ctrl-C; otherwise the report is printed and everything is taken down. Exits 0 only when every
claim held and nothing was left behind. Standard library only; everything else is `apus` itself and the manifests beside this file.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
MARKER = b"the-shops-secret-recipe"
arguments = argparse.ArgumentParser(description="The example shop in the mesh, with proofs.")
arguments.add_argument("--apus", default="apus", help="the apus binary")
arguments.add_argument("--bridge", default="apus0", help="the bridge that the packets are watched on")
options = arguments.parse_args()
terminal = sys.stdout.isatty()
began = time.monotonic()
claims = []


def say(text):
    print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)


def apus(*words, check=True, text_input=None):
    done = subprocess.run(
        [options.apus, *words, "--data-dir", data], input=text_input, capture_output=True, text=True, timeout=180)
    if check and done.returncode != 0:
        raise RuntimeError(f"apus {' '.join(words)} failed ({done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def get(*words):
    return json.loads(apus("get", *words, "-o", "json"))


def claim(what, holds, figures):
    claims.append((what, bool(holds), figures))
    mark = ("\033[32m✔\033[0m" if holds else "\033[31m✘\033[0m") if terminal else ("PASS" if holds else "FAIL")
    say(f"{mark} {what}\n             {figures}")


def until(what, seconds, probe):
    """The first true value of probe(); gives up with the reason after the time."""
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds} s for {what}")
        time.sleep(0.1)


def pods(namespace="shop", **labels):
    items = get("pods", "-n", namespace)["items"]
    return [pod for pod in items if all(pod["metadata"].get("labels", {}).get(k) == v for k, v in labels.items())]


def control_plane():
    return pods("apus-system", **{"app.kubernetes.io/name": "apus-control"})


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def all_ready(count, **labels):
    found = [pod for pod in pods(**labels) if "deletionTimestamp" not in pod["metadata"]]
    return found if len(found) == count and all(map(ready, found)) else None


def seen():
    """The shopper's newest line."""
    lines = [line for line in apus("logs", "deployment/shopper", "-n", "shop", "-c", "shopper", "--tail", "2").splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else None


def fresh():
    """A line of the shopper that was written after this call."""
    now = time.time()
    return until("a new line of the shopper's log", 20, lambda: (lambda s: s if s and s["time"] > now else None)(seen()))


class Wire(threading.Thread):
    """Reads every packet on the bridge and counts what can be read in it."""

    def __init__(self, bridge):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((bridge, 0))
        self.packets = self.bytes = self.readable = self.tls = 0

    def run(self):
        while True:
            try:
                packet = self.socket.recv(65535)
            except OSError:
                return  # the bridge is gone
            self.packets += 1
            self.bytes += len(packet)
            self.readable += MARKER in packet
            self.tls += b"\x17\x03\x03" in packet


def machine():
    """What apus could leave behind: namespaces, links, nftables tables."""
    def lines(*command):
        return set(subprocess.run(command, capture_output=True, text=True).stdout.splitlines())
    return {
        "namespaces": {line.split()[0] for line in lines("ip", "netns", "list") if line},
        "links": {line.split(":")[1].split("@")[0].strip() for line in lines("ip", "-o", "link")},
        "tables": lines("nft", "list", "tables"),
    }


def story():
    say("apus up: the platform and the control plane")
    apus("up", "--detach")
    wire = Wire(options.bridge)
    wire.start()

    say("apus apply: five services, eleven pods, and a customer")
    code = {"service.py": (HERE / "service.py").read_text(), "shopper.py": (HERE / "shopper.py").read_text()}
    apus("apply", "-f", str(HERE / "shop.yaml"))
    apus("apply", "-f", "-", text_input=json.dumps({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-code", "namespace": "shop"}, "data": code}))
    shop = until("the shop's twelve pods to be ready", 120, lambda: all_ready(12))
    apus("apply", "-f", str(HERE / "shopper.yaml"))
    until("the customer", 60, lambda: all_ready(13))
    until("the first answers", 30, lambda: (lambda s: s and s["answers"] > 50)(seen()))

    everything = pods()
    sidecars = [pod["metadata"]["name"] for pod in everything if any(
        status["name"] == "apus-proxy" and status.get("ready") for status in pod["status"].get("initContainerStatuses", []))]
    wrote_sidecar = "apus-proxy" in (HERE / "shop.yaml").read_text()
    claim("every pod has a sidecar, and no manifest names one", len(sidecars) == len(everything) and not wrote_sidecar,
          f"{len(sidecars)} of {len(everything)} pods")

    say("apus apply: a new service, which the customer has been asking for all along")
    applied = time.time()
    apus("apply", "-f", str(HERE / "offers.yaml"))
    first = until("an answer of the new service", 60, lambda: seen()["firstAnswer"].get("offers"))
    offers = until("its pods", 30, lambda: all_ready(2, app="offers"))
    became_ready = min(
        condition["lastTransitionTime"] for pod in offers for condition in pod["status"]["conditions"] if condition["type"] == "Ready")
    claim("a new service is found by a caller that was already running", 0 < first - applied < 30,
          f"{first - applied:.2f} s from apply to the first answered call, the start of its pods included "
          f"(the first was ready at {became_ready})")

    say("ten seconds of traffic")
    time.sleep(10)
    now = fresh()
    spread = {pod: count for pod, count in now["pods"].items() if pod.startswith("catalog/")}
    # Not evenly: the replica that answers faster gets more (peak EWMA). But nobody is left out.
    claim("requests are spread over the replicas, each gets a tenth at least", len(spread) == 3 and min(spread.values()) >= sum(spread.values()) * 0.1,
          ", ".join(f"{pod.split('/')[1]} {count}" for pod, count in sorted(spread.items())))

    edges = [edge for edge in json.loads(apus("edges", "-o", "json"))["edges"] if edge["destination"]["namespace"] == "shop"]
    secured = [edge for edge in edges if edge["security"] == "mutual_tls" and edge["source"]["identity"] and edge["destination"]["identity"]]
    others = [f"{edge['source']['name']} → {edge['destination']['name']} {edge['security']}" for edge in edges if edge not in secured]
    example = next((edge for edge in secured if edge["destination"]["name"] == "payments"), None)
    claim("both ends of every edge have proved who they are", len(edges) >= 6 and len(secured) == len(edges),
          f"{len(secured)} of {len(edges)} edges" + (f", such as {example['source']['identity']} → {example['destination']['identity']}" if example else "")
          + (f"; not {', '.join(others)}" if others else ""))

    clear_before = wire.readable
    tls_packets, packets = wire.tls, wire.packets
    subprocess.run(["bash", "-c", f"echo {MARKER.decode()} > /dev/udp/{bridge_neighbour()}/9"], check=False)
    until("the marker that was sent in the clear, as a control", 5, lambda: wire.readable > clear_before)
    claim("nothing readable crosses the bridge", clear_before == 0 and tls_packets > 1000,
          f"{packets:,} packets watched, {tls_packets:,} with TLS records, {clear_before} readable (a packet in the clear was seen at once)")


    def ejected():
        services = json.loads(apus("status", "-o", "json"))["services"]
        reviews = next(s for s in services if s["namespace"] == "shop" and s["name"] == "reviews")
        return reviews if any("eject" in reason for reason in reviews["reasons"]) else None
    reviews = until("the flaky replica to be ejected", 60, ejected)
    figures = fresh()
    claim("the flaky replica is ejected and its failures are hidden",
          figures["failures"] == 0 and figures["answers"] > 500,
          f"{figures['answers']:,} answers, {figures['failures']} failures seen by the customer {figures['errors'] or ''}; apus status: {'; '.join(reviews['reasons'])}")

    say("apus delete pod: a replica of the cart, under load")
    victim = pods(app="cart")[0]["metadata"]["name"]
    before = fresh()
    apus("delete", "pod", victim, "-n", "shop")
    until("its successor", 60, lambda: all_ready(2, app="cart"))
    after = fresh()
    claim("a pod deleted under load costs no request", after["failures"] == before["failures"] and after["answers"] > before["answers"],
          f"{after['answers'] - before['answers']:,} answers meanwhile, {after['failures'] - before['failures']} failures {after['errors'] or ''}")

    say("apus apply: version 2 of the catalog, a rolling update under load")
    before = fresh()
    apus("apply", "-f", str(HERE / "catalog-v2.yaml"))
    until("three replicas of v2", 120, lambda: all_ready(3, app="catalog", version="v2") and all_ready(3, app="catalog"))
    time.sleep(2)
    after = fresh()
    claim("a new version is rolled out without a failed request",
          after["failures"] == before["failures"] and after["versions"].get("catalog v2", 0) > 0,
          f"{after['versions'].get('catalog v2', 0):,} answers of v2 so far, {after['failures'] - before['failures']} failures {after['errors'] or ''}")

    say("the control plane is killed and comes back; the traffic goes on")
    before = fresh()
    control = control_plane()[0]["metadata"]["name"]
    apus("delete", "pod", control, "-n", "apus-system", "--grace-period", "0")
    until("the next control plane", 60, lambda: [pod for pod in control_plane() if ready(pod) and pod["metadata"]["name"] != control])
    after = fresh()
    claim("the control plane may die without a failed request", after["failures"] == before["failures"] and after["answers"] > before["answers"],
          f"{after['answers'] - before['answers']:,} answers meanwhile, {after['failures'] - before['failures']} failures {after['errors'] or ''}")

    def verdicts():
        report = json.loads(apus("status", "-o", "json"))
        shop = {s["name"]: s for s in report["services"] if s["namespace"] == "shop"}
        judged = [s for s in shop.values() if s["verdict"] != "unknown" and s["figures"]["requestsPerSecond"] > 0]
        return shop if len(judged) >= 5 else None
    shop = until("verdicts from the new control plane", 30, verdicts)
    claim("every service has a verdict with its reason", all(s["reasons"] for s in shop.values()),
          "; ".join(f"{name} {s['verdict']}" for name, s in sorted(shop.items())))
    print()
    print(apus("status"))


def bridge_neighbour():
    """A pod's address, so that the control packet crosses the bridge; nothing listens for it."""
    return pods(app="payments")[0]["status"]["podIP"]


data = tempfile.mkdtemp(prefix="apus-demo-")
clean = machine()
code = 1
try:
    story()
    if terminal:
        print(f"The shop stays up. In another terminal:  {options.apus} status --data-dir {data}\nCtrl-C ends it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
except KeyboardInterrupt:
    say("interrupted")
except Exception as error:
    claim("the story ran to its end", False, str(error))
    for words in (["get", "pods", "-A"], ["get", "events", "-A"], ["logs", "deployment/apus-control", "-n", "apus-system", "--tail", "30"]):
        print(subprocess.run([options.apus, *words, "--data-dir", data], capture_output=True, text=True).stdout[-6000:])
finally:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the platform behind
    say("apus down")
    subprocess.run([options.apus, "down", "--data-dir", data], timeout=120)
    left = {kind: sorted(now - clean[kind]) for kind, now in machine().items()}
    claim("nothing is left behind", not any(left.values()), ", ".join(f"{len(v)} {k}" for k, v in left.items()) + " more than before")
    shutil.rmtree(data, ignore_errors=True)

held = sum(holds for _, holds, _ in claims)
print(f"\n{held} of {len(claims)} claims held in {time.monotonic() - began:.0f} s")
sys.exit(0 if held == len(claims) and len(claims) >= 11 else 1)
