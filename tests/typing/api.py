"""Only type-checked, never run: what a host writes against the public interface must pass mypy and pyright."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import assert_type

import httpx

from prewarmkit import (
    Credentials,
    Enqueued,
    Handle,
    KeyCache,
    KeyScope,
    Media,
    MediaKind,
    MemoryKeyCache,
    ObjectInfo,
    PoolSettings,
    PoolStats,
    PrewarmPool,
    R2Client,
    RingQueue,
    SigningKey,
    SigV4Signer,
    blocking,
)
from prewarmkit.sources import DirectorySource, MediaReader, MediaSource, SpooledSource
from prewarmkit.stores import MediaStore, MemoryStore, SqliteStore
from prewarmkit.targets import EdgeTarget, TelegramTarget, Warmed, WarmTarget
from prewarmkit.transports import DirectTransport, HttpxTransport, SigV4Auth, Transport


class MyTarget:
    """A target of a host's own needs no base class."""

    id = "mine"

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        async with source.open(media.key) as reader:
            async for chunk in reader:
                assert_type(chunk, bytes)
        return Warmed("handle", kind=MediaKind.PHOTO)


class MyReader:
    """Nor a reader."""

    info = ObjectInfo(key="a", size=1)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a"

    async def read(self) -> bytes:
        return b"a"


class MySource:
    """Nor a source."""

    @asynccontextmanager
    async def open(self, key: str) -> AsyncGenerator[MyReader]:
        yield MyReader()

    async def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key=key, size=1)

    def url(self, key: str, *, version: str | None = None) -> str | None:
        return None


class MyKeyCache:
    """Nor a key cache."""

    def get(self, scope: KeyScope) -> SigningKey | None:
        return None

    def put(self, scope: KeyScope, key: SigningKey) -> None:
        return None


class MyResolver:
    """Nor a resolver."""

    async def resolve(self, name: str) -> WarmTarget:
        return MyTarget()


async def host(settings: PoolSettings, client: httpx.AsyncClient) -> None:
    """A host's code, by the kinds of things it gets."""
    credentials = Credentials("AKID", "secret")
    cache: KeyCache = MyKeyCache()
    signer = SigV4Signer(credentials, key_cache=cache)
    caches: list[KeyCache] = [MemoryKeyCache(), cache]
    transports: list[Transport] = [DirectTransport(), HttpxTransport(client)]
    sources: list[MediaSource] = [
        R2Client(bucket="b", account_id="a", signer=signer),
        DirectorySource("."),
        SpooledSource(DirectorySource("."), "spool"),
        MySource(),
    ]
    targets: list[WarmTarget] = [
        TelegramTarget("1:a", warmup_chats=[1]),
        EdgeTarget("https://media.example.com"),
        MyTarget(),
    ]
    stores: list[MediaStore] = [MemoryStore(), SqliteStore("p.db")]
    httpx.AsyncClient(auth=SigV4Auth(signer))
    PrewarmPool(sources[0], MyTarget())
    PrewarmPool(sources[0], MyResolver())
    async with PrewarmPool(sources[0], targets, stores[0], settings=settings) as pool:
        assert_type(await pool.enqueue("a", kind="photo", delay=timedelta(minutes=1)), Enqueued)
        assert_type(await pool.enqueue_many(["a", Media("b", "video")]), list[Enqueued])
        assert_type(await pool.lookup("a", target="mine"), Handle | None)
        assert_type(await pool.require("a", target=targets[1]), Handle)
        assert_type(await pool.warm("a", timeout=1), Handle)
        assert_type(await pool.invalidate("a"), bool)
        assert_type(pool.stats(), PoolStats)
        assert_type(pool.stats().success_rate, float | None)
    ring: RingQueue[Media] = RingQueue(10, lanes=4, key=lambda media: media.key)
    assert_type(await ring.dequeue(), Media)
    headers: Mapping[str, str] = signer.sign("GET", "https://host/key")
    del caches, transports, headers


def blocking_host(source: MediaSource, bot: TelegramTarget, store: MediaStore) -> None:
    """A host without an event loop."""
    with blocking.PrewarmPool(source, bot, store, resources=[DirectTransport()]) as pool:
        assert_type(pool.enqueue("a", kind="photo", delay=timedelta(minutes=1)), Enqueued)
        assert_type(pool.enqueue_many(["a", Media("b", "video")]), list[Enqueued])
        assert_type(pool.lookup("a", target=bot), Handle | None)
        assert_type(pool.require("a"), Handle)
        assert_type(pool.warm("a", timeout=1), Handle)
        assert_type(pool.stats(), PoolStats)
        assert_type(pool.call(source.head, "a"), ObjectInfo)
        assert_type(pool.call(divmod, 7, 2), tuple[int, int])
        pool.call(bot.send, 42, pool.warm("a"))


async def reading(source: MediaSource) -> None:
    """What a source gives."""
    async with source.open("a") as reader:
        assert_type(reader, MediaReader)
        assert_type(reader.info.size, int)
        assert_type(await reader.read(), bytes)
