"""The body of one upload: framing round a source's bytes, counted on the way, and hashed where a digest is expected.

Owns the rule that an upload is finished only if every promised byte was there. It never
holds more than the chunk in hand, and knows nothing of HTTP or of Telegram's answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from prewarmkit.errors import SourceChanged
from prewarmkit.sources.base import MediaReader
from prewarmkit.targets.base import source_failures
from prewarmkit.targets.telegram.multipart import Framing

__all__ = ["UploadBody"]

_JOINED_BYTES = 128 * 1024


class UploadBody:
    """An async iterator of the request's bytes, readable once.

    A plain object and no generator: whoever stops reading it half-way leaves nothing suspended.

    Attributes:
        sent: Bytes of the file handed over so far.
        failure: Why the source could not be read on. A transport may wrap or hide what it is
            raised from here, so whoever sends looks at this first.
        tail_sent: Whether the last byte was handed over: before that no server can have
            taken the upload, after it one may have.
    """

    def __init__(
        self,
        framing: Framing,
        reader: MediaReader,
        *,
        key: str,
        size: int,
        sha256: str | None = None,
    ) -> None:
        self.sent = 0
        self.failure: Exception | None = None
        self.tail_sent = False
        self._framing = framing
        self._reader = reader
        self._key = key
        self._size = size
        self._expected = sha256.lower() if sha256 is not None else None
        # A digest that nothing is compared with would be an eighth of what a medium costs.
        self._digest: Any = None if sha256 is None else hashlib.sha256()
        self._is_begun = self._is_whole = False
        self._pieces: list[bytes] = []
        self._chunks: AsyncIterator[bytes] | None = None

    @property
    def content_length(self) -> int:
        """Bytes in the whole body."""
        return self._framing.content_length(self._size)

    @property
    def sha256(self) -> str | None:
        """Hex digest of the file's bytes handed over so far; ``None``: none is expected."""
        return None if self._digest is None else str(self._digest.hexdigest())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.failure is not None:
            raise self.failure
        if not self._pieces:
            if self.tail_sent:
                raise StopAsyncIteration
            try:
                if self._chunks is None:
                    self._chunks = aiter(self._reader)
                self._pieces = await self._next_pieces(self._chunks)
            except Exception as error:
                self.failure = error
                raise
        piece = self._pieces.pop(0)
        self.tail_sent = self._is_whole and not self._pieces
        return piece

    async def aclose(self) -> None:
        """Let go of the source's iterator, read to its end or not."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    async def _next_pieces(self, chunks: AsyncIterator[bytes]) -> list[bytes]:
        """The next chunk, the first with the head, the last with the tail, once the source has said that nothing follows."""
        chunk = await self._next_chunk(chunks) or b""
        self._take(chunk)
        pieces = [chunk] if self._is_begun else [self._framing.head, chunk]
        self._is_begun = True
        if not chunk or self.sent == self._size:
            if chunk and (more := await self._next_chunk(chunks)) is not None:
                self._take(more)
            self._check_whole()
            self._is_whole = True
            pieces.append(self._framing.tail)
        # To send a piece by itself costs more than to copy a small one.
        return [b"".join(pieces)] if len(chunk) <= _JOINED_BYTES else pieces

    def _take(self, chunk: bytes) -> None:
        self._check_room(chunk)
        if self._digest is not None:
            self._digest.update(chunk)
        self.sent += len(chunk)

    async def _next_chunk(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        with source_failures(self._key):
            async for chunk in chunks:
                if chunk:
                    return chunk
        return None

    def _check_room(self, chunk: bytes) -> None:
        if self.sent + len(chunk) > self._size:
            raise SourceChanged(
                f"{self._key!r} gave more than the {self._size} bytes it was said to have: "
                "it changed while it was read."
            )

    def _check_whole(self) -> None:
        if self.sent != self._size:
            raise SourceChanged(
                f"{self._key!r} ended after {self.sent} of {self._size} bytes: "
                "the upload was broken off, nothing was kept."
            )
        if self._expected is not None and self._expected != self.sha256:
            raise SourceChanged(
                f"{self._key!r} has the SHA-256 {self.sha256}, not the {self._expected} it was queued with: "
                "queue it again with the digest it has now."
            )
