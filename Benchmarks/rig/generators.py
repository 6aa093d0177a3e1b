"""The load generator and the backend, compiled where they are wanted."""
import pathlib
import subprocess

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "load"
PROGRAMS = {"load": ("main.c", "common.c", "http1.c", "http2.c", "tcp.c"), "backend": ("backend.c", "common.c")}


def compile_into(folder):
    for program, files in PROGRAMS.items():
        subprocess.run(["cc", "-O2", "-o", folder / program, *(SOURCE / file for file in files), "-lnghttp2"], check=True)
    return {program: folder / program for program in PROGRAMS}
