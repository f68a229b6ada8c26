"""What may be uploaded, in two forms: a body of known length, and a stream's pieces of one size.

Blocking reads run in threads, a piece at a time at most. Knows no request.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from itertools import islice
from typing import IO, Protocol, TypeGuard, TypeVar, cast

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from prewarmkit.errors import BodyFault

__all__ = ["Content", "KnownBody", "PutBody", "chunks_of", "known_body", "md5_of", "off_loop", "pieces"]

T = TypeVar("T")

PutBody = (
    bytes
    | bytearray
    | memoryview
    | str
    | os.PathLike[str]
    | IO[bytes]
    | Iterable[bytes]
    | AsyncIterable[bytes]
)
"""What `R2Client.put` takes; a ``str`` is a path."""

Content = bytes | bytearray | memoryview
"""Bytes in memory, wherever they are: nothing here copies more of them than a chunk."""

_CHUNK_BYTES = 256 * 1024
_SMALL_BYTES = 1024 * 1024  # held in memory; hashing it takes about 2 ms


class _File(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _SeekableFile(_File, Protocol):
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def seekable(self) -> bool: ...
    def tell(self) -> int: ...


# Not isinstance: from Python 3.12 on it does not see what a wrapper, such as a NamedTemporaryFile, hands on.
def _is_file(body: object) -> TypeGuard[_File]:
    return callable(getattr(body, "read", None))


def _is_seekable(body: object) -> TypeGuard[_SeekableFile]:
    return _is_file(body) and all(
        callable(getattr(body, name, None)) for name in ("seek", "seekable", "tell")
    )


@define
class KnownBody:
    """A body of known length.

    Attributes:
        size: Bytes.
        content: The bytes themselves, where they are in memory.
        md5: Of the content, as it was last sent where it is a file's; ``None``: not known yet.
    """

    size: int
    content: bytes | None = None
    _open: Callable[[], AbstractAsyncContextManager[_File]] | None = None
    _read_at: Callable[[int, int], Awaitable[bytes]] | None = None
    md5: bytes | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """A file's bytes anew, exactly `size` of them.

        Raises:
            BodyFault: The file has become shorter, or another one.
        """
        assert self._open is not None
        digest = hashlib.md5(usedforsecurity=False)
        self.md5 = None
        left = self.size

        def step(file: _File) -> bytes:
            chunk = _checked(file.read(min(_CHUNK_BYTES, left)))
            digest.update(chunk)
            return chunk

        async with self._open() as file:
            while left:
                chunk = await anyio.to_thread.run_sync(step, file)
                if not chunk:
                    raise _shorter(left)
                left -= len(chunk)
                if not left:  # before the last chunk: nobody need ask for one more
                    self.md5 = digest.digest()
                yield chunk

    async def digest(self) -> bytes:
        """The MD5; the file is read anew where it is not known."""
        if self.md5 is not None:
            return self.md5
        async with aclosing(self.chunks()) as chunks:
            async for _chunk in chunks:
                pass
        assert self.md5 is not None
        return self.md5

    async def read_at(self, offset: int, size: int) -> Content:
        """``size`` bytes from ``offset`` on; several calls may be under way at once.

        Raises:
            BodyFault: As for `chunks`.
        """
        if self._read_at is None:
            return memoryview(self.content or b"")[offset : offset + size]
        content = await self._read_at(offset, size)
        if len(content) < size:
            raise _shorter(size - len(content))
        return content


def _shorter(missing: int) -> BodyFault:
    return BodyFault(
        f"The file ended {missing} bytes early: it was changed while it was read. Put it again.",
        is_retryable=False,
    )


async def known_body(body: PutBody) -> KnownBody | None:
    """A body whose length can be told; ``None``: only reading it to its end will tell.

    Raises:
        TypeError: It is nothing that can be uploaded.
        ValueError: The path is no file's.
        OSError: The path cannot be read.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        content = bytes(body)
        return KnownBody(len(content), content)
    if isinstance(body, (str, os.PathLike)):
        return await _from_path(os.fspath(body))
    if isinstance(body, AsyncIterable):
        return None
    if _is_seekable(body):
        return await anyio.to_thread.run_sync(_from_file, body)
    if _is_file(body) or isinstance(body, Iterable):
        return None
    raise TypeError(
        f"body must be bytes, a path, a binary file or an (async) iterable of bytes, not {type(body).__name__}."
    )


@frozen
class _Unchanged:
    """A path's file, read only while it is the one that it was: not replaced, not written to."""

    file: IO[bytes]
    version: os.stat_result

    def read(self, size: int = -1, /) -> bytes:
        chunk = self.file.read(size)
        now, then = os.fstat(self.file.fileno()), self.version
        if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (
            then.st_dev,
            then.st_ino,
            then.st_size,
            then.st_mtime_ns,
        ):
            raise BodyFault("The file was changed while it was read. Put it again.", is_retryable=False)
        return chunk


async def _from_path(path: str) -> KnownBody:
    def look() -> tuple[os.stat_result, bytes | None]:
        mode = os.stat(path).st_mode  # noqa: PTH116 - opening a pipe would wait for its other end
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError(f"{path!r} is a pipe or a device: open it, and put the open file.")
        with open(path, "rb") as file:  # noqa: PTH123 - says at once who may not read it
            version = os.fstat(file.fileno())
            return version, (file.read() if version.st_size <= _SMALL_BYTES else None)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[_File, None]:
        async with await anyio.open_file(path, "rb") as file:
            yield _Unchanged(file.wrapped, version)

    async def read_at(offset: int, count: int) -> bytes:
        def read() -> bytes:
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                file.seek(offset)
                return _Unchanged(file, version).read(count)

        return await anyio.to_thread.run_sync(read)

    version, content = await anyio.to_thread.run_sync(look)
    if content is not None:
        return KnownBody(len(content), content)
    return KnownBody(version.st_size, None, opened, read_at)


def _from_file(file: _SeekableFile) -> KnownBody | None:
    if not file.seekable():
        return None
    _checked(file.read(0))  # text says so here, before anything is sent
    start = file.tell()
    try:
        size = max(0, file.seek(0, os.SEEK_END) - start)
    except OSError:
        return None  # one of /proc, whose end nobody knows
    file.seek(start)
    if not size and file.read(1):
        file.seek(start)
        return None  # as above; or a device
    if size <= _SMALL_BYTES:
        content = _read_up_to(file, size)
        return KnownBody(len(content), content)

    @asynccontextmanager
    async def rewound() -> AsyncGenerator[_File, None]:
        await anyio.to_thread.run_sync(file.seek, start)
        yield file

    turn = anyio.Lock()  # a file has one position

    async def read_at(offset: int, count: int) -> bytes:
        def read() -> bytes:
            file.seek(start + offset)
            return _read_up_to(file, count)

        async with turn:
            return await anyio.to_thread.run_sync(read)

    return KnownBody(size, None, rewound, read_at)


def _read_up_to(file: _File, size: int) -> bytes:
    """As much as there is of ``size`` bytes: one read may give less than it was asked for, long before the end."""
    first = _checked(file.read(size))
    if len(first) >= size or not first:
        return bytes(first)
    content = bytearray(first)
    while chunk := _checked(file.read(size - len(content))):
        content += chunk
    return bytes(content)


@define
class _Piece:
    """A piece that is being filled; no byte is copied twice."""

    size: int
    filled: int = 0
    content: bytearray = field(factory=bytearray)

    def take(self, data: memoryview) -> memoryview:
        """Take what there is room for; gives the rest."""
        fitting, rest = data[: self.size - self.filled], data[self.size - self.filled :]
        end = self.filled + len(fitting)
        if end <= _CHUNK_BYTES:
            self.content += fitting
        else:
            if len(self.content) < self.size:
                # All its room at once: a bytearray that grows takes an eighth too much.
                whole = bytearray(self.size)
                whole[: self.filled] = self.content
                self.content = whole
            self.content[self.filled : end] = fitting
        self.filled = end
        return rest


async def pieces(body: PutBody, size: int) -> AsyncGenerator[bytearray, None]:
    """The body in pieces of exactly ``size`` bytes, the last one shorter; one empty piece for none.

    It holds one piece at a time, and what it has given belongs to who took it.
    """
    piece = _Piece(size)
    is_empty = True
    async with aclosing(_chunks(body)) as chunks:
        async for chunk in chunks:
            rest = _flat(_checked(chunk))
            while rest:
                rest = piece.take(rest)
                if piece.filled == size:
                    is_empty = False
                    content, piece = piece.content, _Piece(size)
                    yield content
                    del content  # or it would stay until the next one is full
    if piece.filled or is_empty:
        del piece.content[piece.filled :]
        yield piece.content


def _flat(chunk: bytes) -> memoryview:
    view = memoryview(chunk)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


async def _chunks(body: PutBody) -> AsyncGenerator[bytes, None]:
    if isinstance(body, AsyncIterable):
        given: AsyncIterator[bytes] = aiter(body)
        try:
            async for chunk in given:
                yield chunk
        finally:
            # A generator left half-way would be finished by the garbage collector. In no block of ours:
            # its own ones are left here, and they were entered before.
            if isinstance(given, AsyncGenerator):
                await given.aclose()
    elif _is_file(body):
        while chunk := _checked(await anyio.to_thread.run_sync(body.read, _CHUNK_BYTES)):
            yield chunk
    else:
        iterator = iter(cast("Iterable[bytes]", body))  # `known_body` took out everything else

        def step() -> list[bytes]:
            return list(islice(iterator, 1))

        while item := await anyio.to_thread.run_sync(step):
            yield item[0]


def _checked(chunk: bytes) -> bytes:
    """The chunk, if it is one: text, or the ``None`` of a pipe that has nothing yet, must not pass for the end."""
    if not isinstance(cast("object", chunk), (bytes, bytearray, memoryview)):
        raise TypeError(
            f"body gave a {type(chunk).__name__} where bytes belong: open files in binary and blocking mode."
        )
    return chunk


async def chunks_of(content: Content) -> AsyncGenerator[bytes, None]:
    """Bytes in memory as a body: copied a chunk at a time."""
    view = memoryview(content)
    for start in range(0, len(view), _CHUNK_BYTES):
        yield bytes(view[start : start + _CHUNK_BYTES])


async def off_loop(size: int, work: Callable[[], T]) -> T:
    """Do what goes over ``size`` bytes in memory, in a thread where it would hold up the loop."""
    if size <= _SMALL_BYTES:
        return work()
    return await anyio.to_thread.run_sync(work)


async def md5_of(content: Content) -> bytes:
    """The MD5."""
    return await off_loop(len(content), lambda: hashlib.md5(content, usedforsecurity=False).digest())
