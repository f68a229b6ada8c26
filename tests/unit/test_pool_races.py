"""Two things at once, in the order that hurts: each test holds the store at one point and lets the other go first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import anyio
import pytest
from waiting import eventually

from prewarmkit import Media, MediaKind, PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.pool.events import LeaseLost
from prewarmkit.stores import MemoryStore, Outcome, State, Turn
from prewarmkit.stores.base import MediaId, Succeeded
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

A = MediaId("bot", "a", MediaKind.DOCUMENT)


class HeldStore(MemoryStore):
    """Waits where a test says: before a turn that settles, or after one that leased."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        super().__init__(clock)
        self.before_settling: anyio.Event | None = None
        self.after_leasing: anyio.Event | None = None
        self.is_held = False

    async def turn(
        self,
        settle: Sequence[Outcome] = (),
        lease: int = 0,
        targets: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> Turn:
        if settle and (gate := self.before_settling) is not None:
            self.before_settling, self.is_held = None, True
            await gate.wait()
        turn = await super().turn(settle, lease, targets, lease_seconds)
        if turn.leased and (gate := self.after_leasing) is not None:
            self.after_leasing, self.is_held = None, True
            await gate.wait()
        return turn


async def test_an_outcome_that_comes_after_its_lease_ran_out_changes_nothing(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Settle against expiry: B took the row over and finished; A's late word is lost, and who waited at A gets B's."""
    clock, gate = FakeClock(), anyio.Event()
    store = HeldStore(clock)
    store.before_settling = gate
    events: list[Any] = []
    got: list[str] = []
    async with (
        PrewarmPool(source, target, store, on_event=events.append) as pool,
        anyio.create_task_group() as callers,
    ):

        async def wait() -> None:
            got.append((await pool.warm("a", timeout=10)).value)

        callers.start_soon(wait)
        await eventually(lambda: store.is_held)
        clock.advance(61)
        [lease] = (await MemoryStore.turn(store, (), 1, None, 60)).leased
        await MemoryStore.turn(store, [Succeeded(lease, Warmed("B's"))])
        gate.set()
    assert got == ["B's"]
    assert (pool.stats().lost, pool.stats().succeeded) == (1, 0)
    assert [event.id for event in events if isinstance(event, LeaseLost)] == [A]
    assert (looked := (await store.lookup_many([A]))[A].handle) is not None
    assert looked.value == "B's"


async def test_what_is_leased_while_the_pool_stops_goes_back_at_no_attempts_cost(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Stop against lease: the turn was under way when the stop was called."""
    store, gate = HeldStore(), anyio.Event()
    store.after_leasing = gate
    async with PrewarmPool(source, target, store) as pool, anyio.create_task_group() as stopping:
        await pool.enqueue_many(["a", "b", "c"])
        await eventually(lambda: store.is_held)
        stopping.start_soon(pool.stop)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    rows = await store.list()
    assert [(row.state, row.attempts) for row in rows] == [(State.PENDING, 0)] * 3
    assert target.calls == []


async def test_a_refusal_of_the_old_handle_does_not_harm_the_new_one(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Invalidate against warm: the old handle is refused just before, and just after, the new one is stored."""
    store = HeldStore()
    async with PrewarmPool(source, target, store) as pool:
        old = await pool.warm(Media("a", etag="1"))
        for is_before in (True, False):
            gate = store.before_settling = anyio.Event()
            store.is_held = False
            await pool.enqueue(Media("a", etag=f"2{is_before}"))
            await eventually(lambda: store.is_held)
            if is_before:
                await pool.invalidate(old)
                assert await pool.lookup("a") is None  # refused, and the new one is not stored yet
            gate.set()
            await pool.join(timeout=5)
            if not is_before:
                assert not await pool.invalidate(old)
            new = await pool.lookup("a")
            assert new is not None
            assert (new.value, new.stale) == (f"H:a:{len(target.calls)}", False)
            old = new if is_before else old
            pushes = len(target.calls)
    assert pushes == 3


async def test_a_refusal_while_the_medium_is_being_warmed_anew_costs_no_further_upload(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Fifty deliveries are refused while one upload is under way: it is the one that all of them wanted."""
    async with PrewarmPool(source, target) as pool:
        old = await pool.warm("a")
        target.gate = anyio.Event()
        assert await pool.invalidate(old)
        await eventually(lambda: target.running == 1)
        answers = [await pool.invalidate(old) for _ in range(50)]
        target.gate.set()
        await pool.join(timeout=5)
        assert not any(answers)
        assert len(target.calls) == 2


async def test_a_pause_between_lease_and_start_holds_what_is_leased(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Pause against lease: nothing begins, and resume begins it without another lease."""
    store, gate = HeldStore(), anyio.Event()
    store.after_leasing = gate
    async with PrewarmPool(source, target, store) as pool:
        await pool.enqueue("a")
        await eventually(lambda: store.is_held)
        pool.pause()
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert target.calls == []
        pool.resume()
        await pool.join(timeout=5)
    assert target.calls == ["a"]


async def test_a_target_that_is_told_to_rest_during_a_turn_gets_nothing_of_it(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Rest against lease: what the turn brings for it goes back at once, for other processes to have."""
    from prewarmkit.targets import RateLimited

    store, first = HeldStore(), anyio.Event()

    async def push(media: Media) -> Warmed:
        await first.wait()
        raise RateLimited("429", 60)

    target.act = push
    gate = anyio.Event()
    async with PrewarmPool(source, target, store, settings=PoolSettings(concurrency=2)) as pool:
        await pool.enqueue("a")
        await eventually(lambda: target.running == 1)
        store.after_leasing = gate
        await pool.enqueue("b")
        await eventually(lambda: store.is_held)
        first.set()
        await eventually(lambda: pool.stats().targets["bot"].paused_for > 0)
        gate.set()
        await eventually(lambda: pool.stats().queue_size - store.pending == 0 and store.pending == 2)
    assert target.calls == ["a"]
    assert all(row.attempts == 0 for row in await store.list())
