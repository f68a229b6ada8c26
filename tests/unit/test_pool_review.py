"""What a review of PrewarmPool found, kept found: each story here once went wrong."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from waiting import eventually

from prewarmkit import (
    Enqueued,
    Handle,
    Media,
    MediaKind,
    PoolClosed,
    PoolSettings,
    PrewarmPool,
    UnknownTarget,
    WarmFailed,
    WarmTimeout,
)
from prewarmkit.errors import ConfigurationError, StoreError
from prewarmkit.media import Warmed
from prewarmkit.pool.state import judge
from prewarmkit.stores import Lease, Looked, MediaId, MemoryStore, Outcome, Retry, SqliteStore, State, Turn
from prewarmkit.targets import RateLimited, SourceMissing, TargetDown, Transient
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

FAST = PoolSettings(retry_base_seconds=0.02, poll_interval_seconds=0.05, down_seconds=0.1, max_attempts=1)
IDLE = PoolSettings(autostart=False)


def lease_of(attempt: int = 1) -> Lease:
    return Lease(MediaId("bot", "k", MediaKind.PHOTO), 1, attempt, Media("k"))


# ── rests and delays ─────────────────────────────────────────────────────────


async def test_a_push_that_began_before_a_rest_does_not_end_it(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """429 holds for its time, whatever else succeeds meanwhile."""

    async def push(media: Media) -> Warmed:
        if media.key == "limited":
            raise RateLimited("429", 60)
        await anyio.sleep(0.1)
        return Warmed("H")

    target.act = push
    async with PrewarmPool(source, target) as pool:
        await pool.enqueue_many(["slow", "limited"])
        await eventually(lambda: pool.stats().succeeded > 0)
        await anyio.sleep(0.05)
        assert pool.stats().targets["bot"].paused_for > 55
        assert target.calls.count("limited") == 1


async def test_the_first_rest_of_a_target_that_is_down_is_not_doubled_by_its_workers(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Five workers that find it down at once found it down once."""
    target.script, target.gate = lambda _media, _nth: TargetDown("revoked"), anyio.Event()
    async with PrewarmPool(source, target, settings=PoolSettings(down_seconds=30)) as pool:
        await pool.enqueue_many(map(str, range(5)))
        await eventually(lambda: target.running == 5)
        target.gate.set()
        await eventually(lambda: pool.stats().deferred == 5)
        assert 25 < pool.stats().targets["bot"].paused_for <= 30


async def test_a_shorter_rest_neither_ends_nor_renames_a_longer_one(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A bot that is down stays down though one of its chats was limited too."""

    async def push(media: Media) -> Warmed:
        await anyio.sleep(0.05 if media.key == "late" else 0)
        raise RateLimited("429", 1) if media.key == "late" else TargetDown("revoked")

    target.act = push
    async with PrewarmPool(source, target) as pool:
        await pool.enqueue_many(["late", "down"])
        await eventually(lambda: pool.stats().deferred == 2)
        assert pool.stats().targets["bot"].is_down


async def test_a_target_that_asks_for_no_rest_at_all_is_not_asked_in_a_tight_loop(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """RateLimited costs no attempt, so nothing else would stop it."""
    target.script = lambda _media, _nth: RateLimited("429", 0)
    async with PrewarmPool(source, target) as pool:
        await pool.enqueue("a")
        await anyio.sleep(0.5)
        assert len(target.calls) <= 7


def test_delays_stay_finite_however_long_it_lasts() -> None:
    """A bot revoked for days, a thousand attempts: the exponent must not overflow."""
    down = judge(lease_of(), TargetDown("x"), PoolSettings(), downs=5000)
    assert down.pause is not None
    assert down.pause.seconds == 300
    outcome = judge(lease_of(1500), Transient("x"), PoolSettings(max_attempts=2000)).outcome
    assert isinstance(outcome, Retry)
    assert outcome.delay <= 1.1 * 86_400


# ── odd targets ──────────────────────────────────────────────────────────────


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Bare(RateLimited):
    def __init__(self) -> None:
        Exception.__init__(self, "neither retry_after nor scope")


ODD: dict[str, Any] = {
    "its message raises": Unspeakable(),
    "no retry_after": Bare(),
    "retry_after None": RateLimited("x", None),  # type: ignore[arg-type]
    "retry_after text": RateLimited("x", "30", "chat"),  # type: ignore[arg-type]
    "retry_after NaN": RateLimited("x", math.nan),
    "down text": TargetDown("x", "3"),  # type: ignore[arg-type]
    "weak numbers": Warmed("H", weak=(1,)),  # type: ignore[arg-type]
    "unique_id number": Warmed("H", unique_id=5),  # type: ignore[arg-type]
    "the last date": Warmed("H", expires_at=datetime.max.replace(tzinfo=UTC)),
    "no date": Warmed("H", expires_at="tomorrow"),  # type: ignore[arg-type]
    "NaN": Warmed("H", details={"x": math.nan}),
    "NUL": Warmed("H\0"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_nothing_that_a_target_says_ends_the_pool(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path, odd: Any
) -> None:
    """Its own medium waits or fails; the others are warmed, and rows stay readable."""

    async def push(media: Media) -> Any:
        if media.key == "good":
            return Warmed("H")
        if isinstance(odd, Exception):
            raise odd
        return odd

    target.act = push
    async with SqliteStore(tmp_path / "p.db") as store:
        async with PrewarmPool(source, target, store, settings=FAST) as pool:
            await pool.enqueue("odd")
            await eventually(lambda: pool.stats().deferred + pool.stats().failed > 0)
            assert pool.stats().running
            assert pool.stats().succeeded == 0
        [row] = await store.list()
        assert row.state in {State.PENDING, State.FAILED}


def test_a_kind_may_be_given_by_its_name() -> None:
    """Also in what a target returns: a store that meets a bare str would fail later."""
    assert Warmed("H", kind="photo").kind is MediaKind.PHOTO
    assert Handle("H", "video", "bot", "k").kind is MediaKind.VIDEO
    with pytest.raises(ValueError, match="Unknown kind 5"):
        Warmed("H", kind=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "facts", [{"etag": 5}, {"sha256": b"x"}, {"filename": "\ud800"}, {"content_type": "a\0"}, {"size": 2**63}]
)
def test_facts_that_no_store_can_keep_are_refused_at_once(facts: dict[str, Any]) -> None:
    """By name, where they are given."""
    [name] = facts
    with pytest.raises((TypeError, ValueError), match=name):
        Media("k", **facts)


async def test_spans_that_cannot_be_are_refused_by_name(source: UnreadSource, target: ScriptedTarget) -> None:
    """Text is no number, a truth is no span, and what is never due need not be queued."""
    async with PrewarmPool(source, target) as pool:
        odd: list[Any] = ["5", True, [], math.inf]
        for delay in odd:
            with pytest.raises((TypeError, ValueError), match="delay"):
                await pool.enqueue("a", delay=delay)
        for stranger in (5, object(), b"bot"):
            with pytest.raises(UnknownTarget):
                await pool.enqueue("a", target=stranger)  # type: ignore[arg-type]
        assert await pool.counts() == {}


# ── look-ups ─────────────────────────────────────────────────────────────────


async def test_a_handle_is_remembered_no_longer_for_being_asked_for_often(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """What another process changed is seen after lookup_cache_seconds."""
    clock, store = FakeClock(), MemoryStore()
    async with PrewarmPool(source, target, store, settings=IDLE, clock=clock) as pool:
        await pool.enqueue("a")
        await pool.process_batch()
        assert await pool.lookup("a") is not None
        await store.invalidate(MediaId("bot", "a", MediaKind.DOCUMENT))  # as another process would
        clock.advance(3)
        assert await pool.lookup("a") is not None
        clock.advance(3)
        assert await pool.lookup("a") is None


async def test_a_read_that_a_change_overtook_is_not_remembered(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """This process's changes drop the entry at once, those included that are being read."""
    go, reading = anyio.Event(), anyio.Event()

    class Slow(MemoryStore):
        is_slow = False

        async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
            found = await super().lookup_many(ids)
            if self.is_slow:
                reading.set()
                await go.wait()
            return found

    store = Slow()
    async with PrewarmPool(source, target, store, settings=IDLE) as pool, anyio.create_task_group() as group:
        await pool.enqueue("a")
        await pool.process_batch()
        store.is_slow = True
        group.start_soon(pool.lookup, "a")
        await reading.wait()
        store.is_slow = False
        assert await pool.invalidate("a", False)
        go.set()
        await anyio.sleep(0.02)
        assert await pool.lookup("a") is None


async def test_warm_and_require_heed_the_version_that_they_are_asked_for(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """The handle of other content is stale at best, and its failure says nothing."""
    async with PrewarmPool(source, target) as pool:
        assert (await pool.warm(Media("a", etag="1"), timeout=2)).value == "H:a:1"
        known = await pool.lookup(Media("a", etag="2"))
        assert known is not None
        assert known.stale
        assert await pool.lookup(Media("a", etag="2"), allow_stale=False) is None
        assert (await pool.warm(Media("a", etag="2"), timeout=2)).value == "H:a:2"
        assert (await pool.warm(Media("a", etag="2"), timeout=2)).value == "H:a:2"
        target.script = lambda _media, nth: SourceMissing("gone") if nth == 3 else None
        with pytest.raises(Exception, match="gone"):
            await pool.warm(Media("a", etag="3"), timeout=2)
        assert (await pool.warm(Media("a", etag="4"), timeout=2)).value == "H:a:4"


async def test_content_that_is_warm_under_another_key_is_had_at_once(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """By warm without a second of waiting, by require without an error."""
    async with PrewarmPool(source, target) as pool:
        await pool.warm(Media("a", sha256="S"), timeout=2)
        with anyio.fail_after(0.5):
            assert (await pool.warm(Media("b", sha256="S"))).key == "b"
            assert (await pool.require(Media("c", sha256="S"))).key == "c"
    assert target.calls == ["a"]


async def test_many_waiters_look_into_the_store_as_one(source: UnreadSource, target: ScriptedTarget) -> None:
    """What another process warmed is found by one of them, and all have it."""
    reads = 0

    class Counting(MemoryStore):
        async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
            nonlocal reads
            reads += 1
            return await super().lookup_many(ids)

    target.gate = anyio.Event()
    handles: list[Handle] = []

    async def ask(pool: PrewarmPool) -> None:
        handles.append(await pool.warm("a", timeout=5))

    async with PrewarmPool(source, target, Counting()) as pool, anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(ask, pool)
        await anyio.sleep(2.3)
        assert reads <= 200 + 4
        target.gate.set()
    assert len(handles) == 200


async def test_a_waiter_outlives_a_store_that_fails_for_a_while(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """The workers sit it out, and so does who waits."""

    class Failing(MemoryStore):
        is_broken = False

        async def turn(self, *args: Any, **kwargs: Any) -> Turn:
            if self.is_broken:
                raise StoreError("locked")
            return await super().turn(*args, **kwargs)

        async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
            if self.is_broken:
                raise StoreError("locked")
            return await super().lookup_many(ids)

    store, handles = Failing(), list[Handle]()
    target.seconds = 0.05

    async def ask() -> None:
        handles.append(await pool.warm("a", timeout=8))

    async with PrewarmPool(source, target, store, settings=FAST) as pool, anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.02)
        store.is_broken = True
        await anyio.sleep(1.3)
        store.is_broken = False
    assert [handle.value for handle in handles] == ["H:a:1"]


# ── targets by name ──────────────────────────────────────────────────────────


async def test_a_name_that_equals_an_id_is_resolved_anew_after_its_time(source: UnreadSource) -> None:
    """Else a rotated token would never arrive; and names that are unknown leave nothing behind."""
    clock, asked = FakeClock(), list[str]()

    class Resolver:
        async def resolve(self, name: str) -> ScriptedTarget:
            asked.append(name)
            if name != "bot":
                raise UnknownTarget(name)
            return ScriptedTarget(id=name)

    async with PrewarmPool(source, Resolver(), settings=IDLE, clock=clock) as pool:
        for _ in range(3):
            await pool.enqueue("a", target="bot")
            await pool.enqueue("b", target="bot")
            clock.advance(301)
        assert asked == ["bot"] * 3
        with pytest.raises(UnknownTarget):
            await pool.enqueue("a", target="nobody")


async def test_a_target_that_cannot_be_bound_leaves_nothing_running(source: UnreadSource) -> None:
    """Entering fails whole; the pool can be entered once the cause is mended."""

    class Stubborn(ScriptedTarget):
        is_stubborn = True

        def bind(self, _services: object) -> None:
            if self.is_stubborn:
                raise ValueError("not with me")

    stubborn = Stubborn()
    pool = PrewarmPool(source, stubborn)
    with pytest.raises(ValueError, match="not with me"):
        await pool.__aenter__()
    with pytest.raises(PoolClosed):
        await pool.enqueue("a")
    stubborn.is_stubborn = False
    async with pool:
        await pool.warm("a", timeout=2)


# ── life ─────────────────────────────────────────────────────────────────────


async def test_who_waits_for_what_a_stopping_pool_finishes_gets_it(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Draining ends in a handle for its callers; who comes for something else is told at once."""
    target.seconds = 1.5
    handles: list[Handle] = []

    async def ask() -> None:
        handles.append(await pool.warm("a"))

    async with PrewarmPool(source, target) as pool, anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.1)
        group.start_soon(pool.stop)
        await anyio.sleep(0.1)
        with anyio.fail_after(0.5), pytest.raises(PoolClosed):
            await pool.warm("b")
    assert [handle.value for handle in handles] == ["H:a:1"]


async def test_a_stop_that_a_start_overtakes_still_ends(source: UnreadSource, target: ScriptedTarget) -> None:
    """Of two that wait for a stop one may start again before the other has woken."""
    async with PrewarmPool(source, target) as pool:

        async def restart() -> None:
            await pool.stop()
            await pool.start()

        with anyio.fail_after(3):
            async with anyio.create_task_group() as group:
                group.start_soon(restart)
                group.start_soon(pool.stop)
        assert pool.stats().running


async def test_a_stop_is_bounded_once_when_the_store_stays_broken(
    source: UnreadSource, target: ScriptedTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store gets its time to take the last outcomes, not that time twice."""
    monkeypatch.setattr("prewarmkit.pool.life._FLUSH_SECONDS", 1.0)
    monkeypatch.setattr("prewarmkit.pool.life._LAST_SECONDS", 0.1)

    class Failing(MemoryStore):
        is_broken = False

        async def turn(self, *args: Any, **kwargs: Any) -> Turn:
            if self.is_broken:
                raise StoreError("locked")
            return await super().turn(*args, **kwargs)

    store = Failing()
    target.gate = anyio.Event()
    async with PrewarmPool(source, target, store, settings=FAST) as pool:
        await pool.enqueue_many(["a", "b"])
        await anyio.sleep(0.05)
        store.is_broken = True
        with anyio.fail_after(1.7):
            report = await pool.stop(drain=False)
        assert report.unsettled == 2
        store.is_broken = False
        target.gate.set()
        await pool.start()
        await pool.join(timeout=3)


async def test_waiters_hear_of_a_store_that_cannot_even_take_the_last_turn(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """At once, not when they look again."""

    class Unwritable(MemoryStore):
        async def turn(self, settle: Sequence[Outcome] = (), *args: Any, **kwargs: Any) -> Turn:
            if settle:
                raise ConfigurationError("read-only")
            return await super().turn(settle, *args, **kwargs)

    with pytest.raises(PoolClosed, match="read-only"):  # noqa: PT012 - leaving is what raises
        async with PrewarmPool(source, target, Unwritable()) as pool:
            with anyio.fail_after(0.5), pytest.raises(PoolClosed, match="read-only"):
                await pool.warm("a")


async def test_a_store_whose_hints_break_off_is_polled(source: UnreadSource, target: ScriptedTarget) -> None:
    """A wake-up is a hint: without it work comes later, and comes."""

    class Mute(MemoryStore):
        @asynccontextmanager
        async def _mute(self) -> AsyncGenerator[AsyncIterator[None]]:
            async def hints() -> AsyncGenerator[None]:
                yield
                raise StoreError("the connection was lost")

            yield hints()

        def wakeups(self) -> Any:
            return self._mute()

    async with PrewarmPool(source, target, Mute(), settings=FAST) as pool:
        await anyio.sleep(0.05)
        assert pool.stats().running
        await pool.warm("a", timeout=2)


async def test_a_live_request_that_comes_during_a_turn_is_leased_with_the_next(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Though this process holds as much as it leases ahead."""
    go = anyio.Event()
    rooms, leased = list[int](), set[str]()

    class Slow(MemoryStore):
        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            turn = await super().turn(settle, lease, targets, lease_seconds)
            rooms.append(lease)
            leased.update(each.id.key for each in turn.leased)
            if len(rooms) == 2:
                await go.wait()
            return turn

    target.gate = anyio.Event()
    async with PrewarmPool(source, target, Slow(), settings=PoolSettings(concurrency=1)) as pool:
        await pool.enqueue_many(map(str, range(9)))
        await eventually(lambda: len(rooms) >= 2)
        with pytest.raises(WarmTimeout):
            await pool.warm("live", timeout=0)
        go.set()
        await eventually(lambda: "live" in leased)
        target.gate.set()
        await pool.stop()


# ── batches ──────────────────────────────────────────────────────────────────


async def test_a_batch_is_alone(source: UnreadSource, target: ScriptedTarget) -> None:
    """A second one, or the workers, would give back what the first one is warming."""
    target.gate = anyio.Event()
    async with PrewarmPool(source, target, settings=IDLE) as pool, anyio.create_task_group() as group:
        await pool.enqueue_many(["a", "b"])
        group.start_soon(pool.process_batch, 1)
        await anyio.sleep(0.05)
        with pytest.raises(RuntimeError, match="batch is under way"):
            await pool.process_batch(1)
        with pytest.raises(RuntimeError, match="batch is under way"):
            await pool.start()
        target.gate.set()
    assert target.calls == ["a"]


@pytest.mark.parametrize(("drain", "ends"), [(True, State.READY), (False, State.PENDING)])
async def test_a_stop_waits_for_a_batch_or_cuts_it_off(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path, drain: bool, ends: State
) -> None:
    """Nothing stays warming, and nothing runs when the pool has been left."""
    target.seconds = 0.3 if drain else 60
    async with SqliteStore(tmp_path / "p.db") as store, anyio.create_task_group() as group:
        async with PrewarmPool(source, target, store, settings=IDLE) as pool:
            await pool.enqueue("a")
            group.start_soon(pool.process_batch)
            await anyio.sleep(0.1)
            with anyio.fail_after(3):
                await pool.stop(drain=drain)
        [row] = await store.list()
        assert (row.state, row.attempts, target.running) == (ends, 0, 0)


async def test_an_invalidated_stale_handle_of_a_failed_medium_is_warmed_anew(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """The old handle served until it was refused; now there is none, so try again."""
    target.script = lambda _media, nth: SourceMissing("gone") if nth == 2 else None
    async with PrewarmPool(source, target, settings=IDLE) as pool:
        await pool.enqueue(Media("a", etag="1"))
        await pool.process_batch()
        assert await pool.enqueue(Media("a", etag="2")) is Enqueued.QUEUED
        await pool.process_batch()
        stale = await pool.lookup("a")
        assert stale is not None
        assert await pool.invalidate(stale) is True
        assert await pool.invalidate(stale) is False
        await pool.process_batch()
        assert (await pool.require("a")).value == "H:a:3"


async def test_a_failure_in_a_targets_task_group_counts_as_itself(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """A group of one is unwrapped: a missing source is final, not a bug to retry."""

    async def push(_media: Media) -> Warmed:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
        raise AssertionError

    async def fail() -> None:
        raise SourceMissing("gone")

    target.act = push
    async with PrewarmPool(source, target) as pool:
        with pytest.raises(WarmFailed, match="source_missing: gone"):
            await pool.warm("a", timeout=3)
        assert target.calls == ["a"]


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 8), (0.03, 2)])
async def test_a_pool_leases_further_ahead_only_while_its_workers_run_dry(
    source: UnreadSource, target: ScriptedTarget, seconds: float, most: int
) -> None:
    """What a process holds is what a crash of it costs an attempt: twice its workers, if these have enough to do."""
    held = list[int]()

    class Watched(MemoryStore):
        async def turn(
            self,
            settle: Sequence[Outcome] = (),
            lease: int = 0,
            targets: Collection[str] | None = None,
            lease_seconds: float = 60.0,
        ) -> Turn:
            await anyio.sleep(0.002)  # as a database takes it
            turn = await super().turn(settle, lease, targets, lease_seconds)
            held.append((await self.counts()).get((target.id, MediaKind.DOCUMENT, State.WARMING), 0))
            return turn

    target.seconds = seconds
    settings = PoolSettings(concurrency=8, max_queue=1000, autostart=False)
    async with PrewarmPool(source, target, Watched(), settings=settings) as pool:
        await pool.enqueue_many(map(str, range(160 if seconds else 1000)))
        await pool.start()
        await pool.join(timeout=10)
    assert max(held) == most * 8
