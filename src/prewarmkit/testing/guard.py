"""Runs one command, and ends it when whoever asked for it is gone.

Run as a file by `prewarmkit.testing.processes`: ``python guard.py GRACE LITTER COMMAND…``. It
holds the reading end of a pipe on its standard input. The pipe closes when the parent closes it
or dies, by kill -9 too, and then the command gets SIGTERM, SIGKILL after GRACE seconds, and LITTER,
paths joined by ``os.pathsep``, is removed. On Linux the kernel also kills the command should this
process itself be killed.

Standard library only, and nothing of this package: it must start fast and under any path.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

__all__: list[str] = []

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05


def _die_with_parent() -> None:
    """In the child, before it becomes the command (Linux only)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _remove(litter: list[str]) -> None:
    for path in litter:
        if os.path.isdir(path):  # noqa: PTH112 - pathlib would double the time to start
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)  # noqa: PTH108 - as above


def _run(grace_seconds: float, litter: list[str], command: list[str]) -> int:
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # Safe here, where no thread runs yet.
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    gone = threading.Event()

    def wait_for_the_end_of_the_pipe() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        gone.set()

    threading.Thread(target=wait_for_the_end_of_the_pipe, daemon=True).start()
    while not gone.wait(_POLL_SECONDS):
        if child.poll() is not None:
            return child.returncode
    child.terminate()
    deadline = time.monotonic() + grace_seconds
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if child.poll() is None:
        child.kill()
    code = child.wait()
    _remove(litter)
    return code


if __name__ == "__main__":
    # A Ctrl-C at the terminal is the parent's to deal with; it closes the pipe when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_code = _run(float(sys.argv[1]), list(filter(None, sys.argv[2].split(os.pathsep))), sys.argv[3:])
    os._exit(exit_code if exit_code >= 0 else 128 - exit_code)
