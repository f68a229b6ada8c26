"""What somebody's long transaction costs: while it lasts no dead row or index entry can be cleared away."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.media import Media, Warmed
from prewarmkit.stores import PostgresStore
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.stand_ins import UnreadSource

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def dsn() -> Iterator[str]:
    """A server that flushes its log, as one does that is somebody's."""
    with PostgresServer() as server:
        yield server.create_database()


class NoWork:
    """A target that is done at once."""

    id = "bot"

    async def warm(self, media: Media, source: object) -> Warmed:
        del source
        return Warmed(media.key)


async def drained(store: PostgresStore, jobs: int, name: str) -> float:
    """Jobs a second through a pool."""
    for first in range(0, jobs, 10_000):
        await store.enqueue([job(f"{name}/{first + n}.jpg") for n in range(min(10_000, jobs))])
    settings = PoolSettings(concurrency=64, autostart=False)
    async with PrewarmPool(UnreadSource(), NoWork(), store, settings=settings) as pool:
        began = time.perf_counter()
        await pool.start()
        await pool.join(timeout=600)
        return jobs / (time.perf_counter() - began)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("jobs", "least"), [(5_000, 0.2), pytest.param(100_000, 0.4, marks=pytest.mark.slow)], ids=["5k", "100k"]
)
async def test_a_reader_that_keeps_its_snapshot_slows_the_queue_and_does_not_stop_it(
    dsn: str, jobs: int, least: float
) -> None:
    """At 100,000 jobs at least 40 % of the free rate, and all of it once the reader has gone."""
    async with PostgresStore(dsn, auto_migrate=True) as store:
        await drained(store, 2_000, "warm up")
        free = await drained(store, min(jobs, 40_000), "free")
        with psycopg.connect(dsn) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM media_cache")
            held = await drained(store, jobs, "held")
            reader.execute("SELECT 1")  # it is there still
        after = await drained(store, min(jobs, 40_000), "after")
    told = f"{free:,.0f} free, {held:,.0f} held ({held / free:.2f}), {after:,.0f} after ({after / free:.2f})"
    print(f"\njobs/s: {told}")  # noqa: T201 - `pytest -s` shows it
    assert held >= least * free
    assert after >= 0.5 * free
