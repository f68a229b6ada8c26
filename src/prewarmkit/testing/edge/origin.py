"""The bucket behind the edge: objects by key, what the cache asked for, and whether it can be reached.

Several servers may share one, each a data centre. Thread-safe; knows nothing of caching.
"""

from __future__ import annotations

import hashlib
import mimetypes
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
from attrs import define, field, frozen

from prewarmkit.errors import NotFound
from prewarmkit.media import ObjectInfo

__all__ = ["Origin", "OriginObject", "OriginRequest", "OriginSource"]

_CHUNK_BYTES = 256 * 1024


@frozen(kw_only=True)
class OriginObject:
    """An object as it is stored.

    Attributes:
        body: Its bytes.
        etag: In quotes, as in the header; an MD5 as R2's, unless given.
        content_type: By the key's extension, unless given.
        headers: Further ones: ``cache-control``, ``expires``, ``set-cookie``.
    """

    body: bytes = field(repr=False)
    etag: str
    content_type: str
    headers: dict[str, str] = field(factory=dict[str, str], hash=False)


@frozen
class OriginRequest:
    """What an edge asked of the origin.

    Attributes:
        key: For which object.
        if_none_match: The ETag that it has, where it only revalidates.
        status: 200, 304 or 404.
    """

    key: str
    if_none_match: str | None
    status: int


@define(eq=False)
class Origin:
    """Objects that an edge fetches.

    Attributes:
        is_reachable: While false, no edge gets anything from it.
    """

    is_reachable: bool = True
    _objects: dict[str, OriginObject] = field(init=False, factory=dict[str, OriginObject])
    _requests: list[OriginRequest] = field(init=False, factory=list[OriginRequest])
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str | None = None,
        cache_control: str | None = None,
        etag: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> OriginObject:
        """Store an object, or replace it; caches in front know nothing of that.

        Args:
            key: Its key.
            body: Its bytes.
            content_type: ``None``: by the key's extension.
            cache_control: ``None``: the header is absent, as for an object that was stored without.
            etag: Without quotes; ``None``: the body's MD5, as R2 has it.
            headers: Further ones.
        """
        more = {name.lower(): value for name, value in (headers or {}).items()}
        if cache_control is not None:
            more["cache-control"] = cache_control
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        stored = OriginObject(
            body=body,
            etag=f'"{digest if etag is None else etag}"',
            content_type=content_type or mimetypes.guess_type(key)[0] or "application/octet-stream",
            headers=more,
        )
        with self._lock:
            self._objects[key] = stored
        return stored

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with self._lock:
            self._objects.pop(key, None)

    def look(self, key: str) -> OriginObject | None:
        """The object, without counting it as a request."""
        with self._lock:
            return self._objects.get(key)

    def fetch(self, key: str, *, if_none_match: str | None = None) -> OriginObject | None:
        """What an edge gets, counted; the same object also where it is unchanged."""
        with self._lock:
            found = self._objects.get(key)
            unchanged = found is not None and found.etag == if_none_match
            status = 404 if found is None else 304 if unchanged else 200
            self._requests.append(OriginRequest(key, if_none_match, status))
            return found

    @property
    def requests(self) -> list[OriginRequest]:
        """What was asked, oldest first: a copy."""
        with self._lock:
            return list(self._requests)


@frozen
class _Reader:
    info: ObjectInfo
    _body: bytes = field(repr=False)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), _CHUNK_BYTES):
            await anyio.lowlevel.checkpoint()
            yield self._body[start : start + _CHUNK_BYTES]

    async def read(self) -> bytes:
        return self._body


@frozen
class OriginSource:
    """The same objects as a `prewarmkit.sources.MediaSource`: what a pool's target is given."""

    origin: Origin

    def open(self, key: str) -> AbstractAsyncContextManager[_Reader]:
        """See `prewarmkit.sources.MediaSource.open`."""
        return self._open(key)

    @asynccontextmanager
    async def _open(self, key: str) -> AsyncGenerator[_Reader]:
        info = await self.head(key)
        stored = self.origin.look(key)
        yield _Reader(info, b"" if stored is None else stored.body)

    async def head(self, key: str) -> ObjectInfo:
        """See `prewarmkit.sources.MediaSource.head`."""
        await anyio.lowlevel.checkpoint()
        stored = self.origin.look(key)
        if stored is None:
            raise NotFound(f"There is no {key!r}.", code="NoSuchKey", status=404)
        return ObjectInfo(
            key=key, size=len(stored.body), etag=stored.etag.strip('"'), content_type=stored.content_type
        )

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """No address: it is the edge that has one."""
        del key, version
        return None
