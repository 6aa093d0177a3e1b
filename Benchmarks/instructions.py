#!/usr/bin/env python3
"""Instructions that requests cost the sidecar, counted by valgrind: no noise, so that a change that makes it slower fails.

Steps of a request on fixed input (Benchmarks/Instructions), and whole requests through the real binary, as the difference between
a short run and a long one. What they are to be is in instructions.json; `--update` writes it anew.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from rig import certificates, generators, processes  # noqa: E402
from rig.proxies import Service, Starter  # noqa: E402
from rig.rows import FIELDS  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "Benchmarks" / "instructions.json"
TOLERANCE = 0.05
SHORT, LONG = 200, 1200
VALGRIND = ("valgrind", "--tool=callgrind")
# Hashes that differ from run to run would count differently.
os.environ["SWIFT_DETERMINISTIC_HASHING"] = "1"

# name: (protocol, pair, the side that is counted, load)
REQUESTS = {
    "request-http1": ("http1", False, "out", {}),
    "request-http1-14-headers": ("http1", False, "out", {"fields": FIELDS}),
    "request-http1-mtls-outbound": ("http1", True, "out", {}),
    "request-http1-mtls-inbound": ("http1", True, "in", {}),
    "request-grpc": ("grpc", False, "out", {"messages": 1}),
    "request-grpc-mtls-outbound": ("grpc", True, "out", {"messages": 1}),
    "request-grpc-mtls-inbound": ("grpc", True, "in", {"messages": 1}),
}


def stripped(binary, folder, *options):
    """Valgrind stumbles over the compiler's debug information, and is slower to start with any."""
    copy = folder / binary.name
    subprocess.run(["strip", *options, "-o", copy, binary], check=True)
    return copy


def collected(text):
    found = re.search(r"Collected : (\d+)", text)
    if not found:
        raise RuntimeError(f"valgrind counted nothing:\n{text[-2000:]}")
    return int(found[1])


def count_steps(program, folder):
    """What was executed in each function named counted_…, and in what it called. The compiler adds to the names of what it specializes."""
    totals = []
    for count in (SHORT, LONG):
        out = folder / f"steps-{count}.out"
        subprocess.run([*VALGRIND, "--compress-strings=no", f"--callgrind-out-file={out}", program, "steps", str(count)],
                       check=True, capture_output=True)
        totals.append(dict(re.findall(
            r"^cfn=\S*?counted_(\w+?)(?:Tf\w+)?\ncalls=1 .*\n\S+ (\d+)$", out.read_text(errors="replace"), re.MULTILINE)))
    if not totals[0] or totals[0].keys() != totals[1].keys():
        raise RuntimeError(f"valgrind saw {len(totals[0])} and {len(totals[1])} steps")
    return {name.replace("_", "-"): round((int(totals[1][name]) - int(totals[0][name])) / (LONG - SHORT)) for name in totals[0]}


def count_records(program, folder):
    """A kilobyte to and fro over TLS, both ends."""
    for name in ("client", "ca"):
        subprocess.run(["openssl", "x509", "-in", f"{name}.pem", "-outform", "DER", "-out", f"{name}.der"], check=True, cwd=folder)
    subprocess.run(["openssl", "pkey", "-in", "client.key", "-outform", "DER", "-out", "key.der"], check=True, cwd=folder)
    totals = []
    for count in (SHORT, LONG):
        done = subprocess.run(
            [*VALGRIND, "--callgrind-out-file=/dev/null", program, "records", str(count), "client.der", "key.der", "ca.der"],
            check=True, capture_output=True, text=True, cwd=folder)
        totals.append(collected(done.stderr))
    return round((totals[1] - totals[0]) / (LONG - SHORT))


def count_requests(name, binary, programs, work):
    """Instructions that one more request costs one sidecar, on one connection, one at a time."""
    protocol, pair, side, load = REQUESTS[name]
    totals = []
    for count in (SHORT, LONG):
        folder = work / f"{name}-{count}"
        folder.mkdir()
        for file in (*work.glob("*.pem"), *work.glob("*.key")):
            shutil.copy(file, folder)
        wrapper = folder / "proxy"
        wrapper.write_text(f'''#!/bin/sh
case "$3" in
*-{side}.yaml) exec {" ".join(VALGRIND)} --callgrind-out-file=/dev/null --log-file={folder}/valgrind.log {binary} "$@" ;;
*) exec {binary} "$@" ;;
esac
''')
        wrapper.chmod(0o755)
        totals.append(count_run(protocol, pair, {**load, "requests": count}, {**programs, "apus": wrapper}, folder))
    return round((totals[1] - totals[0]) / (LONG - SHORT))


def count_run(protocol, pair, load, programs, folder):
    running = processes.Processes(folder)
    tool = "http1" if protocol == "http1" else "http2"
    try:
        backend = running.start("0,1", programs["backend"], tool, 20000, name="backend")
        running.listening(20000, backend)
        proxy = Starter(running, folder, programs, "0,1").apus([Service("counted", protocol, 20000)], pair)
        generator = processes.Generator(
            running, "0,1", programs["load"], tool, {"port": proxy.ports["counted"], "seconds": 60, **load})
        generator.go()
        result = generator.result()
        generator.close()
        if result["errors"] or result["total"] != load["requests"]:
            raise RuntimeError(f"{folder.name}: {result['total']} of {load['requests']} requests, {result['errors']} errors: {result['firstError']}")
    finally:
        running.stop()
    return collected((folder / "valgrind.log").read_text())


def compiler():
    text = subprocess.run(["swiftc", "--version"], capture_output=True, text=True, check=True).stdout
    version, target = re.search(r"Swift version (\S+)", text), re.search(r"Target: (\S+)", text)
    return f"Swift {version[1]}, {target[1]}" if version and target else text.strip()


def compare(counts, known, tolerance):
    """Prints every count beside what it is to be; answers those that have grown by more than the tolerance."""
    slower = []
    print(f"{'instructions for':40} {'expected':>9} {'counted':>9}")
    for name, count in counts.items():
        expected = known.get(name)
        change = count / expected - 1 if expected else None
        note = "new" if change is None else f"{change * 100:+.1f} %"
        if change is not None and change > tolerance:
            slower.append(name)
            note += "  SLOWER"
        elif change is not None and change < -tolerance:
            note += "  faster: make instructions UPDATE=1 keeps it so"
        print(f"{name:40} {expected or '':>9} {count:>9}  {note}")
    return slower


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binaries", default=str(ROOT / ".build/release"), help="where apus-proxy and apus-instructions are")
    arguments.add_argument("--update", action="store_true", help="keep what is counted as what is expected")
    options = arguments.parse_args()
    built = pathlib.Path(options.binaries)
    processes.enter_own_network()
    work = pathlib.Path(tempfile.mkdtemp(prefix="apus-instructions-"))
    try:
        certificates.make(work)
        programs = generators.compile_into(work)
        steps = stripped(built / "apus-instructions", work, "--strip-debug")
        proxy = stripped(built / "apus-proxy", work)
        counts = count_steps(steps, work)
        counts["tls-record-to-and-fro"] = count_records(steps, work)
        for name in REQUESTS:
            counts[name] = count_requests(name, proxy, programs, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    counts = dict(sorted(counts.items()))
    if options.update:
        EXPECTED.write_text(json.dumps({"compiler": compiler(), "tolerance": TOLERANCE, "instructions": counts}, indent=2) + "\n")
        compare(counts, {}, TOLERANCE)
        return
    if not EXPECTED.exists():
        sys.exit(f"instructions: {EXPECTED} is missing. Remedy: make instructions UPDATE=1")
    known = json.loads(EXPECTED.read_text())
    slower = compare(counts, known["instructions"], known["tolerance"])
    missing = sorted(set(known["instructions"]) - set(counts))
    if missing:
        sys.exit(f"instructions: {', '.join(missing)} of instructions.json is not counted any more. Remedy: make instructions UPDATE=1")
    if slower and known["compiler"] != compiler():
        print(f"\nThese counts are of {known['compiler']}, this is {compiler()}: no verdict. `make instructions UPDATE=1` takes this compiler's.")
    elif slower:
        sys.exit(f"instructions: {', '.join(slower)} cost over {known['tolerance'] * 100:.0f} % more than before. Remedy: find out why "
                 "(callgrind_annotate), or say why in the commit and run make instructions UPDATE=1")


if __name__ == "__main__":
    main()
