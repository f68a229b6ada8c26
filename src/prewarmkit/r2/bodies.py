"""What may be uploaded, in two forms: a body of known length, and a stream's pieces of one size.

Blocking reads run in threads, a piece at a time at most. Knows no request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from itertools import islice
from typing import IO, Protocol, TypeVar, cast, runtime_checkable

import anyio
import anyio.to_thread
from attrs import define, field

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


@runtime_checkable
class _File(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@runtime_checkable
class _SeekableFile(_File, Protocol):
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def seekable(self) -> bool: ...
    def tell(self) -> int: ...


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
            BodyFault: The file has become shorter.
        """
        assert self._open is not None
        digest = hashlib.md5(usedforsecurity=False)
        self.md5 = None
        left = self.size

        def step(file: _File) -> bytes:
            chunk = file.read(min(_CHUNK_BYTES, left))
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
            BodyFault: The file has become shorter.
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
        OSError: The path cannot be read.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        content = bytes(body)
        return KnownBody(len(content), content)
    if isinstance(body, (str, os.PathLike)):
        return await _from_path(os.fspath(body))
    if isinstance(body, AsyncIterable):
        return None
    if isinstance(body, _SeekableFile):
        return await anyio.to_thread.run_sync(_from_file, body)
    if isinstance(body, (_File, Iterable)):
        return None
    raise TypeError(
        f"body must be bytes, a path, a binary file or an (async) iterable of bytes, not {type(body).__name__}."
    )


async def _from_path(path: str) -> KnownBody:
    def look() -> tuple[int, bytes | None]:
        with open(path, "rb") as file:  # noqa: PTH123 - says at once who may not read it
            size = os.fstat(file.fileno()).st_size
            return size, (file.read() if size <= _SMALL_BYTES else None)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[_File, None]:
        async with await anyio.open_file(path, "rb") as file:
            yield file.wrapped

    async def read_at(offset: int, count: int) -> bytes:
        def read() -> bytes:
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                file.seek(offset)
                return file.read(count)

        return await anyio.to_thread.run_sync(read)

    size, content = await anyio.to_thread.run_sync(look)
    if content is not None:
        return KnownBody(len(content), content)
    return KnownBody(size, None, opened, read_at)


def _from_file(file: _SeekableFile) -> KnownBody | None:
    if not file.seekable():
        return None
    start = file.tell()
    size = max(0, file.seek(0, os.SEEK_END) - start)
    file.seek(start)
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
            rest = memoryview(_checked(chunk)).cast("B")
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


async def _chunks(body: PutBody) -> AsyncGenerator[bytes, None]:
    if isinstance(body, AsyncIterable):
        given: AsyncIterator[bytes] = aiter(body)
        try:
            async for chunk in given:
                yield chunk
        finally:
            # A generator left half-way would be finished by the garbage collector.
            if isinstance(given, AsyncGenerator):
                with anyio.CancelScope(shield=True):
                    await given.aclose()
    elif isinstance(body, _File):
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
