"""One file of a spool: opening, locking, summing, removing. Blocking; knows no directory and no source.

Whoever writes a file holds it by an exclusive lock (flock), whoever reads it by a shared one; the system lets go of
both when the process dies. So a file that can be locked exclusively is nobody's, in whatever process.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable

from attrs import frozen

from prewarmkit.sources.spool.record import FOOT_BYTES, Foot, Record

__all__ = [
    "Found",
    "Part",
    "Stamp",
    "foot_of",
    "is_at",
    "lock",
    "open_shared",
    "record_of",
    "remove_unused",
    "sha256_of",
]

_READ_BYTES = 1024 * 1024
_READ_FLAGS = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)


@frozen
class Stamp:
    """What changes when somebody writes to a file."""

    size: int
    changed_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Stamp:
        """The stamp now."""
        status = os.fstat(descriptor)
        return cls(status.st_size, status.st_mtime_ns)


@frozen
class Found:
    """A whole file, open and held by a shared lock."""

    descriptor: int
    record: Record
    stamp: Stamp


class Part:
    """A file that is being written, open and held by an exclusive lock.

    Attributes:
        path: Its temporary name; nobody reads a file that has one.
        size: Bytes that were reserved for it.
        descriptor: Open for reading and writing.
        written: Bytes that are in it.
    """

    def __init__(self, path: str, size: int, descriptor: int) -> None:
        self.path = path
        self.size = size
        self.descriptor = descriptor
        self.written = 0
        self._sum = hashlib.sha256()

    @classmethod
    def create(cls, path: str, size: int) -> Part:
        """Make it, lock it, and let it look as long as it will be."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            lock(descriptor, exclusive=True)
            os.ftruncate(descriptor, size)
        except BaseException:
            os.unlink(path)  # noqa: PTH108 - a str all the way
            os.close(descriptor)
            raise
        return cls(path, size, descriptor)

    def write(self, content: bytes) -> None:
        """Write on where it ends."""
        self._write_at(content, self.written)
        self._sum.update(content)
        self.written += len(content)

    def append(self, record: bytes) -> None:
        """Write what stands behind the medium's bytes."""
        self._write_at(record, self.size)

    def _write_at(self, content: bytes, at: int) -> None:
        left = memoryview(content)
        while left:
            count = os.pwrite(self.descriptor, left, at)
            left, at = left[count:], at + count

    def sha256(self) -> str:
        """The digest of what was written, in hex."""
        return self._sum.hexdigest()


def lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock without waiting; ``False``: somebody else has it."""
    import fcntl  # not on Windows, where no spool is entered

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_shared(path: str) -> int | None:
    """Open to read, held by a shared lock; ``None``: there is no such file, or it is about to go."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    if lock(descriptor, exclusive=False) and is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def is_at(descriptor: int, path: str) -> bool:
    """Whether that path is, still, the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))  # noqa: PTH116
    except FileNotFoundError:
        return False


def remove_unused(path: str) -> bool:
    """Remove a file that nobody holds; ``False``: somebody does. A file that is not there is removed."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return True
    try:
        if not lock(descriptor, exclusive=True):
            return False
        os.unlink(path)  # noqa: PTH108 - a str all the way
    finally:
        os.close(descriptor)
    return True


def foot_of(descriptor: int) -> Foot | None:
    """The foot of a file that is as long as it says; ``None``: it was cut, or is nothing of ours."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size < FOOT_BYTES:
        return None
    foot = Foot.unpack(os.pread(descriptor, FOOT_BYTES, status.st_size - FOOT_BYTES))
    return foot if foot is not None and foot.file_bytes == status.st_size else None


def record_of(descriptor: int) -> Record | None:
    """What a file says of itself; ``None``: it is not as it was written."""
    foot = foot_of(descriptor)
    return None if foot is None else Record.unpack(foot, os.pread(descriptor, foot.facts_bytes, foot.size))


def sha256_of(descriptor: int, size: int, check: Callable[[], None]) -> str:
    """The digest of a file's first bytes, in hex; ``check`` may raise between two pieces."""
    digest, at = hashlib.sha256(), 0
    while at < size and (piece := os.pread(descriptor, min(_READ_BYTES, size - at), at)):
        digest.update(piece)
        at += len(piece)
        check()
    return digest.hexdigest()
