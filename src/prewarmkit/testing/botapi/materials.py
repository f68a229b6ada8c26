"""Bytes that a request only names: addresses that are fetched over HTTP, and files beside a local server.

Telegram's own servers fetch; here it is this process, which asks nobody but this machine. What was found stays known for
days, failures included, as the maintainers say of theirs (tdlib/telegram-bot-api#782).
"""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
from collections.abc import AsyncIterator, Callable, Mapping
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
from attrs import define, field

from prewarmkit.testing.botapi.forms import ReceivedFile
from prewarmkit.testing.botapi.probe import HEAD_BYTES
from prewarmkit.testing.botapi.urls import URL_LIMIT
from prewarmkit.testing.botapi.values import Fetch

__all__ = ["LOCAL_FILE_LIMIT", "URL_CACHE_SECONDS", "Web", "is_local_path", "read_local"]

LOCAL_FILE_LIMIT = 2000 * 1024 * 1024
"""Bytes of a file that a server with ``--local`` takes."""

URL_CACHE_SECONDS = 3 * 24 * 3600.0

_CHUNK = 256 * 1024
_TIMEOUT_SECONDS = 20.0
_HERE = frozenset({"127.0.0.1", "localhost", "::1"})
_AGENT = "TelegramBot (like TwitterBot)"
_OK = 200


@define(eq=False)
class _Page:
    file: ReceivedFile | None
    known_until: float


@define(kw_only=True, eq=False)
class Web:
    """What this server sees of the web: this machine, and prefixes that are said to lead to it.

    Attributes:
        clock: Seconds, from whatever start.
        cache_seconds: How long an answer, a good one or none, stays known.
        reaches: Where an address that begins with a key is really asked for: ``{"https://media.example.org": server.url}``.
        fetches: Every address that was looked at, oldest first.
    """

    clock: Callable[[], float] = field(repr=False)
    cache_seconds: float = URL_CACHE_SECONDS
    reaches: Mapping[str, str] = field(factory=dict[str, str])
    fetches: list[Fetch] = field(factory=list[Fetch], init=False)
    _pages: dict[str, _Page] = field(factory=dict[str, _Page], init=False)
    _locks: dict[str, asyncio.Lock] = field(factory=dict[str, asyncio.Lock], init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    async def fetch(self, url: str) -> ReceivedFile | None:
        """What is there; ``None``: it could not be got, now or some days ago."""
        async with self._locks.setdefault(url, asyncio.Lock()):
            page = self._pages.get(url)
            cached = page is not None and self.clock() < page.known_until
            if page is None or not cached:
                page = _Page(await self._get(url), self.clock() + self.cache_seconds)
                self._pages[url] = page
            self.fetches.append(Fetch(url=url, good=page.file is not None, cached=cached, at=self.clock()))
            return page.file

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _get(self, url: str) -> ReceivedFile | None:
        there = url
        for prefix, base in self.reaches.items():
            if url.startswith(prefix):
                there = base + url.removeprefix(prefix)
        if urlsplit(there).hostname not in _HERE:
            return None
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
                headers={"User-Agent": _AGENT},
                auto_decompress=False,
            )
        name = posixpath.basename(unquote(urlsplit(url).path))
        try:
            # Whether theirs follows redirects is not documented; one that does not finds out who relies on it.
            async with self._session.get(there, allow_redirects=False) as answer:
                if answer.status != _OK:
                    return None
                return await _received(
                    answer.content.iter_chunked(_CHUNK), name, answer.headers.get("Content-Type"), URL_LIMIT
                )
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


async def _received(
    chunks: AsyncIterator[bytes], filename: str, content_type: str | None, limit: int
) -> ReceivedFile | None:
    """The content, hashed and let go; ``None``: it is over the limit."""
    digest, head, size = hashlib.sha256(), b"", 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            return None
        digest.update(chunk)
        head += chunk[: HEAD_BYTES - len(head)]
    return ReceivedFile(
        filename=filename, content_type=content_type, size=size, sha256=digest.hexdigest(), head=head
    )


def is_local_path(reference: str) -> bool:
    """Whether a client that names this means a file beside the server."""
    return reference.lower().startswith("file:/")


def read_local(reference: str) -> ReceivedFile | str:
    """The file that a ``file://`` URI names, or why it cannot be sent; blocks while it is read."""
    path = Path(unquote(urlsplit(reference).path))
    try:
        if not path.is_file():
            return f"realpath failed for {path}"
        size = path.stat().st_size
        if size > LOCAL_FILE_LIMIT:
            return f"file of size {size} bytes is too big; the maximum size is {LOCAL_FILE_LIMIT} bytes"
        digest, head = hashlib.sha256(), b""
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                head += chunk[: HEAD_BYTES - len(head)]
    except OSError as error:
        return f"realpath failed for {path}: {error.strerror}"
    return ReceivedFile(
        filename=path.name,
        content_type=guess_type(path.name)[0],
        size=size,
        sha256=digest.hexdigest(),
        head=head,
    )
