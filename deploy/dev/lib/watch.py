"""Runs a command and prints its milliseconds and a peak of memory as JSON.

    watch.py PID LOG COMMAND...

With a PID other than 0 the peak is that process's while COMMAND ran, else COMMAND's
own. It imports little: a child's peak is counted from the fork, so what this program
takes itself, about 10 MiB, is the least that can come out.
"""

import os
import sys
import time


def run(log, command):
    """The seconds it took, and its peak in KiB."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    _, status, used = os.wait4(child, 0)
    took = time.monotonic() - began
    os.close(out)
    if status:
        end = open(log, errors="replace").read()[-4000:]
        code = os.waitstatus_to_exitcode(status)
        sys.exit(f"{' '.join(command)}\nended with status {code}:\n{end}")
    return took, used.ru_maxrss


def main():
    pid, log, *command = sys.argv[1:]
    if int(pid):
        # Forget the peak of what the process did before.
        with open(f"/proc/{pid}/clear_refs", "w") as refs:
            refs.write("5")
    took, peak = run(log, command)
    if int(pid):
        with open(f"/proc/{pid}/status") as lines:
            peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    print(f'{{"ms": {took * 1000:.1f}, "peak_mib": {peak / 1024:.1f}}}')


main()
