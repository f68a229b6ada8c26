"""One multipart upload: begun, its parts sent and looked up, completed or aborted.

Owns the upload's id and which parts are known to stand; who sends which part when is the
`Writer`'s business. R2 wants parts of one size, the last one shorter. A part that is sent again
replaces the old one, and if that fails both are lost: so a part whose sending failed is looked up
first. A Complete whose condition fails takes the whole upload with it. (Cloudflare's docs,
r2/objects/multipart-objects and r2/api/s3/api.)
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from attrs import define, field

from prewarmkit.errors import BodyFault, InvalidRequest, NotFound, PreconditionFailed, R2Error
from prewarmkit.r2.bodies import Content, chunks_of, off_loop
from prewarmkit.r2.requests import Bucket, Draft
from prewarmkit.r2.responses import (
    ListedPart,
    parse_completed,
    parse_parts,
    parse_upload_id,
    plain_etag,
    plain_md5,
)
from prewarmkit.r2.sender import Sender

__all__ = ["MAX_PART_BYTES", "MultipartUpload", "check_part_size", "composed_etag", "part_size_for"]

_logger = logging.getLogger("prewarmkit.r2")
_MIB = 1024 * 1024
_DEFAULT_PART_BYTES = 16 * _MIB  # 10,000 of them are 156 GiB
_MIN_PART_BYTES = 5 * _MIB
MAX_PART_BYTES = 4995 * _MIB
"""Of a part, and of an object that is put or copied in one request: R2's 5 GiB less 5 MiB, and some room."""
_MAX_PARTS = 10_000
_LAST_WORD_SECONDS = 10.0
_COMPOSED = re.compile(r"[0-9a-f]{32}-\d+")
_MD5 = re.compile(r"[0-9a-f]{32}")


def check_part_size(part_size: int) -> int:
    """A part size within the service's bounds.

    Raises:
        ValueError: It is not.
    """
    if not _MIN_PART_BYTES <= part_size <= MAX_PART_BYTES:
        raise ValueError(
            f"part_size must be {_MIN_PART_BYTES} (5 MiB) to {MAX_PART_BYTES} bytes, not {part_size!r}."
        )
    return part_size


def part_size_for(size: int | None, part_size: int | None, *, default: int | None = None) -> int:
    """The parts' size for a body of ``size`` bytes, which must fit into 10,000 of them.

    Raises:
        ValueError: With the given ``part_size`` it does not fit.
    """
    if part_size is not None:
        if size is not None and size > part_size * _MAX_PARTS:
            raise ValueError(f"{size} bytes do not fit into {_MAX_PARTS} parts of part_size={part_size}.")
        return part_size
    least = -(-(size or 0) // _MAX_PARTS)
    return max(default or _DEFAULT_PART_BYTES, -(-least // _MIB) * _MIB)


@define
class MultipartUpload:
    """An upload, as a block: left by an error or a cancellation, it is aborted.

    Attributes:
        headers: Of the object: content type, metadata.
        if_match: A condition of Complete.
        if_none_match: As above.
        upload_id: Once it was begun; or of one begun earlier.
        keep: Whether an upload that fails is kept, for a later call to go on with.
    """

    sender: Sender
    bucket: Bucket
    key: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    if_match: str | None = None
    if_none_match: str | None = None
    upload_id: str | None = None
    keep: bool = False
    _etags: dict[int, str] = field(factory=dict[int, str], init=False)
    _are_md5: bool = field(default=True, init=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A condition that failed fails again: there is nothing to go on with.
        is_final = isinstance(exc_value, PreconditionFailed) and not exc_value.is_retryable
        if exc_value is not None and (is_final or not self.keep):
            await self.abort()

    async def begin(self) -> None:
        """Begin it on the service.

        A caller that is cancelled waits for the answer a little: without its id no upload can be aborted.
        """
        await anyio.lowlevel.checkpoint()
        failures: list[Exception] = []
        done = anyio.Event()
        last_word = anyio.CancelScope(shield=True)

        async def ask() -> None:
            with last_word:
                try:
                    answer = await self.sender.fetch(self.bucket.start_upload(self.key, self.headers))
                    self.upload_id = parse_upload_id(answer.body)
                except Exception as error:  # noqa: BLE001 - raised below, and not in a group
                    failures.append(error)
            done.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            try:
                await done.wait()
            finally:
                last_word.deadline = anyio.current_time() + _LAST_WORD_SECONDS
        if failures:
            raise failures[0]

    async def send(self, number: int, part: Content) -> None:
        """Send a part.

        Args:
            number: From 1.
            part: As long as all others, or the last.
        """
        if number > _MAX_PARTS:
            raise InvalidRequest(f"{self.key!r} needs over {_MAX_PARTS} parts: give a larger part_size.")
        md5, draft = await off_loop(len(part), partial(self._drafted, number, part))
        try:
            answer = await self.sender.fetch(draft)
        except R2Error as error:
            if not error.is_retryable or not await self._stands(number, md5):
                raise
            self._etags[number] = md5  # only its answer was lost
            return
        etag = plain_etag(answer.headers.get("etag"))
        if not etag:
            raise BodyFault(f"The service gave no ETag for part {number} of {self.key!r}.")
        found = plain_md5(answer.headers)
        if found is not None and found != md5:
            raise BodyFault(f"Part {number} of {self.key!r} arrived with another MD5: send the object again.")
        self.confirm(number, etag, is_md5=found is not None)

    def confirm(self, number: int, etag: str, *, is_md5: bool = True) -> None:
        """Take note of a part that stands."""
        self._etags[number] = etag
        self._are_md5 = self._are_md5 and is_md5

    async def standing(self) -> dict[int, ListedPart]:
        """The parts that stand, by number, as the service has them.

        Raises:
            NotFound: ``NoSuchUpload``: it was completed, aborted, or too old.
        """
        found: dict[int, ListedPart] = {}
        after: int | None = 0
        while after is not None:
            answer = await self.sender.fetch(self.bucket.list_parts(self.key, self._id, after=after))
            page = parse_parts(answer.body)
            found.update({part.number: part for part in page.parts})
            if page.next_after is not None and page.next_after <= after:
                raise BodyFault("The list of parts gives the same page again and again.", is_retryable=False)
            after = page.next_after
        return found

    async def lost(self) -> Sequence[int]:
        """The parts that stood once and do no longer."""
        standing = await self.standing()
        return [
            number
            for number, etag in sorted(self._etags.items())
            if number not in standing or standing[number].etag != etag
        ]

    async def complete(self) -> tuple[str | None, Mapping[str, str]]:
        """Put the parts together; gives the final ETag and the headers of the last answer.

        Raises:
            BodyFault: What came out is not what was sent.
        """
        expected = self.expected_etag
        draft = self.bucket.complete_upload(
            self.key,
            self._id,
            [etag for _, etag in sorted(self._etags.items())],
            if_match=self.if_match,
            if_none_match=self.if_none_match,
        )
        try:
            answer = await self.sender.fetch(draft)
        except R2Error as error:
            if expected is None or not await self._may_be_done(error):
                raise
            head = await self.head()
            if head is not None and plain_etag(head.get("etag")) == expected:
                return expected, head
            if head is None or not isinstance(error, NotFound):
                raise
            if (refusal := self._refusal(head, error.attempts)) is None:
                raise
            raise refusal from error
        etag = parse_completed(answer.body)
        if etag is not None and expected is not None and _COMPOSED.fullmatch(etag) and etag != expected:
            raise BodyFault(
                f"{self.key!r} was put together with the ETag {etag}, not {expected}: send the object again.",
                attempts=answer.attempts,
            )
        return etag or expected, answer.headers

    @property
    def expected_etag(self) -> str | None:
        """The MD5 of the parts' MD5s; ``None`` where the service has other ETags for parts."""
        etags = [etag for _, etag in sorted(self._etags.items())]
        return composed_etag(etags) if self._are_md5 else None

    async def head(self) -> Mapping[str, str] | None:
        """The headers of the object, whoever wrote it, none if there is none; ``None``: that could not be told."""
        try:
            return (await self.sender.fetch(self.bucket.get(self.key, method="HEAD"))).headers
        except NotFound:
            return {}
        except R2Error:
            return None

    async def abort(self) -> None:
        """End it, parts and all, cancelled or not.

        Never in the way of the error that led here; what cannot be aborted ends by itself (R2: in 7 days).
        """
        if self.upload_id is None:
            return
        with anyio.move_on_after(_LAST_WORD_SECONDS, shield=True):
            try:
                await self.sender.fetch(self.bucket.abort_upload(self.key, self.upload_id))
            except NotFound:
                return  # done, or ended already
            except Exception as error:  # noqa: BLE001 - credentials that nobody gives any more, perhaps
                _logger.warning("The upload of %r could not be aborted: %s", self.key, error)

    @property
    def _id(self) -> str:
        assert self.upload_id is not None
        return self.upload_id

    def _drafted(self, number: int, part: Content) -> tuple[str, Draft]:
        digest = hashlib.md5(part, usedforsecurity=False)
        chunks = partial(chunks_of, part)
        draft = self.bucket.upload_part(self.key, self._id, number, part, chunks, digest.digest())
        return digest.hexdigest(), draft

    async def _stands(self, number: int, md5: str) -> bool:
        """Whether a part whose sending failed is there all the same."""
        try:
            listed = (await self.standing()).get(number)
        except R2Error:
            return False  # the first failure says more
        return listed is not None and listed.etag == md5

    def _refusal(self, head: Mapping[str, str], attempts: int) -> PreconditionFailed | None:
        """Why the upload is gone, if a condition took it along and the answer that said so was lost."""
        etag = plain_etag(head.get("etag"))
        is_refused = _matches(self.if_none_match, etag) or (
            self.if_match and not _matches(self.if_match, etag)
        )
        if not is_refused:
            return None
        return PreconditionFailed(
            f"A condition of the upload of {self.key!r} does not hold: there is {etag or 'no object'}. "
            "To do: read the object again.",
            code="PreconditionFailed",
            attempts=attempts,
        )

    async def _may_be_done(self, error: R2Error) -> bool:
        """Whether a Complete that failed may have done its work in an attempt whose answer was lost."""
        if error.is_retryable:
            try:
                await self.standing()
            except NotFound:
                return True  # the upload is gone
            except R2Error:
                return False
            return False
        is_gone = isinstance(error, NotFound) and error.code == "NoSuchUpload"
        return error.attempts > 1 and (is_gone or isinstance(error, PreconditionFailed))


def _matches(condition: str | None, etag: str | None) -> bool:
    tags = {plain_etag(tag) for tag in (condition or "").split(",")}
    return etag is not None and ("*" in tags or etag in tags)


def composed_etag(md5s: Sequence[str]) -> str | None:
    """The ETag of an object put together of parts with these MD5s."""
    if not all(map(_MD5.fullmatch, md5s)):
        return None
    whole = b"".join(map(bytes.fromhex, md5s))
    return f"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}-{len(md5s)}"
