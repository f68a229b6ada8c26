"""The directory of a spool: who may add how much, what goes to make room, what a dead process left.

Blocking: every call is made in a thread. Several processes share a directory by locks of the operating system (flock):
the ledger's, held for each change of names, and one on each file that is written or read. Names are::

    lock                     the ledger
    <digest of key>.medium   whole: renamed to that name when it was
    <unique>.part            being written, or left by a process that died
    <unique>.old             replaced while somebody still reads it

Nothing is fsynced: what a power cut leaves of a file does not match its checksum.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from prewarmkit.sources.spool.files import (
    Found,
    Part,
    Stamp,
    foot_of,
    is_at,
    lock,
    open_shared,
    record_of,
    remove_unused,
    sha256_of,
)
from prewarmkit.sources.spool.ledger import LOCK_NAME, Ledger
from prewarmkit.sources.spool.place import prepare
from prewarmkit.sources.spool.record import Foot, Record, Wanted

__all__ = ["Shelf"]

_OURS = re.compile(r"[0-9a-f]{64}\.medium|[0-9a-f]{32}\.(?:part|old)")
_MAX_FILES = 50_000  # an empty medium takes no bytes, but a name
_CANNOT_ALLOCATE = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}


@frozen
class _Candidate:
    """A whole file that may go to make room."""

    read_at_ns: int
    path: str
    size: int


class Shelf:
    """One directory.

    Args:
        directory: Where; made at `enter` if it is not there.
        space: What tells the keys of one source from another's.
        ttl_ns: How old a file may be to be served.
        max_bytes: Of all media in the directory together.
        now_ns: The calendar's time.

    Attributes:
        evicted: Files that this object removed to make room.
        damaged: Files that it found changed or cut.
    """

    def __init__(
        self, directory: Path, *, space: str, ttl_ns: int, max_bytes: int, now_ns: Callable[[], int]
    ) -> None:
        self.evicted = 0
        self.damaged = 0
        self._given = directory
        self._directory = os.fspath(directory)
        self._space = space
        self._ttl_ns = ttl_ns
        self._max_bytes = max_bytes
        self._now_ns = now_ns
        self._ledger = Ledger()
        self._oldest = deque[_Candidate]()

    @property
    def held_bytes(self) -> int:
        """Bytes of media in the directory, as last counted."""
        return self._ledger.held_bytes

    def enter(self) -> None:
        """Make the directory, or see that it is ours alone, and remove what is of no use.

        Raises:
            ConfigurationError: It cannot be used; the message says why.
        """
        self._directory = prepare(self._given, lambda name: name == LOCK_NAME or bool(_OURS.fullmatch(name)))
        self.sweep()

    def sweep(self) -> None:
        """Remove what has expired and what dead processes left; count the rest."""
        with self._ledger.held(self._directory):
            self._scan()

    def is_fresh(self, read_at_ns: int) -> bool:
        """Whether what was read then may be served; what was read in the future may not."""
        return 0 <= self._now_ns() - read_at_ns < self._ttl_ns

    def find(self, key: str, wanted: Wanted, check: Callable[[], None] = lambda: None) -> Found | None:
        """A whole, fresh, unharmed file of that key and version, opened; the caller closes it.

        Args:
            key: The key.
            wanted: The version; a file of another one stays, until it is replaced.
            check: Called between pieces of the file as they are summed; what it raises ends that.
        """
        path = self._path_of(key)
        descriptor = open_shared(path)
        if descriptor is None:
            return None
        found = None
        try:
            stamp, status = Stamp.of(descriptor), os.fstat(descriptor)
            record = record_of(descriptor)
            if record is not None and (record.space, record.key) == (self._space, key):
                if not (self.is_fresh(record.read_at_ns) and wanted.fits(record.info)):
                    return None
                if sha256_of(descriptor, record.info.size, check) == record.sha256:
                    found = Found(descriptor, record, stamp)
                    return found
        finally:
            if found is None:
                os.close(descriptor)
        self._drop(path, lambda: _is(path, status))
        self.damaged += 1
        return None

    def drop(self, key: str, *, unless: Wanted | None = None) -> None:
        """Serve the file of that key no more; ``unless`` it is of that version."""
        path = self._path_of(key)

        def is_other() -> bool:
            descriptor = open_shared(path)
            if descriptor is None:
                return False
            try:
                record = record_of(descriptor)
            finally:
                os.close(descriptor)
            return record is None or unless is None or not unless.fits(record.info)

        self._drop(path, is_other)  # under the lock: what is about to get the name has it, or will not

    def drop_damaged(self, key: str, descriptor: int) -> None:
        """Serve that open file no more: it was changed while it was read."""
        path = self._path_of(key)
        self._drop(path, lambda: is_at(descriptor, path))
        self.damaged += 1

    def admit(self, size: int) -> Part | None:
        """A new file with room for a medium; ``None``: it is too large, or all that is here is in use."""
        if size > self._max_bytes:
            return None
        with self._ledger.held(self._directory):
            if not self._make_room(size):
                return None
            self._ledger.add(size, 1)
            try:
                part = Part.create(self._unique("part"), size)
            except BaseException:
                self._ledger.add(-size, -1)
                raise
        try:
            _allocate(part.descriptor, size)
        except BaseException:
            self.discard(part)
            os.close(part.descriptor)
            raise
        return part

    def publish(self, part: Part, key: str, record: Record, is_current: Callable[[], bool]) -> bool:
        """Give a whole file its name, all at once; its lock becomes a shared one.

        ``False``: what has the name was read later, by another process say, and keeps it; or it is not current.
        """
        path = self._path_of(key)
        part.append(record.pack())
        with self._ledger.held(self._directory):
            foot = _foot_at(path)
            if not is_current():
                return False
            if foot is not None and foot.read_at_ns > record.read_at_ns and self.is_fresh(foot.read_at_ns):
                return False
            self._retire(path)
            os.rename(part.path, path)  # noqa: PTH104 - a str all the way
            lock(part.descriptor, exclusive=False)
        return True

    def discard(self, part: Part) -> None:
        """Remove a file that is not whole; it stays open."""
        with self._ledger.held(self._directory):
            try:
                os.unlink(part.path)  # noqa: PTH108
            except FileNotFoundError:
                return
            self._ledger.add(-part.size, -1)

    # ── under the ledger's lock ──────────────────────────────────────────────

    def _make_room(self, size: int) -> bool:
        for is_rescanned in (False, True):
            # What the last scan found is older than all that came since: a new one is needed only after these.
            if is_rescanned or not self._ledger.is_counted:
                self._scan()
            while not self._has_room(size) and self._oldest:
                one = self._oldest.popleft()
                foot = _foot_at(one.path)
                # The name may be a younger file's by now, even under the same inode number.
                if foot is not None and foot.read_at_ns == one.read_at_ns and remove_unused(one.path):
                    self._ledger.add(-one.size, -1)
                    self.evicted += 1
            if self._has_room(size):
                return True
        return False

    def _has_room(self, size: int) -> bool:
        return self._ledger.held_bytes + size <= self._max_bytes and self._ledger.files < _MAX_FILES

    def _scan(self) -> None:
        """Look at every file of ours: nobody's rest and what has expired goes, the others are counted."""
        held = files = 0
        candidates = list[_Candidate]()
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if not _OURS.fullmatch(entry.name):
                    continue
                is_whole = entry.name.endswith(".medium")
                foot = _foot_at(entry.path)
                if not (is_whole and foot is not None and self.is_fresh(foot.read_at_ns)) and remove_unused(
                    entry.path
                ):
                    continue
                size = entry.stat(follow_symlinks=False).st_size if foot is None else foot.size
                held, files = held + size, files + 1
                if is_whole and foot is not None:
                    candidates.append(_Candidate(foot.read_at_ns, entry.path, size))
        self._oldest = deque(sorted(candidates, key=lambda one: one.read_at_ns))
        self._ledger.settle(held, files)

    def _drop(self, path: str, condition: Callable[[], bool]) -> None:
        with self._ledger.held(self._directory):
            if condition():
                self._retire(path)

    def _retire(self, path: str) -> None:
        """Take a file's name away; who reads it reads on, and it counts until that ends."""
        if not os.path.lexists(path):
            return
        foot = _foot_at(path)
        if not remove_unused(path):
            os.rename(path, self._unique("old"))  # noqa: PTH104
        elif foot is None:  # it was counted as what it should have been, which nobody can say now
            self._ledger.doubt()
        else:
            self._ledger.add(-foot.size, -1)

    def _path_of(self, key: str) -> str:
        name = f"{len(self._space)}:{self._space}{key}".encode(errors="surrogatepass")
        return os.path.join(self._directory, f"{hashlib.sha256(name).hexdigest()}.medium")  # noqa: PTH118

    def _unique(self, kind: str) -> str:
        return os.path.join(self._directory, f"{secrets.token_hex(16)}.{kind}")  # noqa: PTH118


def _allocate(descriptor: int, size: int) -> None:
    """Have the disk set the room aside, so that a full one is known before the first byte."""
    allocate = getattr(os, "posix_fallocate", None)  # not on macOS
    if allocate is None or not size:
        return
    try:
        allocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_ALLOCATE:
            raise


def _foot_at(path: str) -> Foot | None:
    descriptor = open_shared(path)
    if descriptor is None:
        return None
    try:
        return foot_of(descriptor)
    finally:
        os.close(descriptor)


def _is(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(status, os.stat(path, follow_symlinks=False))  # noqa: PTH116
    except FileNotFoundError:
        return False
