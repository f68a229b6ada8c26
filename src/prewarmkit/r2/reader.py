"""An open object: its facts, and its bytes, counted and summed. Knows nothing of how a broken body goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel

from prewarmkit.errors import R2Error, TransportError
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.digest import Hasher
from prewarmkit.r2.facts import Facts, headers_of
from prewarmkit.r2.resume import Rest
from prewarmkit.transports.base import Response

__all__ = ["ObjectReader", "headers_of"]


class ObjectReader:
    """What `R2Client.open` gives: readable once, inside its block.

    A body that breaks goes on from where it was, if the object has a strong ETag and is still the same; else, and
    when the `RetryPolicy` has enough, it is a `BodyFault`. It never just ends, and is never of two objects. A read
    that is cancelled, by a time limit say, loses no byte: the next one goes on.

    A whole object whose ETag is its MD5 is held to it: if it does not match, the read ends with a `BodyFault`
    after the last byte, and not as one that is whole.

    Attributes:
        facts: What the first answer told.
        length: Bytes that this reader gives.
        resumed: How often the body broke and went on.
    """

    def __init__(
        self, facts: Facts, response: Response, rest: Rest, *, length: int, hasher: Hasher | None
    ) -> None:
        self.facts = facts
        self.length = length
        self.resumed = 0
        self._body = response.body
        self._rest = rest
        self._given = 0
        self._broken: str | None = None
        self._failure: R2Error | None = None
        self._is_done = False
        is_checked = hasher is not None and facts.md5 is not None and length == facts.info.size
        self._sum = hasher.md5(length) if hasher is not None and is_checked else None

    @property
    def info(self) -> ObjectInfo:
        """The object's facts; ``size`` is that of the whole object, also under a range."""
        return self.facts.info

    @property
    def is_void(self) -> bool:
        """After a `BodyFault`: what was read is of no use, and a read from the start may be."""
        return self._rest.is_void

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes as they come, raw."""
        return self

    async def __anext__(self) -> bytes:
        if self._failure is not None:
            raise self._failure
        try:
            chunk = await self._next()
        except R2Error as error:
            self._failure = error
            await self._rest.drop()
            raise
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        """All bytes that are left, in memory."""
        return b"".join([chunk async for chunk in self])

    async def _next(self) -> bytes:
        """The next bytes; none at the end."""
        while not self._is_done:
            if self._broken is not None:
                self._body = (await self._rest.after(self._given, self._broken)).body
                self._broken = None
                self.resumed += 1
            if self._sum is not None:
                await self._sum.catch_up()
            try:
                chunk = await self._chunk()
            except StopAsyncIteration:
                await self._end("the connection ended early.")
            except TransportError as error:
                await self._end(str(error))
            else:
                self._given += len(chunk)
                if self._given > self.length:
                    raise self._rest.fault(self._given, "more came than was announced.")
                if chunk:
                    if self._sum is not None:
                        self._sum.add(chunk)
                    return chunk
        return b""

    async def _chunk(self) -> bytes:
        try:
            return await anext(self._body)
        except RuntimeError:
            # The answer may be gone because all of this is cancelled, and its task heard of it first.
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise

    async def _end(self, why: str) -> None:
        if self._given < self.length:
            self._broken = why
            return
        if self._sum is not None and (found := await self._sum.hexdigest()) != self.facts.md5:
            raise self._rest.wrong(found)
        self._is_done = True
        await self._rest.drop()  # the connection is for others, also while the block goes on
