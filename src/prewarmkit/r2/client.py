"""`R2Client`: one bucket of Cloudflare R2, or of any S3-compatible service.

Owns the operations and what they promise: what is read is what was stored, what is
written is checked, what failed says what to do. Building and parsing, sending and
retrying, bodies and parts are in the rooms beside it. Knows no httpx and no pool.
"""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self, overload

from prewarmkit.errors import ConfigurationError, InvalidRequest, NotFound, R2Error
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.bodies import PutBody
from prewarmkit.r2.headers import ByteRange, content_type_header, metadata_headers
from prewarmkit.r2.link import (
    DEFAULT_RETRY,
    DEFAULT_TIMEOUTS,
    MAX_CONNECTIONS,
    Link,
    check_transport,
    signer_for,
)
from prewarmkit.r2.listing import Listing
from prewarmkit.r2.multipart import check_part_size
from prewarmkit.r2.naming import base_url, encode_key, endpoint_url
from prewarmkit.r2.reader import ObjectReader, check_whole, expected_bytes, headers_of, info_of
from prewarmkit.r2.requests import Bucket, Draft
from prewarmkit.r2.responses import CommonPrefix, Page, parse_page
from prewarmkit.r2.retry import AttemptEvent, RetryPolicy, Timeouts
from prewarmkit.r2.writer import Writer
from prewarmkit.sigv4.credentials import Credentials, CredentialsProvider
from prewarmkit.sigv4.keys import KeyCache
from prewarmkit.sigv4.signer import SigV4Signer
from prewarmkit.transports.base import Transport

__all__ = ["R2Client"]

_PAGE_KEYS = 1000
_PRESIGNED = ("GET", "HEAD", "PUT", "DELETE")


class R2Client:
    """Reads, writes and lists the objects of one bucket; a `prewarmkit.sources.MediaSource`.

    Example::

        async with R2Client(account_id="0123abc", bucket="media", credentials=Credentials("AKID", "secret")) as r2:
            await r2.put("hello.txt", b"hello", content_type="text/plain")
            async with r2.open("hello.txt") as obj:
                async for chunk in obj:
                    ...

    Args:
        bucket: Its name.
        credentials: Who signs, or a provider of them; exactly one of this and ``signer``.
        signer: A signer of the host's, with its own region, key cache and clock.
        key_cache: Where the day's signing key is kept; goes with ``credentials``.
        account_id: Of Cloudflare; exactly one of this and ``endpoint``.
        jurisdiction: ``"eu"`` or ``"fedramp"``; goes with ``account_id``. Such a bucket is seen there only.
        endpoint: Base URL of any S3-compatible service.
        region: ``"auto"`` for R2; goes with ``credentials``.
        addressing: ``"path"`` (``host/bucket/key``) or ``"virtual"`` (``bucket.host/key``).
        public_base_url: Where anyone can read the bucket: a custom domain, an r2.dev address.
        transport: Entered and closed by the host; ``None``: a `DirectTransport` of this client's own.
        retry: When a failed request is sent again.
        timeouts: How long things may take. A transport handed in has its own ``connect`` and ``stall``.
        max_connections: Of the client's own transport.
        on_attempt: Called with an `AttemptEvent` after each attempt; must not block.
        clock: POSIX time, for signing; goes with ``credentials``.

    Raises:
        ConfigurationError: Arguments that do not go together, or cannot be; the message names them.
    """

    def __init__(
        self,
        *,
        bucket: str,
        credentials: Credentials | CredentialsProvider | None = None,
        signer: SigV4Signer | None = None,
        key_cache: KeyCache | None = None,
        account_id: str | None = None,
        jurisdiction: str | None = None,
        endpoint: str | None = None,
        region: str = "auto",
        addressing: Literal["path", "virtual"] = "path",
        public_base_url: str | None = None,
        transport: Transport | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        max_connections: int = MAX_CONNECTIONS,
        on_attempt: Callable[[AttemptEvent], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if addressing not in {"path", "virtual"}:
            raise ConfigurationError(f"addressing must be 'path' or 'virtual', not {addressing!r}.")
        base = endpoint_url(account_id=account_id, jurisdiction=jurisdiction, endpoint=endpoint)
        check_transport(transport, timeouts, max_connections)
        self._bucket = Bucket(bucket, base, addressing == "virtual")
        self._public = None if public_base_url is None else base_url(public_base_url, "public_base_url")
        signer = signer_for(credentials, signer, key_cache=key_cache, region=region, clock=clock)
        self._region = signer.region
        self._link = Link(
            signer,
            transport,
            retry=retry,
            timeouts=timeouts,
            max_connections=max_connections,
            on_attempt=on_attempt,
        )
        self._is_owner = True
        self._has_seen_bucket = False

    def __repr__(self) -> str:
        return f"R2Client(bucket={self._bucket.name!r}, endpoint={self._bucket.base!r})"

    async def __aenter__(self) -> Self:
        if self._is_owner:
            await self._link.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_owner:
            await self._link.close()

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket.name

    @property
    def signer(self) -> SigV4Signer:
        """What signs, for `SigV4Signer.cache_info`."""
        return self._link.signer

    # ── reading ──────────────────────────────────────────────────────────────

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

    # ── writing ──────────────────────────────────────────────────────────────

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

    # ── listing ──────────────────────────────────────────────────────────────

    @overload
    def list(
        self, prefix: str = "", *, delimiter: None = None, start_after: str | None = None
    ) -> Listing[ObjectInfo]: ...
    @overload
    def list(
        self, prefix: str = "", *, delimiter: str, start_after: str | None = None
    ) -> Listing[ObjectInfo | CommonPrefix]: ...
    def list(
        self, prefix: str = "", *, delimiter: str | None = None, start_after: str | None = None
    ) -> Listing[ObjectInfo] | Listing[ObjectInfo | CommonPrefix]:
        """The bucket's objects in the order of their keys, a page at a time: ``async for info in r2.list()``.

        Args:
            prefix: Only keys that begin so.
            delimiter: Usually ``"/"``: what follows it is folded into one `CommonPrefix`.
            start_after: Only keys after this one.
        """

        async def fetch(token: str | None) -> Page:
            draft = self._bucket.list_page(
                prefix, delimiter=delimiter, start_after=start_after, token=token, limit=_PAGE_KEYS
            )
            answer = await self._link.sender.fetch(draft)
            self._has_seen_bucket = True
            return parse_page(answer.body)

        return Listing[ObjectInfo | CommonPrefix](fetch)

    # ── addresses ────────────────────────────────────────────────────────────

    def presign(self, method: str, key: str, *, expires: float | timedelta = 3600) -> str:
        """A URL that lets anyone who has it do one thing, until it expires. It is a secret.

        Args:
            method: ``GET``, ``HEAD``, ``PUT`` or ``DELETE``.
            key: The object's key.
            expires: 1 second to 7 days.

        Raises:
            ValueError: A method that R2 does not presign, or a time out of bounds.
        """
        if method not in _PRESIGNED:
            raise ValueError(f"method must be one of {', '.join(_PRESIGNED)} in capitals, not {method!r}.")
        return self._link.signer.presign(method, self._bucket.url(key), expires=expires)

    def public_url(self, key: str, *, version: str | None = None) -> str:
        """The object's public address.

        Args:
            key: The object's key.
            version: Goes into the query as ``v``: another one gets past a cache.

        Raises:
            ConfigurationError: The client was given no ``public_base_url``.
        """
        url = self.url(key, version=version)
        if url is None:
            raise ConfigurationError(
                f"The bucket {self.bucket!r} has no public address: give public_base_url to R2Client."
            )
        return url

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """The public address, or ``None`` without one; never a presigned one. See `MediaSource.url`."""
        if self._public is None:
            return None
        return Bucket.with_query(
            f"{self._public}/{encode_key(key)}", () if version is None else [("v", version)]
        )

    # ── buckets ──────────────────────────────────────────────────────────────

    async def create_bucket(self) -> None:
        """Create the bucket; that it is there already, and ours, is no error."""
        try:
            await self._link.sender.fetch(self._bucket.create(self._region))
        except InvalidRequest as error:
            # Services say it under three codes; only looking tells whose it is.
            if error.status != HTTPStatus.CONFLICT or not await self.bucket_exists():
                raise
        self._has_seen_bucket = True

    async def bucket_exists(self) -> bool:
        """Whether the bucket is there.

        Raises:
            AccessDenied: It is somebody else's, or these credentials may not ask.
        """
        try:
            await self._link.sender.fetch(self._bucket.head_bucket())
        except NotFound:
            return False
        self._has_seen_bucket = True
        return True

    def with_bucket(self, name: str) -> R2Client:
        """The same account's other bucket, over the same connections, which it never closes.

        It works while this client is open, entered or not, and has no ``public_base_url``.
        """
        other = copy.copy(self)
        bucket = Bucket(name, self._bucket.base, self._bucket.is_virtual)
        vars(other).update(_bucket=bucket, _public=None, _is_owner=False, _has_seen_bucket=False)
        return other
