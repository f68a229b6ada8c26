"""The operations of `R2Client` that read objects: what is read is what was stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from prewarmkit.errors import NotFound, R2Error
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.headers import ByteRange
from prewarmkit.r2.operations import Operations
from prewarmkit.r2.reader import ObjectReader, check_whole, expected_bytes, headers_of, info_of
from prewarmkit.r2.requests import Draft

__all__ = ["Reading"]


class Reading(Operations):
    """See the module."""

    def open(
        self,
        key: str,
        *,
        range: ByteRange | None = None,  # noqa: A002 - HTTP's own name for it
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> AbstractAsyncContextManager[ObjectReader]:
        """Open an object for one streaming read; leaving the block early frees the connection.

        Args:
            key: The object's key.
            range: ``(first, last)`` inclusive, ``last=None``: to the end; ``(None, n)``: the last n bytes.
            if_match: Only if the object still has this ETag.
            if_none_match: Only if it has another one.

        Raises:
            NotFound: There is no such object, or no such bucket; ``code`` says which.
            PreconditionFailed: A condition did not hold.
            BodyFault: While reading: the body ended early, or is not the range that was asked for.
        """
        # Built here and not on entering: what cannot be asked for is refused at the call.
        draft = self._bucket.get(key, byte_range=range, if_match=if_match, if_none_match=if_none_match)
        return self._open(key, range, draft)

    @asynccontextmanager
    async def _open(
        self, key: str, byte_range: ByteRange | None, draft: Draft
    ) -> AsyncGenerator[ObjectReader, None]:
        async with self._link.sender.stream(draft) as (response, attempts):
            self._has_seen_bucket = True
            info, length = expected_bytes(key, response.status, headers_of(response), byte_range)
            yield ObjectReader(info, response, length=length, attempts=attempts)

    async def get(
        self,
        key: str,
        *,
        range: ByteRange | None = None,  # noqa: A002 - HTTP's own name for it
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> bytes:
        """An object's bytes, in memory; see `open`."""
        draft = self._bucket.get(key, byte_range=range, if_match=if_match, if_none_match=if_none_match)
        answer = await self._link.sender.fetch(draft, max_bytes=None)
        self._has_seen_bucket = True
        check_whole(key, answer.status, answer.headers, range, answer.body)
        return answer.body

    async def head(self, key: str) -> ObjectInfo:
        """An object's facts without its bytes.

        Raises:
            NotFound: There is no such object, or no such bucket; ``code`` says which.
        """
        try:
            answer = await self._link.sender.fetch(self._bucket.get(key, method="HEAD"))
        except NotFound as error:
            raise await self._what_is_missing(error) from None
        self._has_seen_bucket = True
        return info_of(key, answer.headers)

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
