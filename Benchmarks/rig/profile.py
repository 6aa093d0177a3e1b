"""Where the time goes in a row whose target is missed: samples of the sidecar's CPU by `perf`, if the machine has it."""
import collections
import re
import shutil
import subprocess

LIBRARIES = (("libnghttp2", "libnghttp2 (HTTP/2)"), ("libc", "C library"), ("ld-linux", "C library"))
# BoringSSL is linked into the sidecar under a prefix of its own.
BORING_SSL = re.compile(r"CNIOBoringSSL|_avx|_aesni|_vaes|gcm_|aes_|sha\d+_|bignum_|ecp_|x25519|mlkem", re.IGNORECASE)
RUNTIME = re.compile(r"^(swift_|_swift_|malloc|free|cfree|_int_|calloc|realloc|tcache)|swift::")
SYMBOLS = 14


def available():
    return shutil.which("perf") is not None


def record(identifiers, seconds, folder):
    """Samples while it is called, in a file."""
    return subprocess.Popen(
        ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-o", folder / "perf.data", "-p", ",".join(map(str, identifiers)), "--",
         "sleep", str(seconds)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def summarize(folder):
    """{"parts": {kind: share}, "symbols": [[share, kind, name]]}, or None where perf saw nothing."""
    done = subprocess.run(
        ["perf", "report", "-i", folder / "perf.data", "--stdio", "--no-children", "--no-inline", "-g", "none", "--percent-limit", "0",
         "--sort", "dso,symbol", "-F", "overhead,dso,symbol", "-t", "\t"],
        cwd=folder, capture_output=True, text=True)
    parts, symbols = collections.Counter(), collections.Counter()
    for line in done.stdout.splitlines():
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 3 or not fields[0].endswith("%"):
            continue
        share, library, symbol = float(fields[0].rstrip("%")), fields[1], re.sub(r"^\[.\] ", "", fields[2])
        kind = kind_of(library, symbol)
        parts[kind] += share
        # A library without symbols has addresses only.
        symbols[kind, "functions without a name" if symbol.startswith("0x") else symbol] += share
    if not symbols:
        return None
    return {"parts": dict(parts.most_common()), "symbols": [
        [share, kind, demangled(name)] for (kind, name), share in symbols.most_common(SYMBOLS)]}


def kind_of(library, symbol):
    if "kernel" in library or library.startswith("[") or library.startswith("nf_"):
        return "kernel"
    for beginning, kind in LIBRARIES:
        if library.startswith(beginning):
            return kind
    if BORING_SSL.search(symbol) and not symbol.startswith("$s"):
        return "BoringSSL"
    if RUNTIME.search(symbol):
        return "Swift runtime and memory"
    return "the sidecar"


def demangled(symbol):
    if not symbol.startswith("$s") or not shutil.which("swift"):
        return symbol
    done = subprocess.run(["swift", "demangle", "--compact", "--simplified", symbol], capture_output=True, text=True)
    name = done.stdout.strip() or symbol
    return name if len(name) < 110 else name[:107] + "…"
