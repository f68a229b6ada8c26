"""`R2Client`: one bucket of Cloudflare R2, or of any S3-compatible service.

Owns its construction and lifetime, the bucket and its addresses; `reading` and `writing`
have the operations on objects. Building and parsing, sending and retrying, bodies and
parts are in the rooms beside it. Knows no httpx and no pool.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self, overload

from prewarmkit.errors import ConfigurationError, InvalidRequest, NotFound
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.link import (
    DEFAULT_RETRY,
    DEFAULT_TIMEOUTS,
    MAX_CONNECTIONS,
    Link,
    check_transport,
    signer_for,
)
from prewarmkit.r2.listing import Listing
from prewarmkit.r2.naming import base_url, encode_key, endpoint_url
from prewarmkit.r2.reading import Reading
from prewarmkit.r2.requests import Bucket
from prewarmkit.r2.responses import CommonPrefix, Page, parse_page
from prewarmkit.r2.retry import AttemptEvent, RetryPolicy, Timeouts
from prewarmkit.r2.writing import Writing
from prewarmkit.sigv4.credentials import Credentials, CredentialsProvider
from prewarmkit.sigv4.keys import KeyCache
from prewarmkit.sigv4.signer import SigV4Signer
from prewarmkit.transports.base import Transport

__all__ = ["R2Client"]

_PAGE_KEYS = 1000
_PRESIGNED = ("GET", "HEAD", "PUT", "DELETE")


class R2Client(Reading, Writing):
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
        verify: Whether whole objects are compared with the MD5 that their ETag is (`open`), where a call does not say.
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
        verify: bool = True,
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
        self._verifies = verify

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
