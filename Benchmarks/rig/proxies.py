"""The proxies: how each is configured to carry the same services, alone in plaintext or as a pair with mutual TLS.

A service is (name, protocol, port of its backend). Every proxy gets backends of its own, so that none inherits another's
connections, and answers with the port on which each service is reached.
"""
import json
from dataclasses import dataclass, field

from . import certificates, envoy, haproxy, nginx


@dataclass
class Service:
    name: str
    protocol: str  # http1 | http2 | grpc | opaque
    backend: int


@dataclass
class Proxy:
    name: str
    ports: dict
    processes: list = field(default_factory=list)

    @property
    def identifiers(self):
        return [process.pid for process in self.processes]


class Starter:
    """Starts proxies for one group of rows, each with ports from 18000 upwards."""

    def __init__(self, processes, folder, binaries, core):
        self.processes = processes
        self.folder = folder
        self.binaries = binaries
        self.core = core
        self.next_port = 18000

    def ports(self, count=1):
        first = self.next_port
        self.next_port += count
        return first

    def direct(self, services, pair):
        return Proxy("direct", {service.name: service.backend for service in services})

    def _start(self, name, ports, *command):
        process = self.processes.start(self.core, *command, name=name)
        for port in ports:
            self.processes.listening(port, process)
        return process

    # Apus

    def apus(self, services, pair, name="apus", loops=1, access_log=None, cores=None, extra_endpoints=0, copies=1):
        folder = self.folder
        outside = {service.name: self.ports(copies) for service in services}
        inside = {service.name: self.ports() for service in services}
        out = {"trustDomain": "bench.test", "loops": loops, "outbound": [], "services": []}
        if access_log:
            out["accessLog"] = access_log
        if pair:
            out["identity"] = {"certificate": "client.pem", "key": "client.key", "roots": "ca.pem"}
        for number, service in enumerate(services):
            target = inside[service.name] if pair else service.backend
            endpoints = [{"address": f"127.0.0.1:{target}"}]
            endpoints += [{"address": f"127.1.{index // 250}.{index % 250 + 1}:{target}"} for index in range(extra_endpoints)]
            if pair:
                endpoints[0]["identity"] = certificates.SERVER
            for copy in range(copies):
                address = f"10.{number}.{copy // 250}.{copy % 250 + 1}"
                out["outbound"].append({"listen": f"127.0.0.1:{outside[service.name] + copy}", "destination": f"{address}:80"})
                out["services"].append({
                    "name": f"bench/{service.name}-{copy}", "addresses": [address],
                    "ports": [{"port": 80, "protocol": service.protocol}], "endpoints": endpoints,
                    "connectTimeoutMilliseconds": 5000})
        processes = []
        if pair:
            processes.append(self._apus_inbound(name, services, inside, cores))
        (folder / f"{name}-out.yaml").write_text(json.dumps(out))
        listening = [port + copy for port in outside.values() for copy in range(copies)]
        processes.append(self._start_apus(f"{name}-out", "outbound", listening, cores))
        return Proxy(name, outside, processes)

    def _apus_inbound(self, name, services, inside, cores):
        configuration = {
            "trustDomain": "bench.test",
            "identity": {"certificate": "server.pem", "key": "server.key", "roots": "ca.pem"},
            "own": {"namespace": "bench", "name": "server-0", "addresses": ["127.0.0.1"],
                    "ports": {service.backend: service.protocol for service in services}},
            "inbound": [{"listen": f"127.0.0.1:{inside[service.name]}", "destination": f"127.0.0.1:{service.backend}"}
                        for service in services],
        }
        (self.folder / f"{name}-in.yaml").write_text(json.dumps(configuration))
        return self._start_apus(f"{name}-in", "inbound", inside.values(), cores)

    def _start_apus(self, name, side, ports, cores):
        """It listens before it knows its certificate, and says where it listens when all is ready."""
        process = self.processes.start(cores or self.core, self.binaries["apus"], "run", "--config", f"{name}.yaml", name=name)
        for port in ports:
            self.processes.said(f"{side} 127.0.0.1:{port}\n", process)
        return process

    # Envoy

    def envoy(self, services, pair):
        outside = {service.name: self.ports() for service in services}
        inside = {service.name: self.ports() for service in services}
        backends = {service.name: service.backend for service in services}
        sides = [("out", outside, inside if pair else backends)]
        if pair:
            sides.insert(0, ("in", inside, backends))
        processes = []
        for side, listeners, clusters in sides:
            text = envoy.configuration(
                self.folder, services, listeners, clusters, secure_listener=pair and side == "in",
                secure_cluster=pair and side == "out")
            (self.folder / f"envoy-{side}.json").write_text(text)
            processes.append(self._start(
                f"envoy-{side}", listeners.values(), self.binaries["envoy"], "-c", f"envoy-{side}.json", "--concurrency", "1",
                "--disable-hot-restart", "-l", "error"))
        return Proxy("envoy", outside, processes)

    # nginx and haproxy

    def nginx(self, services, pair):
        return self._of_text("nginx", nginx.configuration, lambda file: ["nginx", "-p", self.folder, "-c", file], services, pair)

    def haproxy(self, services, pair):
        return self._of_text("haproxy", haproxy.configuration, lambda file: ["haproxy", "-db", "-f", file], services, pair)

    def _of_text(self, name, configuration, command, services, pair):
        outside = {service.name: self.ports() for service in services}
        inside = {service.name: self.ports() for service in services}
        backends = {service.name: service.backend for service in services}
        sides = [("out", outside, inside if pair else backends)]
        if pair:
            sides.insert(0, ("in", inside, backends))
        processes = []
        for side, listeners, upstreams in sides:
            file = self.folder / f"{name}-{side}.conf"
            file.write_text(configuration(self.folder, side, services, listeners, upstreams, pair))
            processes.append(self._start(f"{name}-{side}", listeners.values(), *command(file)))
        return Proxy(name, outside, processes)
