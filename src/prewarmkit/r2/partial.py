"""A file that is being downloaded: hidden beside its target until it is whole.

Blocking: every method is called in a thread. Knows files, and nothing of requests.

Behind the object's bytes, from offset ``size`` on, the file has a tail that is cut off at the end::

    seal, 48 bytes       which object, which ETag, which parts these are
    8 bytes for a part   zeros, or b"part" and the CRC-32 of the part's bytes

So the bytes and the word of what is there cannot be parted, and nothing need reach the disk in any order: a part
that was lost with the power does not have its checksum.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
import zlib
from collections.abc import Callable

from prewarmkit.errors import BodyFault

__all__ = ["PartialFile"]

_IS_POSIX = os.name == "posix"
_SUFFIX = ".prewarmkit-part"
_MAX_NAME_BYTES = 255
_MARK = b"part"
_SLOT_BYTES = 8
_READ_BYTES = 1024 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class PartialFile:
    """An open hidden file, ours alone by a lock.

    Attributes:
        target: The path that it will have; symbolic links followed.
        path: The path that it has.
        is_begun: It has bytes of an earlier try, of whatever object.
    """

    def __init__(self, target: str, path: str, descriptor: int, *, is_shared_name: bool) -> None:
        self.target = target
        self.path = path
        self.is_begun = os.fstat(descriptor).st_size > 0
        self._descriptor = descriptor
        self._can_resume = is_shared_name
        self._tail = 0
        self._has_tail = False
        self._parts = int(self.is_begun)  # what an earlier try left is judged by `begin`, not before
        self._is_there = True
        self._is_spoilt = False
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, resume: bool) -> PartialFile:
        """Open the hidden file of ``path``, or one of its own where that is in use or may not be used.

        Raises:
            OSError: The directory is not there, or cannot be written to, or the path is a directory.
        """
        target: str = os.path.realpath(os.fspath(path))
        folder, name = os.path.split(target)
        mode = _mode_for(target, folder)
        if resume and _IS_POSIX:
            hidden = os.path.join(folder, _hidden_name(name))  # noqa: PTH118
            descriptor = _open_locked(hidden, mode)
            if descriptor is not None:
                return cls(target, hidden, descriptor, is_shared_name=True)
        hidden = os.path.join(folder, _hidden_name(name, secrets.token_hex(8)))  # noqa: PTH118
        descriptor = os.open(hidden, _flags() | os.O_EXCL, mode)
        return cls(target, hidden, descriptor, is_shared_name=False)

    def begin(
        self, seal: bytes | None, *, size: int, part_size: int, check: Callable[[], None] = lambda: None
    ) -> set[int]:
        """Which parts of the object are there whole; none of another object's is.

        Args:
            seal: 48 bytes that stand for the object and how it is parted; ``None``: nothing is worth keeping.
            size: The object's, in bytes.
            part_size: Each part's, the last one's but for what is missing.
            check: Called for each MiB that is read again; what it raises ends that, and harms nothing.
        """
        try:
            return self._begin(seal, size, part_size, check)
        except OSError as error:
            raise self._named(error) from error

    def _begin(self, seal: bytes | None, size: int, part_size: int, check: Callable[[], None]) -> set[int]:
        self._tail = size
        self._has_tail = self._can_resume and seal is not None
        count = -(-size // part_size)
        if self._has_tail and seal is not None and self._read(size, len(seal)) == seal:
            slots = self._read(size + len(seal), count * _SLOT_BYTES)
            found = {
                index
                for index in range(count)
                if self._is_whole(
                    slots[index * _SLOT_BYTES : (index + 1) * _SLOT_BYTES],
                    index * part_size,
                    min(size, (index + 1) * part_size),
                    check,
                )
            }
        else:
            found = set[int]()
            os.ftruncate(self._descriptor, 0)
            if self._has_tail and seal is not None:
                self._write_at(seal, size)
        self._slots = size + len(seal or b"")
        self._parts = len(found)
        return found

    def _is_whole(self, slot: bytes, at: int, end: int, check: Callable[[], None]) -> bool:
        if not slot.startswith(_MARK):
            return False
        crc = 0
        while at < end:
            check()
            piece = self._read(at, min(_READ_BYTES, end - at))
            if not piece:
                return False
            crc = zlib.crc32(piece, crc)
            at += len(piece)
        return slot == _MARK + crc.to_bytes(4, "big")

    def write(self, content: bytes, offset: int, crc: int) -> int:
        """Write a piece of a part; gives the part's CRC-32, carried on from ``crc``."""
        try:
            self._write_at(content, offset)
        except OSError as error:
            raise self._named(error) from error
        return zlib.crc32(content, crc)

    def mark(self, index: int, crc: int) -> None:
        """Note that a part is there whole."""
        if not self._has_tail:
            return
        try:
            self._write_at(_MARK + crc.to_bytes(4, "big"), self._slots + index * _SLOT_BYTES)
        except OSError as error:
            raise self._named(error) from error
        self._parts += 1

    def md5(self) -> str:
        """The MD5 of the object's bytes as they are in the file, in hex."""
        digest = hashlib.md5(usedforsecurity=False)
        at = 0
        while at < self._tail and (piece := self._read(at, min(_READ_BYTES, self._tail - at))):
            digest.update(piece)
            at += len(piece)
        return digest.hexdigest()

    def publish(self) -> None:
        """Make it the target, on the disk and at once; there is no moment with half of it."""
        try:
            self._publish()
        except OSError as error:
            raise self._named(error) from error

    def _publish(self) -> None:
        if os.fstat(self._descriptor).st_size < self._tail:
            raise BodyFault(f"{self.path!r} was cut short by somebody else: download it again.")
        self.spoil()  # what fails from here on leaves nothing to go on with
        os.fsync(self._descriptor)  # what takes long comes first: killed before the tail is cut, it can go on
        os.ftruncate(self._descriptor, self._tail)
        try:
            mode = stat.S_IMODE(os.stat(self.target).st_mode) & 0o777  # noqa: PTH116
        except FileNotFoundError:
            pass
        else:
            os.chmod(self._descriptor if _IS_POSIX else self.path, mode)  # noqa: PTH101
        os.fsync(self._descriptor)
        if not _IS_POSIX:
            os.close(self._descriptor)  # Windows renames no open file; the name is ours alone there
            self._descriptor = -1
        os.replace(self.path, self.target)  # noqa: PTH105
        self._is_there = False
        _sync_folder(self.target)

    def spoil(self) -> None:
        """What is there is of no use: it goes when this is closed."""
        self._is_spoilt = True

    def close(self) -> None:
        """Close; the file stays if a part of it is whole and was not spoilt."""
        if self._is_there and (self._is_spoilt or not self._parts):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108 - and while the lock holds
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _named(self, error: OSError) -> OSError:
        """The error with the path in it. A full disk is not kept full by what cannot go on."""
        if error.errno in _FULL:
            self.spoil()
        return error if error.filename else OSError(error.errno, error.strerror, self.target)

    def _read(self, offset: int, count: int) -> bytes:
        if _IS_POSIX:
            content = bytearray()
            while piece := os.pread(self._descriptor, count - len(content), offset + len(content)):
                content += piece
            return bytes(content)
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, count)

    def _write_at(self, content: bytes, offset: int) -> None:
        left = memoryview(content)
        while left:
            if _IS_POSIX:
                count = os.pwrite(self._descriptor, left, offset)
            else:
                with self._lock:
                    os.lseek(self._descriptor, offset, os.SEEK_SET)
                    count = os.write(self._descriptor, left)
            left = left[count:]
            offset += count


def _mode_for(target: str, folder: str) -> int:
    """The permissions to open with: those of the file that is replaced, else all, of which the umask takes its part.

    Raises:
        OSError: No file can be made here; better said now than after the download.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - a str all the way
        if os.path.exists(folder):  # noqa: PTH110
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", folder)
        raise FileNotFoundError(errno.ENOENT, "Create the directory of the download first", folder)
    try:
        mode = os.stat(target).st_mode  # noqa: PTH116
    except FileNotFoundError:
        return 0o666
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "A download goes to a file, not to a directory", target)
    return (mode & 0o777) | 0o600  # ours to write to until it is published


def _hidden_name(name: str, unique: str = "") -> str:
    suffix = f".{unique}{_SUFFIX}" if unique else _SUFFIX
    if len(os.fsencode(name)) + len(suffix) + 1 > _MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}{suffix}"


def _flags() -> int:
    names = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
    flags = os.O_RDWR | os.O_CREAT
    for name in names:
        flags |= getattr(os, name, 0)
    return flags


def _open_locked(path: str, mode: int) -> int | None:
    """Open and lock; ``None``: somebody else has it, or it is nothing that we should write to."""
    import fcntl

    while True:
        try:
            descriptor = os.open(path, _flags(), mode)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES} and os.path.lexists(
                path
            ):
                return None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # locked, or on a file system without locks
            os.close(descriptor)
            return None
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode) or opened.st_uid != os.geteuid() or opened.st_nlink > 1:
            os.close(descriptor)
            return None
        try:
            is_same = os.path.samestat(opened, os.stat(path, follow_symlinks=False))  # noqa: PTH116
        except FileNotFoundError:
            is_same = False
        if is_same:
            return descriptor
        # Whoever had the lock has made it the target, or removed it, between our opening and our locking.
        os.close(descriptor)


def _sync_folder(path: str) -> None:
    """The new name, too, outlives a power cut."""
    if not _IS_POSIX:
        return
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a file system that has no such thing
            raise
    finally:
        os.close(descriptor)
