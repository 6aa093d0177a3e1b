"""Two network namespaces with a sidecar each, joined by a cable, for tests that need no platform: one calls, one serves. Every
process, namespace and file goes with `close`. Needs root, openssl, ip and nft."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

TRUST = "cluster.local"
SIDECAR_USER = 1337
# Its user, too, must be able to read it.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def run(*words, **settings):
    done = subprocess.run(words, capture_output=True, text=True, **settings)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))} failed ({done.returncode}): {done.stdout}{done.stderr}")
    return done.stdout


class Pair:
    """`families` of addresses: 4, 6 or both. Services are YAML items of docs/static-configuration.md, made by `service`."""

    def __init__(self, proxy, families, prefix="apus-pair"):
        self.proxy = proxy
        self.families = families
        self.names = {side: f"{prefix}-{os.getpid()}-{side}" for side in ("a", "b")}
        self.address = {"a": {4: "10.77.0.1", 6: "fd00:77::1"}, "b": {4: "10.77.0.2", 6: "fd00:77::2"}}
        self.processes = []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
        os.chmod(self.folder, 0o755)

    def __enter__(self):
        try:
            self.certify()
            for name in self.names.values():
                run("ip", "netns", "add", name)
            a, b = self.names["a"], self.names["b"]
            run("ip", "-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b)
            for side, other in (("a", "b"), ("b", "a")):
                name = self.names[side]
                run("ip", "-n", name, "link", "set", "lo", "up")
                run("ip", "-n", name, "link", "set", "cable", "up")
                for family in self.families:
                    length = 24 if family == 4 else 64
                    nodad = ["nodad"] if family == 6 else []
                    run("ip", "-n", name, f"-{family}", "address", "add", f"{self.address[side][family]}/{length}", "dev", "cable", *nodad)
                    run("ip", "-n", name, f"-{family}", "route", "add", "default", "via", self.address[other][family])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def certify(self):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run("openssl", "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2", cwd=self.folder)
        for side in self.names:
            run("openssl", "req", *key, "-keyout", f"{side}.key", "-out", f"{side}.csr", "-subj", "/", cwd=self.folder)
            (self.folder / f"{side}.ext").write_text(
                f"subjectAltName=critical,URI:{self.identity(side)}\nkeyUsage=critical,digitalSignature\n"
                "extendedKeyUsage=serverAuth,clientAuth\n")
            run("openssl", "x509", "-req", "-in", f"{side}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
                "-extfile", f"{side}.ext", "-out", f"{side}.pem", cwd=self.folder)
            os.chmod(self.folder / f"{side}.key", 0o644)

    @staticmethod
    def identity(side):
        return f"spiffe://{TRUST}/ns/test/sa/{side}"

    @staticmethod
    def text(address, port):
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def service(self, name, vip, port, family, target=None, protocol=None):
        """An item of `services` that leads to a port of side b."""
        return {"name": f"test/{name}", "addresses": [vip], "ports": [{"port": port, **({"protocol": protocol} if protocol else {})}],
                "endpoints": [{"address": self.text(self.address["b"][family], target or port), "identity": self.identity("b")}]}

    def words(self, side, words, user=None):
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return ["ip", "netns", "exec", self.names[side], *as_user, *words]

    def spawn(self, side, *words, user=None, **settings):
        process = subprocess.Popen(self.words(side, words, user), **settings)
        self.processes.append(process)
        return process

    def start(self, side, services=(), limit=None, **more):
        """A sidecar, with the side's traffic redirected to it."""
        run("ip", "netns", "exec", self.names[side], self.proxy, "capture")
        configuration = {
            "trustDomain": TRUST, "accessLog": "json",
            "identity": {"certificate": f"{self.folder}/{side}.pem", "key": f"{self.folder}/{side}.key", "roots": f"{self.folder}/ca.pem"},
            "own": {"namespace": "test", "name": side, "addresses": [self.address[side][family] for family in self.families]},
            "outbound": [{"listen": "[::]:15001"}], "inbound": [{"listen": "[::]:15006"}], "admin": "127.0.0.1:15000",
            "services": list(services), **more}
        path = self.folder / f"{side}.yaml"
        path.write_text(json.dumps(configuration))
        log = open(self.folder / f"{side}.log", "ab")
        words = [self.proxy, "run", "--config", str(path)]
        if limit:
            words = ["prlimit", f"--nofile={limit}", *words]
        sidecar = self.spawn(side, *words, user=SIDECAR_USER, stdout=log, stderr=log)
        try:
            self.until(f"the sidecar of {side}", lambda: "apus_proxy_" in self.metrics(side))
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {self.log(side)[-2000:]}") from None
        return sidecar

    def log(self, side):
        return (self.folder / f"{side}.log").read_text()

    def metrics(self, side):
        return subprocess.run(["ip", "netns", "exec", self.names[side], "curl", "-s", "--max-time", "5", "http://127.0.0.1:15000/metrics"],
                              capture_output=True, text=True).stdout

    def counter(self, side, name):
        for line in self.metrics(side).splitlines():
            if line.startswith(f"apus_proxy_{name}_total "):
                return int(float(line.split()[1]))
        raise RuntimeError(f"the sidecar of {side} has no counter {name}")

    def python(self, side, code, *arguments, user=None):
        """A program of a few lines in one of the namespaces; its output."""
        return run(*self.words(side, [PYTHON, "-c", code, *map(str, arguments)], user), timeout=60)

    @staticmethod
    def until(what, condition, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.05)
        raise RuntimeError(f"waited {seconds} s for {what}")


def expect(condition, what):
    if not condition:
        raise AssertionError(what)
