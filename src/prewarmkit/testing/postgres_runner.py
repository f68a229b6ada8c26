"""Runs one PostgreSQL server, and shuts it down when whoever asked for it is gone.

Run as a file by `prewarmkit.testing.postgres`: ``python postgres_runner.py UID GID COMMAND…`` (``-`` for both: as we are).
It differs from `prewarmkit.testing.guard` where PostgreSQL does: the server must not be root, and SIGTERM, to which it would
wait for its clients to leave, is not what stops it. The pipe on standard input closes when the parent closes it or dies; then
the server gets SIGINT, which cuts its clients off, and SIGQUIT if that takes long.

Standard library only, and nothing of this package: it must start fast and under any path.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

__all__: list[str] = []

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10
_POLL_SECONDS = 0.02


def _die_with_parent() -> None:
    """In the child, before it becomes the server and after it got its user, which would undo this (Linux only)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _run(uid: int | None, gid: int | None, command: list[str]) -> int:
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
        # Safe here, where no thread runs yet.
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    gone = threading.Event()

    def wait_for_the_end_of_the_pipe() -> None:
        while os.read(0, 4096):
            pass
        gone.set()

    threading.Thread(target=wait_for_the_end_of_the_pipe, daemon=True).start()
    while not gone.wait(_POLL_SECONDS):
        if server.poll() is not None:
            return server.returncode
    server.send_signal(signal.SIGINT)
    end = time.monotonic() + _GRACE_SECONDS
    while server.poll() is None and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    if server.poll() is None:
        server.send_signal(signal.SIGQUIT)
    return server.wait()


if __name__ == "__main__":
    # A Ctrl-C at the terminal is the parent's to deal with; it closes the pipe when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ids = [None if given == "-" else int(given) for given in sys.argv[1:3]]
    code = _run(ids[0], ids[1], sys.argv[3:])
    os._exit(code if code >= 0 else 128 - code)
