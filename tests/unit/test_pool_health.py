"""A target's circuit, its adaptive bound, and whose turn it is: the pure parts, then through a pool."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import anyio
import pytest
from waiting import eventually

from prewarmkit import Media, MediaKind, PoolSettings, PrewarmPool, TargetDown
from prewarmkit.media import Warmed
from prewarmkit.pool.adaptive import AdaptiveLimit
from prewarmkit.pool.events import TargetPaused
from prewarmkit.pool.health import Health
from prewarmkit.pool.rack import Rack
from prewarmkit.pool.state import Pause
from prewarmkit.stores import MemoryStore, State
from prewarmkit.stores.base import Lease, MediaId
from prewarmkit.targets import RateLimited, SourceMissing, Transient
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

# ── the circuit ──────────────────────────────────────────────────────────────


def test_after_a_rest_for_being_down_one_probe_goes_and_no_more() -> None:
    """However many workers look, however long the probe takes."""
    clock = FakeClock()
    health = Health(clock)
    health.rest(Pause(10, "revoked", is_down=True))
    assert health.room() == 0
    clock.advance(10)
    assert health.is_half_open
    assert health.room() == 1
    probe = object()
    health.begin(probe)
    assert (health.room(), health.is_probe(probe), health.is_probe(object())) == (0, True, False)
    clock.advance(1000)
    assert health.room() == 0


@pytest.mark.parametrize("ending", ["cut off", "works", "down"])
def test_whatever_becomes_of_a_probe_the_circuit_does_not_wedge(ending: str) -> None:
    """A probe that says nothing makes room for another; one that works closes; one that fails doubles the rest."""
    clock = FakeClock()
    health = Health(clock)
    health.rest(Pause(10, "revoked", is_down=True))
    clock.advance(10)
    probe = object()
    health.begin(probe)
    if ending == "works":
        health.works()
    elif ending == "down":
        assert health.downs() == 1
        health.rest(Pause(20, "revoked", is_down=True))
    health.end(probe)
    assert health.room() == {"cut off": 1, "works": health.room(), "down": 0}[ending]
    assert (health.room() > 1) == (ending == "works")
    assert health.downs() == (0 if ending == "works" else 1)


def test_a_straggler_from_before_the_rest_is_no_probe_and_holds_none_up() -> None:
    """What began before says little of how the target is now, and may hang for minutes."""
    clock = FakeClock()
    health = Health(clock)
    straggler = object()
    health.begin(straggler)
    health.rest(Pause(1, "x", is_down=True))
    clock.advance(1)
    assert health.room() == 1
    health.begin(probe := object())
    assert not health.is_probe(straggler)
    assert health.is_probe(probe)


@pytest.mark.anyio
async def test_a_target_that_was_down_is_asked_by_one_medium_before_all_the_others(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Twenty wait, eight workers are free: one goes; when it works they all do."""
    state = {"down": True}
    target.script = lambda _media, _nth: TargetDown("revoked") if state["down"] else None
    settings = PoolSettings(concurrency=8, down_seconds=0.4, poll_interval_seconds=0.05)
    async with PrewarmPool(source, target, settings=settings) as pool:
        await pool.enqueue_many(map(str, range(20)))
        # Those that were under way have ended too: what comes now is the probe.
        await eventually(lambda: pool.stats().targets["bot"].is_down and not pool.stats().processing)
        target.calls.clear()
        # The probe, which finds it down still.
        await eventually(lambda: len(target.calls) == 1 and not target.running)
        target.gate = anyio.Event()
        state["down"] = False
        await eventually(lambda: len(target.calls) == 2)
        await anyio.sleep(0.1)
        assert len(target.calls) == 2  # the next one waits at the gate, and nobody beside it
        target.most_at_once = 0
        gate, target.gate = target.gate, None
        gate.set()
        await pool.join(timeout=5)
        assert target.most_at_once > 1
        assert pool.stats().failed == 0


@pytest.mark.anyio
async def test_a_broken_target_rests_before_its_media_run_out_of_attempts(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Failures in a row open the circuit; probes cost no attempt; who waits hears of it at once."""
    events: list[Any] = []
    state = {"broken": True}
    target.script = lambda _media, _nth: Transient("502 of a proxy") if state["broken"] else None
    settings = PoolSettings(
        concurrency=2, breaker_failures=4, max_attempts=2, down_seconds=0.05, poll_interval_seconds=0.05,
        retry_base_seconds=0.5,
    )  # fmt: skip
    async with PrewarmPool(source, target, settings=settings, on_event=events.append) as pool:
        await pool.enqueue_many(map(str, range(30)))
        with pytest.raises(TargetDown, match="4 attempts in a row failed"):
            await pool.warm("live", timeout=5)
        await eventually(lambda: sum(isinstance(event, TargetPaused) for event in events) >= 3)
        assert len(target.calls) <= 4 + 1 + 10  # the four, one beside them, the probes
        state["broken"] = False
        await pool.join(timeout=10)
        assert (pool.stats().failed, pool.stats().succeeded) == (0, 31)


@pytest.mark.anyio
async def test_media_that_are_themselves_at_fault_do_not_open_the_circuit(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A hundred missing objects say nothing of the target."""
    target.script = lambda _media, _nth: SourceMissing("gone")
    async with PrewarmPool(source, target, settings=PoolSettings(breaker_failures=3)) as pool:
        await pool.enqueue_many(map(str, range(100)))
        await pool.join(timeout=5)
        assert pool.stats().failed == 100
        assert not pool.stats().targets["bot"].is_down


# ── the adaptive bound ───────────────────────────────────────────────────────


def test_the_bound_shrinks_once_a_round_and_grows_only_when_used() -> None:
    """Sixteen refusals of one wave are one refusal; an idle target proves nothing."""
    limit = AdaptiveLimit(16)
    for _ in range(16):
        limit.refused(began=0.0, ended=1.0)
    assert limit.whole == 11
    limit.refused(began=1.0, ended=2.0)
    assert limit.whole == 7
    for n in range(1000):
        limit.succeeded(began=3.0 + n, ended=3.5 + n, size=100, running=1)
    assert limit.whole == 7
    for n in range(200):
        limit.succeeded(began=2000.0 + n, ended=2000.5 + n, size=100, running=8)
    assert limit.whole == 16


def test_the_bound_never_leaves_one_and_the_concurrency() -> None:
    """A pool that is resized takes the bound along."""
    limit = AdaptiveLimit(8)
    for n in range(100):
        limit.refused(began=float(n), ended=n + 0.5)
    assert limit.whole == 1
    limit.value = 100.0
    assert limit.whole == 8
    limit.most = 3
    assert limit.whole == 3


def test_only_media_of_one_size_are_compared() -> None:
    """Ten films after a thousand photos are no congestion; photos that take thrice as long are."""
    limit = AdaptiveLimit(16)
    times = itertools.count(1.0)
    for _ in range(1000):
        began = next(times)
        limit.succeeded(began=began, ended=began + 0.1, size=50_000, running=16)
    for _ in range(30):
        began = next(times)
        limit.succeeded(began=began, ended=began + 20.0, size=40_000_000, running=16)
    assert limit.whole == 16
    for _ in range(10):
        began = next(times)
        limit.succeeded(began=began, ended=began + 0.3, size=50_000, running=16)
    assert limit.whole < 16


@pytest.mark.anyio
async def test_a_pool_finds_out_how_many_a_target_takes(source: UnreadSource, target: ScriptedTarget) -> None:
    """The target refuses a fifth at once: from thirty-two the pool comes down to what it takes, and stays busy."""

    async def push(media: Media) -> Warmed:
        if target.running > 4:
            raise RateLimited("too many at once", 0.02)
        await anyio.sleep(0.005)
        return Warmed(f"H:{media.key}")

    target.act = push
    settings = PoolSettings(concurrency=32, adaptive=True, poll_interval_seconds=0.05)
    async with PrewarmPool(source, target, settings=settings) as pool:
        await pool.enqueue_many(map(str, range(150)))
        await eventually(lambda: pool.stats().succeeded > 80, timeout=20)
        target.most_at_once = 0
        before = pool.stats().deferred
        await pool.join(timeout=20)
        assert target.most_at_once <= 8
        limit = pool.stats().targets["bot"].limit
        assert limit is not None
        assert 1 <= limit <= 16
        assert pool.stats().deferred - before < 60
        assert pool.stats().failed == 0


# ── whose turn it is ─────────────────────────────────────────────────────────

_tokens = itertools.count(1)


def lease(target: str, key: str, priority: int = 5) -> Lease:
    token = next(_tokens)
    return Lease(MediaId(target, f"{key}{token}", MediaKind.PHOTO), token, 1, Media("k"), priority)


def rack_of(*targets: str) -> tuple[Rack, dict[str, Health]]:
    healths = {target: Health(FakeClock()) for target in targets}
    return Rack(1000, healths.__getitem__), healths


def test_the_target_with_the_fewest_workers_goes_first() -> None:
    """However old the backlog of one is, workers are dealt out in turns."""
    rack, healths = rack_of("old", "new")
    for name in ("old", "new"):
        for _ in range(50):
            rack.put((lease(name, name), 0.0))
    for _ in range(8):
        place = rack.take()
        assert place is not None
        healths[place[0].id.target].begin(place)
    assert {name: health.running for name, health in healths.items()} == {"old": 4, "new": 4}


def test_a_target_has_no_more_than_its_share_while_others_want_workers() -> None:
    """Also in the moment in which the others have nothing leased: a slow one would end with all workers."""
    rack, healths = rack_of("slow", "fast")
    for name in ("slow", "fast"):
        rack.put((lease(name, name), 100.0))
    for _ in range(10):
        rack.put((lease("slow", "slow"), 100.0))
    rack.drain("fast")
    rack.reckon(4, 100.5)
    taken = 0
    while (place := rack.take()) is not None:
        healths["slow"].begin(place)
        taken += 1
    assert taken == 2
    rack.reckon(4, 101.5, spare=1)  # the fast one has wanted nothing for a while
    while (place := rack.take()) is not None:
        healths["slow"].begin(place)
        taken += 1
    assert taken == 3


def test_live_media_go_first_and_leave_a_share_to_the_others() -> None:
    """Of endless live media seven go in a row, then something else, on one shelf and on several."""
    for targets in (("a",), ("a", "b")):
        rack, _ = rack_of(*targets)
        for _ in range(40):
            rack.put((lease(targets[0], "live", priority=0), 0.0))
        for _ in range(5):
            rack.put((lease(targets[-1], "rest"), 0.0))
        taken = ""
        while (place := rack.take()) is not None:
            taken += "L" if place[0].priority == 0 else "r"
        assert taken.startswith("LLLLLLLr")
        assert taken.index("rr") > 0 if "rr" in taken else True
        assert max(len(row) for row in taken.strip("L").split("r")) <= 7


def test_a_lease_that_is_lost_leaves_the_rack() -> None:
    """And a target's leases can be taken back together; what is counted stays right."""
    rack, _ = rack_of("a", "b")
    leases = [lease("a", "k", priority=0), lease("a", "k"), lease("b", "k")]
    for each in leases:
        rack.put((each, 0.0))
    rack.discard(leases[0])
    rack.discard(leases[0])
    assert (len(rack), len(rack.shelf("a").live), len(rack.shelf("a"))) == (2, 0, 1)
    assert rack.drain("a") == [leases[1]]
    assert rack.drain("a") == []
    assert rack.drain() == [leases[2]]
    assert (len(rack), rack.take()) == (0, None)


@pytest.mark.anyio
async def test_a_slow_target_does_not_take_every_worker(source: UnreadSource) -> None:
    """Its uploads hang: beside another backlog it gets half of the workers, alone all but one; a newcomer finds that one."""
    slow, fast = ScriptedTarget(id="slow", gate=anyio.Event()), ScriptedTarget(id="fast", seconds=0.001)
    settings = PoolSettings(concurrency=4, poll_interval_seconds=0.1)
    async with PrewarmPool(source, [slow, fast], settings=settings) as pool:
        await pool.enqueue_many(map(str, range(100)), target="fast")
        await eventually(lambda: len(fast.calls) > 3)
        await pool.enqueue_many(map(str, range(100)), target="slow")
        await eventually(lambda: pool.stats().targets["fast"].succeeded == 100)
        assert slow.most_at_once == 2
        await eventually(lambda: slow.running == 3)
        await pool.warm("newcomer", target="fast", timeout=2)
        assert slow.gate is not None
        slow.gate.set()
        await pool.join(timeout=10)


@pytest.mark.anyio
@pytest.mark.parametrize(("most", "runs"), [(1, 1), (4, 4), (None, 3)])
async def test_a_host_may_say_how_many_workers_a_target_gets(
    source: UnreadSource, most: int | None, runs: int
) -> None:
    """A bulkhead for each target; without one the last worker is for the others. Batches keep to it too."""
    first, second = ScriptedTarget(id="first", gate=anyio.Event()), ScriptedTarget(id="second")
    settings = PoolSettings(concurrency=4, target_concurrency=most, poll_interval_seconds=0.1)
    async with PrewarmPool(source, [first, second], settings=settings) as pool:
        await pool.enqueue_many(map(str, range(20)), target="first")
        await eventually(lambda: first.running == runs)
        await anyio.wait_all_tasks_blocked()
        assert first.running == runs
        assert first.gate is not None
        first.gate.set()
        await pool.join(timeout=5)
        await pool.stop()
        first.most_at_once, first.gate, first.seconds = 0, None, 0.002
        await pool.enqueue_many(map(str, range(20, 40)), target="first")
        report = await pool.process_batch(20)
        assert report.succeeded == 20
        assert first.most_at_once <= (most or 20)


@pytest.mark.anyio
async def test_workers_kept_for_live_media_are_kept_and_no_more(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Two of four: background work has two at most; live work may have all, and leaves the background its place."""
    target.gate = anyio.Event()
    settings = PoolSettings(concurrency=4, live_workers=2)
    async with PrewarmPool(source, target, settings=settings) as pool, anyio.create_task_group() as callers:
        await pool.enqueue_many([f"background{n}" for n in range(10)])
        await eventually(lambda: target.running == 2)
        for n in range(6):
            callers.start_soon(pool.warm, f"live{n}")
        await eventually(lambda: target.running == 4)
        assert [key.rstrip("0123456789") for key in target.calls] == ["background"] * 2 + ["live"] * 2
        target.gate.set()
        await pool.join(timeout=5)
    with pytest.raises(ValueError, match="live_workers"):
        PoolSettings(concurrency=2, live_workers=2)


@pytest.mark.anyio
async def test_a_limited_target_costs_the_others_nothing(source: UnreadSource) -> None:
    """One target answers 429 all the time; another's rate stays within a twentieth of what it is alone."""
    rates: list[float] = []

    def refuse(_media: Media, _nth: int) -> RateLimited:
        return RateLimited("429", 0.5)

    def is_done(pool: PrewarmPool) -> bool:
        return pool.stats().targets["steady"].succeeded == 200

    for is_limited in (False, True):
        limited = ScriptedTarget(id="limited", script=refuse)
        steady = ScriptedTarget(id="steady", seconds=0.01)
        settings = PoolSettings(concurrency=4, poll_interval_seconds=0.1, autostart=False)
        async with PrewarmPool(source, [limited, steady], settings=settings) as pool:
            await pool.enqueue_many(map(str, range(200)), target="steady")
            if is_limited:
                await pool.enqueue_many(map(str, range(200)), target="limited")
            began = anyio.current_time()
            await pool.start()
            await eventually(partial(is_done, pool), timeout=20)
            rates.append(200 / (anyio.current_time() - began))
    alone, beside = rates
    assert beside > 0.9 * alone  # 0.95 on a quiet machine: the long form measures it


# ── deadlines ────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_an_attempt_that_takes_too_long_is_ended_and_spends_an_attempt(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A target that hangs holds its worker for the deadline and no longer."""

    async def push(media: Media) -> Warmed:
        if media.key == "hangs":
            await anyio.sleep(math.inf)
        return Warmed("H")

    target.act = push
    settings = PoolSettings(concurrency=1, deadline_seconds=0.1, max_attempts=2, retry_base_seconds=0,
                            poll_interval_seconds=0.05)  # fmt: skip
    store = MemoryStore()
    async with PrewarmPool(source, target, store, settings=settings) as pool:
        await pool.enqueue("hangs", priority=1)
        await pool.enqueue("fine")
        await pool.join(timeout=5)
        stats = pool.stats()
        assert (stats.succeeded, stats.failed, stats.retried) == (1, 1, 1)
        [row] = await store.list(State.FAILED)
        assert row.reason == "transient: It took longer than 0.1 s."
