"""A directory as a source of media: keys are relative posix paths.

Owns the way from a key to a file that is inside the directory and nowhere else. All
blocking calls run in threads. Knows no HTTP and no target.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

import anyio
import anyio.to_thread
from attrs import define, field

from prewarmkit.errors import AccessDenied, BodyFault, ConfigurationError, NotFound
from prewarmkit.media import ObjectInfo

__all__ = ["DirectoryReader", "DirectorySource"]

_CHUNK_BYTES = 256 * 1024
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DirectorySource:
    """Media in a directory of this machine; a `prewarmkit.sources.MediaSource`.

    Example::

        source = DirectorySource("/srv/media")
        async with source.open("videos/intro.mp4") as medium:
            async for chunk in medium:
                ...

    A key that would leave the directory, by ``..``, by an absolute path or by a symbolic link, is
    `NotFound`, as is a directory: who asks learns nothing of what lies outside.

    Args:
        path: The directory; it must be there when it is first read, not before.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = Path(path)
        self._real_root: Path | None = None

    def __repr__(self) -> str:
        return f"DirectorySource({os.fspath(self._root)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """There is nothing to close; a source may be entered like every other component."""

    def open(self, key: str) -> AbstractAsyncContextManager[DirectoryReader]:
        """Open a file for one streaming read.

        Raises:
            NotFound: There is no such file (``code`` is ``NoSuchKey``).
            AccessDenied: This process may not read it.
            BodyFault: The file was changed under the reader: while reading, or of a small one on entering.
        """
        return self._open(key)

    @asynccontextmanager
    async def _open(self, key: str) -> AsyncGenerator[DirectoryReader, None]:
        reader = await anyio.to_thread.run_sync(self._begin, key)
        try:
            yield reader
        finally:
            if not reader.is_closed:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(reader.close_now)

    async def head(self, key: str) -> ObjectInfo:
        """A file's facts; the ETag is made of its size and its time of change.

        Raises:
            NotFound: There is no such file.
            AccessDenied: This process may not read it.
        """

        def look() -> ObjectInfo:
            with self._open_now(key) as file:
                return _info(key, os.fstat(file.fileno()))

        return await anyio.to_thread.run_sync(look)

    def url(self, key: str, *, version: str | None = None) -> str | None:  # noqa: ARG002 - the protocol's arguments
        """``None``: nobody else can reach a file of this machine."""
        return None

    async def local_path(self, key: str) -> Path:
        """The file's real path, inside the directory; see `prewarmkit.sources.LocalFiles`.

        Raises:
            NotFound: There is no such file.
            AccessDenied: This process may not read it.
        """

        def look() -> Path:
            self._open_now(key).close()
            return self._resolve(key)

        return await anyio.to_thread.run_sync(look)

    # ── blocking, in threads ─────────────────────────────────────────────────

    def _begin(self, key: str) -> DirectoryReader:
        file = self._open_now(key)
        try:
            reader = DirectoryReader(_info(key, os.fstat(file.fileno())), file)
            reader.begin_now()
        except BaseException:
            file.close()
            raise
        return reader

    def _open_now(self, key: str) -> BinaryIO:
        path = self._resolve(key)
        try:
            # What it is, a pipe say, is judged by what was opened; O_NONBLOCK keeps a pipe from holding
            # the thread until somebody writes.
            descriptor = os.open(
                path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            )
        except _GONE:
            raise _not_found(key) from None
        except PermissionError:
            raise AccessDenied(
                f"{key!r} may not be read by this process: change the file's permissions.",
                code="AccessDenied",
            ) from None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG}:
                raise _not_found(key) from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_found(key)
        return os.fdopen(descriptor, "rb", buffering=0)

    def _resolve(self, key: str) -> Path:
        """The real path of a key, inside the real directory."""
        if not isinstance(key, str):
            raise TypeError(f"key must be a str, not {type(key).__name__}.")
        parts = key.split("/")
        # Empty parts would give one file several keys; a backslash or a drive is a way out on Windows.
        if any(part in {"", ".", ".."} or "\0" in part for part in parts) or (
            os.name == "nt" and any(char in key for char in "\\:")
        ):
            raise _not_found(key)
        root = self._real()
        try:
            path = root.joinpath(*parts).resolve(strict=True)
        except _GONE:
            raise _not_found(key) from None
        except (OSError, RuntimeError, UnicodeEncodeError) as error:
            # A loop of links, a name too long, a lone surrogate: no file can have such a key.
            raise _not_found(key) from error
        if not path.is_relative_to(root):
            raise _not_found(key)
        return path

    def _real(self) -> Path:
        if self._real_root is None:
            try:
                root = self._root.resolve(strict=True)
            except FileNotFoundError:
                raise ConfigurationError(
                    f"The directory {os.fspath(self._root)!r} of this DirectorySource is not there: create it."
                ) from None
            if not root.is_dir():
                raise ConfigurationError(
                    f"{os.fspath(self._root)!r} is no directory: DirectorySource needs one."
                )
            self._real_root = root
        return self._real_root


@define(eq=False)
class DirectoryReader:
    """An open file: its facts, and its bytes once.

    A small one is read as it is opened: each way to a thread and back costs more than its bytes.

    Attributes:
        info: As the file was when it was opened.
    """

    info: ObjectInfo
    _file: BinaryIO = field(alias="file", repr=False)
    _read: int = field(default=0, init=False)
    _first: bytes = field(default=b"", init=False, repr=False)
    _is_done: bool = field(default=False, init=False)

    @property
    def is_closed(self) -> bool:
        """Whether the file is closed: it is once all was read."""
        return self._file.closed

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes, in chunks."""
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            chunk, self._first = self._first, b""
            return chunk
        if self._is_done or not (chunk := await anyio.to_thread.run_sync(self._step)):
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        """All bytes that are left, in memory."""
        return b"".join([chunk async for chunk in self])

    # ── blocking, in threads ─────────────────────────────────────────────────

    def begin_now(self) -> None:
        """Read a small file whole.

        Raises:
            BodyFault: It was changed just now.
        """
        if self.info.size <= _CHUNK_BYTES:
            self._first = self._step()

    def close_now(self) -> None:
        """Close the file."""
        self._file.close()

    def _step(self) -> bytes:
        chunk = self._file.read(_CHUNK_BYTES)
        self._read += len(chunk)
        if chunk and self._read < self.info.size:
            return chunk
        # Looked at only where it ends: a change on the way shows in the time of change then.
        is_same = (
            self._read == self.info.size
            and not self._file.read(1)
            and _etag(os.fstat(self._file.fileno())) == self.info.etag
        )
        if not is_same:
            raise BodyFault(
                f"{self.info.key!r} was changed while it was read ({self._read} of {self.info.size} bytes): open it again."
            )
        self._is_done = True
        self._file.close()
        return chunk


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=status.st_size,
        etag=_etag(status),
        content_type=mimetypes.guess_type(key)[0],
        last_modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _not_found(key: str) -> NotFound:
    return NotFound(f"There is no file {key!r} in the directory: check the key.", code="NoSuchKey")
