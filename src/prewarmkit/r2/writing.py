"""The operations of `R2Client` that write and delete objects: what is written is checked."""

from __future__ import annotations

from collections.abc import Mapping

from prewarmkit.errors import NotFound
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.bodies import PutBody
from prewarmkit.r2.headers import content_type_header, metadata_headers
from prewarmkit.r2.multipart import check_part_size
from prewarmkit.r2.naming import encode_key
from prewarmkit.r2.operations import Operations
from prewarmkit.r2.writer import Writer

__all__ = ["Writing"]


class Writing(Operations):
    """See the module."""

    async def put(
        self,
        key: str,
        body: PutBody,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        part_size: int | None = None,
    ) -> ObjectInfo:
        """Write an object: whole, checked, or not at all.

        Over 64 MiB, or if its length is not known and it is longer than a part, it goes as a
        multipart upload, of 16 MiB at a time.

        Args:
            key: The object's key.
            body: Bytes, a path, a binary file (from where it stands), or an (async) iterable of
                bytes, which is read once.
            content_type: Such as ``image/png``; without one the service guesses.
            metadata: The object's own; names without regard to case, any text as a value.
            if_match: Only if the object has this ETag.
            if_none_match: ``"*"``: only if there is no such object.
            part_size: Bytes of a part, at least 5 MiB; also the length from which on there are parts.

        Raises:
            PreconditionFailed: A condition did not hold; nothing was written.
            BodyFault: The service got other bytes, or the file changed while it was read.
        """
        encode_key(key)
        headers = (*content_type_header(content_type), *metadata_headers(metadata or {}))
        writer = Writer(
            self._link.sender,
            self._bucket,
            key,
            headers,
            if_match=if_match,
            if_none_match=if_none_match,
            part_size=None if part_size is None else check_part_size(part_size),
        )
        etag, size, answered = await writer.write(body)
        self._has_seen_bucket = True
        return ObjectInfo(
            key=key,
            size=size,
            etag=etag,
            content_type=content_type,
            metadata={name.lower(): value for name, value in (metadata or {}).items()},
            version=answered.get("x-amz-version-id"),
        )

    async def delete(self, key: str) -> None:
        """Delete an object; one that was not there is no error."""
        try:
            await self._link.sender.fetch(self._bucket.delete(key))
        except NotFound as error:
            if error.code not in {None, "NoSuchKey"}:
                raise
        self._has_seen_bucket = True
