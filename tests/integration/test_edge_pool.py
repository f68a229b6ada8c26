"""A pool that keeps a CDN edge warm: what its policies make of the edge's verdicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import httpx
import pytest
from waiting import eventually

from prewarmkit import Media, MediaKind, PoolSettings, PrewarmPool, WarmFailed
from prewarmkit.stores import MemoryStore, SqliteStore, State
from prewarmkit.targets import EdgeTarget
from prewarmkit.testing.edge import EdgeServer, Fault

pytestmark = pytest.mark.anyio

BODY = bytes(range(256)) * 500
SETTINGS = PoolSettings(poll_interval_seconds=0.05, down_seconds=0.2, retry_base_seconds=0.05)
NO_DELAYS = (0.0, 0.0, 0.0)


@pytest.fixture
def edge() -> Iterator[EdgeServer]:
    with EdgeServer() as server:
        yield server


@pytest.fixture
async def target(edge: EdgeServer) -> AsyncIterator[EdgeTarget]:
    async with EdgeTarget(edge.url, verify_delays=NO_DELAYS) as target:
        yield target


async def test_media_of_a_bucket_are_warm_for_viewers(
    edge: EdgeServer, target: EdgeTarget, tmp_path: Path
) -> None:
    """Each handle is a URL that hits, and the row keeps colo, ETag and when it ends."""
    keys = [f"{number}.jpg" for number in range(20)]
    for key in keys:
        edge.put(key, BODY + key.encode(), cache_control="max-age=3600")
    async with SqliteStore(tmp_path / "edge.db") as store:
        async with PrewarmPool(edge.source(), target, store, settings=SETTINGS) as pool:
            await pool.enqueue_many([Media(key) for key in keys])
            with anyio.fail_after(20):
                await pool.join()
        async with PrewarmPool(edge.source(), target, store, settings=SETTINGS) as pool:
            for key in keys:
                handle = await pool.require(key)
                assert handle.expires_at is not None
                assert (handle.details["colo"], handle.unique_id) == ("FRA", handle.details["etag"])
                async with httpx.AsyncClient() as viewer:
                    answer = await viewer.get(handle.value)
                assert answer.headers["cf-cache-status"] == "HIT"
                assert answer.content == BODY + key.encode()
    assert len(edge.origin_requests) == len(keys)


async def test_dynamic_costs_one_request_however_many_tries_there_are(
    edge: EdgeServer, target: EdgeTarget
) -> None:
    """Only a Cache Rule can mend it: neither the weak policy nor the attempts ask again; afterwards it can be requeued."""
    edge.put("a.m4a", BODY)
    settings = PoolSettings(poll_interval_seconds=0.05, retry_weak_id=5, retry_base_seconds=0.01)
    store = MemoryStore()
    async with PrewarmPool(edge.source(), target, store, settings=settings) as pool:
        with pytest.raises(WarmFailed, match="ineligible_extension"), anyio.fail_after(10):
            await pool.warm("a.m4a")
        [row] = await store.list(State.FAILED)
        assert row.reason == "weak:ineligible_extension"
        assert len(edge.requests) == 1
        edge.rules = type(edge.rules)(caches_everything=True)
        assert await pool.requeue_failed() == 1
        with anyio.fail_after(10):
            await pool.join()
        assert (await pool.require("a.m4a")).value == f"{edge.url}/a.m4a"


async def test_a_key_has_one_row_whatever_it_is_called(edge: EdgeServer, target: EdgeTarget) -> None:
    """A URL has no kind."""
    edge.put("a.jpg", BODY)
    store = MemoryStore()
    async with PrewarmPool(edge.source(), target, store, settings=SETTINGS) as pool:
        first = await pool.warm("a.jpg", kind=MediaKind.PHOTO)
        assert await pool.lookup("a.jpg", kind=MediaKind.DOCUMENT) is not None
        assert (await pool.require(Media("a.jpg", MediaKind.STICKER))).value == first.value
        assert len(await store.list(State.READY)) == 1
        assert await pool.invalidate(first, rewarm=False)


async def test_a_handle_is_primed_again_before_it_ends(edge: EdgeServer, target: EdgeTarget) -> None:
    """`PoolSettings.keep_warm`, by the life that the edge states."""
    edge.put("a.jpg", BODY, cache_control="max-age=5")
    async with PrewarmPool(edge.source(), target, MemoryStore(), settings=SETTINGS) as pool:
        first = await pool.warm("a.jpg")
        asked = len(edge.requests)
        await eventually(lambda: len(edge.requests) > asked, 20)
        assert first.expires_at is not None
        assert edge.requests[asked].at < first.expires_at.timestamp()


async def test_an_edge_that_is_down_or_limits_us_burns_no_attempts(
    edge: EdgeServer, target: EdgeTarget
) -> None:
    """One attempt is all there is, and it is still there when the edge works again."""
    edge.put("a.jpg", BODY)
    edge.fail(Fault(status=521), Fault(status=429, retry_after=1))
    settings = PoolSettings(poll_interval_seconds=0.05, down_seconds=0.1, max_attempts=1)
    async with PrewarmPool(edge.source(), target, MemoryStore(), settings=settings) as pool:
        await pool.enqueue("a.jpg")
        with anyio.fail_after(15):
            await pool.join()
        assert (await pool.require("a.jpg")).weak == ()
    assert [request.status for request in edge.requests] == [521, 429, 200, 200]


async def test_a_404_cached_before_the_upload_heals(edge: EdgeServer, target: EdgeTarget) -> None:
    """It says HIT and is failed all the same; a later attempt finds the object."""
    async with httpx.AsyncClient() as viewer:
        await viewer.get(f"{edge.url}/late.jpg")
    edge.put("late.jpg", BODY)
    async with PrewarmPool(edge.source(), target, MemoryStore(), settings=SETTINGS) as pool:
        await pool.enqueue("late.jpg")
        await eventually(lambda: len(edge.requests) >= 3)
        with anyio.fail_after(15):
            assert await pool.lookup("late.jpg") is None
            edge.purge()
            await pool.join()
        assert (await pool.require("late.jpg")).weak == ()
