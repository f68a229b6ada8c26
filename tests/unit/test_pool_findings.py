"""Faults that a second review of the pool found, each as the story that showed it."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from waiting import eventually

from prewarmkit import Media, MediaKind, PoolSettings, PrewarmPool, QueueFull, WarmFailed, WarmTimeout
from prewarmkit.media import Warmed
from prewarmkit.pool.events import (
    LeaseLost,
    MediaInvalidated,
    MediaReady,
    MediaRequeued,
    PoolResized,
    TargetResumed,
)
from prewarmkit.pool.health import Health
from prewarmkit.pool.state import Pause, judge
from prewarmkit.stores import Enqueued, MemoryStore, Outcome, SqliteStore, State, Turn
from prewarmkit.stores.base import Job, Lease, Looked, MediaId, Succeeded
from prewarmkit.targets import RateLimited, SourceMissing, Transient
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

# ── leaving ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("times", [1, 3])
def test_leaving_that_asyncio_itself_cancels_still_ends_everything(times: int) -> None:
    """`asyncio.timeout`, a server that shuts down: no shield of anyio holds `Task.cancel`. The grace is over, no more."""

    async def host(pool: PrewarmPool, target: ScriptedTarget) -> None:
        async with pool:
            await pool.enqueue_many(["a", "b"])
            await eventually(lambda: target.running == 2)

    async def main() -> None:
        target, store = ScriptedTarget(gate=anyio.Event()), MemoryStore()
        pool = PrewarmPool(UnreadSource(), target, store)
        before = len(asyncio.all_tasks())
        task = asyncio.create_task(host(pool, target))
        await eventually(lambda: target.running == 2)
        await asyncio.sleep(0.01)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == before
        assert [(row.state, row.attempts) for row in await store.list()] == [(State.PENDING, 0)] * 2
        target.gate = None
        async with pool:
            await pool.join(timeout=5)

    asyncio.run(main())


@pytest.mark.anyio
async def test_everybody_who_joins_hears_of_the_end(source: UnreadSource, target: ScriptedTarget) -> None:
    """Three callers of join, a poll that is far away: none waits for the poll."""
    target.seconds = 0.05
    async with PrewarmPool(source, target, settings=PoolSettings(poll_interval_seconds=60)) as pool:
        await pool.enqueue_many(map(str, range(5)))
        with anyio.fail_after(5):
            async with anyio.create_task_group() as callers:
                for _ in range(3):
                    callers.start_soon(pool.join)


# ── versions ─────────────────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize("step", range(30))
async def test_who_asks_for_a_version_never_gets_another_ones_handle(source: UnreadSource, step: int) -> None:
    """The old version lands between a caller's joining and its enqueue, at whichever turn of the loop."""
    seen: dict[str, str | None] = {}

    async def push(media: Media) -> Warmed:
        for _ in range(4):
            await anyio.lowlevel.checkpoint()
        handle = f"H:{media.etag}:{len(seen)}"
        seen[handle] = media.etag
        return Warmed(handle)

    class Slow(MemoryStore):
        async def enqueue(self, jobs: Sequence[Job], *, limit: int | None = None) -> list[Enqueued]:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            return await super().enqueue(jobs, limit=limit)

    async with PrewarmPool(source, ScriptedTarget(act=push), Slow()) as pool:
        await pool.enqueue(Media("a", etag="1"))
        for _ in range(step):
            await anyio.lowlevel.checkpoint()
        handle = await pool.warm(Media("a", etag="2"), timeout=5)
        assert seen[handle.value] == "2"


@pytest.mark.anyio
async def test_a_failure_answers_those_too_who_looked_before_it(source: UnreadSource) -> None:
    """Fifty callers, each of whom has seen the row before it failed: one upload, not one each."""
    target = ScriptedTarget(script=lambda _media, _nth: SourceMissing("gone"), seconds=0.02)
    failed: list[WarmFailed] = []

    class SlowToLook(MemoryStore):
        async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
            found = await super().lookup_many(ids)
            await anyio.sleep(random.random() * 0.1)
            return found

    async def call(pool: PrewarmPool) -> None:
        try:
            await pool.warm("a", timeout=5)
        except WarmFailed as error:
            failed.append(error)

    async with PrewarmPool(source, target, SlowToLook()) as pool, anyio.create_task_group() as callers:
        for _ in range(50):
            callers.start_soon(call, pool)
    assert len(failed) == 50
    assert target.calls == ["a"]


# ── batches by hand ──────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_batch_larger_than_what_a_process_holds_is_cut_to_that(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Any
) -> None:
    """A thousand asked for, room for five hundred and some: none is left leased with nobody to work on it."""
    async with SqliteStore(tmp_path / "p.db") as store:
        settings = PoolSettings(autostart=False, max_queue=50)
        async with PrewarmPool(source, target, store, settings=settings) as pool:
            await pool.enqueue_many(map(str, range(300)))
            report = await pool.process_batch(1000)
            assert 50 <= report.leased == report.succeeded <= 50 + 64
            states = {row.state for row in await store.list(limit=1000)}
            assert states == {State.READY, State.PENDING}


@pytest.mark.anyio
async def test_a_fast_medium_of_a_batch_is_ready_before_the_slowest_ends(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Outcomes are settled as they come; a crash would not cost the finished ones."""
    gate = anyio.Event()

    async def push(media: Media) -> Warmed:
        if media.key == "slow":
            await gate.wait()
        return Warmed("H")

    target.act = push
    async with PrewarmPool(source, target, settings=PoolSettings(autostart=False)) as pool:
        await pool.enqueue_many(["slow", "fast"])
        async with anyio.create_task_group() as group:
            group.start_soon(pool.process_batch)
            await eventually(lambda: pool.stats().succeeded == 1)
            assert await pool.lookup("fast") is not None
            gate.set()


# ── callbacks ────────────────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["sync", "async", "partial"])
async def test_a_callback_that_is_cancelled_from_within_stops_neither_stream_nor_pool(
    source: UnreadSource, target: ScriptedTarget, form: str
) -> None:
    """It awaited something of its own that was cancelled, or raised that error by itself."""
    heard: list[Any] = []
    cancelled = anyio.get_cancelled_exc_class()
    error = cancelled() if cancelled is asyncio.CancelledError else None

    def note(event: object) -> None:
        heard.append(event)
        if len(heard) == 2:
            raise error or ZeroDivisionError

    async def note_later(event: object) -> None:
        await anyio.lowlevel.checkpoint()
        note(event)

    callback: Any = {
        "sync": note,
        "async": note_later,
        "partial": functools.partial(note_later),
    }[form]
    async with PrewarmPool(source, target, on_event=callback) as pool:
        for key in "abc":
            await pool.warm(key, timeout=5)
    assert sum(isinstance(event, MediaReady) for event in heard) == 3


@pytest.mark.anyio
async def test_events_that_a_hanging_callback_never_took_are_counted(
    source: UnreadSource, target: ScriptedTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not delivered to the next life of the pool either."""
    monkeypatch.setattr("prewarmkit.pool.life._LISTENER_SECONDS", 0.05)
    heard: list[Any] = []

    async def hang(event: object) -> None:
        heard.append(event)
        await anyio.sleep_forever()

    pool = PrewarmPool(source, target, on_event=hang)
    async with pool:
        await pool.warm("a", timeout=5)
    assert len(heard) == 1
    assert pool.stats().dropped_events >= 3


# ── who waits elsewhere ──────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_live_medium_is_retried_soon_whoever_waits_for_it(source: UnreadSource) -> None:
    """The caller sits in another process: its priority says that somebody waits."""
    target = ScriptedTarget(script=lambda _media, nth: Transient("reset") if nth == 1 else None)
    async with PrewarmPool(source, target, settings=PoolSettings(poll_interval_seconds=0.1)) as pool:
        await pool.enqueue("a", priority=0)
        await eventually(lambda: pool.stats().succeeded == 1, timeout=3)


@pytest.mark.anyio
async def test_who_waits_has_room_in_a_full_queue(source: UnreadSource, target: ScriptedTarget) -> None:
    """A backlog in memory refuses more of itself, and not a person."""
    target.gate = anyio.Event()
    async with PrewarmPool(source, target, settings=PoolSettings(concurrency=1, max_queue=3)) as pool:
        await pool.enqueue("running")
        await eventually(lambda: target.running == 1)
        await pool.enqueue_many("ab")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(QueueFull):
            await pool.enqueue_many("cdef")
        with pytest.raises(WarmTimeout):
            await pool.warm("live", timeout=0.05)
        target.gate.set()
        await pool.join(timeout=5)
        assert "live" in target.calls


# ── leases and targets ───────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_heartbeat_beside_a_turn_does_not_take_what_was_settled_for_lost(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """The turn has committed and not answered yet when the leases are held on."""
    events: list[Any] = []

    class SlowToAnswer(MemoryStore):
        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            del lease_seconds  # which sets the pace of heartbeats here, and no more
            turn = await super().turn(settle, lease, targets)
            if settle:
                await anyio.sleep(0.1)
            return turn

        async def heartbeat(self, leases: Sequence[Lease], lease_seconds: float = 60.0) -> list[Lease]:
            return await super().heartbeat(leases)

    settings = PoolSettings(lease_seconds=0.06, concurrency=3)
    async with PrewarmPool(source, target, SlowToAnswer(), settings=settings, on_event=events.append) as pool:
        await pool.enqueue_many(map(str, range(9)))
        await pool.join(timeout=5)
        assert (pool.stats().lost, pool.stats().succeeded) == (0, 9)
    assert not any(isinstance(event, LeaseLost) for event in events)


def test_a_limit_that_lasts_longer_than_a_refusal_does_not_end_it() -> None:
    """Down for 30 s, then a 429 for 60: it is still probed by one medium."""
    clock = FakeClock()
    health = Health(clock)
    health.rest(Pause(30, "target_down: revoked", is_down=True))
    health.rest(Pause(60, "rate_limited: 429", is_down=False))
    rest = health.resting()
    assert rest is not None
    assert (rest.seconds, rest.reason, rest.is_down) == (60, "target_down: revoked", True)
    clock.advance(60)
    assert health.room() == 1


@pytest.mark.anyio
async def test_a_pool_that_pauses_gives_back_what_nobody_has_begun(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """For other processes to have; it costs no attempt, and resuming leases it again."""
    events: list[Any] = []
    store = MemoryStore()
    target.gate = anyio.Event()
    settings = PoolSettings(concurrency=1)
    async with PrewarmPool(source, target, store, settings=settings, on_event=events.append) as pool:
        await pool.enqueue_many(map(str, range(4)))
        await eventually(lambda: target.running == 1)
        pool.pause()
        await eventually(lambda: store.pending == 3)
        pool.resize(2)
        pool.resume()
        target.gate.set()
        await pool.join(timeout=5)
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("PoolPaused") < kinds.index("MediaReleased") < kinds.index("PoolResumed")
    assert PoolResized(2) in events
    assert sorted(target.calls) == list("0123")


@pytest.mark.anyio
async def test_requeueing_leaves_another_pools_rows_alone(source: UnreadSource, tmp_path: Any) -> None:
    """Two pools, two targets, one table."""
    mine = ScriptedTarget(id="mine", script=lambda _media, _nth: SourceMissing("gone"))
    theirs = ScriptedTarget(id="theirs", script=lambda _media, _nth: SourceMissing("gone"))
    events: list[Any] = []
    async with SqliteStore(tmp_path / "p.db") as store:
        async with PrewarmPool(source, theirs, store) as other:
            await other.enqueue("a")
            await other.join(timeout=5)
        async with PrewarmPool(source, mine, store, on_event=events.append) as pool:
            await pool.enqueue_many(["a", "b", "c"])
            await pool.join(timeout=5)
            assert await pool.requeue_failed(limit=2) == 2
            await pool.join(timeout=5)
            assert await pool.requeue_failed() == 3
        assert events.count(MediaRequeued(2)) == 1
        assert [row.id.target for row in await store.list(State.FAILED)].count("theirs") == 1


# ── events and the log ───────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_the_log_has_fields_of_its_own(source: UnreadSource, caplog: pytest.LogCaptureFixture) -> None:
    """What happens to every medium is for debugging; fields say of which pool, target and medium."""
    caplog.set_level(logging.DEBUG, "prewarmkit.pool")
    state = {"limited": True}
    target = ScriptedTarget(script=lambda _media, _nth: RateLimited("429", 0.1) if state["limited"] else None)
    heard: list[Any] = []
    async with PrewarmPool(source, target, name="mine", on_event=heard.append) as pool:
        await pool.enqueue("a.png")
        await eventually(lambda: pool.stats().targets["bot"].paused_for > 0)
        state["limited"] = False
        handle = await pool.warm("a.png", timeout=5)
        await pool.invalidate(handle, rewarm=False)
    records = [record.__dict__ for record in caplog.records if record.name == "prewarmkit.pool"]
    [ready] = [record for record in records if record.get("event") == "MediaReady"]
    assert (ready["pool"], ready["target"], ready["key"], ready["kind"]) == ("mine", "bot", "a.png", "photo")
    assert ready["levelno"] == logging.DEBUG
    [rest] = [record for record in records if record.get("event") == "TargetPaused"]
    assert (rest["levelno"], rest["reason"]) == (logging.WARNING, "rate_limited: 429")
    assert TargetResumed("bot") in heard
    assert any(isinstance(event, MediaInvalidated) for event in heard)
    assert not any("H:a.png" in str(record["msg"]) + str(record["args"]) for record in records)


# ── keep warm ────────────────────────────────────────────────────────────────


def test_a_handle_is_renewed_in_the_last_third_of_its_life_spread_by_the_dice() -> None:
    """With a tenth of its life to spare; one that does not expire, or has, is not."""
    given = Lease(MediaId("bot", "a", MediaKind.PHOTO), 1, 1, Media("a"))

    def renew_in(expires_in: float | None, jitter: float = 0.5, **settings: Any) -> float | None:
        verdict = judge(given, Warmed("H"), PoolSettings(**settings), jitter=jitter, expires_in=expires_in)
        assert isinstance(verdict.outcome, Succeeded)
        return verdict.outcome.renew_in

    assert [renew_in(1000, jitter) for jitter in (0.0, 0.5, 1.0)] == pytest.approx([700, 800, 900])
    assert renew_in(None) is renew_in(-1) is renew_in(1000, keep_warm=False) is None


@pytest.mark.anyio
async def test_a_handle_that_expires_is_warmed_again_before_it_does(source: UnreadSource) -> None:
    """Nobody asks for it; the old handle is good until the new one is there, and join does not wait for it."""

    async def push(media: Media) -> Warmed:
        return Warmed(f"H{len(target.calls)}", expires_at=datetime.now(UTC) + timedelta(seconds=0.5))

    target = ScriptedTarget(act=push)
    settings = PoolSettings(poll_interval_seconds=0.05, lookup_cache_seconds=0)
    async with PrewarmPool(source, target, settings=settings) as pool:
        await pool.warm("a", timeout=5)
        await pool.join(timeout=5)
        stale = 0
        for _ in range(60):
            handle = await pool.lookup("a")
            assert handle is not None
            stale += handle.stale
            await anyio.sleep(0.02)
        assert 3 <= len(target.calls) <= 6
        assert stale <= 10  # a busy machine may come late
