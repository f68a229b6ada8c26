"""The operations of `R2Client` that read objects: what is read is what was stored."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import anyio

from prewarmkit.errors import BodyFault, NotFound, R2Error
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.facts import Facts, expected_bytes, facts_of, headers_of
from prewarmkit.r2.headers import ByteRange
from prewarmkit.r2.operations import Operations
from prewarmkit.r2.reader import ObjectReader
from prewarmkit.r2.requests import Draft
from prewarmkit.r2.resume import Holder, InPlace, Rest, keeping

if TYPE_CHECKING:
    from prewarmkit.r2.sender import Calls

__all__ = ["Reading"]

_PART_BYTES = 8 * 1024 * 1024


class Reading(Operations):
    """See the module."""

    def open(
        self,
        key: str,
        *,
        range: ByteRange | None = None,  # noqa: A002 - HTTP's own name for it
        if_match: str | None = None,
        if_none_match: str | None = None,
        verify: bool | None = None,
    ) -> AbstractAsyncContextManager[ObjectReader]:
        """Open an object for one streaming read; leaving the block early frees the connection.

        A body that is cut short, reset or stalled goes on from where it was, as `ObjectReader` says.

        Args:
            key: The object's key.
            range: ``(first, last)`` inclusive, ``last=None``: to the end; ``(None, n)``: the last n bytes.
            if_match: Only if the object still has this ETag.
            if_none_match: Only if it has another one.
            verify: Compare the MD5 of a whole object with its ETag, where that is one: not under a range, and not
                for an upload in parts, a key of the customer's or a ``Content-Encoding``. About 1.5 ms a MiB, in a thread
                if the object is over 1 MiB. ``None``: as the client was told.

        Raises:
            NotFound: There is no such object, or no such bucket; ``code`` says which.
            PreconditionFailed: A condition did not hold.
            BodyFault: On entering: it is not the range that was asked for. While reading: the body broke and
                could not go on, or the object changed meanwhile, or its bytes are not what its ETag says.
        """
        # Built here and not on entering: what cannot be asked for is refused at the call.
        draft = self._bucket.get(key, byte_range=range, if_match=if_match, if_none_match=if_none_match)
        return self._open(key, range, draft, verify=self._verifies if verify is None else verify)

    @asynccontextmanager
    async def _open(
        self, key: str, byte_range: ByteRange | None, draft: Draft, *, verify: bool
    ) -> AsyncGenerator[ObjectReader, None]:
        async with keeping(self._link.sender) as keeper:
            yield await self._reader(keeper, key, byte_range, draft, verify=verify)

    async def _reader(
        self, holder: Holder, key: str, byte_range: ByteRange | None, draft: Draft, *, verify: bool
    ) -> ObjectReader:
        def rest(first: int, last: int, etag: str) -> Draft:
            return self._bucket.get(key, byte_range=(first, last), if_match=etag)

        answer = await holder.ask(draft)
        self._has_seen_bucket = True
        response = answer.response
        facts, first, length = expected_bytes(key, response.status, headers_of(response), byte_range)
        left = Rest(facts, answer, holder, sender=self._link.sender, draft=rest, first=first, length=length)
        return ObjectReader(
            facts, response, left, length=length, hasher=self._link.hasher if verify else None
        )

    async def get(
        self,
        key: str,
        *,
        range: ByteRange | None = None,  # noqa: A002 - HTTP's own name for it
        if_match: str | None = None,
        if_none_match: str | None = None,
        verify: bool | None = None,
    ) -> bytes:
        """An object's bytes, in memory; as for `open`, and in ``timeouts.operation`` altogether.

        Where a broken body cannot go on, since the object changed or has no strong ETag, it is read again from its
        start, as often as the `RetryPolicy` allows; so it is when the bytes were not what the ETag says.
        """
        draft = self._bucket.get(key, byte_range=range, if_match=if_match, if_none_match=if_none_match)
        sender = self._link.sender
        calls = sender.calls()
        verify = self._verifies if verify is None else verify
        if calls.ends_at == math.inf:
            return await self._whole(key, range, draft, calls, verify=verify)
        with anyio.CancelScope(deadline=calls.ends_at):
            return await self._whole(key, range, draft, calls, verify=verify)
        raise sender.too_long(calls)

    async def _whole(
        self, key: str, byte_range: ByteRange | None, draft: Draft, calls: Calls, *, verify: bool
    ) -> bytes:
        sender = self._link.sender
        for turn in count(1):
            async with InPlace(sender, calls) as holder:
                reader = await self._reader(holder, key, byte_range, draft, verify=verify)
                try:
                    return await reader.read()
                except BodyFault as fault:
                    delay = sender.retry.delay_seconds(turn) if reader.is_void else None
                    if delay is None or not sender.may_go_on():
                        fault.attempts = calls.attempts
                        raise
            await sender.retry.sleep(delay)
        raise AssertionError  # the last turn has returned or raised

    async def download(
        self,
        key: str,
        path: str | os.PathLike[str],
        *,
        concurrency: int = 4,
        part_size: int = _PART_BYTES,
        resume: bool = True,
    ) -> ObjectInfo:
        """Write an object to a file, which is there whole or not at all.

        Ranges are read in parallel, all of one ETag, into a hidden file beside the target, which takes the
        target's name once every byte is there and on the disk. Memory: under 1 MiB for each of them at once.

        A download that ends early, by a fault, a cancellation or ``kill -9``, leaves the hidden file
        ``.<name>.prewarmkit-part`` once a part of it is whole. The same call again fetches what is missing, if
        the object still has the same ETag, and after it has checked what is there. Delete the file to give up.

        Two downloads to one path do not meet: the later one takes a file of its own, which is not resumed.
        The file gets the permissions of the one it replaces, else those of any new file (the umask holds). A
        symbolic link is followed. An object of up to 64 MiB whose ETag is its MD5 is checked against it.

        Args:
            key: The object's key.
            path: The file; its directory must be there.
            concurrency: Ranges at once, each on a connection.
            part_size: Bytes of a range; what is up to that size takes one request.
            resume: ``False``: neither use nor leave a hidden file of an earlier try.

        Raises:
            NotFound: There is no such object, or no such bucket; ``code`` says which.
            BodyFault: The object changed meanwhile, or its bytes are not what its ETag says.
            OSError: The file cannot be written: no directory, no permission, a full disk.
            ValueError: ``concurrency`` or ``part_size`` is under 1.
        """
        from prewarmkit.r2.download import Download  # most clients stream: a start should be short

        download = Download(
            key,
            self._bucket.url(key),
            open_=self.open,
            look=self._look,
            concurrency=concurrency,
            part_size=part_size,
        )
        return await download.run(path, resume=resume)

    async def head(self, key: str) -> ObjectInfo:
        """An object's facts without its bytes.

        Raises:
            NotFound: There is no such object, or no such bucket; ``code`` says which.
        """
        return (await self._look(key)).info

    async def _look(self, key: str) -> Facts:
        try:
            answer = await self._link.sender.fetch(self._bucket.get(key, method="HEAD"))
        except NotFound as error:
            raise await self._what_is_missing(error) from None
        self._has_seen_bucket = True
        return facts_of(key, answer.headers)

    async def _what_is_missing(self, error: NotFound) -> NotFound:
        """HEAD gives no reason: ask for the bucket, unless it is known to be there."""
        if self._has_seen_bucket:
            return error
        try:
            await self._link.sender.fetch(self._bucket.head_bucket())
        except NotFound as missing:
            return missing
        except R2Error:
            return error  # these credentials may not look at the bucket itself
        self._has_seen_bucket = True
        return error
