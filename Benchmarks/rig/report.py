"""The report: README.md, its plots, latest.json for programs, and details.json with every round."""
import json
import os
import pathlib
import statistics

from . import figures, plot
from .figures import ratio, rounded
from .rows import groups
from .targets import TARGETS

CPU, GIGABYTE, MEMORY = "cpuMicrosecondsPerRequest", "cpuSecondsPerGigabyte", "residentMebibytes"


def load(out):
    try:
        return json.loads((out / "details.json").read_text())
    except (OSError, ValueError):
        return None


def merge(old, run, measurements, profiles):
    """A whole run stands alone; a part takes the place of its rows in the report that is there."""
    details = old or {"runs": [], "measurements": [], "profiles": {}}
    new_rows = {one["row"] for one in measurements}
    number = max((one["number"] for one in details["runs"]), default=0) + 1
    kept = [one for one in details["measurements"] if one["row"] not in new_rows]
    alive = {one["run"] for one in kept}
    return {"runs": [one for one in details["runs"] if one["number"] in alive] + [{"number": number, **run}],
            "profiles": {**{row: one for row, one in details["profiles"].items() if row not in new_rows}, **profiles},
            "measurements": kept + [{**one, "run": number} for one in measurements]}


def write(out, details):
    if not details or not details["measurements"]:
        raise SystemExit(f"bench: {out} has no details.json to make a report of")
    out.mkdir(parents=True, exist_ok=True)
    summary = figures.summarize(details)
    files = {"latest.json": json.dumps(figures.latest(summary), indent=1) + "\n", "details.json": compact(details),
             **plots(summary), "README.md": text(summary, details)}
    for name, content in files.items():
        # A reader, or a run that is interrupted, sees the old file or the new one.
        temporary = out / f".{name}.new"
        temporary.write_text(content)
        os.replace(temporary, out / name)


def compact(details):
    """A line for each measurement, so that versions can be compared."""
    lines = ",\n".join("  " + json.dumps({key: rounded(value) if isinstance(value, float) else value for key, value in one.items()}) for one in details["measurements"])
    return f'{{"runs": {json.dumps(details["runs"], indent=1)},\n "profiles": {json.dumps(details["profiles"])},\n "measurements": [\n{lines}\n ]}}\n'


# Numbers

def number(value):
    if value is None:
        return ""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def ranged(figure):
    if not figure:
        return ""
    middle, low, high = (number(figure[part]) for part in ("median", "minimum", "maximum"))
    return middle if low == high else f"{middle} ({low} to {high})"


def against(share):
    if not share:
        return ""
    return f"1/{1 / share:.1f}" if share < 0.95 else f"{share:.2f}"


# The text

def text(summary, details):
    parts = [
        "# Benchmarks", "",
        "Written by `make bench`; do not edit. `make bench ONLY=http1-small` measures a part in two minutes and replaces its rows, "
        "`OUT=DIR` writes elsewhere, `make bench ONLY=list` prints the rows. Every round is in `details.json`, the medians are in "
        "`latest.json`. What the figures mean and how they are taken is at the end.", "",
        *targets(summary), *overview(), *profiles(details["profiles"]), *tables(summary), *runs(details), *METHOD]
    return "\n".join(parts) + "\n"


def targets(summary):
    lines = []
    for words, row, field, floor, target in TARGETS:
        share = ratio(summary, row, field)
        if share is None:
            continue
        verdict = "reached" if share <= target else "floor only" if share <= floor else "**missed**"
        ours, theirs = (summary[row][proxy][field]["median"] for proxy in ("apus", "envoy"))
        lines.append(f"| {words} | `{row}` | {number(ours)} | {number(theirs)} | {share:.2f} | {floor:.2f} | {target:.2f} | {verdict} |")
    if not lines:
        return []
    ahead = []
    for other in ("nginx", "haproxy"):
        share = ratio(summary, "http1-small", CPU, base=other)
        if share:
            ahead.append(f"{share:.2f} of {other}'s ({'ahead' if share < 1 else '**behind**'})")
    return ["## Targets", "", "Apus as a share of Envoy in the same run; smaller is better. Medians.", "",
            "| | row | Apus | Envoy | share | floor | target | |", "|---|---|---|---|---|---|---|---|", *lines, "",
            *([f"HTTP/1.1 CPU a request: {', '.join(ahead)}.", ""] if ahead else [])]


def profiles(found):
    """What holds a row back whose target is missed."""
    lines = []
    for row, profile in found.items():
        parts = ", ".join(f"{kind} {share:.0f} %" for kind, share in profile["parts"].items() if share >= 0.5)
        lines += [f"`{row}`: {parts}.", "", "| share | where | what |", "|---|---|---|",
                  *(f"| {share:.1f} % | {kind} | `{name.replace('|', chr(92) + '|')}` |" for share, kind, name in profile["symbols"]), ""]
    return ["## Where a target is missed", "", "Samples of the sidecar's CPU (both sidecars of a pair) in these rows.", "", *lines] if lines else []


def overview():
    return ["![CPU against Envoy](cpu.svg)", "", "![Added latency](latency.svg)", "", "![Memory](memory.svg)", ""]


def tables(summary):
    lines = []
    for group in groups():
        rows = [row for row in group.rows if row.name in summary]
        if not rows:
            continue
        lines += [f"## {group.title}", ""]
        if group.variants:
            lines += features(rows, summary) + complaints(rows, summary)
            continue
        plain = [row for row in rows if row.kind != "latency"]
        if plain:
            lines += ["| row | proxy | CPU µs a request | against Envoy | requests/s | CPU s/GB | MiB |", "|---|---|---|---|---|---|---|"]
            for row in plain:
                lines += plain_rows(row, summary[row.name], summary)
            lines.append("")
        spaced = [row for row in rows if row.kind == "latency"]
        if spaced:
            lines += ["| row | proxy | p50 µs | added p50 | added p90 | added p99 | CPU µs a request | against Envoy |",
                      "|---|---|---|---|---|---|---|---|"]
            for row in spaced:
                lines += spaced_rows(row, summary[row.name], summary)
            lines.append("")
        lines += [f"- `{row.name}`: {row.title}" for row in rows] + [""]
        lines += complaints(rows, summary)
    return lines


def plain_rows(row, proxies, summary):
    lines = []
    for proxy, one in proxies.items():
        field = CPU if one[CPU] and row.kind != "gigabyte" else GIGABYTE if one[GIGABYTE] else MEMORY
        share = ratio(summary, row.name, field, proxy=proxy) if proxy not in ("envoy", "direct") else None
        lines.append(f"| `{row.name}` | {proxy}{mark(one)} | {ranged(one[CPU])} | {against(share)} | "
                     f"{ranged(one['requestsPerSecond'])} | {ranged(one[GIGABYTE])} | {ranged(one[MEMORY])} |")
    return lines


def features(rows, summary):
    lines = ["| row | | CPU µs a request | more than the baseline | requests/s | MiB |", "|---|---|---|---|---|---|"]
    base = summary.get("http1-small-baseline", {}).get("apus", {}).get(CPU)
    for row in rows:
        one = summary[row.name]["apus"]
        more = f"{(one[CPU]['median'] / base['median'] - 1) * 100:+.0f} %" if base and one[CPU] else ""
        lines.append(f"| `{row.name}` | {row.title}{mark(one)} | {ranged(one[CPU])} | {more} | {ranged(one['requestsPerSecond'])} | "
                     f"{ranged(one[MEMORY])} |")
    return lines + ["", *metrics_share()]


def metrics_share():
    """There is no switch that leaves metrics out, so that no row can show what they cost; the counts can."""
    try:
        counts = json.loads((pathlib.Path(__file__).resolve().parent.parent / "instructions.json").read_text())["instructions"]
        record, request, line = counts["record"], counts["request-http1"], counts["access-log-line"]
    except (OSError, ValueError, KeyError):
        return []
    return [f"Metrics cannot be switched off. Recording a request takes {number(record)} of the {number(request)} instructions that it costs in user space "
            f"({record / request * 100:.1f} %); a line of the access log takes {number(line)} more.", ""]


def spaced_rows(row, proxies, summary):
    lines = []
    for proxy, one in proxies.items():
        share = ratio(summary, row.name, CPU, proxy=proxy) if proxy not in ("envoy", "direct") else None
        lines.append(f"| `{row.name}` | {proxy}{mark(one)} | {ranged(one['latencyP50Microseconds'])} | "
                     f"{ranged(one['addedLatencyP50Microseconds'])} | {ranged(one['addedLatencyP90Microseconds'])} | "
                     f"{ranged(one['addedLatencyP99Microseconds'])} | {ranged(one[CPU])} | {against(share)} |")
    return lines


def mark(one):
    return f" ⚠ {one['failedRounds']} of {one['failedRounds'] + one['rounds']} rounds failed" if one["failedRounds"] else ""


def complaints(rows, summary):
    lines = [f"- ⚠ `{row.name}`, {proxy}: {one['errors']} errors, of which the first: {one['firstError']}. Its rounds with errors are in no figure."
             for row in rows for proxy, one in summary[row.name].items() if one["failedRounds"]]
    return lines + [""] if lines else []


# Machine and noise

def runs(details):
    lines = ["## Machine and noise", ""]
    for run in details["runs"]:
        machine, names = run["machine"], run["versions"]
        mine = [one for one in details["measurements"] if one["run"] == run["number"]]
        rows = dict.fromkeys(one["row"] for one in mine)
        count = f"{len(rows)} rows" if len(rows) > 6 else ", ".join(f"`{row}`" for row in rows)
        lines += [
            f"**Run {run['number']}**, {run['started']}: {count}; {run['rounds']} rounds of {run['seconds']:.1f} s. {machine['processor']}, "
            f"{machine['cores']} cores, {machine['memoryGibibytes']} GiB, {machine['system']}, kernel {machine['kernel']}, TCP {machine['congestionControl']}. Apus {names['apus']}; "
            f"Envoy {names['envoy']}; nginx {names['nginx']}; haproxy {names['haproxy']}.", ""]
        lines += [*calibration(run["calibrations"]), *foreign(mine), ""]
    return lines


def calibration(samples):
    lines = []
    for core in samples[0]["cores"]:
        cpu = [one["cores"][core]["cpuMilliseconds"] for one in samples]
        wall = [one["cores"][core]["wallMilliseconds"] for one in samples]
        medians = [one["median"] for one in cpu]
        slowest = max(one["maximum"] for one in wall) / min(one["minimum"] for one in wall)
        lines.append(
            f"- Calibration on core {core}, the same work {len(samples)} times from before the first row to after the last: {number(medians[0])} ms of CPU "
            f"before, {number(medians[-1])} after, {number(min(medians))} to {number(max(medians))} over all (a spread of "
            f"{(max(medians) / min(medians) - 1) * 100:.0f} %); the longest wait for it was {slowest:.1f} times the shortest.")
    return lines


def foreign(measurements):
    shares = sorted(one["foreignShare"] for one in measurements if one.get("foreignShare") is not None)
    stolen = sorted(one["stolenShare"] for one in measurements if one.get("stolenShare") is not None)
    rounds = {}
    for one in measurements:
        if one.get(CPU) and not one["errors"]:
            rounds.setdefault((one["row"], one["proxy"]), []).append(one[CPU])
    spreads = sorted((max(values) - min(values)) / statistics.median(values) for values in rounds.values() if len(values) > 1)
    lines = []
    if shares:
        lines.append(f"- Other programs took {statistics.median(shares) * 100:.0f} % of the proxy's core in the middle round and "
                     f"{shares[-1] * 100:.0f} % in the worst; the hypervisor withheld {stolen[-1] * 100:.0f} % at most.")
    if spreads:
        lines.append(f"- From the cheapest round of a row to its dearest, CPU a request differs by {statistics.median(spreads) * 100:.0f} % in the "
                     f"middle row and {spreads[-1] * 100:.0f} % in the worst.")
    return lines


METHOD = """## How it is measured

- **The quantity that survives a noisy machine is CPU time a request**: what the scheduler gave to all threads of all the proxy's processes
  (`/proc/PID/task/*/schedstat`) between the start of a round and its last answer, over the requests answered. Pairs count both proxies.
  Ratios within one run mean something; microseconds of different machines or runs do not.
- The proxies run on core 0 with one thread of work each, generator and backend on core 1, everything on loopback in a network namespace of its own,
  without pacing of connections where the machine lets a namespace choose.
  All of them have a higher priority than other programs. All proxies of a table are up at once; the rounds of a row go through them forwards and backwards in turn. Each proxy has ports of its own on the same backend.
- The generator (`Benchmarks/load`) connects and warms up before the clock starts, and checks every answer: status, length, and for gRPC the
  trailers. A round with one error is in no figure and is marked. It was compared with `wrk` and `h2load`: it costs less of its core than either.
- At saturation every connection (or stream) asks again as soon as it is answered. At a fixed rate requests are evenly spaced and their latency counts
  **from the time at which they should have been sent**, so that a stall is seen by everyone who would have met it. Added latency is against direct
  traffic of the same round. At low rates wake-ups dominate, and ratios shrink.
- Backends: nginx for HTTP/1; for HTTP/2, gRPC and TCP a small program of this rig, because Debian's are slower than the proxies. TLS is 1.3 with
  AES-128-GCM and certificates on P-256, between Apus and between Envoy with X25519MLKEM768. Apus resumes no session; Envoy does by default (about a quarter of
  `tcp-connect-mtls-pair`). nginx and haproxy check a DNS name, Apus and Envoy the SPIFFE ID on both sides.
- Envoy has the router, or the TCP proxy, and nothing more; no proxy but Apus measures per caller and callee. Apus runs as `apus-proxy run --config` with everything on that it
  has. Routes within a service are not
  built yet, so that the row has 100 services in their stead.
- nginx speaks HTTP/2 to a backend for gRPC only, and haproxy is not asked to hold 10,000 connections: two descriptors each exceed what CI's machines grant.
- Memory is resident memory (`VmRSS`) with the connections open; processes that share pages count them each.""".splitlines()


# Plots

def plots(summary):
    def values(row, field, base=None):
        """Each proxy's figure with its range; as shares of `base`, where there is one, beside the figure itself."""
        found = []
        for proxy, one in summary.get(row, {}).items():
            if proxy == "direct" or not one[field]:
                continue
            middle, low, high = (one[field][part] / (base or 1) for part in ("median", "minimum", "maximum"))
            text = number(one[field]["median"])
            found.append((proxy, middle, low, high, f"{middle:.2f}  ({text})" if base else text))
        return found

    def envoy(row, field):
        figure = summary[row].get("envoy", {}).get(field)
        return figure["median"] if figure and figure["median"] > 0 else None

    relative, latency = [], []
    for row, proxies in summary.items():
        kind = next(iter(proxies.values()))["kind"]
        field = GIGABYTE if kind == "gigabyte" else CPU
        if kind != "latency" and envoy(row, field):
            relative.append((row, values(row, field, envoy(row, field))))
        for name in ("50", "90") if kind == "latency" else ():
            field = f"addedLatencyP{name}Microseconds"
            if envoy(row, field):
                latency.append((f"{row}, p{name}", values(row, field, envoy(row, field))))
    memory = [(row, values(row, MEMORY)) for row in summary if row.startswith(("idle", "http1-small-1000")) and "endpoints" not in row]
    return {
        "cpu.svg": plot.bars("CPU against Envoy", "Envoy is 1, less is better; in brackets µs a request, or s a gigabyte where bytes are measured",
                             relative, 2),
        "latency.svg": plot.bars("Added latency at a fixed rate, against Envoy",
                                 "Envoy is 1, less is better; in brackets µs above direct traffic, from the intended time of sending", latency, 2),
        "memory.svg": plot.bars("Resident memory", "MiB of all of the proxy's processes, connections open", memory, 1e9),
    }
