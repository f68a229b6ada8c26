"""PostgresStore behind a pooler that lends the server's connections by transaction, and prepared statements."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import anyio
import psycopg
import pytest
from pgbouncer import pgbouncer
from psycopg_pool import AsyncConnectionPool

from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.media import MediaKind, Warmed
from prewarmkit.stores import Enqueued, PostgresStore, State, Succeeded
from prewarmkit.stores.postgres.link import Session
from prewarmkit.stores.postgres.session import connect
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

PREPARED = "SELECT name FROM pg_prepared_statements WHERE NOT from_sql"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    async with PostgresStore(postgres_dsn, notify=False) as store:
        await store.migrate()
    return postgres_dsn


@pytest.fixture
def via(dsn: str) -> Iterator[str]:
    """The same database, behind pgbouncer in transaction mode with three connections to the server."""
    with pgbouncer(dsn) as via:
        yield via


async def forget(session: Session, query: str) -> None:
    """Have the server forget a statement behind psycopg's back."""
    found = await session.connection.execute(
        "SELECT name FROM pg_prepared_statements WHERE statement = %s",
        [session.queries[query].decode()],
        prepare=False,
    )
    [[name]] = await found.fetchall()
    await session.connection.execute(
        f"DO $$ BEGIN EXECUTE 'DEALLOCATE {name}'; END $$".encode(), prepare=False
    )


@pytest.mark.parametrize(
    ("prepare", "listens"),
    [
        pytest.param(True, False, id="polling"),
        pytest.param(True, True, id="listening directly"),
        pytest.param(False, False, id="never prepared"),
    ],
)
async def test_two_pools_behind_pgbouncer_push_every_medium_once(
    via: str, dsn: str, prepare: bool, listens: bool
) -> None:
    """Enqueues, look-ups and invalidations beside them all succeed, and do to a row what they say."""
    keys = [f"{n}.png" for n in range(500)]
    targets = [ScriptedTarget(seconds=0.002) for _ in range(2)]
    settings = PoolSettings(concurrency=8, poll_interval_seconds=5 if listens else 0.2)
    directly = dsn if listens else None
    async with (
        PostgresStore(via, notify=listens, prepare=prepare, listen_dsn=directly) as a,
        PostgresStore(via, notify=listens, prepare=prepare, listen_dsn=directly) as b,
    ):
        stores = (a, b)
        kept = [job(f"kept-{n}.png") for n in range(40)]
        await a.enqueue(kept)
        leases = (await a.turn(lease=40)).leased
        assert not (
            await a.turn([Succeeded(lease, Warmed(f"OLD-{lease.media.key}")) for lease in leases])
        ).lost

        async def enqueue(store: PostgresStore, mine: list[str]) -> None:
            for key in mine:
                assert await store.enqueue([job(key)]) == [Enqueued.QUEUED]

        async def look(store: PostgresStore) -> None:
            for key in keys[:200]:
                await store.lookup_many([job(key).id])
                await store.lookup_many([job(other).id for other in keys[:3]])

        async def invalidate(store: PostgresStore, mine: int) -> None:
            for n in range(mine, len(kept), 2):
                assert await store.invalidate(kept[n].id, f"OLD-kept-{n}.png", rewarm=n % 4 < 2)

        async with (
            PrewarmPool(UnreadSource(), targets[0], a, settings=settings) as one,
            PrewarmPool(UnreadSource(), targets[1], b, settings=settings) as two,
        ):
            with anyio.fail_after(60):
                async with anyio.create_task_group() as group:
                    for n, store in enumerate(stores):
                        group.start_soon(enqueue, store, keys[n::2])
                        group.start_soon(look, store)
                        group.start_soon(invalidate, store, n)
                await one.join()
            assert one.stats().failed == two.stats().failed == 0
        rewarmed = [each.media.key for n, each in enumerate(kept) if n % 4 < 2]
        pushed = Counter(key for target in targets for key in target.calls)
        assert pushed == Counter([*keys, *rewarmed])
        assert await a.counts() == {("bot", MediaKind.PHOTO, State.READY): len(keys) + len(rewarmed)}


async def test_a_statement_is_never_mistaken_for_another_clients(dsn: str) -> None:
    """On a connection of the server that two clients use in turn, each runs its own statement or none."""
    with pgbouncer(dsn, servers=2) as via:
        async with PostgresStore(dsn, notify=False) as direct:
            await direct.enqueue([job("keep.png")])
            [lease] = (await direct.turn(lease=1)).leased
            await direct.turn([Succeeded(lease, Warmed("H"))])
            async with PostgresStore(via, notify=False) as a, PostgresStore(via, notify=False) as b:
                # Whoever has begun a transaction keeps one of the two; the stores have the other.
                first, second = await connect(via), await connect(via)
                await first.execute("BEGIN")
                assert not await a.invalidate(
                    job("nope").id, "x", rewarm=False
                )  # its first statement deletes
                await second.execute("BEGIN")
                await first.execute("ROLLBACK")
                assert not await b.invalidate(job("nope").id, "x")  # its first statement refuses
                await first.execute("BEGIN")
                await second.execute("ROLLBACK")
                assert await b.invalidate(job("keep.png").id, "H")
                await first.close()
                await second.close()
            assert (await direct.counts()).get(("bot", MediaKind.PHOTO, State.PENDING)) == 1


async def test_calls_in_flight_when_statements_get_lost_all_go_on(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of them to notice does not make the others fail."""
    async with PostgresStore(dsn, notify=False) as store:
        await store.enqueue([job(f"{n}.png") for n in range(8)])
        sent = Session.send

        async def lost(
            self: Session, query: str, *values: object
        ) -> psycopg.AsyncRawCursor[tuple[object, ...]]:
            if self.prepare is not False:
                await anyio.sleep(0.02)  # until all of them are on their way
                # Behind psycopg's back, which would notice a plain DEALLOCATE.
                await self.connection.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$", prepare=False)
                raise psycopg.errors.ProtocolViolation("bind message supplies 11 parameters, but requires 0")
            return await sent(self, query, *values)

        monkeypatch.setattr(Session, "send", lost)

        async def look() -> None:
            ids = [job(f"{n}.png").id for n in range(8)]
            assert len(await store.lookup_many(ids)) == 8

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(look)
        assert not store._link._is_prepared


async def test_a_turn_that_lost_a_statement_after_its_commit_is_not_made_twice(dsn: str) -> None:
    """What it had committed stays told, and what it had leased stays in hand."""
    async with PostgresStore(dsn, notify=False) as store:
        await store.enqueue([job("a.png"), job("b.png")])
        [lease] = (await store.turn(lease=1)).leased
        told = [Succeeded(lease, Warmed("H"))]
        for _ in range(2):  # the second asks what has landed, after its own commit
            await store.turn(told)
            store._carried.add(told)
        assert not (await store.turn(told)).lost
        store._carried.add(told)
        await forget(store._link._urgent[0], "landed")
        turn = await store.turn(told, lease=1)
        assert not turn.lost
        assert [each.media.key for each in turn.leased] == ["b.png"]
        assert not store._link._is_prepared


async def test_no_two_connections_name_a_statement_alike(dsn: str) -> None:
    """Neither the store's own nor a host's."""
    async with (
        PostgresStore(dsn, notify=False) as a,
        AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool,
        PostgresStore(pool, notify=False) as b,
    ):
        seen: list[str] = []
        for store in (a, b):
            for _ in range(8):
                await store.lookup_many([job("a.png").id])
                await store.turn(lease=1)
        for session in (*a._link._idle, *a._link._urgent):
            found = await session.connection.execute(PREPARED, prepare=False)
            seen += [row[0] for row in await found.fetchall()]
        async with pool.connection() as connection:
            found = await connection.execute(PREPARED, prepare=False)
            hosts = [row[0] for row in await found.fetchall()]
        assert seen
        assert hosts
        assert len({*seen, *hosts}) == len([*seen, *hosts])
        assert not {*seen, *hosts} & {f"_pg3_{n}" for n in range(1000)}


@pytest.mark.parametrize("threshold", [None, 2])
async def test_a_hosts_pool_says_whether_its_connections_prepare(dsn: str, threshold: int | None) -> None:
    """A connection that prepares from the second time on does so here; one that never does never does."""
    async with (
        AsyncConnectionPool(
            dsn, min_size=1, max_size=1, open=False, kwargs={"prepare_threshold": threshold}
        ) as pool,
        PostgresStore(pool, notify=False) as store,
    ):
        prepared: list[int] = []
        for _ in range(4):
            await store.lookup_many([job("a.png").id])
            async with pool.connection() as connection:
                found = await connection.execute(PREPARED, prepare=False)
                prepared.append(len(await found.fetchall()))
        assert prepared == ([0, 0, 0, 0] if threshold is None else [0, 0, 1, 1])


async def test_a_store_that_is_not_to_prepare_never_does(dsn: str) -> None:
    """Not on its own connections, not on a host's, whatever is asked of it and how often."""
    async with (
        PostgresStore(dsn, notify=False, prepare=False) as own,
        AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool,
        PostgresStore(pool, notify=False, prepare=False) as lent,
    ):
        for store in (own, lent):
            for n in range(8):
                await store.check_schema()
                await store.verify()
                await store.enqueue([job(f"{n}.png")])
                await store.lookup_many([job("a.png").id])
                await store.lookup_many([job("a.png").id, job("b.png").id])
                leases = (await store.turn(lease=1)).leased
                await store.heartbeat(leases)
                await store.turn([Succeeded(lease, Warmed("H")) for lease in leases])
                await store.invalidate(job(f"{n}.png").id)
        async with pool.connection() as connection:
            for n in range(8):
                await lent.enqueue_in(connection, f"in-{n}", target="bot")
            connections = [connection, *(each.connection for each in (*own._link._idle, *own._link._urgent))]
            for each in connections:
                found = await each.execute(PREPARED, prepare=False)
                assert not await found.fetchall()
