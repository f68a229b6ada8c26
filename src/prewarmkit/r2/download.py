"""One object into one file: ranges in parallel, all of one ETag.

Owns which bytes are asked for, and that they are all of one object. What becomes of the file
is `partial`'s, and how a broken body goes on is `resume`'s affair.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from http import HTTPStatus
from typing import Protocol

import anyio
from anyio.from_thread import check_cancelled
from anyio.to_thread import run_sync
from attrs import frozen

from prewarmkit.errors import InvalidRequest, NotFound, PreconditionFailed
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.facts import Facts, changed, wrong_md5
from prewarmkit.r2.headers import ByteRange
from prewarmkit.r2.partial import PartialFile
from prewarmkit.r2.reader import ObjectReader

__all__ = ["Download"]

_WRITE_BYTES = 256 * 1024
_MD5_UP_TO_BYTES = 64 * 1024 * 1024  # reading that much again, from memory, takes about 0.1 s of a thread

_NO_SUCH_RANGE = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


class _Open(Protocol):
    def __call__(
        self,
        key: str,
        *,
        range: ByteRange | None = None,  # noqa: A002 - HTTP's own name for it
        if_match: str | None = None,
    ) -> AbstractAsyncContextManager[ObjectReader]: ...


@frozen
class _Plan:
    """What is fetched.

    Attributes:
        facts: Of the object that all parts must be of.
        part_size: Bytes of a part; all, where there is one only.
        first: An open body that is the first part; ``None``: it is asked for like the others.
    """

    facts: Facts
    part_size: int
    first: ObjectReader | None

    def range_of(self, index: int) -> tuple[int, int]:
        """First and last byte of a part, both inclusive."""
        first = index * self.part_size
        return first, min(first + self.part_size, self.facts.info.size) - 1


class Download:
    """One download.

    Args:
        key: The object's key.
        address: What else tells the object from others: its URL.
        open_: `R2Client.open`.
        look: The object's facts without its bytes.
        concurrency: Ranges at once.
        part_size: Bytes of a range.

    Raises:
        ValueError: ``concurrency`` or ``part_size`` is under 1.
    """

    def __init__(
        self,
        key: str,
        address: str,
        *,
        open_: _Open,
        look: Callable[[str], Awaitable[Facts]],
        concurrency: int,
        part_size: int,
    ) -> None:
        for name, number in (("concurrency", concurrency), ("part_size", part_size)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number!r}.")
        self._key = key
        self._address = address
        self._open = open_
        self._look = look
        self._concurrency = concurrency
        self._part_size = part_size
        self._failure: Exception | None = None

    async def run(self, path: str | os.PathLike[str], *, resume: bool) -> ObjectInfo:
        """See `R2Client.download`."""
        partial = await run_sync(lambda: PartialFile.open(path, resume=resume))
        try:
            facts = await self._fill(partial)
            await run_sync(partial.publish)
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(partial.close)
        return facts.info

    async def _fill(self, partial: PartialFile) -> Facts:
        async with AsyncExitStack() as stack:
            plan = await self._plan(partial, stack)
            await self._fetch(partial, plan)
        facts = plan.facts
        is_in_parts = plan.part_size < facts.info.size  # what came in one body was held to it on its way
        if is_in_parts and facts.md5 is not None and facts.info.size <= _MD5_UP_TO_BYTES:
            found = await run_sync(partial.md5)
            if found != facts.md5:
                partial.spoil()
                raise wrong_md5(facts, found, status=None, headers={})
        return facts

    async def _plan(self, partial: PartialFile, stack: AsyncExitStack) -> _Plan:
        if partial.is_begun:
            facts = await self._look(self._key)
            if facts.etag is not None:
                return _Plan(facts, self._part_size, None)
        first = await self._first(stack)
        is_whole = first.length == first.info.size
        return _Plan(first.facts, max(1, first.length) if is_whole else self._part_size, first)

    async def _first(self, stack: AsyncExitStack) -> ObjectReader:
        """The first part, or the whole body where parts of it could not be known to be one object's."""
        try:
            reader = await stack.enter_async_context(self._open(self._key, range=(0, self._part_size - 1)))
        except InvalidRequest as error:
            if error.status != _NO_SUCH_RANGE:
                raise
            # An empty object has no first byte.
        else:
            if reader.facts.etag is not None or reader.length == reader.info.size:
                return reader
            await stack.aclose()
        return await stack.enter_async_context(self._open(self._key))

    async def _fetch(self, partial: PartialFile, plan: _Plan) -> None:
        size = plan.facts.info.size
        seal = None if plan.part_size >= size else self._seal(plan)
        begin = functools.partial(
            partial.begin, seal, size=size, part_size=plan.part_size, check=check_cancelled
        )
        done = await run_sync(begin)
        count = max(1, -(-size // plan.part_size))
        missing = [index for index in range(count) if index not in done]
        left = iter(missing)
        if min(self._concurrency, len(missing)) <= 1:
            await self._work(partial, plan, left)
            return
        async with anyio.create_task_group() as tasks:
            for _ in range(min(self._concurrency, len(missing))):
                tasks.start_soon(self._guarded, partial, plan, left, tasks.cancel_scope)
        if self._failure is not None:
            raise self._failure

    def _seal(self, plan: _Plan) -> bytes:
        """Which object in which parts; an ETag alone may be that of equal bytes elsewhere, or of nothing."""
        said = json.dumps([self._address, plan.facts.etag, plan.facts.info.size, plan.part_size])
        return b"prewarmkit-part\x01" + hashlib.sha256(said.encode()).digest()

    async def _guarded(
        self, partial: PartialFile, plan: _Plan, left: Iterator[int], scope: anyio.CancelScope
    ) -> None:
        try:
            await self._work(partial, plan, left)
        except Exception as error:  # noqa: BLE001 - raised bare by `_fetch`, and not in a group
            self._failure = self._failure or error
            scope.cancel()

    async def _work(self, partial: PartialFile, plan: _Plan, left: Iterator[int]) -> None:
        """One part after the other, of those that nobody has taken yet."""
        for index in left:
            if index == 0 and plan.first is not None:
                await self._save(partial, index, 0, plan.first)
                continue
            first, last = plan.range_of(index)
            try:
                async with self._open(self._key, range=(first, last), if_match=plan.facts.etag) as reader:
                    self._check_same(plan.facts, reader.facts)
                    await self._save(partial, index, first, reader)
            except (PreconditionFailed, NotFound, InvalidRequest) as error:
                if isinstance(error, InvalidRequest) and error.status != _NO_SUCH_RANGE:
                    raise
                raise changed(self._key, str(error), status=error.status, headers={}) from error

    def _check_same(self, one: Facts, other: Facts) -> None:
        """That ``If-Match`` was sent proves nothing."""
        if (one.etag, one.info.size) != (other.etag, other.info.size):
            what = f"its ETag was {one.etag} and is {other.etag}"
            raise changed(self._key, what, status=None, headers={})

    @staticmethod
    async def _save(partial: PartialFile, index: int, offset: int, reader: ObjectReader) -> None:
        pieces: list[bytes] = []
        held = crc = 0
        async for chunk in reader:
            pieces.append(chunk)
            held += len(chunk)
            if held >= _WRITE_BYTES:
                crc = await run_sync(partial.write, b"".join(pieces), offset, crc)
                offset += held
                pieces.clear()
                held = 0
        if pieces:
            crc = await run_sync(partial.write, b"".join(pieces), offset, crc)
        await run_sync(partial.mark, index, crc)
