"""PostgresStore where the host likes another isolation than ours: of the database, of a role, of its own connections."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.budget import Window
from prewarmkit.media import MediaKind, Warmed
from prewarmkit.stores import Enqueued, PostgresStore, Retry, State, Succeeded
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def one(dsn: str, statement: str) -> Any:
    """The first column of the first row, if any."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]


def prefer(dsn: str, isolation: str) -> None:
    """Make it the database's default, for connections to come."""
    name = one(dsn, "SELECT current_database()")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}").format(
                sql.Identifier(name), sql.Literal(isolation)
            )
        )


@pytest.fixture(params=["read committed", "repeatable read", "serializable"])
async def dsn(postgres_dsn: str, request: pytest.FixtureRequest) -> str:
    async with PostgresStore(postgres_dsn, notify=False) as store:
        await store.migrate()
    prefer(postgres_dsn, request.param)
    return postgres_dsn


async def test_two_pools_get_in_each_others_way_as_little_as_ever(dsn: str) -> None:
    """Rows that the other changes meanwhile are met as they are: no call is refused for them."""
    settings = PoolSettings(concurrency=8, poll_interval_seconds=0.2)
    targets = [ScriptedTarget(seconds=0.001) for _ in range(2)]
    async with PostgresStore(dsn) as a, PostgresStore(dsn) as b:

        async def enqueue(store: PostgresStore) -> None:
            for n in range(150):
                await store.enqueue([job(f"{n}.png"), job(f"{n + 1}.png", etag=str(n % 3))])

        async def spend(store: PostgresStore) -> None:
            for _ in range(100):
                await store.budget("bot").take({"chat": [Window(1000, 60)]})

        async with (
            PrewarmPool(UnreadSource(), targets[0], a, settings=settings) as pool,
            PrewarmPool(UnreadSource(), targets[1], b, settings=settings) as other,
        ):
            with anyio.fail_after(60):
                async with anyio.create_task_group() as group:
                    for store in (a, b):
                        group.start_soon(enqueue, store)
                        group.start_soon(spend, store)
                await pool.join()
            assert pool.stats().failed == other.stats().failed == 0
        assert await a.counts() == {("bot", MediaKind.PHOTO, State.READY): 151}


@asynccontextmanager
async def changing(dsn: str, key: str) -> AsyncGenerator[None]:
    """A transaction of the host's that changes a row, and commits once somebody waits for it."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as host:
        await host.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        await host.execute("UPDATE media_cache SET details = '{}', priority = 9 WHERE media_key = %s", [key])

        async def commit() -> None:
            while not await anyio.to_thread.run_sync(one, dsn, WAITING):  # noqa: ASYNC110 - the server tells nobody
                await anyio.sleep(0.005)
            await host.execute("COMMIT")

        async with anyio.create_task_group() as group:
            group.start_soon(commit)
            with anyio.fail_after(20):
                yield


async def cached(store: PostgresStore) -> None:
    """A row that is ready."""
    await store.enqueue([job("ready.png", etag="old")])
    [lease] = (await store.turn(lease=1)).leased
    await store.turn([Succeeded(lease, Warmed("H"))])


Call = Callable[[PostgresStore], Any]
CALLS: dict[str, Call] = {
    "invalidate": lambda store: store.invalidate(job("ready.png").id, "H"),
    "forget": lambda store: store.invalidate(job("ready.png").id, "H", rewarm=False),
    "enqueue": lambda store: store.enqueue([job("ready.png", etag="new")]),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_row_that_changed_while_a_call_waited_for_it_is_changed_all_the_same(
    dsn: str, call: str
) -> None:
    """The call does to it what it says, on the store's own connections and on a host's."""
    async with AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False) as pool:
        for source in (dsn, pool):
            async with PostgresStore(source, notify=False) as store:
                await cached(store)
                async with changing(dsn, "ready.png"):
                    assert await CALLS[call](store) in (True, [Enqueued.QUEUED])
                await anyio.to_thread.run_sync(one, dsn, "DELETE FROM media_cache")


async def test_an_outcome_of_a_row_that_changed_meanwhile_is_told(dsn: str) -> None:
    """As is a heartbeat, in a pipeline of several statements."""
    async with PostgresStore(dsn, notify=False) as store:
        await store.enqueue([job("a.png")])
        [lease] = (await store.turn(lease=1)).leased
        async with changing(dsn, "a.png"):
            assert await store.heartbeat([lease]) == []
        async with changing(dsn, "a.png"):
            turn = await store.turn([Retry(lease, 0, "later")])
        assert not turn.lost
        assert not turn.deferred


async def test_a_default_that_changes_under_a_running_store_is_learnt(postgres_dsn: str) -> None:
    """Connections made later have it: the first call that it undoes is made again."""
    async with PostgresStore(postgres_dsn, notify=False, auto_migrate=True) as store:
        await store.enqueue([job("a.png")])
        [lease] = (await store.turn(lease=1)).leased
        prefer(postgres_dsn, "repeatable read")
        assert not store._link._is_pinned
        await anyio.to_thread.run_sync(one, postgres_dsn, KILL)
        async with changing(postgres_dsn, "a.png"):
            assert await store.heartbeat([lease]) == []
        assert store._link._is_pinned


async def test_a_store_leaves_nothing_in_a_session_that_others_have_next(dsn: str) -> None:
    """The host's connections come back with the host's own default."""
    async with (
        AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool,
        PostgresStore(pool, notify=False) as store,
    ):
        await cached(store)
        await store.invalidate(job("ready.png").id)
        async with pool.connection() as connection:
            for name in ("transaction_isolation", "default_transaction_isolation"):
                row = await (await connection.execute(f"SHOW {name}".encode())).fetchone()
                assert row == (await anyio.to_thread.run_sync(partial(one, dsn), f"SHOW {name}"),)
