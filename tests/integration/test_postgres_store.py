"""PostgresStore on a real server: hints, a host's own connections, plans, secrets. What breaks: test_postgres_faults.py."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import anyio
import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from prewarmkit import ConfigurationError, PoolSettings, PrewarmPool, StoreError
from prewarmkit.budget import Window
from prewarmkit.errors import SchemaTooNew, SchemaTooOld
from prewarmkit.media import Media, MediaKind, Warmed
from prewarmkit.stores import Enqueued, Failed, PostgresStore, Retry, State, Succeeded, Turn
from prewarmkit.stores.postgres import by_hand, host
from prewarmkit.stores.postgres.hints import channel_of
from prewarmkit.stores.postgres.link import Session
from prewarmkit.stores.postgres.listen import Listener, Notifier
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.postgres_time import shift_rows
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        yield store


def one(dsn: str, statement: str) -> Any:
    """The first column of the first row."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return None if row is None else row[0]


def run(dsn: str, statement: str) -> None:
    """Something that has no rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


async def flush_figures(store: PostgresStore) -> None:
    """Have the store's connections report their figures to the server now and not in some seconds."""
    for session in [*store._link._idle, *store._link._urgent]:
        await session.connection.execute("SELECT pg_stat_force_next_flush()")


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what the server does in its own time."""
    with anyio.fail_after(20):
        while not await anyio.to_thread.run_sync(is_so):  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.05)


# ── event loops ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_under_trio_it_says_at_once_that_it_cannot(anyio_backend: str) -> None:
    """Psycopg is asyncio only; no connection is tried."""
    with pytest.raises(ConfigurationError, match="asyncio only"):
        async with PostgresStore("postgresql://127.0.0.1:1/x"):
            pass


async def test_it_is_entered_once_at_a_time_and_again_after_it_was_left(postgres_dsn: str) -> None:
    """Entered again inside, it would lose its connections at the inner end."""
    store = PostgresStore(postgres_dsn, auto_migrate=True)
    for _ in range(2):
        async with store:
            with pytest.raises(RuntimeError, match="entered already"):
                await store.__aenter__()
            assert await store.counts() == {}
    with pytest.raises(ConfigurationError, match="not open"):
        await store.counts()


async def test_leaving_closes_every_connection(postgres_dsn: str) -> None:
    """A host that restarts its store a thousand times must not run the server out of slots."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store, store.wakeups() as hints:
        await store.enqueue([job()])
        await store.turn(lease=1)
        await anext(hints)
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await until(lambda: one(postgres_dsn, count) == 0)


# ── work ─────────────────────────────────────────────────────────────────────


async def test_two_pools_share_a_table_and_push_each_medium_once(postgres_dsn: str) -> None:
    """SKIP LOCKED gives a row to one of them."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as a, PostgresStore(postgres_dsn) as b:
        await a.enqueue([job(f"{n}.png") for n in range(400)])
        targets = ScriptedTarget(), ScriptedTarget()
        settings = PoolSettings(concurrency=8)
        async with (
            PrewarmPool(UnreadSource(), targets[0], a, settings=settings) as pool,
            PrewarmPool(UnreadSource(), targets[1], b, settings=settings),
        ):
            await pool.join(timeout=30)
        pushed = targets[0].calls + targets[1].calls
        assert sorted(pushed) == sorted(f"{n}.png" for n in range(400))
        assert await a.counts() == {("bot", MediaKind.PHOTO, State.READY): 400}


async def test_a_turn_is_one_commit_and_small_in_the_log(store: PostgresStore, postgres_dsn: str) -> None:
    """At saturation far more than 20 jobs share a commit, and a job costs less than 1 kB of log."""
    jobs = [job(f"videos/{n:06}.mp4", target="telegram:123456") for n in range(2000)]
    await store.enqueue(jobs)
    begun = one(postgres_dsn, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    before = one(postgres_dsn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    outcomes: list[Succeeded] = []
    while outcomes or (await store.has_work()):
        turn = await store.turn(outcomes, 100, ["telegram:123456"])
        handle = f"BAACAgIAAxkDAAI{secrets.token_urlsafe(30)}"
        outcomes = [Succeeded(lease, Warmed(handle, unique_id="AgADXBEAAv12aUo")) for lease in turn.leased]
    after = one(postgres_dsn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    log = one(postgres_dsn, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn") - begun
    assert after - before <= 2000 / 20 + 25
    assert log / 2000 < 1000


async def test_heartbeats_leave_the_indexes_alone(store: PostgresStore, postgres_dsn: str) -> None:
    """They write one column that no index has, so that PostgreSQL updates in place (HOT)."""
    await store.enqueue([job(str(n)) for n in range(300)])
    leases = (await store.turn(lease=300)).leased
    await flush_figures(store)
    updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'media_cache'"
    await until(lambda: one(postgres_dsn, updates) >= 300)
    hot = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'media_cache'"
    for _ in range(3):
        assert await store.heartbeat(leases) == []
    await flush_figures(store)
    await until(lambda: one(postgres_dsn, updates) >= 1200)
    assert one(postgres_dsn, hot) >= 0.9 * 900


async def test_a_full_table_is_leased_from_by_index_alone(store: PostgresStore, postgres_dsn: str) -> None:
    """Neither the ready nor the delayed rows are walked over, and nothing is sorted."""
    queries = store._queries
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("""INSERT INTO media_cache (target, media_key, kind, priority, due_at, updated_at, state, rank)
            SELECT 'bot', n::text, 'photo', n % 10, now() + interval '1 hour' * (n % 3 - 1), now(),
                   CASE WHEN n % 3 = 1 THEN 'ready' ELSE 'pending' END, CASE WHEN n % 3 = 0 THEN now() END
            FROM generate_series(1, 60000) AS n""")
        connection.execute("ANALYZE media_cache")
        cursor = psycopg.RawCursor(connection)
        cursor.execute(queries["plan"])

        def plan(query: str, *values: Any) -> str:
            cursor.execute(b"EXPLAIN (ANALYZE, BUFFERS) " + queries[query], values)
            return "\n".join(str(row[0]) for row in cursor.fetchall())

        plans = {
            "lease": plan("lease_one", "bot", 64, 60.0, None, None, None, None, 8),
            "settle": plan(
                "succeed",
                "{bot}",
                "{1}",
                "{photo}",
                "{1}",
                "{H}",
                "{NULL}",
                "{NULL}",
                "{NULL}",
                "{NULL}",
                "{NULL}",
                "{NULL}",
            ),
            "sweep": plan("sweep"),
            "look-up": plan("find", "bot", "1", "photo"),
        }
    for name, text in plans.items():
        assert "Seq Scan" not in text, name
        assert "Sort" not in text, name
    assert "ix_media_cache_due" in plans["lease"]


async def test_the_host_clock_means_nothing(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose clock is an hour off shortens nobody's back-off: it sends delays."""
    monkeypatch.setattr(time, "time", lambda: 1.0)
    await store.enqueue([job()])
    [lease] = (await store.turn(lease=1)).leased
    await store.turn([Retry(lease, 60, "later")])
    looked = (await store.lookup_many([lease.id]))[lease.id]
    assert looked.due_in == pytest.approx(60, abs=2)


async def test_many_thousand_keys_go_in_at_once(store: PostgresStore) -> None:
    """A catalogue of 100,000, and again: all of them are known then."""
    jobs = [job(f"{n:06}.jpg") for n in range(100_000)]
    assert set(await store.enqueue(jobs)) == {Enqueued.QUEUED}
    assert set(await store.enqueue(jobs[:20_000])) == {Enqueued.DUPLICATE}
    assert await store.counts() == {("bot", MediaKind.PHOTO, State.PENDING): 100_000}
    found = await store.lookup_many([each.id for each in jobs[:3_000]])
    assert len(found) == 3_000


async def test_a_turn_that_leases_nothing_takes_nothing_back_and_says_that_something_is_due(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """A flush has no use for rows: whoever wants some sweeps first."""
    await store.enqueue([job("left"), job("later", delay=120)])
    await store.turn(lease=1, lease_seconds=60)
    assert (await store.turn()).next_due == pytest.approx(60, abs=2)
    shift_rows(postgres_dsn, 61)
    assert (await store.turn()).next_due == 0
    assert await store.counts() == {
        ("bot", MediaKind.DOCUMENT, State.WARMING): 1,
        ("bot", MediaKind.DOCUMENT, State.PENDING): 1,
    }
    turn = await store.turn(lease=1, lease_seconds=100)
    assert [lease.id.key for lease in turn.leased] == ["left"]
    assert turn.next_due == pytest.approx(59, abs=2)


async def test_thousands_of_leases_whose_time_comes_at_once_are_looked_at_in_steps(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """Those that are held stay; the others are taken back, all of them, over some turns."""
    await store.enqueue([job(str(n)) for n in range(3_000)])
    leases = (await store.turn(lease=3_000, lease_seconds=60)).leased
    shift_rows(postgres_dsn, 59)
    assert await store.heartbeat(leases[:1_500], 60) == []
    shift_rows(postgres_dsn, 2)
    await store.enqueue([job("another", delay=1_000)])
    turns = [await store.turn(lease=1, targets=["nobody"]) for _ in range(3)]
    assert turns[-1].next_due == pytest.approx(58, abs=5)
    counts = await store.counts()
    assert counts["bot", MediaKind.DOCUMENT, State.WARMING] == 1_500
    assert counts["bot", MediaKind.DOCUMENT, State.PENDING] == 1_501
    assert await store.heartbeat(leases[:1_500], 60) == []
    assert len(await store.heartbeat(leases[1_500:], 60)) == 1_500


async def test_a_lease_that_an_older_version_gave_runs_out_too(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """It filed none: a process of that version may still run while newer ones begin."""
    await store.enqueue([job("held"), job("left")])
    held, left = (await store.turn(lease=2)).leased
    one(postgres_dsn, "UPDATE media_cache SET rank = NULL RETURNING 1")
    assert not (await store.turn(lease=1)).leased
    one(postgres_dsn, "UPDATE media_cache SET rank = NULL RETURNING 1")
    shift_rows(postgres_dsn, 59)
    assert await store.heartbeat([held]) == []
    shift_rows(postgres_dsn, 2)
    assert [lease.id for lease in (await store.turn(lease=2)).leased] == [left.id]


# ── hints ────────────────────────────────────────────────────────────────────


async def test_another_process_hears_of_new_work(postgres_dsn: str) -> None:
    """By NOTIFY, on a connection of its own."""
    async with (
        PostgresStore(postgres_dsn, auto_migrate=True) as a,
        PostgresStore(postgres_dsn) as b,
        b.wakeups() as hints,
    ):
        with anyio.fail_after(10):
            await anext(hints)  # what it may have missed before it listened
            await a.enqueue([job()])
            await anext(hints)


async def test_a_flood_of_enqueues_sends_few_hints(store: PostgresStore, postgres_dsn: str) -> None:
    """Each NOTIFY takes a lock of the whole server at its commit."""
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        await connection.execute(f"LISTEN {channel_of('public')}".encode())
        began = time.monotonic()
        for n in range(100):
            await store.enqueue([job(str(n))])
        took = time.monotonic() - began
        heard = [hint async for hint in connection.notifies(timeout=0.3)]
    assert 1 <= len(heard) <= 2 + (took + 0.3) / 0.05


async def test_a_hint_makes_each_idle_pool_look_once(postgres_dsn: str) -> None:
    """Twenty of them and one key: one finds it, the others find nothing and rest again."""
    names = [f"pool-{n}" for n in range(20)]
    looks = dict.fromkeys(names, 0)
    targets = {name: ScriptedTarget() for name in names}
    settings = PoolSettings(concurrency=1, poll_interval_seconds=600)

    class Watched(PostgresStore):
        """Counts the turns that would lease."""

        name = ""

        async def turn(self, *given: Any, **how: Any) -> Turn:
            lease = how.get("lease", given[1] if len(given) > 1 else 0)
            looks[self.name] += bool(lease)
            return await super().turn(*given, **how)

    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(PostgresStore(postgres_dsn, auto_migrate=True))
        listeners: list[Listener] = []
        for name in names:
            store = Watched(postgres_dsn)
            store.name = name
            await stack.enter_async_context(store)
            pool = PrewarmPool(UnreadSource(), targets[name], store, settings=settings)
            await stack.enter_async_context(pool)
            assert store._listener is not None
            listeners.append(store._listener)
        await until(lambda: all(listener.is_hearing for listener in listeners))
        await at_rest(looks)
        before = dict(looks)
        for n in range(2):
            await producer.enqueue([job(f"{n}.png")])
            with anyio.fail_after(20):
                while await producer.has_work() or any(looks[name] == before[name] for name in names):  # noqa: ASYNC110 - pools tell nobody
                    await anyio.sleep(0.02)
            await at_rest(looks)
            done = [name for name in names if targets[name].calls]
            more = Counter(looks[name] - before[name] for name in names)
            assert len(done) == 1
            # Whoever warmed it looks once more, for what could come next.
            assert more[1] >= len(names) - 1, more
            assert max(more) <= 2
            before = dict(looks)
            targets[done[0]].calls.clear()


async def at_rest(looks: dict[str, int]) -> None:
    """Wait until no pool has looked for a while."""
    seen: dict[str, int] = {}
    while seen != looks:
        seen = dict(looks)
        await anyio.sleep(0.25)


async def test_without_hints_work_is_found_by_polling(postgres_dsn: str) -> None:
    """LISTEN leads nowhere, as behind some poolers; nothing depends on it."""
    dead = "postgresql://127.0.0.1:1/nothing"
    async with (
        PostgresStore(postgres_dsn, auto_migrate=True, listen_dsn=dead) as a,
        PostgresStore(postgres_dsn, notify=False) as b,
    ):
        target = ScriptedTarget()
        settings = PoolSettings(poll_interval_seconds=0.2)
        async with PrewarmPool(UnreadSource(), target, a, settings=settings) as pool:
            await b.enqueue([job()])
            await pool.join(timeout=10)
        assert target.calls == ["a.png"]


# ── the host's own connections ───────────────────────────────────────────────


@pytest.mark.parametrize("autocommit", [False, True])
async def test_enqueue_in_is_part_of_the_hosts_transaction(
    store: PostgresStore, postgres_dsn: str, autocommit: bool
) -> None:
    """What the host rolls back was never queued; what it commits is."""
    async with await psycopg.AsyncConnection[Any].connect(
        postgres_dsn, autocommit=autocommit, row_factory=dict_row
    ) as connection:
        async with connection.transaction(force_rollback=True):
            assert await store.enqueue_in(connection, "a.png", target="bot") is Enqueued.QUEUED
        assert await store.counts() == {}
        async with connection.transaction():
            answers = await store.enqueue_in(
                connection, ["a.png", Media("b", MediaKind.VIDEO)], target=ScriptedTarget(), priority=2
            )
            assert answers == [Enqueued.QUEUED, Enqueued.QUEUED]
            assert await store.counts() == {}
        assert sum((await store.counts()).values()) == 2


async def test_a_long_transaction_of_the_hosts_does_not_make_a_medium_older_than_it_is(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """Its times are those of the statement, not of the transaction's start: it neither overtakes others nor is due too soon."""
    async with await psycopg.AsyncConnection[Any].connect(postgres_dsn) as host:
        [[began]] = await (await host.execute("SELECT now()")).fetchall()
        [[before]] = await (await host.execute("SELECT clock_timestamp()")).fetchall()
        assert began < before
        await store.enqueue_in(host, ["new.png", Media("known.png", etag="1")], target="bot")
        await store.enqueue_in(host, "delayed.png", target="bot", delay=60)
        await store.enqueue_in(host, Media("known.png", etag="2"), target="bot")
        await host.commit()
    with psycopg.connect(postgres_dsn) as connection:
        found = connection.execute(
            "SELECT media_key, due_at, updated_at, rank - interval '1 minute' * priority FROM media_cache"
        ).fetchall()
    assert len(found) == 3
    for key, due_at, updated_at, rank in found:
        assert updated_at >= before
        if key == "delayed.png":
            assert due_at >= before + timedelta(seconds=60)
        else:
            assert due_at >= before
            assert rank >= before


async def test_invalidating_without_rewarming_cannot_catch_the_next_handle(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is being warmed loses its old handle; the new one that comes at that moment is no part of it."""
    await store.enqueue([job(etag="1")])
    [lease] = (await store.turn(lease=1)).leased
    await store.turn([Succeeded(lease, Warmed("OLD"))])
    await store.enqueue([job(etag="2")])
    [lease] = (await store.turn(lease=1)).leased
    told = [Succeeded(lease, Warmed("NEW"))]
    changed = Session.change

    async def change(self: Session, query: str, *values: Any) -> int:
        count = await changed(self, query, *values)
        if query == "drop":
            assert list((await store.turn(told)).deferred) == told
        return count

    monkeypatch.setattr(Session, "change", change)
    assert await store.invalidate(lease.id, rewarm=False)
    monkeypatch.undo()
    assert not (await store.turn(told)).lost
    handle = (await store.lookup_many([lease.id]))[lease.id].handle
    assert handle is not None
    assert handle.value == "NEW"


async def test_enqueue_in_takes_a_sync_connection(store: PostgresStore, postgres_dsn: str) -> None:
    """Django's, say; and without a loop by `enqueue_in_sync`."""
    with psycopg.connect(postgres_dsn) as connection:
        assert await store.enqueue_in(connection, "a.png", target="bot") is Enqueued.QUEUED
        assert store.enqueue_in_sync(connection, ["a.png", "b.png"], target="bot", delay=5) == [
            Enqueued.DUPLICATE,
            Enqueued.QUEUED,
        ]
        assert await store.counts() == {}
        connection.commit()
    assert sum((await store.counts()).values()) == 2


async def test_a_host_that_commits_wakes_the_listeners(store: PostgresStore, postgres_dsn: str) -> None:
    """The hint is part of the transaction too."""
    async with store.wakeups() as hints:
        with anyio.fail_after(10):
            await anext(hints)
            with psycopg.connect(postgres_dsn) as connection:
                store.enqueue_in_sync(connection, "a.png", target="bot")
                with anyio.move_on_after(0.2) as quiet:
                    await anext(hints)
                assert quiet.cancelled_caught
                connection.commit()
            await anext(hints)


@pytest.mark.parametrize("is_sync", [True, False])
async def test_enqueue_in_refuses_tables_of_another_version_before_it_changes_them(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, is_sync: bool
) -> None:
    """A producer that only ever uses its host's connections must not write into what it does not know."""
    store = PostgresStore(postgres_dsn)
    async with store:
        await store.migrate()

    async def enqueue(key: str) -> None:
        if is_sync:
            with psycopg.connect(postgres_dsn) as connection:
                store.enqueue_in_sync(connection, key, target="bot")
        else:
            async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
                await store.enqueue_in(connection, key, target="bot")

    run(postgres_dsn, "INSERT INTO prewarm_migrations (version, name) VALUES (9999, 'later')")
    with pytest.raises(SchemaTooNew, match="9999"):
        await enqueue("a.png")
    assert one(postgres_dsn, "SELECT count(*) FROM media_cache") == 0
    run(postgres_dsn, "DELETE FROM prewarm_migrations WHERE version = 9999")
    await enqueue("a.png")
    run(postgres_dsn, "DELETE FROM prewarm_migrations WHERE version > 2")
    await enqueue("b.png")  # within the minute nobody looks again
    monkeypatch.setattr(host, "_CHECK_SECONDS", 0.0)
    with pytest.raises(SchemaTooOld):
        await enqueue("c.png")
    assert one(postgres_dsn, "SELECT count(*) FROM media_cache") == 2


async def test_enqueue_in_says_what_is_wrong(store: PostgresStore, postgres_dsn: str) -> None:
    """A slip is found before anything is sent."""
    wrong: Any = object()
    with pytest.raises(TypeError, match="psycopg connection"):
        await store.enqueue_in(wrong, "a.png", target="bot")
    with psycopg.connect(postgres_dsn) as connection:
        with pytest.raises(TypeError, match="target is a target"):
            store.enqueue_in_sync(connection, "a.png", target=7)
        with pytest.raises(ValueError, match=r"0 \(most urgent\) to 9"):
            store.enqueue_in_sync(connection, "a.png", target="bot", priority=10)
        with pytest.raises(ValueError, match="contradicts"):
            store.enqueue_in_sync(connection, Media("a", MediaKind.PHOTO), target="bot", kind="video")
        with pytest.raises(ValueError, match="2600 bytes"):
            store.enqueue_in_sync(connection, "ы" * 1500, target="bot")


async def test_a_hosts_pool_is_borrowed_from_and_left_as_it_was(postgres_dsn: str) -> None:
    """Its connections come back in the mode that the host gave them, and it stays open."""
    async with AsyncConnectionPool[Any](postgres_dsn, min_size=1, max_size=3, open=False) as pool:
        async with PostgresStore(pool, auto_migrate=True) as store:
            await store.enqueue([job("1"), job("2")])
            turn = await store.turn(lease=2)
            await store.turn([Succeeded(lease, Warmed("H")) for lease in turn.leased])
            looked = await store.lookup_many([lease.id for lease in turn.leased])
            assert {found.state for found in looked.values()} == {State.READY}
        async with pool.connection() as connection:
            assert not connection.autocommit
            await connection.execute("SELECT 1")


# ── budgets ──────────────────────────────────────────────────────────────────


async def test_two_processes_share_a_budget(postgres_dsn: str) -> None:
    """Together they make no more calls than one may, however they hurry."""
    limits = {"chat:1": [Window(20, 60)], "bot": [Window(30, 1), Window(200, 60)]}
    async with PostgresStore(postgres_dsn, auto_migrate=True) as a, PostgresStore(postgres_dsn) as b:
        spent: list[float] = []

        async def spend(store: PostgresStore) -> None:
            for _ in range(15):
                wait = await store.budget("bot:1").take(limits)
                spent.append(wait)

        async with anyio.create_task_group() as group:
            for each in (a, b, a, b):
                group.start_soon(spend, each)
        assert spent.count(0.0) == 20
        assert all(wait == 0 or 50 < wait <= 60.001 for wait in spent)
        assert await b.budget("bot:2").take(limits) == 0.0
        shift_rows(postgres_dsn, 60.1)
        assert await a.budget("bot:1").take(limits, cost=20) == 0.0
        assert await b.budget("bot:1").take(limits) == pytest.approx(60, abs=1)


async def test_a_hold_holds_for_all_and_is_never_shortened(postgres_dsn: str) -> None:
    """A 429 in one process is obeyed by the other, also after a restart."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        await store.budget("bot:1").hold("chat:1", 100)
        await store.budget("bot:1").hold("chat:1", 5)
    async with PostgresStore(postgres_dsn) as store:
        budget = store.budget("bot:1")
        assert await budget.take({"chat:1": [], "bot": [Window(1, 1)]}) == pytest.approx(100, abs=2)
        assert await budget.take({"chat:2": [], "bot": [Window(1, 1)]}) == 0.0
        with pytest.raises(ValueError, match="never fits"):
            await budget.take({"bot": [Window(1, 1)]}, cost=2)


async def test_what_arrives_late_counts_from_then(postgres_dsn: str) -> None:
    """Of two under way the right one, though the database rounds to microseconds."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        budget, limits = store.budget("bot"), {"chat": [Window(2, 60)]}
        _, first = await budget.take_at(limits)
        await anyio.sleep(0.2)
        _, second = await budget.take_at(limits)
        await anyio.sleep(0.2)
        await budget.arrived("chat", second)
        assert await budget.take(limits) == pytest.approx(59.6, abs=0.1)
        await budget.arrived("chat", first)
        assert await budget.take(limits) > 59.9


async def test_names_under_which_nothing_counts_any_more_are_forgotten(postgres_dsn: str) -> None:
    """A row for each chat that ever got something would stay otherwise. What somebody is just asking for is let be."""
    limits = {f"chat:{n}": [Window(1, 60)] for n in range(50)}
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        assert await store.budget("bot:1").take(limits) == 0.0
        await store.budget("bot:1").hold("chat:held", 500)
    shift_rows(postgres_dsn, 62)
    async with PostgresStore(postgres_dsn) as store:
        with psycopg.connect(postgres_dsn) as other:
            other.execute("SELECT FROM prewarm_budget WHERE name = 'chat:0' FOR UPDATE")
            assert await store.budget("bot:1").take({"chat:new": [Window(1, 60)]}) == 0.0
        left = "SELECT string_agg(name, ' ' ORDER BY name) FROM prewarm_budget"
        assert one(postgres_dsn, left) == "chat:0 chat:held chat:new"


async def test_a_name_that_is_swept_out_while_it_is_asked_for_counts_all_the_same(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between being made sure of and being locked."""
    change, swept = Session.change, list[str]()

    async def change_and_sweep(session: Session, query: str, *values: Any) -> int:
        changed = await change(session, query, *values)
        if query == "budget_begin" and not swept:
            swept.append("once")
            await anyio.to_thread.run_sync(run, postgres_dsn, "DELETE FROM prewarm_budget")
        return changed

    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        assert await store.budget("bot").take({"old": [Window(1, 60)], "too": []}) == 0.0
        monkeypatch.setattr(Session, "change", change_and_sweep)
        assert await store.budget("bot").take({"old": [Window(1, 60)], "new": []}) == 0.0
        assert swept
        assert await store.budget("bot").take({"old": [Window(1, 60)]}) == pytest.approx(60, abs=1)


async def test_a_clock_that_is_set_back_makes_no_wait_longer_than_its_window(postgres_dsn: str) -> None:
    """The calls that it knows lie in the future then: they count as made now."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        assert await store.budget("bot").take({"bot": [Window(1, 60)]}) == 0.0
        run(postgres_dsn, "UPDATE prewarm_budget SET calls = ARRAY[calls[1] + interval '1 hour']")
        assert await store.budget("bot").take({"bot": [Window(1, 60)]}) == pytest.approx(60, abs=0.1)
        shift_rows(postgres_dsn, 61)
        assert await store.budget("bot").take({"bot": [Window(1, 60)]}) == 0.0


async def test_many_rows_are_requeued_and_purged_some_at_a_time(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows that hold some that are meant, none, or all; rows that somebody has locked stay as they are."""
    monkeypatch.setattr(by_hand, "_WINDOW", 7)
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        await store.enqueue([job(f"{n:03}.png", target="a" if n % 3 else "b") for n in range(100)])
        leases = (await store.turn(lease=100)).leased
        await store.turn([Failed(lease, "odd" if lease.id.target == "b" else "even") for lease in leases])
        with psycopg.connect(postgres_dsn) as other:
            other.execute("SELECT FROM media_cache WHERE media_key = '001.png' FOR UPDATE")
            assert await store.requeue(target="a", limit=20) == 20
            assert await store.requeue(reason="even") == 45
        assert await store.requeue(reason="nothing") == 0
        assert await store.requeue(reason="even") == 1
        assert await store.purge(older_than=1000) == 0
        shift_rows(postgres_dsn, 2000)
        with psycopg.connect(postgres_dsn) as other:
            other.execute("SELECT FROM media_cache WHERE media_key = '099.png' FOR UPDATE")
            assert await store.purge(older_than=1000) == 33
        assert await store.purge(older_than=1000) == 1
        assert {state: rows for (_, _, state), rows in (await store.counts()).items()} == {State.PENDING: 66}


# ── secrets ──────────────────────────────────────────────────────────────────


@pytest.fixture
def strict_dsn(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """On a server that asks for a password, whatever the environment's does."""
    monkeypatch.delenv("PREWARMKIT_TEST_DSN", raising=False)
    with PostgresServer() as server:
        yield server.create_database()


async def test_no_password_shows_anywhere(strict_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in reprs nor in errors nor in logs, whatever is wrong with the address."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    place = strict_dsn.rsplit("@", 1)[1]
    for dsn in (f"postgresql://postgres:s3cret-x@{place}", "postgresql://u:s3cret-x@127.0.0.1:1/x"):
        store = PostgresStore(dsn, listen_dsn=dsn)
        said.append(repr(store))
        said.append(repr(store._link) + repr(store._listener))
        with pytest.raises((StoreError, ConfigurationError)) as failure:
            await store.__aenter__()
        said.append(str(failure.value))
        assert failure.value.__cause__ is None
    with pytest.raises(ConfigurationError) as failure:
        PostgresStore("postgresql://u:s3cret-x%zz@127.0.0.1/x")
    said.append(str(failure.value))
    assert "s3cret" not in "\n".join([*said, caplog.text])


async def test_a_wrong_password_is_a_setting_and_a_dead_server_is_not(strict_dsn: str) -> None:
    """The one needs a person, the other may be back in a moment."""
    place = strict_dsn.rsplit("@", 1)[1]
    with pytest.raises(ConfigurationError, match="password"):
        await PostgresStore(f"postgresql://postgres:wrong@{place}").__aenter__()
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/x") as failure:
        await PostgresStore("postgresql://u@127.0.0.1:1/x").__aenter__()
    assert failure.value.is_retryable


async def test_what_is_no_source_is_said_to_be_none() -> None:
    """At construction, before anything is tried."""
    wrong: Any = 7
    with pytest.raises(TypeError, match="AsyncConnectionPool"):
        PostgresStore(wrong)
    with pytest.raises(ValueError, match="schema"):
        PostgresStore("postgresql://x", schema="")
    with pytest.raises(ConfigurationError, match="connection string"):
        PostgresStore("no such thing")


async def test_a_producer_that_leaves_at_once_has_told_the_others(postgres_dsn: str) -> None:
    """Its last hint goes out as it closes, not 50 ms later when it is gone."""
    async with PostgresStore(postgres_dsn) as store:
        await store.migrate()
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as worker:
        await worker.execute(f"LISTEN {channel_of('public')}".encode())
        async with PostgresStore(postgres_dsn) as producer:
            await producer.enqueue([job("a.png")])
            await producer.enqueue([job("b.png")])
        heard = [hint async for hint in worker.notifies(timeout=10, stop_after=2)]
        assert len(heard) == 2


async def test_a_producer_that_leaves_does_not_wait_long_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that fell silent holds nobody up."""
    monkeypatch.setattr("prewarmkit.stores.postgres.listen._PARTING_SECONDS", 0.05)

    async def say_nothing(payload: str) -> None:
        await anyio.sleep_forever()

    notifier = Notifier(say_nothing)
    notifier.notify()
    with anyio.fail_after(5):
        await notifier.close()
