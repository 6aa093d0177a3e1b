"""Runs a command on a terminal of its own and presses Ctrl-C there. Arguments: how often (three tenths of a second apart), the text to
wait for before, how many seconds to wait after it, the command. Prints what the command printed, and ends with its exit code."""
import os
import pty
import select
import sys
import time

presses, text, pause, command = int(sys.argv[1]), sys.argv[2].encode(), float(sys.argv[3]), sys.argv[4:]
process, terminal = pty.fork()
if process == 0:
    os.execv(command[0], command)
printed, due = b"", None
while True:
    if select.select([terminal], [], [], 0.05)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break  # its last process has closed the terminal
        if not piece:
            break
        printed += piece
    if due is None and text in printed:
        due = time.monotonic() + pause
    if due is not None and presses > 0 and time.monotonic() >= due:
        os.write(terminal, b"\x03")
        presses -= 1
        due = time.monotonic() + 0.3
sys.stdout.write(printed.decode(errors="replace"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) & 0xFF)
