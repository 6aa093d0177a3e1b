"""Processes that the rig starts, what they spend, and their end, which comes in any case."""
import ctypes
import json
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PRIORITY = -10
_libc = ctypes.CDLL(None, use_errno=True)


def enter_own_network():
    """A network namespace of our own: no port of the machine is taken, no rule of its firewall is in the way, and nothing of it is left."""
    if _libc.unshare(CLONE_NEWNET):
        sys.exit(f"bench: no network namespace of its own: {os.strerror(ctypes.get_errno())}. Remedy: run it as root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65000")
    choose_congestion_control()
    # What listens is not among the ports that connections are given.
    pathlib.Path("/proc/sys/net/ipv4/ip_local_reserved_ports").write_text("18000-26999")


CONGESTION_CONTROL = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")


def choose_congestion_control():
    """Some machines pace their connections (bbr), which on loopback costs time and gains nothing. What a namespace may choose differs."""
    for name in ("cubic", "reno"):
        try:
            CONGESTION_CONTROL.write_text(name)
            return
        except OSError:
            continue


def come_first(*roots):
    """Whatever else the machine does comes after this process, those that it starts, and the given ones with their threads."""
    tasks = [0]
    for root in roots:
        for process in tree(root):
            tasks += [int(task.name) for task in pathlib.Path(f"/proc/{process}/task").glob("*")]
    for task in tasks:
        try:
            os.setpriority(os.PRIO_PROCESS, task, PRIORITY)
        except ProcessLookupError:
            continue


def _prepare():
    """In the child: it ends with the rig."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Processes:
    """Everything that is running on behalf of one group of rows."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.running = []

    def start(self, cores, *command, name, stdin=None, stdout=None, log=True):
        errors = open(self.folder / f"{name}.log", "ab") if log else subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                ["taskset", "-c", cores, *map(str, command)], cwd=self.folder, stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or errors, stderr=errors, preexec_fn=_prepare)
        finally:
            if log:
                errors.close()
        process.label = name
        self.running.append(process)
        return process

    def listening(self, port, process, seconds=60):
        needle = re.compile(rf":{port:04X} \S+ 0A ")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(needle.search(pathlib.Path(table).read_text()) for table in ("/proc/net/tcp", "/proc/net/tcp6")):
                return
            if process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{process.label} does not listen on {port}:\n{self.log(process)[-2000:]}")

    def log(self, process):
        file = self.folder / f"{process.label}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def said(self, text, process, seconds=60):
        """Waits until the process has written the text."""
        end = time.monotonic() + seconds
        while text not in self.log(process):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.label} does not say {text!r}:\n{self.log(process)[-2000:]}")
            time.sleep(0.02)

    def stop(self):
        """Ends them by their process IDs, the last first."""
        for process in reversed(self.running):
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + 5
        for process in self.running:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                for child in reversed(tree(process.pid)):
                    try:
                        os.kill(child, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                process.wait(5)
        self.running = []


def tree(root):
    """A process and its descendants."""
    found = [root]
    for task in pathlib.Path(f"/proc/{root}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += tree(int(child))
    return found


def cpu_seconds(roots):
    """What the scheduler has given to these processes, their threads and their children so far."""
    total = 0
    for root in roots:
        for process in tree(root):
            for statistics in pathlib.Path(f"/proc/{process}/task").glob("*/schedstat"):
                try:
                    total += int(statistics.read_text().split()[0])
                except OSError:
                    continue
    return total / 1e9


def resident_mebibytes(roots):
    total = 0
    for root in roots:
        for process in tree(root):
            try:
                total += int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text())[1])
            except (OSError, TypeError):
                continue
    return total / 1024


class Generator:
    """One run of the load generator: connected and warm after `__init__`, the figures from `run`, gone after `close`."""

    def __init__(self, processes, cores, tool, protocol, settings, patience=60):
        arguments = [f"{key}={value}" for key, value in settings.items()]
        self.processes = processes
        self.patience = patience
        self.process = processes.start(
            cores, tool, protocol, *arguments, name="load", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        try:
            answer = self._line()
        except RuntimeError:
            self.close()
            raise
        if answer != "ready":
            self.close()
            raise RuntimeError(f"the load generator said {answer!r} instead of being ready")

    def _line(self):
        if not self.selector.select(self.patience):
            raise RuntimeError(f"the load generator said nothing for {self.patience:.0f} s")
        line = self.process.stdout.readline().decode()
        if not line:
            log = self.processes.folder / "load.log"
            reason = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
            raise RuntimeError(reason[-1] if reason else "the load generator ended")
        return line.strip()

    def go(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def result(self):
        return json.loads(self._line())

    def close(self):
        self.selector.close()
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()
        self.processes.running.remove(self.process)
