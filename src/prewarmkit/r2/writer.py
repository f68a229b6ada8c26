"""Writing one object: in one request where that is possible, in parts where it is not.

Parts go side by side, at most `Writer.concurrency` at a time. A body that can be read at any
place is read by those who send it; a stream is read by one, the caller's task, that hands over
full parts. So at most ``concurrency + 1`` parts are in memory.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from functools import partial

from attrs import frozen

from prewarmkit.errors import BodyFault, InvalidRequest, NotFound, PreconditionFailed
from prewarmkit.r2.bodies import Content, KnownBody, PutBody, known_body, md5_of, off_loop, pieces
from prewarmkit.r2.multipart import MultipartUpload, check_part_size, composed_etag, part_size_for
from prewarmkit.r2.parallel import parallel
from prewarmkit.r2.requests import Bucket, Draft
from prewarmkit.r2.responses import ListedPart, plain_etag, plain_md5
from prewarmkit.r2.sender import Sender
from prewarmkit.r2.tokens import UploadToken, digest_of

__all__ = ["OnUpload", "Writer"]

_logger = logging.getLogger("prewarmkit.r2")
_ONE_REQUEST_BYTES = 64 * 1024 * 1024
Written = tuple[str | None, int, Mapping[str, str]]
"""ETag, size, and the headers of the answer."""
OnUpload = Callable[[UploadToken], Awaitable[object] | object]
"""Gets the token of an upload in parts as soon as there is one; a plain function or an async one."""


@frozen
class _Parts:
    """A body of known length as parts."""

    body: KnownBody
    part_size: int

    @property
    def count(self) -> int:
        return max(1, -(-self.body.size // self.part_size))

    def size(self, number: int) -> int:
        return min(self.part_size, self.body.size - (number - 1) * self.part_size)

    async def read(self, number: int) -> Content:
        return await self.body.read_at((number - 1) * self.part_size, self.size(number))

    async def md5(self, number: int) -> str:
        return (await md5_of(await self.read(number))).hex()


@frozen
class Writer:
    """One ``put``: its target, its conditions, its way."""

    sender: Sender
    bucket: Bucket
    key: str
    headers: tuple[tuple[str, str], ...]
    if_match: str | None
    if_none_match: str | None
    part_size: int | None
    concurrency: int
    on_upload: OnUpload | None = None
    resume: UploadToken | None = None

    async def write(self, body: PutBody) -> Written:
        """Write ``body``, and check what the service says that it got."""
        known = await known_body(body)
        if known is None:
            if self.on_upload is not None or self.resume is not None:
                raise TypeError(
                    "on_upload and resume need a body that can be read again: bytes, a path or a seekable file, "
                    f"not {type(body).__name__}."
                )
            return await self._unknown(body)
        if self.resume is not None or known.size > (self.part_size or _ONE_REQUEST_BYTES):
            return await self._in_parts(known)
        if known.content is not None:
            return await self._content(known.content)
        return await self._file(known)

    # ── in one request ───────────────────────────────────────────────────────

    async def _content(self, content: bytes) -> Written:
        md5, draft = await off_loop(len(content), partial(self._drafted, content))
        return await self._in_one(draft, KnownBody(len(content), content, md5=md5))

    def _drafted(self, content: bytes) -> tuple[bytes, Draft]:
        """The request, which holds one hash of the body or two, and its MD5."""
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        draft = self.bucket.put(
            self.key,
            content,
            content_length=len(content),
            headers=self.headers,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
            md5=md5,
        )
        return md5, draft

    async def _file(self, known: KnownBody) -> Written:
        draft = self.bucket.put(
            self.key,
            known.chunks,
            content_length=known.size,
            headers=self.headers,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
        )
        return await self._in_one(draft, known)

    async def _in_one(self, draft: Draft, known: KnownBody) -> Written:
        try:
            answer = await self.sender.fetch(draft)
        except PreconditionFailed as error:
            # A condition that failed upon a retry may have failed for what the lost attempt wrote.
            found = None if error.attempts == 1 else await self._found((await known.digest()).hex())
            if found is None:
                raise
            return plain_etag(found["etag"]), known.size, found
        md5, stored = known.md5, plain_md5(answer.headers)
        if stored is not None and md5 is not None and stored != md5.hex():
            raise BodyFault(
                f"{self.key!r} was stored with the MD5 {stored}, but {md5.hex()} was sent: put it again.",
                attempts=answer.attempts,
            )
        return plain_etag(answer.headers.get("etag")), known.size, answer.headers

    async def _found(self, md5: str) -> Mapping[str, str] | None:
        """The object's headers, if it has this MD5."""
        try:
            head = await self.sender.fetch(self.bucket.get(self.key, method="HEAD"))
        except NotFound:
            return None
        return head.headers if plain_md5(head.headers) == md5 else None

    # ── in parts ─────────────────────────────────────────────────────────────

    async def _unknown(self, body: PutBody) -> Written:
        part_size = part_size_for(None, self.part_size)
        sent = 0
        async with self._upload() as upload:
            # The body is read inside this one block of tasks, from its first byte to its last and by this one task:
            # a generator may have blocks of its own open, and those must be left as they were entered.
            async with parallel(self.concurrency) as start, aclosing(pieces(body, part_size)) as parts:
                number = 0
                async for part in parts:
                    number += 1
                    if number == 1 and len(part) < part_size:  # that is all there is
                        return await self._content(bytes(part))
                    if number == 1:
                        await upload.begin()
                    sent += len(part)
                    await start(partial(upload.send, number, part))
                    del part  # or it would stay until the next one is full
            etag, headers = await upload.complete()
        return etag, sent, headers

    async def _in_parts(self, known: KnownBody) -> Written:
        token = self.resume
        given = self.part_size if token is None else self._fitting(token, known)
        parts = _Parts(known, part_size_for(known.size, given))
        async with self._upload() as upload:
            missing: Iterable[int] = range(1, parts.count + 1)
            if token is None:
                await self._begin(upload, parts)
            else:
                upload.upload_id, upload.keep = token.upload_id, True
                try:
                    standing = await upload.standing()
                except NotFound as error:
                    if error.code != "NoSuchUpload":
                        raise
                    upload.upload_id, upload.keep = None, False
                    if (done := await self._done(upload, parts)) is not None:
                        return done
                    _logger.info("The upload of %r is gone: it begins anew.", self.key)
                    await self._begin(upload, parts)
                else:
                    missing = await self._verified(upload, parts, standing)
            await self._send(upload, parts, missing)
            etag, headers = await self._complete(upload, parts)
        return etag, known.size, headers

    def _upload(self) -> MultipartUpload:
        return MultipartUpload(
            self.sender,
            self.bucket,
            self.key,
            self.headers,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
        )

    async def _begin(self, upload: MultipartUpload, parts: _Parts) -> None:
        await upload.begin()
        if self.on_upload is None or upload.upload_id is None:
            return
        token = UploadToken(
            bucket=self.bucket.name,
            key=self.key,
            upload_id=upload.upload_id,
            size=parts.body.size,
            part_size=parts.part_size,
            headers_digest=digest_of(self.headers),
        )
        answered = self.on_upload(token)
        if inspect.isawaitable(answered):
            await answered
        upload.keep = True  # and not before: a token that could not be kept finds nothing again

    async def _send(self, upload: MultipartUpload, parts: _Parts, numbers: Iterable[int]) -> None:
        async def send(number: int) -> None:
            await upload.send(number, await parts.read(number))

        async with parallel(self.concurrency) as start:
            for number in numbers:
                await start(partial(send, number))

    async def _complete(self, upload: MultipartUpload, parts: _Parts) -> tuple[str | None, Mapping[str, str]]:
        try:
            return await upload.complete()
        except InvalidRequest as error:
            # An attempt that was given up may have gone on, failed late, and taken its good successor with it.
            lost = await upload.lost() if error.code == "InvalidPart" else ()
            if not lost:
                raise
        await self._send(upload, parts, lost)
        return await upload.complete()

    # ── going on with an earlier upload ──────────────────────────────────────

    def _fitting(self, token: UploadToken, known: KnownBody) -> int:
        """The token's part size, if the token is for this call."""
        if (token.bucket, token.key) != (self.bucket.name, self.key):
            raise ValueError(
                f"resume is a token for {token.key!r} in the bucket {token.bucket!r}, "
                f"not for {self.key!r} in {self.bucket.name!r}."
            )
        if self.part_size not in {None, token.part_size}:
            raise ValueError(f"part_size is {self.part_size}, but the upload has parts of {token.part_size}.")
        if token.headers_digest != digest_of(self.headers):
            raise ValueError("content_type and metadata must be those that the upload began with.")
        if token.size != known.size:
            raise self._another(f"it has {known.size} bytes, not {token.size}")
        return check_part_size(token.part_size)

    async def _verified(
        self, upload: MultipartUpload, parts: _Parts, standing: Mapping[int, ListedPart]
    ) -> list[int]:
        """Take over the parts that stand, each held to the body at hand; gives the numbers of the others."""
        if any(number > parts.count for number in standing):
            raise self._another("the upload has more parts")

        async def verify(number: int) -> None:
            listed = standing[number]
            if listed.size != parts.size(number) or listed.etag != await parts.md5(number):
                raise self._another(f"its part {number} is not the one that stands")
            upload.confirm(number, listed.etag)

        async with parallel(self.concurrency) as start:
            for number in standing:
                await start(partial(verify, number))
        return [number for number in range(1, parts.count + 1) if number not in standing]

    async def _done(self, upload: MultipartUpload, parts: _Parts) -> Written | None:
        """What the upload became, if it is gone because it was completed and only the answer was lost."""
        head = await upload.head() or {}
        etag = plain_etag(head.get("etag"))
        if etag is None or not etag.endswith(f"-{parts.count}"):
            return None
        md5s = [""] * parts.count

        async def look(number: int) -> None:
            md5s[number - 1] = await parts.md5(number)

        async with parallel(self.concurrency) as start:
            for number in range(1, parts.count + 1):
                await start(partial(look, number))
        return (etag, parts.body.size, head) if etag == composed_etag(md5s) else None

    def _another(self, why: str) -> BodyFault:
        return BodyFault(
            f"The body is not the one that the upload of {self.key!r} began with: {why}. "
            "Give that one, or put without resume, and abort_upload the token.",
            is_retryable=False,
        )
