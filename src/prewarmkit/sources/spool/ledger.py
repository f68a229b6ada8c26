"""The lock of a spool's directory, and in its file how much the directory holds. Blocking.

Dying in the middle counts too much and never too little: what comes is counted before it is there, what goes after it
is gone. Counting anew, which `Shelf` does when room gets short, puts it right.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from prewarmkit.sources.spool.files import is_at, lock

__all__ = ["LOCK_NAME", "Ledger"]

LOCK_NAME = "lock"
_TALLY = struct.Struct(">QQ")
_WAIT_SECONDS = 2.0  # others hold it for milliseconds; one that was stopped in the middle must not stop us
_STEP_SECONDS = 0.002


class Ledger:
    """How much a directory holds, as all its processes count it.

    Attributes:
        held_bytes: As last seen.
        files: As last seen.
        is_counted: Whether that can be believed; if not, count and `settle`.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self.files = 0
        self.is_counted = False
        self._turn = (
            threading.Lock()
        )  # among this process's threads first: it wakes, and flock would be polled
        self._descriptor = -1

    @contextmanager
    def held(self, directory: str) -> Generator[None, None, None]:
        """Hold the directory's lock.

        Raises:
            TimeoutError: Somebody has held it for seconds.
            OSError: The file cannot be opened or locked.
        """
        until = time.monotonic() + _WAIT_SECONDS
        if not self._turn.acquire(timeout=_WAIT_SECONDS):
            raise _busy(directory)
        try:
            self._descriptor = _locked(directory, until)
            try:
                tally = os.pread(self._descriptor, _TALLY.size, 0)
                self.is_counted = len(tally) == _TALLY.size
                if self.is_counted:
                    self.held_bytes, self.files = _TALLY.unpack(tally)
                yield
            finally:
                os.close(self._descriptor)
        finally:
            self._turn.release()

    def add(self, size: int, files: int) -> None:
        """Count what comes (before it does) or what goes (after it did)."""
        self.settle(max(0, self.held_bytes + size), max(0, self.files + files))

    def settle(self, size: int, files: int) -> None:
        """What was counted anew."""
        self.held_bytes, self.files, self.is_counted = size, files, True
        os.pwrite(self._descriptor, _TALLY.pack(size, files), 0)

    def doubt(self) -> None:
        """Nobody knows any more, until somebody counts."""
        self.is_counted = False
        os.ftruncate(self._descriptor, 0)


def _locked(directory: str, until: float) -> int:
    path = os.path.join(directory, LOCK_NAME)  # noqa: PTH118 - a str all the way
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            is_ours = lock(descriptor, exclusive=True)
            if is_ours and is_at(
                descriptor, path
            ):  # else somebody removed it: lock the one that others would
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() > until:
            raise _busy(directory)
        time.sleep(_STEP_SECONDS)


def _busy(directory: str) -> TimeoutError:
    return TimeoutError(f"The lock of {directory!r} has been held by another process for {_WAIT_SECONDS:g} s")
