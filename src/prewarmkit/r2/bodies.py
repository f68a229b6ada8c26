"""What may be uploaded, in two forms: a body of known length, and a stream's pieces of one size.

Blocking reads run in threads, a bounded number of bytes at a time. Knows no request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from itertools import islice
from typing import IO, Protocol, cast, runtime_checkable

import anyio
import anyio.to_thread
from attrs import define, field

from prewarmkit.errors import BodyFault

__all__ = ["KnownBody", "PutBody", "known_body", "md5_of", "pieces"]

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
        md5: Of the content as it was last sent from a file; ``None`` before.
    """

    size: int
    content: bytes | None = None
    _open: Callable[[], AbstractAsyncContextManager[_File]] | None = None
    md5: bytes | None = field(default=None, init=False)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body anew, exactly `size` bytes of it.

        Raises:
            BodyFault: The file has become shorter.
        """
        if self._open is None:
            for start in range(0, self.size, _CHUNK_BYTES):
                yield (self.content or b"")[start : start + _CHUNK_BYTES]
            return
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
                    raise BodyFault(
                        f"The file ended {left} bytes early: it was changed while it was read. Put it again.",
                        is_retryable=False,
                    )
                left -= len(chunk)
                if not left:  # before the last chunk: nobody need ask for one more
                    self.md5 = digest.digest()
                yield chunk


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

    size, content = await anyio.to_thread.run_sync(look)
    return KnownBody(size, None, opened) if content is None else KnownBody(len(content), content)


def _from_file(file: _SeekableFile) -> KnownBody | None:
    if not file.seekable():
        return None
    start = file.tell()
    size = max(0, file.seek(0, os.SEEK_END) - start)
    file.seek(start)
    if size <= _SMALL_BYTES:
        content = bytearray()
        # One read may give less than it was asked for, long before the end.
        while chunk := _checked(file.read(size - len(content))):
            content += chunk
        return KnownBody(len(content), bytes(content))

    @asynccontextmanager
    async def rewound() -> AsyncGenerator[_File, None]:
        await anyio.to_thread.run_sync(file.seek, start)
        yield file

    return KnownBody(size, None, rewound)


async def pieces(body: PutBody | KnownBody, size: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces of exactly ``size`` bytes, the last one shorter; one empty piece for none."""
    buffer = bytearray()
    is_empty = True
    async with aclosing(_chunks(body)) as chunks:
        async for chunk in chunks:
            buffer += _checked(chunk)
            while len(buffer) >= size:
                is_empty = False
                yield bytes(memoryview(buffer)[:size])
                del buffer[:size]
    if buffer or is_empty:
        yield bytes(buffer)


async def _chunks(body: PutBody | KnownBody) -> AsyncGenerator[bytes, None]:
    if isinstance(body, KnownBody):
        async with aclosing(body.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
    elif isinstance(body, AsyncIterable):
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


async def md5_of(content: bytes) -> bytes:
    """The MD5, in a thread where it would hold up the loop."""
    if len(content) <= _SMALL_BYTES:
        return hashlib.md5(content, usedforsecurity=False).digest()
    return await anyio.to_thread.run_sync(lambda: hashlib.md5(content, usedforsecurity=False).digest())
