"""Queues and pools that people use, and ours, each as two calls: put jobs in, have them all done.

The work does nothing, so what is measured is the machinery. Those that keep jobs in PostgreSQL run at their best
documented settings; those in memory are what one writes without a queue. Peers are imported when they are opened.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import psycopg
import pytest
from attrs import frozen

from prewarmkit import Media, PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.stores import MediaStore
from prewarmkit.targets import WarmTarget
from prewarmkit.testing.stand_ins import UnreadSource

__all__ = [
    "IN_MEMORY",
    "SETTINGS",
    "SLICE",
    "WORKERS",
    "Make",
    "NoWork",
    "System",
    "in_postgres",
    "opened",
    "ours",
]

WORKERS = 64
SLICE = 1000  # rows a call of enqueue_many
# Of the server: durable, which the tests' own are not.
SETTINGS = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "4GB"}


@frozen
class System:
    """A queue as two calls.

    Attributes:
        enqueue: Puts so many new jobs in; what has no queue only notes how many.
        drain: Returns once all jobs are done, in the database where there is one.
        jobs: In a round: the slow ones get fewer.
        dsn: Of its database; ``None``: it has none.
    """

    enqueue: Callable[[int], Awaitable[object]]
    drain: Callable[[], Awaitable[object]]
    jobs: int
    dsn: str | None = None


Make = Callable[[], AbstractAsyncContextManager[System]]


# ── ours ─────────────────────────────────────────────────────────────────────


class NoWork:
    """A target that is done at once."""

    id = "nobody"

    async def warm(self, media: Media, source: object) -> Warmed:
        """Nothing is pushed."""
        del source
        return Warmed(media.key)


@asynccontextmanager
async def ours(
    store: MediaStore, jobs: int, dsn: str | None = None, target: WarmTarget | None = None
) -> AsyncGenerator[System]:
    settings = PoolSettings(concurrency=WORKERS, max_queue=100_000, autostart=False)
    numbers = itertools.count()
    async with store:
        await store.migrate()
        async with PrewarmPool(UnreadSource(), target or NoWork(), store, settings=settings) as pool:

            async def enqueue(count: int) -> None:
                for first in range(0, count, SLICE):
                    keys = [f"media/{next(numbers):08}.jpg" for _ in range(min(SLICE, count - first))]
                    await pool.enqueue_many(keys)

            async def drain() -> None:
                await pool.start()
                await pool.join()
                await pool.stop()

            yield System(enqueue, drain, jobs, dsn)


# ── in PostgreSQL ────────────────────────────────────────────────────────────


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


_IN_POSTGRES: Mapping[str, Callable[[str], AbstractAsyncContextManager[System]]] = {
    "procrastinate": procrastinate,
    "pgqueuer, asyncpg": pgqueuer_on_asyncpg,
    "pgqueuer, psycopg": pgqueuer_on_psycopg,
}


def in_postgres(create_database: Callable[[], str], *names: str) -> dict[str, Make]:
    """Those of these names, or all, each in a database of its own."""

    def make(
        system: Callable[[str], AbstractAsyncContextManager[System]],
    ) -> AbstractAsyncContextManager[System]:
        return system(create_database())

    return {name: partial(make, _IN_POSTGRES[name]) for name in names or _IN_POSTGRES}


# ── in memory ────────────────────────────────────────────────────────────────


def without_a_queue(run: Callable[[int], Awaitable[object]], jobs: int = 10_000) -> System:
    waiting = [0]

    async def enqueue(count: int) -> None:
        waiting[0] += count

    async def drain() -> None:
        count, waiting[0] = waiting[0], 0
        await run(count)

    return System(enqueue, drain, jobs)


async def no_work(number: int) -> None:
    del number


@asynccontextmanager
async def task_group() -> AsyncGenerator[System]:
    """What one writes by hand."""
    limiter = anyio.CapacityLimiter(WORKERS)

    async def limited(number: int) -> None:
        async with limiter:
            await no_work(number)

    async def run(count: int) -> None:
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(limited, number)

    yield without_a_queue(run)


@asynccontextmanager
async def aiometer() -> AsyncGenerator[System]:
    run_on_each: Any = importlib.import_module("aiometer").run_on_each
    yield without_a_queue(lambda count: run_on_each(no_work, range(count), max_at_once=WORKERS))


@asynccontextmanager
async def taskiq() -> AsyncGenerator[System]:
    broker: Any = importlib.import_module("taskiq").InMemoryBroker(max_async_tasks=WORKERS)
    task = broker.register_task(no_work, task_name="nothing")
    await broker.startup()

    async def run(count: int) -> None:
        for number in range(count):
            await task.kiq(number)
        await broker.wait_all()

    yield without_a_queue(run, 2000)
    await broker.shutdown()


IN_MEMORY: Mapping[str, Make] = {
    "anyio task group, CapacityLimiter": task_group,
    "aiometer": aiometer,
    "taskiq, InMemoryBroker": taskiq,
}


# ── how ──────────────────────────────────────────────────────────────────────


async def opened(
    makers: Mapping[str, Make],
    stack: AsyncExitStack,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, System]:
    """Those that are installed; the others are left out, by name."""
    systems: dict[str, System] = {}
    for name, make in makers.items():
        try:
            systems[name] = await stack.enter_async_context(make())
        except ImportError:
            with capsys.disabled():
                print(f"\n{name} is not installed: left out")
    return systems
