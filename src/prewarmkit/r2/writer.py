"""Writing one object: in one request where that is possible, in parts where it is not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from attrs import frozen

from prewarmkit.errors import BodyFault, NotFound, PreconditionFailed
from prewarmkit.r2.bodies import KnownBody, PutBody, known_body, md5_of, pieces
from prewarmkit.r2.multipart import MultipartUpload, part_size_for
from prewarmkit.r2.requests import Bucket
from prewarmkit.r2.responses import plain_etag, plain_md5
from prewarmkit.r2.sender import Sender

__all__ = ["Writer"]

_ONE_REQUEST_BYTES = 64 * 1024 * 1024
Written = tuple[str | None, int, Mapping[str, str]]
"""ETag, size, and the headers of the answer."""


@frozen
class Writer:
    """One ``put``: its target and its conditions."""

    sender: Sender
    bucket: Bucket
    key: str
    headers: tuple[tuple[str, str], ...]
    if_match: str | None
    if_none_match: str | None
    part_size: int | None

    async def write(self, body: PutBody) -> Written:
        """Write ``body``, and check what the service says that it got."""
        known = await known_body(body)
        if known is None:
            return await self._unknown(body)
        if known.size > (self.part_size or _ONE_REQUEST_BYTES):
            async with aclosing(pieces(known, part_size_for(known.size, self.part_size))) as parts:
                return await self._in_parts(parts)
        if known.content is not None:
            return await self._content(known.content)
        return await self._file(known)

    async def _unknown(self, body: PutBody) -> Written:
        size = part_size_for(None, self.part_size)
        async with aclosing(pieces(body, size)) as parts:
            first = await anext(parts)
            if len(first) < size:  # that is all there is
                return await self._content(first)
            async with aclosing(_joined(first, parts)) as all_parts:
                return await self._in_parts(all_parts)

    async def _content(self, content: bytes) -> Written:
        md5 = await md5_of(content)
        draft = self.bucket.put(
            self.key,
            content,
            content_length=len(content),
            headers=self.headers,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
            md5=md5,
        )
        try:
            answer = await self.sender.fetch(draft)
        except PreconditionFailed as error:
            found = None if error.attempts == 1 else await self._written_by_us(md5)
            if found is None:
                raise
            return found["etag"], len(content), found
        return self._checked(answer.headers, md5, answer.attempts), len(content), answer.headers

    async def _file(self, known: KnownBody) -> Written:
        draft = self.bucket.put(
            self.key,
            known.chunks,
            content_length=known.size,
            headers=self.headers,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
        )
        try:
            answer = await self.sender.fetch(draft)
        except PreconditionFailed as error:
            found = None
            if error.attempts > 1 and known.md5 is not None:
                found = await self._written_by_us(known.md5)
            if found is None:
                raise
            return found["etag"], known.size, found
        return self._checked(answer.headers, known.md5, answer.attempts), known.size, answer.headers

    async def _in_parts(self, parts: AsyncIterator[bytes]) -> Written:
        upload = MultipartUpload(
            self.sender, self.bucket, self.key, if_match=self.if_match, if_none_match=self.if_none_match
        )
        etag, headers = await upload.run(parts, self.headers)
        return etag, upload.size, headers

    def _checked(self, headers: Mapping[str, str], md5: bytes | None, attempts: int) -> str | None:
        """The ETag; where it is an MD5 it must be that of what was sent."""
        found = plain_md5(headers)
        if found is not None and md5 is not None and found != md5.hex():
            raise BodyFault(
                f"{self.key!r} was stored with the MD5 {found}, but {md5.hex()} was sent: put it again.",
                attempts=attempts,
            )
        return plain_etag(headers.get("etag"))

    async def _written_by_us(self, md5: bytes) -> dict[str, str] | None:
        """A condition that failed upon a retry may have failed for what the lost attempt wrote."""
        try:
            head = await self.sender.fetch(self.bucket.get(self.key, method="HEAD"))
        except NotFound:
            return None
        if plain_md5(head.headers) != md5.hex():
            return None
        return {**head.headers, "etag": md5.hex()}


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    async for part in rest:
        yield part
