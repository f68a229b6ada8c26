"""PrewarmPool drives a store and a target, and keeps what it promises."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from waiting import eventually

from prewarmkit import (
    ConfigurationError,
    Enqueued,
    Handle,
    Media,
    MediaKind,
    MediaNotReady,
    PoolClosed,
    PoolSettings,
    PrewarmPool,
    QueueFull,
    TargetRequired,
    UnknownTarget,
    WarmFailed,
    WarmTimeout,
)
from prewarmkit.media import Warmed
from prewarmkit.pool.events import MediaReady, MediaStarted, PoolStarted, PoolStopped, TargetPaused
from prewarmkit.stores import Job, MemoryStore, Outcome, SqliteStore, State, Turn
from prewarmkit.targets import RateLimited, SourceMissing, TargetDown, Transient
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

FAST = PoolSettings(retry_base_seconds=0.02, poll_interval_seconds=0.05, down_seconds=0.1)
IDLE = PoolSettings(autostart=False)


# ── the main job ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("durable", [False, True])
async def test_enqueued_media_become_handles(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path, durable: bool
) -> None:
    """The whole flow on both stores: queue, warm, settle, look up."""
    async with (
        SqliteStore(tmp_path / "p.db") if durable else MemoryStore() as store,
        PrewarmPool(source, target, store) as pool,
    ):
        assert await pool.enqueue("a.png") is Enqueued.QUEUED
        assert await pool.enqueue_many(["b.mp4", Media("c.bin")]) == [Enqueued.QUEUED] * 2
        await pool.join(timeout=5)
        handle = await pool.lookup("a.png")
        assert isinstance(handle, Handle)
        assert (handle.value, handle.kind, handle.target, handle.key) == (
            "H:a.png:1",
            MediaKind.PHOTO,
            "bot",
            "a.png",
        )
        assert handle.unique_id == "U:a.png"
        assert not handle.stale
        assert await pool.enqueue("a.png") is Enqueued.READY
        assert await pool.lookup("a.png", kind="document") is None
        stats = pool.stats()
        assert (stats.succeeded, stats.failed, stats.pending, stats.processing, stats.queue_size) == (
            3,
            0,
            0,
            0,
            0,
        )
        assert stats.success_rate == 1.0
        assert stats.throughput_per_min == 3
        assert stats.targets["bot"].succeeded == 3
        assert await pool.counts() == {
            ("bot", kind, State.READY): 1 for kind in (MediaKind.PHOTO, MediaKind.VIDEO, MediaKind.DOCUMENT)
        }
    assert sorted(target.calls) == ["a.png", "b.mp4", "c.bin"]


async def test_work_starts_when_it_arrives(source: UnreadSource, target: ScriptedTarget) -> None:
    """Nobody waits for a tick, however long the poll."""
    async with PrewarmPool(source, target, settings=PoolSettings(poll_interval_seconds=60)) as pool:
        await anyio.sleep(0.05)
        with anyio.fail_after(1):
            for n in range(20):
                await pool.warm(f"{n}.png")


async def test_no_more_run_at_once_than_allowed_and_none_waits_for_the_slowest(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A slow medium holds one worker, not the batch."""
    gate = anyio.Event()

    async def push(media: Media) -> Warmed:
        if media.key == "slow":
            await gate.wait()
        await anyio.sleep(0.001)
        return Warmed("H")

    target.act = push
    async with PrewarmPool(source, target, settings=PoolSettings(concurrency=3)) as pool:
        await pool.enqueue_many(["slow", *map(str, range(30))])
        await eventually(lambda: pool.stats().succeeded == 30)
        assert pool.stats().processing == 1
        gate.set()
        await pool.join(timeout=2)
    assert target.most_at_once == 3


async def test_resize_changes_the_concurrency_at_run_time(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Up at once, down as workers finish."""
    target.gate = anyio.Event()
    async with PrewarmPool(source, target, settings=PoolSettings(concurrency=1)) as pool:
        await pool.enqueue_many(map(str, range(20)))
        await eventually(lambda: target.running == 1)
        pool.resize(6)
        await eventually(lambda: target.running == 6)
        assert pool.stats().max_concurrency == 6
        with pytest.raises(ValueError, match="concurrency"):
            pool.resize(0)
        pool.resize(2)
        target.gate.set()
        target.gate, target.most_at_once = anyio.Event(), 0
        await eventually(lambda: target.running == 2)
        target.gate.set()
        await pool.join(timeout=2)


async def test_small_media_go_first(source: UnreadSource, target: ScriptedTarget) -> None:
    """Without a priority, size decides; photos are ahead of their size."""
    async with PrewarmPool(source, target, settings=PoolSettings(autostart=False)) as pool:
        sizes = {"huge.mp4": 50_000_000, "mid.mp4": 5_000_000, "tiny.mp4": 5_000, "tiny.png": 5_000}
        await pool.enqueue_many([Media(key, size=size) for key, size in sizes.items()])
        for _ in sizes:
            await pool.process_batch(1)
    assert target.calls == ["tiny.png", "tiny.mp4", "mid.mp4", "huge.mp4"]


# ── failures ─────────────────────────────────────────────────────────────────


async def test_a_transient_failure_is_retried_until_it_works(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Each try spends an attempt; success ends it."""
    target.script = lambda _media, nth: Transient("reset") if nth < 3 else None
    async with PrewarmPool(source, target, settings=FAST) as pool:
        await pool.enqueue("a.png")
        await pool.join(timeout=3)
        assert (await pool.require("a.png")).value == "H:a.png:3"
        assert pool.stats().retried == 2


async def test_after_the_last_attempt_a_medium_fails_with_its_reason(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Six tries, then failed; requeue_failed gives it another life."""
    target.script = lambda _media, _nth: Transient("reset by peer")
    settings = PoolSettings(retry_base_seconds=0, poll_interval_seconds=0.02, max_attempts=3)
    async with PrewarmPool(source, target, settings=settings) as pool:
        await pool.enqueue("a.png")
        await pool.join(timeout=3)
        assert len(target.calls) == 3
        with pytest.raises(MediaNotReady) as cold:
            await pool.require("a.png")
        assert (cold.value.state, cold.value.retry_after) == ("failed", None)
        assert await pool.enqueue("a.png") is Enqueued.FAILED
        target.script = lambda _media, _nth: None
        assert await pool.requeue_failed(reason="transient") == 1
        await pool.join(timeout=3)
        assert await pool.lookup("a.png") is not None


async def test_a_final_failure_is_not_retried(source: UnreadSource, target: ScriptedTarget) -> None:
    """What is missing stays missing."""
    target.script = lambda _media, _nth: SourceMissing("no such key")
    async with PrewarmPool(source, target, settings=FAST) as pool:
        with pytest.raises(WarmFailed, match="source_missing: no such key") as failed:
            await pool.warm("a.png", timeout=3)
        assert failed.value.attempts == 1
        assert len(target.calls) == 1
        stats = pool.stats()
        assert (stats.failed, stats.error_rate) == (1, 1.0)


async def test_a_rate_limited_target_rests_and_its_jobs_keep_their_attempts(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """429 is nobody's fault: no attempt is spent, nothing is asked before its time."""
    target.script = lambda _media, _nth: RateLimited("429", 0.3) if len(target.calls) <= 2 else None
    events: list[Any] = []
    settings = PoolSettings(concurrency=2, max_attempts=1)
    async with PrewarmPool(source, target, settings=settings, on_event=events.append) as pool:
        await pool.enqueue_many(["a", "b", "c", "d"])
        await eventually(lambda: bool(pool.stats().targets["bot"].paused_for))
        before = len(target.calls)
        await anyio.sleep(0.1)
        assert len(target.calls) == before
        await pool.join(timeout=3)
        assert pool.stats().succeeded == 4
    assert any(isinstance(event, TargetPaused) and not event.is_down for event in events)


async def test_a_target_that_is_down_costs_no_attempt_and_is_probed_again(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A revoked token fails no medium; warm() says so at once."""
    target.script = lambda _media, _nth: (
        TargetDown("the token was refused") if len(target.calls) < 4 else None
    )
    settings = PoolSettings(max_attempts=1, down_seconds=0.15, poll_interval_seconds=0.05)
    async with PrewarmPool(source, target, settings=settings) as pool:
        with pytest.raises(TargetDown, match="the token was refused"):
            await pool.warm("a", timeout=5)
        assert pool.stats().targets["bot"].is_down
        with pytest.raises(TargetDown):
            await pool.warm("b", timeout=5)
        await pool.enqueue_many(["b", "c"])
        await pool.join(timeout=5)
        assert pool.stats().failed == 0
        assert pool.stats().succeeded == 3


async def test_one_resting_target_does_not_hold_the_others(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Each target rests for itself."""
    other = ScriptedTarget(id="other")
    target.script = lambda _media, _nth: RateLimited("429", 60)
    async with PrewarmPool(source, [target, other]) as pool:
        await pool.enqueue_many([f"{n}" for n in range(10)], target="bot")
        await pool.enqueue_many([f"{n}" for n in range(10)], target=other)
        await eventually(lambda: pool.stats().targets["other"].succeeded == 10)
        counts = await pool.counts()
        assert counts["bot", MediaKind.DOCUMENT, State.PENDING] == 10
        await eventually(lambda: pool.stats().pending == 10)


async def test_a_bug_in_a_target_is_logged_retried_and_harms_nobody_else(
    source: UnreadSource, target: ScriptedTarget, caplog: pytest.LogCaptureFixture
) -> None:
    """Any exception is an attempt; the log has its trace."""
    target.script = lambda media, nth: ZeroDivisionError("oops") if media.key == "bad" and nth == 1 else None
    async with PrewarmPool(source, target, settings=FAST) as pool:
        await pool.enqueue_many(["bad", "good"])
        await pool.join(timeout=3)
        assert pool.stats().succeeded == 2
    assert any(record.exc_info and "bad" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "slip",
    [None, "H", Warmed(""), Warmed("H", details={"x": object()}), Warmed("H", details={"x": "\ud800"})],
    ids=["none", "str", "empty", "object", "surrogate"],
)
async def test_a_result_that_no_store_can_keep_fails_its_own_medium_only(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path, slip: Any
) -> None:
    """A target's slip is an error of that medium, not of its batch."""

    async def push(media: Media) -> Any:
        return slip if media.key == "bad" else Warmed("H")

    target.act = push
    settings = PoolSettings(max_attempts=1)
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(source, target, store, settings=settings) as pool,
    ):
        await pool.enqueue_many(["bad", "good"])
        await pool.join(timeout=3)
        stats = pool.stats()
        assert (stats.succeeded, stats.failed) == (1, 1)


@pytest.mark.parametrize(
    ("policy", "tries", "ends"),
    [
        ("store", 0, "ready"),
        ("store", 2, "ready"),
        ("retry", 1, "failed"),
        ("retry", 0, "failed"),
        ("reject", 5, "failed"),
    ],
)
async def test_a_weak_handle_ends_as_the_policy_says(
    source: UnreadSource, target: ScriptedTarget, policy: Any, tries: int, ends: str
) -> None:
    """store: ready with reasons; retry and reject: failed with weak:…, never returned."""
    target.script = lambda _media, _nth: Warmed("W", weak=("no_unique_id",))
    settings = PoolSettings(weak=policy, retry_weak_id=tries, poll_interval_seconds=0.02)
    async with PrewarmPool(source, target, settings=settings) as pool:
        await pool.enqueue("a")
        await pool.join(timeout=3)
        [(_, _, state)] = await pool.counts()
        assert state == ends
        if ends == "ready":
            assert (await pool.require("a")).weak == ("no_unique_id",)
        else:
            assert await pool.lookup("a") is None
            with pytest.raises(WarmFailed, match="weak:no_unique_id"):
                await pool.warm("a", timeout=1)
        assert len(target.calls) == 1 + (0 if policy == "reject" else tries)
        assert pool.stats().weak == len(target.calls)


# ── cache first ──────────────────────────────────────────────────────────────


async def test_many_callers_of_warm_cost_one_upload(source: UnreadSource, target: ScriptedTarget) -> None:
    """Single flight; a cancelled caller cancels nobody else."""
    target.gate = anyio.Event()
    handles: list[Handle] = []

    async def ask(pool: PrewarmPool) -> None:
        handles.append(await pool.warm("a.png", timeout=5))

    async with PrewarmPool(source, target) as pool, anyio.create_task_group() as group:
        with anyio.move_on_after(0.05):
            await pool.warm("a.png")
        for _ in range(100):
            group.start_soon(ask, pool)
        await eventually(lambda: target.running == 1)
        target.gate.set()
    assert len(handles) == 100
    assert len(set(handles)) == 1
    assert target.calls == ["a.png"]


async def test_warm_goes_in_front_of_the_backlog(source: UnreadSource, target: ScriptedTarget) -> None:
    """A live request does not wait behind a catalogue."""
    target.seconds = 0.01
    async with PrewarmPool(source, target, settings=PoolSettings(concurrency=1)) as pool:
        await pool.enqueue_many(map(str, range(200)), priority=1)
        await pool.warm("live", timeout=3)
        assert len(target.calls) < 10


async def test_warm_times_out_and_the_work_goes_on(source: UnreadSource, target: ScriptedTarget) -> None:
    """WarmTimeout is a TimeoutError too."""
    target.gate = anyio.Event()
    async with PrewarmPool(source, target) as pool:
        with pytest.raises(WarmTimeout) as late:
            await pool.warm("a", timeout=0.05)
        assert isinstance(late.value, TimeoutError)
        target.gate.set()
        assert (await pool.warm("a", timeout=2)).value == "H:a:1"


async def test_warm_says_at_once_when_the_target_rests_longer(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Rate limited beyond the timeout: no use in waiting."""
    target.script = lambda _media, _nth: RateLimited("429", 60)
    async with PrewarmPool(source, target) as pool:
        await pool.enqueue("x")
        await eventually(lambda: pool.stats().targets["bot"].paused_for > 0)
        with anyio.fail_after(1), pytest.raises(WarmTimeout) as late:
            await pool.warm("a", timeout=10)
        assert late.value.retry_after == pytest.approx(60, abs=2)


async def test_a_final_failure_answers_for_a_while_without_a_new_try(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """failure_ttl_seconds guards a broken medium from a stampede."""
    target.script = lambda _media, nth: SourceMissing("gone") if nth == 1 else None
    settings = PoolSettings(failure_ttl_seconds=0.2)
    async with PrewarmPool(source, target, settings=settings) as pool:
        for _ in range(3):
            with pytest.raises(WarmFailed):
                await pool.warm("a", timeout=1)
        assert len(target.calls) == 1
        await anyio.sleep(0.25)
        assert (await pool.warm("a", timeout=1)).value == "H:a:2"


async def test_awaited_media_are_retried_within_seconds(source: UnreadSource, target: ScriptedTarget) -> None:
    """With callers waiting the first retry comes after half a second, not a minute."""
    target.script = lambda _media, nth: Transient("reset") if nth == 1 else None
    async with PrewarmPool(source, target, settings=PoolSettings(retry_base_seconds=3600)) as pool:
        with anyio.fail_after(2):
            assert (await pool.warm("a")).value == "H:a:2"


async def test_require_queues_a_cold_medium_in_front(source: UnreadSource, target: ScriptedTarget) -> None:
    """MediaNotReady tells the state; enqueue=False leaves it alone."""
    async with PrewarmPool(source, target, settings=IDLE) as pool:
        with pytest.raises(MediaNotReady) as cold:
            await pool.require("a.png", enqueue=False)
        assert (cold.value.state, await pool.counts()) == (None, {})
        with pytest.raises(MediaNotReady) as cold:
            await pool.require("a.png")
        assert cold.value.state is None
        assert cold.value.retry_after is not None
        with pytest.raises(MediaNotReady) as cold:
            await pool.require("a.png")
        assert cold.value.state == "pending"
        [row] = await pool.queue_items()
        assert (row.id.key, row.priority) == ("a.png", 0)
        await pool.process_batch()
        assert (await pool.require("a.png")).value == "H:a.png:1"


async def test_a_refused_handle_is_warmed_anew_once(source: UnreadSource, target: ScriptedTarget) -> None:
    """Fifty late refusals of one handle cost one re-warm, also when it came as another kind."""
    target.script = lambda _media, nth: Warmed(f"H{nth}", kind=MediaKind.ANIMATION)
    async with PrewarmPool(source, target) as pool:
        handle = await pool.warm("a.mp4", kind="video", timeout=2)
        assert handle.kind is MediaKind.ANIMATION
        assert [await pool.invalidate(handle) for _ in range(50)] == [True] + [False] * 49
        await pool.join(timeout=2)
        assert (await pool.require("a.mp4", kind="video")).value == "H2"
        assert await pool.invalidate(handle) is False
        assert await pool.invalidate("a.mp4", kind="video", rewarm=False) is True
        assert await pool.lookup("a.mp4", kind="video") is None
        assert len(target.calls) == 2


async def test_lookups_are_counted_and_remembered_shortly(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """The in-process cache answers without the store, and this process's changes drop it."""
    store = MemoryStore()
    async with PrewarmPool(source, target, store) as pool:
        assert await pool.lookup("a") is None
        await pool.warm("a", timeout=2)
        for _ in range(8):
            assert await pool.lookup("a") is not None
        stats = pool.stats()
        assert stats.cache_hits == 8
        assert stats.cache_misses == 2
        assert stats.cache_hit_rate == 0.8
        await pool.invalidate("a")
        assert await pool.lookup("a") is None


async def test_a_new_version_is_warmed_while_the_old_handle_serves(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Stale is better than cold, and told."""
    async with PrewarmPool(source, target, settings=IDLE) as pool:
        await pool.enqueue(Media("a.png", etag="1"))
        await pool.process_batch()
        assert await pool.enqueue(Media("a.png", etag="2")) is Enqueued.QUEUED
        stale = await pool.lookup("a.png")
        assert stale is not None
        assert stale.stale
        assert await pool.lookup("a.png", allow_stale=False) is None
        await pool.process_batch()
        fresh = await pool.lookup("a.png", allow_stale=False)
        assert fresh is not None
        assert (fresh.value, fresh.stale) == ("H:a.png:2", False)


# ── bounds and bad input ─────────────────────────────────────────────────────


async def test_a_full_queue_refuses_at_once(source: UnreadSource, target: ScriptedTarget) -> None:
    """With a store in memory max_queue bounds all that is pending; a refusal is counted."""
    async with PrewarmPool(source, target, settings=PoolSettings(autostart=False, max_queue=3)) as pool:
        await pool.enqueue_many(["1", "2", "3"])
        with pytest.raises(QueueFull):
            await pool.enqueue("4")
        with pytest.raises(QueueFull):
            await pool.enqueue_many(["4", "5"])
        assert await pool.enqueue("1") is Enqueued.DUPLICATE
        stats = pool.stats()
        assert (stats.rejected, stats.queue_size, stats.pending, stats.duplicates) == (3, 3, 3, 1)


async def test_a_durable_backlog_is_bounded_only_by_max_backlog(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """max_queue bounds memory, max_backlog the table."""
    settings = PoolSettings(autostart=False, max_queue=2, max_backlog=5)
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(source, target, store, settings=settings) as pool,
    ):
        await pool.enqueue_many(map(str, range(5)))
        with pytest.raises(QueueFull):
            await pool.enqueue("6")


async def test_bad_input_fails_at_the_call(source: UnreadSource, target: ScriptedTarget) -> None:
    """Never in a worker."""
    async with PrewarmPool(source, target) as pool:
        with pytest.raises(ValueError, match=r"Unknown kind 'hologram'.*photo"):
            await pool.enqueue("a", kind="hologram")
        with pytest.raises(ValueError, match="contradicts"):
            await pool.enqueue(Media("a.png"), kind="video")
        with pytest.raises(UnknownTarget, match="nobody"):
            await pool.enqueue("a", target="nobody")
        with pytest.raises(UnknownTarget):
            await pool.enqueue("a", target=ScriptedTarget(id="stranger"))
        with pytest.raises(TypeError, match="int"):
            await pool.enqueue(7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="empty"):
            await pool.enqueue("")
        with pytest.raises(ValueError, match="NUL"):
            await pool.enqueue("a\0b")
        for priority in (-1, 10, True, "1"):
            with pytest.raises(ValueError, match="priority"):
                await pool.enqueue("a", priority=priority)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="delay"):
            await pool.enqueue("a", delay=-1)
        with pytest.raises(ValueError, match="timeout"):
            await pool.warm("a", timeout=-1)
        with pytest.raises(ValueError, match="grace"):
            await pool.stop(grace=-1)
        assert await pool.counts() == {}


async def test_several_targets_want_to_be_named(source: UnreadSource, target: ScriptedTarget) -> None:
    """Nothing fans out unasked; two of one id cannot be."""
    other = ScriptedTarget(id="other")
    async with PrewarmPool(source, [target, other]) as pool:
        with pytest.raises(TargetRequired, match="bot, other"):
            await pool.enqueue("a")
        assert (await pool.warm("a", target="other", timeout=2)).target == "other"
        assert await pool.lookup("a", target=target) is None
    with pytest.raises(ConfigurationError, match="'bot'"):
        PrewarmPool(source, [target, ScriptedTarget()])
    with pytest.raises(ConfigurationError, match="needs a target"):
        PrewarmPool(source, [])


async def test_a_resolver_finds_targets_by_name_once(source: UnreadSource, target: ScriptedTarget) -> None:
    """Names are the host's; rows store ids."""
    asked: list[str] = []

    class Resolver:
        async def resolve(self, name: str) -> Any:
            asked.append(name)
            await anyio.sleep(0.01)
            if name != "slug":
                raise UnknownTarget(f"no bot {name}")
            return target

    async with PrewarmPool(source, Resolver()) as pool, anyio.create_task_group() as group:
        for n in range(10):
            group.start_soon(partial(pool.warm, str(n), target="slug", timeout=2))
        with pytest.raises(UnknownTarget):
            await pool.enqueue("a", target="nobody")
        with pytest.raises(TargetRequired):
            await pool.enqueue("a")
    assert asked.count("slug") == 1
    assert len(target.calls) == 10


async def test_a_target_that_ignores_kind_has_one_row_a_key(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """An edge caches bytes, not kinds."""

    class Edge(ScriptedTarget):
        ignores_kind = True

    edge = Edge()
    async with PrewarmPool(source, edge) as pool:
        await pool.warm("a.png", timeout=2)
        assert await pool.enqueue("a.png", kind="document") is Enqueued.READY
        assert await pool.lookup("a.png", kind="video") is not None


# ── life ─────────────────────────────────────────────────────────────────────


async def test_stop_finishes_what_runs_and_gives_the_rest_back(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """Drain: workers end, unstarted leases return at no attempt's cost, pending rows stay."""
    target.seconds = 0.1
    async with SqliteStore(tmp_path / "p.db") as store:
        async with PrewarmPool(source, target, store, settings=PoolSettings(concurrency=2)) as pool:
            await pool.enqueue_many(map(str, range(10)))
            await eventually(lambda: target.running == 2)
            report = await pool.stop()
            assert (report.finished, report.cancelled, report.unsettled) == (2, 0, 0)
            assert not pool.stats().running
            counts = await pool.counts()
            assert counts == {
                ("bot", MediaKind.DOCUMENT, State.READY): 2,
                ("bot", MediaKind.DOCUMENT, State.PENDING): 8,
            }
            assert {row.attempts for row in await pool.queue_items()} == {0}
            await pool.start()
            target.seconds = 0
            await pool.join(timeout=3)
        assert len(target.calls) == 10


async def test_stop_without_drain_cuts_off_and_gives_back(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """An interrupted upload costs no attempt."""
    target.gate = anyio.Event()
    async with PrewarmPool(source, target) as pool:
        await pool.enqueue("a")
        await eventually(lambda: target.running == 1)
        report = await pool.stop(drain=False)
        assert (report.finished, report.cancelled, report.unsettled) == (0, 1, 0)
        [row] = await pool.queue_items()
        assert (row.state, row.attempts) == (State.PENDING, 0)


async def test_grace_ends_and_a_second_stop_hastens_the_first(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Stops join; a cancelled stop goes on in the background."""
    target.gate = anyio.Event()
    async with PrewarmPool(source, target) as pool:
        await pool.enqueue("a")
        await eventually(lambda: target.running == 1)
        with anyio.move_on_after(0.05):
            await pool.stop(grace=60)
        assert pool.stats().running
        with anyio.fail_after(2):
            report = await pool.stop(grace=0.05)
        assert report.cancelled == 1
        assert await pool.stop() == report


async def test_a_waiting_caller_hears_that_the_pool_stopped(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """PoolClosed, and the medium stays queued."""
    target.gate = anyio.Event()
    async with PrewarmPool(source, target) as pool, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(PoolClosed):
                await pool.warm("a")

        group.start_soon(ask)
        await eventually(lambda: target.running == 1)
        await pool.stop(drain=False)
        with pytest.raises(PoolClosed):
            await pool.warm("b", timeout=1)
        assert len(await pool.queue_items()) == 2


async def test_leaving_by_an_exception_gives_everything_back(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """The host's error comes out as it was; no row stays warming."""
    target.gate = anyio.Event()
    async with SqliteStore(tmp_path / "p.db") as store:
        pool = PrewarmPool(source, target, store)
        with pytest.raises(KeyError, match="host"):  # noqa: PT012 - leaving is what raises
            async with pool:
                await pool.enqueue_many(["a", "b"])
                await eventually(lambda: target.running > 0)
                raise KeyError("host")
        assert not pool.stats().running
        assert {state for _, _, state in await store.counts()} == {State.PENDING}


async def test_a_cancelled_host_leaves_nothing_behind(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """Cancellation is an ordinary way out."""
    target.gate = anyio.Event()
    async with SqliteStore(tmp_path / "p.db") as store:
        with anyio.move_on_after(0.2) as scope:
            async with PrewarmPool(source, target, store) as pool:
                await pool.enqueue_many(["a", "b"])
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        rows = await store.list()
        assert {(row.state, row.attempts) for row in rows} == {(State.PENDING, 0)}


async def test_a_turn_that_was_committed_is_heard_of_though_the_host_is_cancelled(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """Else its rows would stay warming until their leases run out, an attempt spent."""
    committed = anyio.Event()

    class Slow(SqliteStore):
        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            turn = await super().turn(settle, lease, targets, lease_seconds)
            if turn.leased:
                committed.set()
                await anyio.sleep(0.2)  # the answer is on its way
            return turn

    target.gate = anyio.Event()
    async with Slow(tmp_path / "p.db") as store:
        with anyio.CancelScope() as scope:
            async with PrewarmPool(source, target, store) as pool:
                await pool.enqueue_many(["a", "b"])
                await committed.wait()
                scope.cancel()
                await anyio.sleep_forever()
        assert {(row.state, row.attempts) for row in await store.list()} == {(State.PENDING, 0)}


async def test_a_bug_in_the_pool_never_cancels_the_host(source: UnreadSource, target: ScriptedTarget) -> None:
    """The pool stops, waiters get PoolClosed(cause), leaving raises it."""

    class Broken(MemoryStore):
        async def turn(
            self, settle: Sequence[Outcome] = (), lease: int = 0, *args: Any, **kwargs: Any
        ) -> Turn:
            if lease and self.pending:
                raise ZeroDivisionError("bug")
            return await super().turn(settle, lease, *args, **kwargs)

    reached = False
    with pytest.raises(PoolClosed) as closed:  # noqa: PT012 - leaving is what raises
        async with PrewarmPool(source, target, Broken()) as pool:
            with pytest.raises(PoolClosed) as told:
                await pool.warm("a", timeout=5)
            assert "bug" in repr(told.value.cause)
            assert not pool.stats().running
            assert pool.failure is told.value.cause
            await anyio.sleep(0.01)
            reached = True
    assert reached
    assert "bug" in repr(closed.value.cause)


async def test_pause_begins_nothing_and_resume_goes_on(source: UnreadSource, target: ScriptedTarget) -> None:
    """What runs ends."""
    async with PrewarmPool(source, target) as pool:
        pool.pause()
        await pool.enqueue("a")
        await anyio.sleep(0.1)
        assert target.calls == []
        pool.resume()
        await pool.join(timeout=2)
        assert target.calls == ["a"]


async def test_a_host_may_drive_batches_itself(source: UnreadSource, target: ScriptedTarget) -> None:
    """One batch now, in parallel, then return; refused while workers run."""
    target.seconds = 0.05
    target.script = lambda media, _nth: (
        SourceMissing("x") if media.key == "0" else Transient("y") if media.key == "1" else None
    )
    async with PrewarmPool(source, target, settings=IDLE) as pool:
        await pool.enqueue_many(map(str, range(7)))
        report = await pool.process_batch()
        assert (report.leased, report.succeeded, report.failed, report.retried) == (5, 3, 1, 1)
        assert report.seconds < 0.2
        assert (await pool.process_batch(limit=1)).leased == 1
        assert (await pool.process_batch(limit=9)).leased == 1
        assert (await pool.process_batch()).leased == 0
        with pytest.raises(ValueError, match="limit"):
            await pool.process_batch(0)
        await pool.start()
        with pytest.raises(RuntimeError, match="stop"):
            await pool.process_batch()


async def test_a_pool_that_is_not_entered_says_so(source: UnreadSource, target: ScriptedTarget) -> None:
    """Construction does nothing; use needs a lifespan."""
    pool = PrewarmPool(source, target)
    for call in (pool.enqueue("a"), pool.lookup("a"), pool.warm("a"), pool.start(), pool.counts()):
        with pytest.raises(PoolClosed, match="async with"):
            await call
    assert "closed" in repr(pool)
    async with pool:
        with pytest.raises(RuntimeError, match="entered already"):
            await pool.__aenter__()
    async with pool:
        await pool.warm("a", timeout=2)


async def test_two_pools_over_one_memory_are_refused(source: UnreadSource, target: ScriptedTarget) -> None:
    """Each would think that it holds all; one after the other is fine."""
    store = MemoryStore()
    async with PrewarmPool(source, target, store):
        with pytest.raises(ConfigurationError, match="another pool"):
            async with PrewarmPool(source, target, store):
                pass
    async with PrewarmPool(source, target, store) as pool:
        await pool.warm("a", timeout=2)


async def test_two_pools_share_one_table(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """Each medium is warmed once, by whichever pool came first."""
    target.seconds = 0.002
    async with (
        SqliteStore(tmp_path / "p.db") as one,
        SqliteStore(tmp_path / "p.db") as two,
        PrewarmPool(source, target, one, settings=FAST) as first,
        PrewarmPool(source, target, two, settings=FAST) as second,
    ):
        await first.enqueue_many(map(str, range(100)))
        await second.join(timeout=10)
        assert sorted(target.calls) == sorted(map(str, range(100)))
        # The store knows first: the other pool may have yet to hear that its last turn is done.
        await eventually(lambda: first.stats().succeeded + second.stats().succeeded == 100)
        assert (await second.warm("7", timeout=2)).value == "H:7:1"


async def test_a_lease_that_others_took_over_ends_the_attempt(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """A heartbeat that finds the lease lost cancels the upload; its outcome counts for nothing."""
    target.gate = anyio.Event()
    settings = PoolSettings(lease_seconds=0.3, poll_interval_seconds=0.05)
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(source, target, store, settings=settings) as pool,
    ):
        await pool.enqueue(Media("a", etag="1"))
        await eventually(lambda: target.running == 1)
        await store.enqueue([_job("a", etag="2")])
        await eventually(lambda: pool.stats().lost == 1)
        # The old upload was cut off; only the new version's runs.
        await eventually(lambda: (len(target.calls), target.running) == (2, 1))
        target.gate.set()
        await pool.join(timeout=3)
        assert (await pool.require("a")).value == "H:a:2"


async def test_long_work_keeps_its_lease(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """Heartbeats carry an upload over many lease times."""
    target.seconds = 1.0
    settings = PoolSettings(lease_seconds=0.2)
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(source, target, store, settings=settings) as pool,
    ):
        await pool.warm("a", timeout=5)
    assert target.calls == ["a"]


async def test_a_medium_that_kills_its_process_is_failed_after_its_attempts(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """The attempt is counted at the claim, so a crash counts too."""
    settings = PoolSettings(max_attempts=2, poll_interval_seconds=0.05)
    async with SqliteStore(tmp_path / "p.db") as store:
        await store.enqueue([_job("poison")])
        for _ in range(2):
            assert len((await store.turn(lease=1, lease_seconds=0.01)).leased) == 1
            await anyio.sleep(0.02)
        async with PrewarmPool(source, target, store, settings=settings) as pool:
            await pool.join(timeout=3)
            with pytest.raises(WarmFailed, match="crash"):
                await pool.warm("poison", timeout=1)
    assert target.calls == []


# ── events ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_async", [False, True])
async def test_events_tell_the_story_and_a_broken_listener_stops_nothing(
    source: UnreadSource, target: ScriptedTarget, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Callbacks may be plain or async, and may raise."""
    seen: list[Any] = []

    def note(event: Any) -> None:
        seen.append(event)
        raise RuntimeError("listener")

    async def note_later(event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        note(event)

    with caplog.at_level(logging.CRITICAL, "prewarmkit"):
        async with PrewarmPool(source, target, on_event=note_later if is_async else note) as pool:
            await pool.warm("a", timeout=2)
    kinds: list[type[object]] = [type(event) for event in seen]
    for kind in (PoolStarted, MediaStarted, MediaReady, PoolStopped):
        assert kind in kinds
    assert kinds.index(MediaStarted) < kinds.index(MediaReady) < kinds.index(PoolStopped)


def _job(key: str, **facts: Any) -> Job:
    return job(key, **facts)


async def test_pools_for_two_tenants_do_not_see_each_other(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """No state is shared."""
    other = ScriptedTarget(id="bot")
    async with PrewarmPool(source, target, name="one") as one, PrewarmPool(source, other, name="two") as two:
        await one.warm("a", timeout=2)
        assert await two.lookup("a") is None
        assert two.stats().succeeded == 0


def test_stats_are_plain_numbers_before_anything_happened(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """0/0 is None, not a crash."""
    stats = PrewarmPool(source, target).stats()
    assert (stats.success_rate, stats.error_rate, stats.cache_hit_rate) == (None, None, None)
    assert stats.queue_wait.p95 is None
    assert (stats.max_concurrency, stats.max_queue, stats.utilization, stats.running) == (5, 500, 0.0, False)
    assert list(itertools.chain(stats.targets)) == ["bot"]


async def test_entering_and_leaving_in_different_tasks(
    source: UnreadSource, target: ScriptedTarget, anyio_backend: str
) -> None:
    """Asyncio allows it; trio's nurseries do not, and the error says so."""
    pool = PrewarmPool(source, target)
    await pool.__aenter__()
    await pool.warm("a", timeout=2)
    told: list[BaseException] = []

    async def leave() -> None:
        try:
            await pool.__aexit__(None, None, None)
        except RuntimeError as error:
            told.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
    if anyio_backend == "asyncio":
        assert told == []
    else:
        assert "left in the task that entered it" in str(told[0])
        await pool.__aexit__(None, None, None)
    assert not pool.stats().running
