"""PostgresStore when things break: connections, the server, single rows, what is on the way."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import anyio
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from relay import relay
from waiting import eventually

from prewarmkit import PoolSettings, PrewarmPool, StoreError
from prewarmkit.media import Media, MediaKind, Warmed
from prewarmkit.pool.events import MediaReady
from prewarmkit.stores import Enqueued, Failed, Outcome, PostgresStore, Retry, State, Succeeded
from prewarmkit.stores.postgres.link import Session
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        yield store


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    """A server that a test may crash."""
    monkeypatch.delenv("PREWARMKIT_TEST_DSN", raising=False)
    with PostgresServer() as server:
        yield server


def run(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


async def until_ready(store: PostgresStore, rows: int, *, seconds: float = 30) -> None:
    """Wait until that many rows are ready, whatever the store says meanwhile."""
    with anyio.fail_after(seconds):
        while True:
            await anyio.sleep(0.05)
            try:
                counts = await store.counts()
            except StoreError:
                continue
            if counts.get(("bot", MediaKind.PHOTO, State.READY)) == rows:
                return


async def test_a_call_after_its_connection_died_gets_a_new_one(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """A host that slept over a server's restart sees no error for it."""
    await store.enqueue([job()])
    await store.turn(lease=1)
    run(postgres_dsn, KILL)
    await anyio.sleep(0.1)
    assert await store.enqueue([job()]) == [Enqueued.DUPLICATE]
    run(postgres_dsn, KILL)
    assert len(await store.lookup_many([job().id])) == 1
    run(postgres_dsn, KILL)
    await anyio.sleep(0.1)
    assert (await store.turn(lease=1)).pending == 0


async def test_a_pool_outlives_the_end_of_all_its_connections(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """Killed again and again mid-run: every medium becomes ready, no outcome is lost."""
    await store.enqueue([job(f"{n}.png") for n in range(600)])
    target = ScriptedTarget(seconds=0.005)
    settings = PoolSettings(concurrency=8, poll_interval_seconds=0.2)
    async with PrewarmPool(UnreadSource(), target, store, settings=settings) as pool:
        for _ in range(5):
            await anyio.sleep(0.1)
            await anyio.to_thread.run_sync(run, postgres_dsn, KILL)
        await until_ready(store, 600)
        await pool.stop()
        assert pool.stats().failed == 0
    # A turn that was cut off leased up to twice the concurrency without anybody knowing.
    assert len(target.calls) <= 600 + 5 * 16


async def test_a_pool_outlives_a_crash_of_the_server(own_server: PostgresServer) -> None:
    """Crashed and started again while the pool runs; what waited in memory is settled once."""
    dsn = own_server.create_database()
    async with PostgresStore(dsn, auto_migrate=True) as store:
        await store.enqueue([job(f"{n}.png") for n in range(400)])
        settings = PoolSettings(concurrency=8, poll_interval_seconds=0.2, lease_seconds=3)
        target = ScriptedTarget(seconds=0.01)
        async with PrewarmPool(UnreadSource(), target, store, settings=settings) as pool:
            await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(own_server.kill)
            with pytest.raises(StoreError, match="failed"):
                await store.enqueue([job("x")])
            await anyio.sleep(0.5)
            await anyio.to_thread.run_sync(own_server.start)
            await until_ready(store, 400)
            assert pool.stats().failed == 0


async def test_an_outcome_whose_turn_was_cut_off_after_its_commit_is_not_called_lost(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told again, finds itself applied, and counts as such; one that others overtook does not."""
    await store.enqueue([job(str(n)) for n in range(4)])
    leases = (await store.turn(lease=4)).leased
    outcomes: list[Outcome] = [
        Succeeded(leases[0], Warmed("H0")),
        Failed(leases[1], "no"),
        Retry(leases[2], 60, "later"),
        Succeeded(leases[3], Warmed("H3")),
    ]
    real = Session.send

    async def cut(self: Session, query: str, *values: Any) -> Any:
        if query == "figures":  # the last of a turn: what went before is on its way
            await self.connection.execute("COMMIT")
            raise psycopg.OperationalError("the connection is lost")
        return await real(self, query, *values)

    monkeypatch.setattr(Session, "send", cut)
    with pytest.raises(StoreError):
        await store.turn(outcomes)
    monkeypatch.undo()
    assert await store.invalidate(leases[3].id, "H3")
    turn = await store.turn(outcomes)
    assert list(turn.lost) == [outcomes[3]]
    assert list((await store.turn(outcomes)).lost) == outcomes


async def test_a_value_that_cannot_be_kept_fails_its_row_alone(store: PostgresStore) -> None:
    """NUL, lone surrogates, what JSON does not know: the rest of the batch is settled."""
    await store.enqueue([job(str(n)) for n in range(6)])
    leases = (await store.turn(lease=6)).leased
    strange: dict[str, Any] = {"at": object(), "ratio": float("nan")}
    outcomes: list[Outcome] = [
        Succeeded(leases[0], Warmed("nul\0")),
        Succeeded(leases[1], Warmed("lone\ud800")),
        Succeeded(leases[2], Warmed("H2", details=strange)),
        Failed(leases[3], "why\0\ud800"),
        Retry(leases[4], 60, "why\0"),
        Succeeded(leases[5], Warmed("H5", details={"nul": "\0", "lone": "\ud800"})),
    ]
    assert not (await store.turn(outcomes)).lost
    looked = await store.lookup_many([lease.id for lease in leases])
    states = [looked[lease.id].state for lease in leases]
    assert states == [State.FAILED, State.FAILED, State.READY, State.FAILED, State.PENDING, State.READY]
    assert str(looked[leases[0].id].reason).startswith("media_unfit: ")
    kept = looked[leases[2].id].handle
    assert kept is not None
    assert kept.details["ratio"] == "nan"


async def test_a_row_that_the_database_refuses_holds_up_no_other(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """A host's own constraint, say: the row fails with a reason, the batch goes on, and so does the lease."""
    run(postgres_dsn, "ALTER TABLE media_cache ADD CONSTRAINT mine CHECK (handle <> 'bad')")
    await store.enqueue([job(f"{n}.png") for n in range(5)])
    leases = (await store.turn(lease=4)).leased
    handles = ["H", "bad", "H", "H"]
    outcomes = [Succeeded(lease, Warmed(handle)) for lease, handle in zip(leases, handles, strict=True)]
    turn = await store.turn(outcomes, lease=5)
    assert not turn.lost
    assert len(turn.leased) == 1
    counts = await store.counts()
    assert counts["bot", MediaKind.PHOTO, State.READY] == 3
    assert counts["bot", MediaKind.PHOTO, State.FAILED] == 1


async def test_a_row_that_somebody_has_locked_holds_up_no_other(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """An open transaction of a host: the others are settled now, that one is given back to be told again."""
    await store.enqueue([job(f"{n}.png") for n in range(6)])
    leases = (await store.turn(lease=4)).leased
    with psycopg.connect(postgres_dsn) as host:
        host.execute("SELECT FROM media_cache WHERE media_key = %s FOR UPDATE", [leases[0].id.key])
        began = time.monotonic()
        outcomes = [Succeeded(lease, Warmed("H")) for lease in leases]
        turn = await store.turn(outcomes, lease=1)
        assert (len(turn.leased), turn.lost, turn.deferred) == (1, [], outcomes[:1])
        assert (await store.counts())["bot", MediaKind.PHOTO, State.READY] == 3
        assert len((await store.turn(lease=1)).leased) == 1
        assert await store.heartbeat(leases[:1]) == []
        assert time.monotonic() - began < 5
    turn = await store.turn(outcomes[:1])
    assert (turn.lost, turn.deferred) == ([], ())
    assert (await store.counts())["bot", MediaKind.PHOTO, State.READY] == 4


async def test_two_hundred_locked_rows_cost_a_turn_no_more_than_one(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """They are found together; the wait for locks is one wait."""
    await store.enqueue([job(f"{n:03}.png") for n in range(400)])
    leases = (await store.turn(lease=400)).leased
    with psycopg.connect(postgres_dsn) as host:
        host.execute("SELECT FROM media_cache WHERE media_key < '200' FOR UPDATE")
        began = time.monotonic()
        turn = await store.turn([Succeeded(lease, Warmed("H")) for lease in leases])
        assert time.monotonic() - began < 1.5  # a quarter of a second, and the time of a busy machine
        assert len(turn.deferred) == 200
    assert not (await store.turn(turn.deferred)).lost


async def test_locked_rows_are_waited_for_once_and_not_each_time_that_they_are_told(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """Turns meanwhile, which a pool takes, change nothing about that."""
    await store.enqueue([job(f"{n}.png") for n in range(9)])
    leases = (await store.turn(lease=2)).leased
    outcomes = [Succeeded(lease, Warmed("H")) for lease in leases]
    with psycopg.connect(postgres_dsn) as host:
        host.execute("SELECT FROM media_cache WHERE state = 'warming' FOR UPDATE")
        assert (await store.turn(outcomes)).deferred == outcomes
        began = time.monotonic()
        for _ in range(8):
            assert len((await store.turn(outcomes, lease=1)).deferred) == 2
            await store.turn()
        assert time.monotonic() - began < 1.5  # eight waits would take two
    assert not (await store.turn(outcomes)).deferred
    assert not store._carried.deferred


async def test_locked_rows_are_not_waited_for_one_by_one_beside_one_that_the_database_refuses(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """The batch is told one by one then, successes last as ever, and what is locked is left out at once."""
    run(postgres_dsn, "ALTER TABLE media_cache ADD CONSTRAINT mine CHECK (handle <> 'bad')")
    await store.enqueue([job(f"{n:03}.png", sha256="S" if n > 201 else None) for n in range(204)])
    leases = (await store.turn(lease=204)).leased
    outcomes: list[Outcome] = [
        Succeeded(lease, Warmed("bad" if lease.id.key == "200.png" else "H")) for lease in leases[:203]
    ]
    with psycopg.connect(postgres_dsn) as host:
        host.execute("SELECT FROM media_cache WHERE media_key < '200' FOR UPDATE")
        began = time.monotonic()
        turn = await store.turn([*outcomes, Retry(leases[203], 60, "later")])
        assert time.monotonic() - began < 2  # two hundred waits would take four
        assert (turn.lost, turn.deferred) == ([], outcomes[:200])
    counts = await store.counts()
    assert {state: rows for (_, _, state), rows in counts.items()} == {
        State.WARMING: 200,
        State.FAILED: 1,
        State.READY: 3,
    }


async def test_an_outcome_that_cannot_be_kept_is_known_again_after_a_turn_without_an_answer(
    store: PostgresStore,
) -> None:
    """It failed its row; told again it is not lost, and above all no error without end."""
    await store.enqueue([job()])
    [lease] = (await store.turn(lease=1)).leased
    outcomes = [Succeeded(lease, Warmed("nul\0"))]
    await store.turn(outcomes)
    store._carried.add(outcomes)  # as if its answer had not come
    assert not (await store.turn(outcomes)).lost
    assert list((await store.turn(outcomes)).lost) == outcomes


@pytest.mark.parametrize("rewarm", [True, False])
async def test_a_refusal_that_waits_for_somebodys_change_of_the_row_acts_all_the_same(
    store: PostgresStore, postgres_dsn: str, rewarm: bool
) -> None:
    """The row and its copies are other versions of themselves by then; the handle is the refused one still."""
    await store.enqueue([job("a.png", sha256="S")])
    [lease] = (await store.turn(lease=1)).leased
    await store.turn([Succeeded(lease, Warmed("DEAD"))])
    await store.enqueue([job("b.png", sha256="S")])
    said: list[bool] = []

    async def refuse() -> None:
        said.append(await store.invalidate(lease.id, "DEAD", rewarm=rewarm))

    async with await psycopg.AsyncConnection.connect(postgres_dsn) as host:
        await host.execute("UPDATE media_cache SET size = 7")
        async with anyio.create_task_group() as group:
            group.start_soon(refuse)
            await waits_for_a_lock(postgres_dsn)
            await host.commit()
    assert said == [True]
    found = await store.lookup_many([job(key).id for key in ("a.png", "b.png")])
    assert [looked.handle for looked in found.values()] == ([None, None] if rewarm else [])


async def waits_for_a_lock(dsn: str) -> None:
    """Return when somebody does."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        with anyio.fail_after(10):
            while True:
                cursor = await connection.execute(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                if cursor.rowcount:
                    return
                await anyio.sleep(0.01)


@pytest.mark.parametrize("is_released", [True, False])
async def test_a_pool_keeps_what_it_could_not_tell_until_it_can(
    store: PostgresStore, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, is_released: bool
) -> None:
    """Nobody is told that it succeeded before the store has it; if it never can be told, the report says so."""
    monkeypatch.setattr("prewarmkit.pool.life._FLUSH_SECONDS", 1.5)
    target, events = ScriptedTarget(gate=anyio.Event()), list[object]()
    await store.enqueue([job("a.png"), job("b.png")])
    async with PrewarmPool(UnreadSource(), target, store, on_event=events.append) as pool:
        await eventually(lambda: target.running == 2)
        with psycopg.connect(postgres_dsn) as host:
            host.execute("SELECT FROM media_cache WHERE media_key = 'a.png' FOR UPDATE")
            assert target.gate is not None
            target.gate.set()
            await eventually(lambda: pool.stats().succeeded == 1)
            assert [event.id.key for event in events if isinstance(event, MediaReady)] == ["b.png"]
            if is_released:
                host.rollback()
                await pool.join(timeout=5)
                assert pool.stats().succeeded == 2
            report = await pool.stop()
            assert report.unsettled == (0 if is_released else 1)
    state = State.READY if is_released else State.WARMING
    assert [row.id.key for row in await store.list(state)][:1] == ["a.png"]
    assert target.calls == ["a.png", "b.png"]


async def test_what_a_turn_without_an_answer_did_is_asked_about_whoever_turns_next(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another pool's turn on the same store does not make a landed outcome look lost; one that a sweep undid is lost."""
    await store.enqueue([job("landed"), job("undone")])
    landed, undone = (await store.turn(lease=2, lease_seconds=0.05)).leased
    outcomes: list[Outcome] = [Succeeded(landed, Warmed("H")), Failed(undone, "x: y")]
    await store.turn(outcomes[:1])
    store._carried.add(outcomes)  # as if neither answer had come
    await store.turn()  # somebody else's
    await anyio.sleep(0.1)
    await store.turn(lease=1, targets=["nobody"])  # sweeps
    turn = await store.turn(outcomes)
    assert list(turn.lost) == outcomes[1:]


async def test_two_that_enqueue_the_same_keys_the_other_way_round_do_not_block_each_other(
    postgres_dsn: str,
) -> None:
    """All take rows in one order, so that no two wait for each other in a circle."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as a, PostgresStore(postgres_dsn) as b:
        for turn in range(5):
            jobs = [job(f"{turn}-{n}", etag=str(turn)) for n in range(2000)]
            renewed = [job(f"{turn}-{n}", etag="new") for n in range(2000)]
            async with anyio.create_task_group() as group:
                for store, given in ((a, jobs), (b, jobs[::-1]), (a, renewed), (b, renewed[::-1])):
                    group.start_soon(store.enqueue, given)
        assert sum((await a.counts()).values()) == 10_000


@pytest.mark.parametrize("is_named_again", [False, True])
async def test_jobs_of_one_content_lock_their_rows_in_one_order_too(
    store: PostgresStore, postgres_dsn: str, is_named_again: bool
) -> None:
    """Each meets what those before it left, in the order of the call; hosts that shuffle them never block each other in a circle."""
    random, keys = Random(7), [f"{n:02}" for n in range(30)]
    await store.enqueue([job(key, etag="0", sha256="S") for key in keys])
    [lease, *_] = (await store.turn(lease=1)).leased
    await store.turn([Succeeded(lease, Warmed("H"))])

    async def enqueue(nth: int) -> None:
        for turn in range(12):
            media = [Media(key, etag=f"{nth}-{turn}", sha256=None if is_named_again else "S") for key in keys]
            random.shuffle(media)
            if is_named_again:  # some change their rows at once, the others when they are named again
                media = [Media(key) for key in random.sample(keys, 15)] + media
            async with await psycopg.AsyncConnection.connect(postgres_dsn) as host:
                await store.enqueue_in(host, media, target="bot")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for nth in range(3):
                group.start_soon(enqueue, nth)


async def test_an_enqueue_that_somebodys_locks_let_end_is_made_again(postgres_dsn: str) -> None:
    """A host takes rows in an order of its own: the server ends one of the two, and here that is nobody's loss."""
    quick = make_conninfo(postgres_dsn, options="-c deadlock_timeout=100ms")
    async with PostgresStore(quick, auto_migrate=True) as store:
        await store.enqueue([job("a"), job("b")])
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as host:
            lock = "SELECT FROM media_cache WHERE media_key = %s FOR UPDATE"
            await host.execute(lock, ["b"])
            async with anyio.create_task_group() as group:
                group.start_soon(store.enqueue, [job("a", size=1), job("b", size=1)])
                await waits_for_a_lock(postgres_dsn)
                await host.execute(lock, ["a"])
                await host.rollback()
        assert [row.media.size for row in await store.list()] == [1, 1]


async def test_equals_are_served_in_the_order_in_which_they_were_given(store: PostgresStore) -> None:
    """Whatever the order in which they are put in."""
    keys = [f"{n * 7919 % 100:03}" for n in range(100)]
    await store.enqueue([job(key) for key in keys])
    assert [lease.id.key for lease in (await store.turn(lease=100)).leased] == keys


async def test_a_host_that_enqueues_a_duplicate_and_stays_open_locks_nothing(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """What changes nothing takes no lock, so that its row can be leased and settled meanwhile."""
    await store.enqueue([job("a.png")])
    with psycopg.connect(postgres_dsn) as host:
        assert store.enqueue_in_sync(host, "a.png", target="bot", priority=9) is Enqueued.DUPLICATE
        [lease] = (await store.turn(lease=1)).leased
        assert not (await store.turn([Succeeded(lease, Warmed("H"))])).lost


async def test_it_goes_on_where_prepared_statements_get_lost(postgres_dsn: str) -> None:
    """A pooler may hand each statement to another connection of the server, which never heard of it."""
    # Without hints, which would have a connection out of the stack at some moment.
    async with PostgresStore(postgres_dsn, auto_migrate=True, notify=False) as store:
        await store.enqueue([job("a.png")])
        for _ in range(3):
            assert len(await store.lookup_many([job("a.png").id])) == 1
        for session in [*store._link._idle, *store._link._urgent]:
            # Behind psycopg's back, which would notice a plain DEALLOCATE.
            await session.connection.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$", prepare=False)
        assert store._link._is_prepared
        assert len(await store.lookup_many([job("a.png").id])) == 1
        assert not store._link._is_prepared
        [lease] = (await store.turn(lease=1)).leased
        assert not (await store.turn([Succeeded(lease, Warmed("H"))])).lost


async def test_a_cancelled_call_leaves_no_half_used_connection(store: PostgresStore) -> None:
    """A connection whose query was cut off is not lent again."""
    await store.enqueue([job(str(n)) for n in range(50)])
    for n in range(30):
        with anyio.move_on_after(n / 10_000):
            await store.lookup_many([job(str(k)).id for k in range(50)])
        with anyio.move_on_after(n / 10_000):
            await store.lookup_many([job("1").id])
        with anyio.move_on_after(n / 10_000):
            await store.enqueue([job(f"more-{n}")])
    assert len(await store.lookup_many([job(str(k)).id for k in range(50)])) == 50
    assert len(await store.lookup_many([job("1").id])) == 1


async def test_a_server_that_falls_silent_is_not_waited_for(
    store: PostgresStore, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call is bounded; after it a new connection is made."""
    monkeypatch.setattr("prewarmkit.stores.postgres.link.CALL_SECONDS", 0.3)
    monkeypatch.setattr("prewarmkit.stores.postgres.link._WATCH_SECONDS", 0.1)
    await store.enqueue([job("a.png")])
    with psycopg.connect(postgres_dsn) as host:
        host.execute("LOCK TABLE media_cache IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="did not answer"):
            await store.lookup_many([job("a.png").id])
    assert len(await store.lookup_many([job("a.png").id])) == 1


async def test_turns_and_heartbeats_wait_for_no_other_call(store: PostgresStore) -> None:
    """However many slow calls are on their way, leases are held on and outcomes told."""
    await store.enqueue([job("a.png")])
    leases = (await store.turn(lease=1)).leased
    done = anyio.Event()

    async def slow(session: Session) -> None:
        await session.rows("pending", 10)
        await done.wait()

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(store._link.call, slow)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            assert not await store.heartbeat(leases)
            assert not (await store.turn([Succeeded(leases[0], Warmed("H"))])).lost
        done.set()


async def test_an_enqueue_that_an_open_transaction_blocks_says_so_soon(
    store: PostgresStore, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is kept, its connections are, and it succeeds once the other has ended."""
    monkeypatch.setattr("prewarmkit.stores.postgres.by_hand.LOCK_SECONDS", 0.2)
    await store.enqueue([job("there.png")])
    with psycopg.connect(postgres_dsn) as host:
        store.enqueue_in_sync(host, "a.png", target="bot")
        idle = list(store._link._idle)
        with anyio.fail_after(5), pytest.raises(StoreError, match=r"still open.*enqueue_in.*try again"):
            await store.enqueue([job("b.png"), job("a.png")])
        assert idle
        assert not any(session.connection.closed for session in idle)
        assert len(await store.lookup_many([job("b.png").id])) == 0
        host.rollback()
    assert await store.enqueue([job("b.png"), job("a.png")]) == [Enqueued.QUEUED] * 2
    [[limit]] = await store._link.call(shown)
    assert limit == "0"


async def shown(session: Session) -> list[Any]:
    return await (await session.connection.execute("SHOW lock_timeout", prepare=False)).fetchall()


async def test_work_gets_done_though_the_listener_hears_nothing_and_does_not_know(
    store: PostgresStore, postgres_dsn: str
) -> None:
    """The connection that listens is half open: hints are lost without a word, and the poll finds what they told of."""
    target = ScriptedTarget()
    settings = PoolSettings(poll_interval_seconds=0.3)
    async with (
        relay(postgres_dsn) as line,
        PostgresStore(postgres_dsn, listen_dsn=line.dsn) as polled,
        PrewarmPool(UnreadSource(), target, polled, settings=settings) as pool,
    ):
        await store.enqueue([job("heard.png")])
        await eventually(lambda: target.calls == ["heard.png"])
        line.block()
        began = time.monotonic()
        await store.enqueue([job(f"{n}.png") for n in range(20)])
        await pool.join(timeout=10)
        assert len(target.calls) == 21
        assert time.monotonic() - began < 5
