"""What a pool leases next: no more than it needs, for whom it is due, and never in a tight loop."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Collection, Sequence

import anyio
import pytest
from attrs import evolve
from waiting import eventually

from prewarmkit import Media, PoolSettings, PrewarmPool, TargetDown
from prewarmkit.pool.events import StoreTrouble
from prewarmkit.stores import Job, MemoryStore, Outcome, SqliteStore, State, Turn
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio


class WatchedStore(MemoryStore):
    """Notes what each turn was asked for and what came."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, frozenset[str] | None, int]] = []

    async def turn(
        self,
        settle: Sequence[Outcome] = (),
        lease: int = 0,
        targets: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> Turn:
        turn = await super().turn(settle, lease, targets, lease_seconds)
        self.asked.append((lease, None if targets is None else frozenset(targets), len(turn.leased)))
        return turn


async def test_a_row_that_is_due_and_does_not_come_is_asked_for_less_and_less_often(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A host's open transaction has it locked; a store that says "due now" each time must not be asked 200 times a second."""

    class Locked(WatchedStore):
        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            return evolve(await super().turn(settle, lease, targets, lease_seconds), next_due=-1.0)

    store = Locked()
    async with PrewarmPool(source, target, store, settings=PoolSettings(poll_interval_seconds=2)):
        await anyio.sleep(1.0)
        assert 3 <= len(store.asked) <= 12


async def test_an_idle_pool_asks_once_for_each_hint_and_once_a_poll(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """No turn follows a turn for nothing."""
    store = WatchedStore()
    other = ScriptedTarget(id="other")
    async with PrewarmPool(
        source, [target, other], store, settings=PoolSettings(poll_interval_seconds=60)
    ) as pool:
        await anyio.sleep(0.05)
        before = len(store.asked)
        await pool.warm("a", target="bot", timeout=5)
        await anyio.sleep(0.05)
        # For the row, for its outcome; both targets had to be asked again, and one may have been by itself.
        assert len(store.asked) - before <= 4


async def test_a_backlog_that_comes_while_a_turn_is_under_way_is_not_overlooked(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """The turn comes back short, the hint came before it: the target is not taken to be dry."""
    release = anyio.Event()

    class Slow(WatchedStore):
        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            turn = await super().turn(settle, lease, targets, lease_seconds)
            if len(self.asked) == 1:
                await release.wait()
            return turn

    store = Slow()
    async with PrewarmPool(source, target, store, settings=PoolSettings(poll_interval_seconds=60)) as pool:
        await anyio.wait_all_tasks_blocked()
        await pool.enqueue("a")
        await anyio.wait_all_tasks_blocked()
        release.set()
        await pool.join(timeout=2)


async def test_one_targets_backlog_does_not_keep_anothers_from_being_leased(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A thousand older rows of one; the other's first is begun before the first one has had its second dozen."""
    other = ScriptedTarget(id="other", seconds=0.001)
    target.seconds = 0.001
    settings = PoolSettings(concurrency=4, poll_interval_seconds=60)
    async with PrewarmPool(source, [target, other], settings=settings) as pool:
        await pool.enqueue_many(map(str, range(400)), target="bot")
        await eventually(lambda: len(target.calls) >= 40)
        await pool.enqueue_many(map(str, range(40)), target="other")
        began = len(target.calls)
        await eventually(lambda: len(other.calls) == 40)
        assert len(target.calls) - began < 100  # side by side, not one after the other
        await pool.join(timeout=5)


async def test_what_a_target_that_hangs_holds_is_not_taken_from_anothers_share(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """It was alone when it got all the leases that the pool may hold; whoever comes is leased for all the same, delayed too."""
    target.gate = anyio.Event()
    other = ScriptedTarget(id="other")
    settings = PoolSettings(concurrency=4, poll_interval_seconds=60)
    async with PrewarmPool(source, [target, other], settings=settings) as pool:
        await pool.enqueue_many(map(str, range(50)), target="bot")
        await eventually(lambda: target.running == 3 and len(pool._pump.held) >= 8)
        await pool.enqueue("later", target="other", delay=0.3)
        await pool.enqueue_many(map(str, range(50)), target="other")
        await eventually(lambda: pool.stats().targets["other"].succeeded == 51)
        assert len(pool._pump.held) >= 8
        target.gate.set()
        await pool.join(timeout=5)


async def test_a_probe_goes_out_beside_a_target_that_holds_every_lease(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """The one hangs, the other was down: nothing but its probe can tell that it is up again."""
    other = ScriptedTarget(
        id="other", script=lambda _media, nth: TargetDown("revoked", 1.0) if nth == 1 else None
    )
    target.gate = anyio.Event()
    settings = PoolSettings(concurrency=4, poll_interval_seconds=60)
    async with PrewarmPool(source, [target, other], settings=settings) as pool:
        await pool.enqueue("a", target="other")
        await eventually(lambda: pool.stats().targets["other"].is_down)
        await pool.enqueue_many(map(str, range(50)), target="bot")
        await eventually(lambda: target.running == 3 and len(pool._pump.held) >= 8)
        await eventually(lambda: pool.stats().targets["other"].succeeded == 1)
        target.gate.set()
        await pool.join(timeout=5)


async def test_outcomes_of_a_durable_store_gather_for_some_milliseconds(
    source: UnreadSource, target: ScriptedTarget, tmp_path: object
) -> None:
    """Eight workers that end at different times share commits; nobody waits for these outcomes."""

    class Counted(SqliteStore):
        turns = 0

        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            self.turns += 1
            return await super().turn(settle, lease, targets, lease_seconds)

    target.seconds = 0.01
    store = Counted(f"{tmp_path}/s.db")
    settings = PoolSettings(concurrency=32, max_queue=1000)
    async with store, PrewarmPool(source, target, store, settings=settings) as pool:
        await pool.enqueue_many(map(str, range(640)))
        await pool.join(timeout=20)
        assert store.turns < 640 / 4


async def test_a_store_that_is_full_or_gone_is_sat_out_and_told_of(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """What is known stays in memory, the next turn tells it; nothing is warmed twice."""
    from prewarmkit.errors import StoreError

    class Ill(WatchedStore):
        ill = 3

        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            if settle and self.ill:
                self.ill -= 1
                raise StoreError("the disk is full")
            return await super().turn(settle, lease, targets, lease_seconds)

    events: list[object] = []
    store = Ill()
    async with PrewarmPool(source, target, store, on_event=events.append) as pool:
        await pool.enqueue_many(["a", "b"])
        await pool.join(timeout=5)
        assert len(await store.list(State.READY)) == 2
    assert sorted(target.calls) == ["a", "b"]
    assert sum(isinstance(event, StoreTrouble) for event in events) == 3


async def test_a_paused_pool_asks_for_nothing_in_a_loop(source: UnreadSource, target: ScriptedTarget) -> None:
    """What it waited for may be over while it is paused."""
    store = WatchedStore()
    settings = PoolSettings(poll_interval_seconds=0.1)
    async with PrewarmPool(source, target, store, settings=settings) as pool:
        await pool.warm("a", timeout=5)
        pool.pause()
        await anyio.sleep(0.2)
        before = len(store.asked)
        await anyio.sleep(0.5)
        assert len(store.asked) - before <= 12


async def test_what_a_dead_process_held_is_worked_off_without_waiting_for_the_poll(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """One at a time, the next as soon as one has ended."""
    store = MemoryStore()
    await store.enqueue([Job("bot", Media(f"{n}")) for n in range(10)])
    assert len((await store.turn(lease=10, lease_seconds=0.05)).leased) == 10
    await anyio.sleep(0.1)
    async with PrewarmPool(source, target, store, settings=PoolSettings(poll_interval_seconds=60)) as pool:
        await pool.join(timeout=5)
