"""Rounds: every proxy of a group is up, and they are asked in turn, forwards and backwards."""
import pathlib
import shutil
import subprocess
import time
from dataclasses import replace

from . import machine, nginx, profile
from .processes import Generator, Processes, come_first, cpu_seconds, resident_mebibytes
from .proxies import Starter
from .rows import services

PROXY_CORE, LOAD_CORE = "0", "1"
BACKEND_PORTS = 20000
WARM_SECONDS = 0.3
PROFILE_SECONDS = 2


class Bench:
    def __init__(self, folder, binaries, rounds, seconds, patience=0):
        self.folder = pathlib.Path(folder)
        self.binaries = binaries
        self.rounds = rounds
        self.seconds = seconds
        # What is left of the seconds that the run may wait for quiet moments.
        self.patience = patience
        self.measurements = []
        self.calibrations = []

    def calibrate(self, when):
        self.calibrations.append({"when": when, "cores": machine.calibrate([int(PROXY_CORE), int(LOAD_CORE)])})

    def run(self, groups):
        self.calibrate("before")
        for group in groups:
            self.run_group(group)
            self.calibrate(f"after {group.name}")

    def run_group(self, group):
        folder = self.folder / group.name
        folder.mkdir()
        for file in (*self.folder.glob("*.pem"), *self.folder.glob("*.key")):
            shutil.copy(file, folder)
        processes = Processes(folder)
        try:
            proxies = self.start(group, processes, folder)
            time.sleep(0.5)
            for block in group.blocks():
                self.run_block(group, block, proxies, processes)
        finally:
            processes.stop()

    def start(self, group, processes, folder):
        """Every proxy that some row of the group wants, by its variant's name."""
        wanted = list(dict.fromkeys(cell.variant for block in group.blocks() for cell in block))
        chosen = {variant: services(group, number, BACKEND_PORTS) for number, variant in enumerate(wanted)}
        self.start_backends(group, processes, folder, chosen)
        starter = Starter(processes, folder, self.binaries, PROXY_CORE)
        proxies = {}
        for variant in wanted:
            if group.variants:
                proxies[variant] = starter.apus(chosen[variant], group.pair, name=variant, **group.variants[variant])
            else:
                proxies[variant] = getattr(starter, variant)(chosen[variant], group.pair)
        return proxies

    def start_backends(self, group, processes, folder, chosen):
        """One process for each protocol, with a port for each proxy."""
        ports = {}
        for many in chosen.values():
            for service in many:
                kind = {"http1": "http1", "http2": "http2", "grpc": "http2", "opaque": "tcp"}[service.protocol]
                ports.setdefault(kind, []).append(service.backend)
        for kind, numbers in ports.items():
            if kind == "http1":
                (folder / "backend.conf").write_text(nginx.backend(folder, numbers))
                process = processes.start(LOAD_CORE, "nginx", "-p", folder, "-c", folder / "backend.conf", name="backend")
            else:
                process = processes.start(LOAD_CORE, self.binaries["backend"], kind, *numbers, name=f"backend-{kind}")
            for number in numbers:
                processes.listening(number, process)

    def run_block(self, group, block, proxies, processes):
        for cell in block:
            if cell.row.tool:
                self.measure(group, cell, proxies[cell.variant], processes, 0, WARM_SECONDS)
        for number in range(1, self.rounds + 1):
            for cell in block if number % 2 else reversed(block):
                if self.patience > 0:
                    self.patience -= machine.wait_for_quiet((PROXY_CORE, LOAD_CORE), self.patience)
                    # Whoever made the machine busy may have put everybody else last.
                    come_first(*(process.pid for process in processes.running))
                found = self.measure(group, cell, proxies[cell.variant], processes, number, self.seconds * cell.row.stretch)
                self.measurements.append(found)
                tell(found)

    def profile(self, group, row):
        """Where the sidecar's CPU goes in a row, or None."""
        alone = replace(group, name=f"{group.name}-profile", rows=(replace(row, proxies=("apus",)),))
        folder = self.folder / f"{alone.name}-{row.name}"
        folder.mkdir()
        for file in (*self.folder.glob("*.pem"), *self.folder.glob("*.key")):
            shutil.copy(file, folder)
        processes = Processes(folder)
        try:
            proxy = self.start(alone, processes, folder)["apus"]
            settings = {"port": proxy.ports[row.service], "seconds": PROFILE_SECONDS + 0.5, **row.settings}
            generator = Generator(processes, LOAD_CORE, self.binaries["load"], row.tool, settings)
            generator.go()
            recorder = profile.record(proxy.identifiers, PROFILE_SECONDS, folder)
            try:
                generator.result()
            finally:
                generator.close()
                recorder.wait(10)
            return profile.summarize(folder)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            print(f"{row.name}: no profile: {error}")
            return None
        finally:
            processes.stop()

    def measure(self, group, cell, proxy, processes, number, seconds):
        row = cell.row
        found = {"group": group.name, "row": row.name, "kind": row.kind, "proxy": cell.proxy, "round": number, "errors": 0}
        if not row.tool:
            found["residentMebibytes"] = resident_mebibytes(proxy.identifiers)
            return found
        settings = {"port": proxy.ports[row.service], "seconds": seconds, **row.settings}
        try:
            generator = Generator(processes, LOAD_CORE, self.binaries["load"], row.tool, settings)
        except (RuntimeError, OSError) as error:
            return {**found, "errors": 1, "firstError": f"no load: {error}"}
        try:
            busy, withheld, _ = machine.core_seconds(PROXY_CORE)
            before, start = cpu_seconds(proxy.identifiers), time.monotonic()
            generator.go()
            result = generator.result()
            spent, passed = cpu_seconds(proxy.identifiers) - before, time.monotonic() - start
            busy_after, withheld_after, _ = machine.core_seconds(PROXY_CORE)
            resident = resident_mebibytes(proxy.identifiers)
        except (RuntimeError, OSError) as error:
            return {**found, "errors": 1, "firstError": str(error)}
        finally:
            generator.close()
        found.update(
            errors=result["errors"], requests=result["total"], bytes=result["bytes"], cpuSeconds=spent, wallSeconds=passed,
            requestsPerSecond=result["completed"] / result["seconds"],
            foreignShare=max(0.0, (busy_after - busy - spent) / passed) if cell.proxy != "direct" else None,
            stolenShare=(withheld_after - withheld) / passed)
        if result["errors"]:
            found["firstError"] = result["firstError"]
        elif reason := starved(row, settings, result):
            found.update(errors=1, firstError=reason)
        if cell.proxy != "direct":
            found["residentMebibytes"] = resident
            found["cpuMicrosecondsPerRequest"] = spent / result["total"] * 1e6 if result["total"] else None
        if row.kind == "gigabyte":
            found["gigabytesPerSecond"] = result["bytes"] / passed / 1e9
            if cell.proxy != "direct" and result["bytes"]:
                found["cpuSecondsPerGigabyte"] = spent / (result["bytes"] / 1e9)
        if row.kind == "latency":
            found.update(latencies=result["latencies"], late=result["late"], p50Microseconds=result["p50"],
                         p90Microseconds=result["p90"], p99Microseconds=result["p99"])
        return found


def starved(row, settings, result):
    """Why a round says nothing, or None: other programs left the machine so little that what was measured is mostly its beginning and end."""
    if row.kind == "latency":
        wanted = settings["rate"] * settings["seconds"]
        if result["completed"] < 0.9 * wanted:
            return f"the machine was too busy: {result['completed']} of {wanted:.0f} requests came back in time"
    elif row.tool == "tcp" and row.kind == "gigabyte":
        if result["bytes"] < 50e6 * settings["seconds"]:
            return f"the machine was too busy: {result['bytes'] / 1e6:.0f} MB in {settings['seconds']:.1f} s"
    elif result["total"] < 100 * settings["seconds"]:
        return f"the machine was too busy: {result['total']} requests in {settings['seconds']:.1f} s"
    return None


def tell(found):
    parts = []
    for key, unit in (("cpuMicrosecondsPerRequest", "µs CPU a request"), ("cpuSecondsPerGigabyte", "CPU s/GB"),
                      ("p50Microseconds", "µs p50"), ("p99Microseconds", "µs p99"), ("requestsPerSecond", "requests/s"),
                      ("residentMebibytes", "MiB")):
        if found.get(key) is not None:
            value = found[key]
            parts.append(f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}" if value < 10 else f"{value:.1f} {unit}")
    if found["errors"]:
        parts.append(f"{found['errors']} ERRORS: {found.get('firstError', '')}")
    print(f"{found['row']:38} round {found['round']}  {found['proxy']:8} {', '.join(parts)}", flush=True)


def plan(groups, rounds, seconds, budget):
    """Rounds and their length in seconds: as asked, else what fits into the budget of a part, else the full measure."""
    if not budget:
        return rounds or 5, seconds or 2.0
    for count in (rounds,) if rounds else (5, 3, 2):
        length = seconds or min(2.0, (budget - estimate(groups, count, 0)) / (estimate(groups, count, 1) - estimate(groups, count, 0)))
        if length >= 0.5:
            break
    return count, max(0.3, length)


def estimate(groups, rounds, seconds):
    """Seconds that a run takes: the rounds, and what surrounds them."""
    cells = [cell for group in groups for block in group.blocks() for cell in block if cell.row.tool]
    stretched = max(0.1, sum(cell.row.stretch for cell in cells))
    return 5 * len(groups) + stretched * rounds * seconds + len(cells) * (rounds * 0.15 + WARM_SECONDS)
