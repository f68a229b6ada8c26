"""Multipart uploads as R2 wants them: parts of one size, the last one shorter, one after another.

Bounded memory: one part, and what is being cut for the next. An upload that does not get
to its end is aborted, under cancellation too, so that nothing is left to pay for.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator

import anyio
from attrs import define, field

from prewarmkit.errors import BodyFault, InvalidRequest, NotFound, R2Error
from prewarmkit.r2.bodies import md5_of
from prewarmkit.r2.requests import Bucket
from prewarmkit.r2.responses import parse_completed, parse_upload_id, plain_etag, plain_md5
from prewarmkit.r2.sender import Sender

__all__ = ["DEFAULT_PART_BYTES", "MultipartUpload", "check_part_size", "part_size_for"]

_logger = logging.getLogger("prewarmkit.r2")
_MIB = 1024 * 1024
DEFAULT_PART_BYTES = 16 * _MIB
"""Without a `part_size` of the caller's: 10,000 of them are 156 GiB."""
_MIN_PART_BYTES = 5 * _MIB
_MAX_PART_BYTES = 4995 * _MIB  # R2: 5 GiB less 5 MiB, and some room
_MAX_PARTS = 10_000
_ABORT_SECONDS = 10.0
_COMPOSED = re.compile(r"[0-9a-f]{32}-\d+")


def check_part_size(part_size: int) -> int:
    """A part size within the service's bounds.

    Raises:
        ValueError: It is not.
    """
    if not _MIN_PART_BYTES <= part_size <= _MAX_PART_BYTES:
        raise ValueError(
            f"part_size must be {_MIN_PART_BYTES} (5 MiB) to {_MAX_PART_BYTES} bytes, not {part_size!r}."
        )
    return part_size


def part_size_for(size: int | None, part_size: int | None) -> int:
    """The parts' size for a body of ``size`` bytes, which must fit into 10,000 of them.

    Raises:
        ValueError: With the given ``part_size`` it does not fit.
    """
    if part_size is not None:
        if size is not None and size > part_size * _MAX_PARTS:
            raise ValueError(f"{size} bytes do not fit into {_MAX_PARTS} parts of part_size={part_size}.")
        return part_size
    least = -(-(size or 0) // _MAX_PARTS)
    return max(DEFAULT_PART_BYTES, -(-least // _MIB) * _MIB)


@define
class MultipartUpload:
    """One upload, from its start to its end.

    Attributes:
        size: Bytes sent so far.
    """

    sender: Sender
    bucket: Bucket
    key: str
    if_match: str | None = None
    if_none_match: str | None = None
    size: int = field(default=0, init=False)
    _etags: list[str] = field(factory=list[str], init=False)
    _digests: list[bytes] = field(factory=list[bytes], init=False)

    async def run(
        self, parts: AsyncIterator[bytes], headers: tuple[tuple[str, str], ...]
    ) -> tuple[str, dict[str, str]]:
        """Upload all parts; gives the final ETag and the headers of the last answer.

        Args:
            parts: Of one size, the last one shorter.
            headers: Of the object: content type, metadata.
        """
        started = await self.sender.fetch(self.bucket.start_upload(self.key, headers))
        upload_id = parse_upload_id(started.body)
        try:
            async for part in parts:
                await self._send_part(upload_id, part)
            return await self._complete(upload_id)
        except BaseException:
            await self._abort(upload_id)
            raise

    async def _send_part(self, upload_id: str, part: bytes) -> None:
        number = len(self._etags) + 1
        if number > _MAX_PARTS:
            raise InvalidRequest(f"{self.key!r} needs over {_MAX_PARTS} parts: give a larger part_size.")
        digest = await md5_of(part)
        answer = await self.sender.fetch(self.bucket.upload_part(self.key, upload_id, number, part, digest))
        etag = plain_etag(answer.headers.get("etag"))
        if not etag:
            raise BodyFault(f"The service gave no ETag for part {number} of {self.key!r}.")
        found = plain_md5(answer.headers)
        if found is not None and found != digest.hex():
            raise BodyFault(f"Part {number} of {self.key!r} arrived with another MD5: send the object again.")
        self._etags.append(etag)
        self._digests.append(digest)
        self.size += len(part)

    async def _complete(self, upload_id: str) -> tuple[str, dict[str, str]]:
        expected = (
            f"{hashlib.md5(b''.join(self._digests), usedforsecurity=False).hexdigest()}-{len(self._digests)}"
        )
        draft = self.bucket.complete_upload(
            self.key, upload_id, self._etags, if_match=self.if_match, if_none_match=self.if_none_match
        )
        try:
            answer = await self.sender.fetch(draft)
        except NotFound as error:
            # The answer to an earlier attempt may have been lost: then the upload is gone because it is done.
            if error.code != "NoSuchUpload" or error.attempts == 1:
                raise
            head = await self.sender.fetch(self.bucket.get(self.key, method="HEAD"))
            if plain_etag(head.headers.get("etag")) != expected:
                raise error from None
            return expected, dict(head.headers)
        etag = parse_completed(answer.body)
        if etag is not None and _COMPOSED.fullmatch(etag) and etag != expected:
            raise BodyFault(
                f"{self.key!r} was put together with the ETag {etag}, not {expected}: send the object again.",
                attempts=answer.attempts,
            )
        return etag or expected, dict(answer.headers)

    async def _abort(self, upload_id: str) -> None:
        """Never in the way of the error that led here; what cannot be aborted ends by itself (R2: in 7 days)."""
        with anyio.move_on_after(_ABORT_SECONDS, shield=True):
            try:
                await self.sender.fetch(self.bucket.abort_upload(self.key, upload_id))
            except NotFound:
                return  # done, or ended already
            except R2Error as error:
                _logger.warning("The upload of %r could not be aborted: %s", self.key, error)
