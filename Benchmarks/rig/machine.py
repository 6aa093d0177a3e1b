"""On which machine, and how quiet it was."""
import hashlib
import os
import pathlib
import platform
import re
import statistics
import time


def description():
    processor = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    release = re.search(r'PRETTY_NAME="(.+)"', pathlib.Path("/etc/os-release").read_text())
    virtual = "hypervisor" in pathlib.Path("/proc/cpuinfo").read_text()
    return {
        "processor": (processor[1] if processor else platform.processor()) + (", virtual" if virtual else ""),
        "cores": os.cpu_count(),
        "memoryGibibytes": round(int(memory[1]) / 1024**2, 1) if memory else None,
        "kernel": platform.release(),
        "congestionControl": pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "system": release[1] if release else platform.platform(),
    }


def calibrate(cores, samples=5):
    """The same work again and again on each core. CPU time that varies is the machine's doing; wall time beyond it is other programs'."""
    block = b"\x5a" * (1 << 20)
    before = os.sched_getaffinity(0)
    found = {}
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            spent, passed = [], []
            for _ in range(samples):
                wall, cpu = time.perf_counter(), time.thread_time()
                for _ in range(60):
                    hashlib.sha256(block).digest()
                spent.append((time.thread_time() - cpu) * 1000)
                passed.append((time.perf_counter() - wall) * 1000)
            found[str(core)] = {
                "cpuMilliseconds": {"median": statistics.median(spent), "minimum": min(spent), "maximum": max(spent)},
                "wallMilliseconds": {"median": statistics.median(passed), "minimum": min(passed), "maximum": max(passed)},
            }
    finally:
        os.sched_setaffinity(0, before)
    return found


def core_seconds(core):
    """Seconds that a core has been busy, that the hypervisor withheld, and that programs had which give way to others."""
    ticks = os.sysconf("SC_CLK_TCK")
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        fields = line.split()
        if fields[0] == f"cpu{core}":
            user, nice, system, _, _, interrupt, soft, steal = map(int, fields[1:9])
            return (user + nice + system + interrupt + soft) / ticks, steal / ticks, nice / ticks
    return 0.0, 0.0, 0.0


def wait_for_quiet(cores, seconds, share=0.25):
    """Waits until other programs leave the cores alone, `seconds` at most; answers how long it took."""
    def taken(core):
        busy, _, niced = core_seconds(core)
        return busy - niced

    start = time.monotonic()
    while time.monotonic() - start < seconds:
        before = [taken(core) for core in cores]
        time.sleep(0.3)
        if all(taken(core) - busy < share * 0.3 for core, busy in zip(cores, before)):
            break
    return time.monotonic() - start
