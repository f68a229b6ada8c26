"""The operations of `R2Client` that write and delete objects: what is written is checked.

What does the work is imported by the first call: most clients read, and a start should be short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prewarmkit.errors import ConfigurationError, NotFound
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.headers import content_type_header, metadata_headers
from prewarmkit.r2.naming import encode_key
from prewarmkit.r2.operations import Operations
from prewarmkit.r2.parallel import check_concurrency
from prewarmkit.r2.requests import Bucket

if TYPE_CHECKING:
    from prewarmkit.r2.batches import DeleteResult, PutItems, PutResult
    from prewarmkit.r2.bodies import PutBody
    from prewarmkit.r2.tokens import UploadToken
    from prewarmkit.r2.writer import OnUpload

__all__ = ["Writing"]

_PARTS_AT_ONCE = 4
_OBJECTS_AT_ONCE = 8
_R2_HOST = ".r2.cloudflarestorage.com"


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
        concurrency: int = _PARTS_AT_ONCE,
        on_upload: OnUpload | None = None,
        resume: UploadToken | None = None,
    ) -> ObjectInfo:
        """Write an object: whole, checked, or not at all.

        Over 64 MiB, or if its length is not known and it is longer than a part, it goes as a
        multipart upload, in parts of 16 MiB, of which at most ``concurrency + 1`` are in memory. An
        upload that fails or is cancelled is aborted, unless it is to be gone on with::

            try:
                await r2.put("film.mp4", path, on_upload=lambda token: saved.write_text(token.to_json()))
            except R2Error:
                ...  # later, in another process perhaps:
                await r2.put("film.mp4", path, resume=UploadToken.from_json(saved.read_text()))

        Args:
            key: The object's key.
            body: Bytes, a path, a binary file (from where it stands, and nobody else's meanwhile), or an (async)
                iterable of bytes, which is read once. A read that blocks is waited for, also by a cancellation.
            content_type: Such as ``image/png``; without one the service guesses.
            metadata: The object's own; names without regard to case, any text as a value.
            if_match: Only if the object has this ETag.
            if_none_match: ``"*"``: only if there is no such object.
            part_size: Bytes of a part, at least 5 MiB; also the length from which on there are parts.
            concurrency: Parts under way at once.
            on_upload: Gets the `UploadToken` of an upload in parts when it has begun; plain or async. With it
                an upload that fails or is cancelled is kept, for `resume` or `abort_upload`. The body must be
                one that can be read again: bytes, a path, a seekable file.
            resume: Go on with this upload: parts that stand are held to the body's, only the others are
                sent. If it is gone since, it was completed, or begins anew (``on_upload`` is told). A failure
                keeps it, too.

        Raises:
            PreconditionFailed: A condition did not hold; nothing was written, and no upload is kept.
            BodyFault: The service got other bytes, the path's file changed while it was read, or it is not the
                body that ``resume`` began with.
            ValueError: An argument that cannot be, or ``resume`` is for another object, part size, content
                type or metadata.
        """
        from prewarmkit.r2.multipart import check_part_size
        from prewarmkit.r2.writer import Writer

        encode_key(key)
        check_concurrency(concurrency)
        headers = (*content_type_header(content_type), *metadata_headers(metadata or {}))
        writer = Writer(
            self._link.sender,
            self._bucket,
            key,
            headers,
            if_match=if_match,
            if_none_match=if_none_match,
            part_size=None if part_size is None else check_part_size(part_size),
            concurrency=concurrency,
            on_upload=on_upload,
            resume=resume,
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
            if error.code != "NoSuchKey":  # a 404 that says nothing may be anybody's
                raise
        self._has_seen_bucket = True

    async def put_many(self, items: PutItems, *, concurrency: int = _OBJECTS_AT_ONCE) -> list[PutResult]:
        """Write many objects; gives one result an item, in their order.

        No item's failure is raised, or keeps another from being written. Items of one key are written one
        after another: the last one stays. The parts of a large object go one at a time here.

        Args:
            items: ``(key, body)`` pairs, `PutItem` mappings with `put`'s arguments, or one mapping of keys to
                bodies. Taken as there is room for them: a generator's bodies are not in memory all at once.
            concurrency: Objects under way at once.

        Raises:
            Exception: Whatever ``items`` itself raises; items that were under way are then cancelled.
        """
        from prewarmkit.r2.batches import put_all

        check_concurrency(concurrency)
        _ = self._link.sender  # a client that is not open is no item's failure

        async def put(key: str, **options: Any) -> ObjectInfo:
            return await self.put(key, concurrency=1, **options)

        return await put_all(put, items, concurrency=concurrency)

    async def abort_upload(self, token: UploadToken) -> None:
        """End an upload that is not to be gone on with; that it is gone already is no error.

        Raises:
            ValueError: The token is for another bucket.
            R2Error: It could not be ended.
        """
        if token.bucket != self._bucket.name:
            raise ValueError(
                f"The token is for the bucket {token.bucket!r}, not {self._bucket.name!r}: use with_bucket."
            )
        try:
            await self._link.sender.fetch(self._bucket.abort_upload(token.key, token.upload_id))
        except NotFound as error:
            if error.code != "NoSuchUpload":
                raise

    async def delete_many(
        self, keys: Iterable[str], *, concurrency: int = _OBJECTS_AT_ONCE
    ) -> list[DeleteResult]:
        """Delete many objects, 1,000 a request; gives one result a key, in their order.

        No key's failure is raised: it is in the key's result. That an object was not there is none. A key
        that was given twice is deleted once, and has its result twice.

        Args:
            keys: Any keys; those that XML cannot carry, with control characters, say, go one by one.
            concurrency: Requests under way at once.
        """
        from prewarmkit.r2.batches import delete_all

        check_concurrency(concurrency)
        sender = self._link.sender
        return await delete_all(sender, self._bucket, self.delete, keys, concurrency=concurrency)

    async def copy(
        self,
        src: str,
        dst: str,
        *,
        source_bucket: str | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        dest_if_match: str | None = None,
        dest_if_none_match: str | None = None,
        concurrency: int = _PARTS_AT_ONCE,
    ) -> ObjectInfo:
        """Copy an object on the service, content type and metadata included; no byte comes here.

        What is copied is one version of the source, looked at first and held to: by its ETag, and, over
        4.8 GiB, where it goes in parts, by a look before they are put together.

        Args:
            src: The key to copy from.
            dst: The key to copy to.
            source_bucket: Where ``src`` is; ``None``: in this bucket. Of the same account.
            if_match: Only if the source has this ETag.
            if_none_match: Only if the source has another one.
            dest_if_match: Only if there is an object at ``dst``, with this ETag. R2 alone knows this; it
                checks it before, and not at one instant with, the source.
            dest_if_none_match: ``"*"``: only if there is no object at ``dst``. As above.
            concurrency: Parts under way at once.

        Raises:
            NotFound: There is no such source.
            PreconditionFailed: A condition did not hold; nothing was copied.
            BodyFault: The source was changed while it was copied in parts; nothing was copied.
            ConfigurationError: A condition on the destination, for a service that would ignore it.
        """
        from prewarmkit.r2.copying import Copier

        encode_key(dst)
        check_concurrency(concurrency)
        is_r2 = self._bucket.base.endswith(_R2_HOST)
        if not is_r2 and (dest_if_match is not None or dest_if_none_match is not None):
            raise ConfigurationError(
                "dest_if_match and dest_if_none_match are R2's own, and this endpoint would copy without them."
            )
        bucket = self._bucket
        copier = Copier(
            self._link.sender,
            bucket,
            dst,
            bucket if source_bucket is None else Bucket(source_bucket, bucket.base, bucket.is_virtual),
            src,
            source_if_match=if_match,
            source_if_none_match=if_none_match,
            if_match=dest_if_match,
            if_none_match=dest_if_none_match,
            concurrency=concurrency,
        )
        info = await copier.copy()
        self._has_seen_bucket = True
        return info
