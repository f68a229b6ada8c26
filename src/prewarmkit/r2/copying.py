"""Copying one object on the service: in one request, or in parts where it is too large for that.

The source is looked at first, and what is copied is held to what was seen: by a condition, or, in
parts, which know no conditions on R2, by looking again before they are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial

from attrs import evolve, frozen

from prewarmkit.errors import BodyFault, NotFound, PreconditionFailed, R2Error
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.facts import info_of
from prewarmkit.r2.faults import fault_of
from prewarmkit.r2.headers import metadata_headers
from prewarmkit.r2.multipart import MAX_PART_BYTES, MultipartUpload, part_size_for
from prewarmkit.r2.parallel import parallel
from prewarmkit.r2.requests import Bucket, Draft
from prewarmkit.r2.responses import has_plain_etags, parse_copied, parse_fields, plain_etag
from prewarmkit.r2.sender import Answer, Sender

__all__ = ["Copier"]

_PART_BYTES = 512 * 1024 * 1024
_TRIES = 3
_OK = 200
# What a copy in one request takes along by itself.
_KEPT_HEADERS = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-storage-class",
)


@frozen
class Copier:
    """One ``copy``: from where, to where, on which conditions."""

    sender: Sender
    bucket: Bucket
    key: str
    source_bucket: Bucket
    source_key: str
    source_if_match: str | None
    source_if_none_match: str | None
    if_match: str | None
    if_none_match: str | None
    concurrency: int

    async def copy(self) -> ObjectInfo:
        """Copy, and check what the service says that it made."""
        for left in reversed(range(_TRIES)):
            seen, headers = await self._look()
            if seen.size > MAX_PART_BYTES:
                return await self._in_parts(seen, headers)
            try:
                return await self._whole(seen)
            except R2Error as error:
                made = await self._made(seen) if _may_be_done(error) else None
                if made is not None:
                    return made
                if not left or not self._may_try_again(error):
                    raise
        raise AssertionError  # the last round has returned or raised

    async def _look(self) -> tuple[ObjectInfo, Mapping[str, str]]:
        draft = self.source_bucket.get(
            self.source_key,
            method="HEAD",
            if_match=self.source_if_match,
            if_none_match=self.source_if_none_match,
        )
        try:
            answer = await self.sender.fetch(draft)
        except NotFound:
            await self.sender.fetch(self.source_bucket.head_bucket())  # HEAD does not say what is missing
            raise
        return info_of(self.source_key, answer.headers), answer.headers

    async def _whole(self, seen: ObjectInfo) -> ObjectInfo:
        draft = self.bucket.copy(
            self.key,
            self.source_bucket.source(self.source_key),
            source_if_match=seen.etag,
            if_match=self.if_match,
            if_none_match=self.if_none_match,
        )
        answer, etag, modified = await self._fetch(draft)
        return self._info(seen, etag, modified, answer.headers)

    async def _made(self, seen: ObjectInfo) -> ObjectInfo | None:
        """The copy, if an attempt whose answer was lost made it; whatever made it, it is what was asked for."""
        try:
            answer = await self.sender.fetch(self.bucket.get(self.key, method="HEAD"))
            found = info_of(self.key, answer.headers)
        except R2Error:
            return None
        as_seen = evolve(seen, key=self.key, last_modified=found.last_modified, version=found.version)
        return found if found.etag is not None and found == as_seen else None

    def _may_try_again(self, error: R2Error) -> bool:
        if isinstance(error, PreconditionFailed):
            # The source has changed since it was looked at; any other condition was the caller's.
            return self.if_match is None and self.if_none_match is None
        return (
            error.is_retryable and error.status == _OK
        )  # failed late: it was answered, and so not yet repeated

    async def _in_parts(self, seen: ObjectInfo, headers: Mapping[str, str]) -> ObjectInfo:
        kept = tuple((name, headers[name]) for name in _KEPT_HEADERS if name in headers)
        size = part_size_for(seen.size, None, default=_PART_BYTES)
        async with MultipartUpload(
            self.sender,
            self.bucket,
            self.key,
            (*kept, *metadata_headers(seen.metadata)),
            if_match=self.if_match,
            if_none_match=self.if_none_match,
        ) as upload:
            await upload.begin()
            async with parallel(self.concurrency) as start:
                for number, first in enumerate(range(0, seen.size, size), start=1):
                    last = min(first + size, seen.size) - 1
                    await start(partial(self._part, upload, number, (first, last)))
            again, _ = await self._look()
            if again != seen:
                raise BodyFault(f"{self.source_key!r} was changed while it was copied: copy it again.")
            etag, answered = await upload.complete()
        return self._info(seen, etag, None, answered)

    async def _part(self, upload: MultipartUpload, number: int, byte_range: tuple[int, int]) -> None:
        assert upload.upload_id is not None
        source = self.source_bucket.source(self.source_key)
        draft = self.bucket.copy_part(self.key, upload.upload_id, number, source, byte_range)
        for left in reversed(range(_TRIES)):
            try:
                answer, etag, _ = await self._fetch(draft)
            except R2Error as error:
                if not left or not self._may_try_again(error):
                    raise
            else:
                if etag is None:
                    raise BodyFault(f"The service gave no ETag for part {number} of {self.key!r}.")
                upload.confirm(number, etag, is_md5=has_plain_etags(answer.headers))
                return

    async def _fetch(self, draft: Draft) -> tuple[Answer, str | None, datetime | None]:
        """An answer to a copy, which may say 200 first and what went wrong later."""
        answer = await self.sender.fetch(draft)
        if parse_fields(answer.body) is not None:
            raise fault_of(draft, answer.status, answer.headers, answer.body, attempts=answer.attempts)
        return answer, *parse_copied(answer.body)

    def _info(
        self, seen: ObjectInfo, etag: str | None, modified: datetime | None, headers: Mapping[str, str]
    ) -> ObjectInfo:
        return evolve(
            seen,
            key=self.key,
            etag=etag or plain_etag(headers.get("etag")),
            last_modified=modified,
            version=headers.get("x-amz-version-id"),
        )


def _may_be_done(error: R2Error) -> bool:
    """Whether an attempt before the one that failed may have made the copy."""
    return error.is_retryable or (isinstance(error, PreconditionFailed) and error.attempts > 1)
