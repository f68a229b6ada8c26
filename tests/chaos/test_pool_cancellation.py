"""A pool whose callers, attempts and host are cancelled at every await: nothing is lost, nothing is left.

An operation runs beside a task that counts the turns of the event loop and cancels it at the n-th; for each n
from the first, until one comes through unhurt. Where threads work for it (SQLite), it is cancelled after spans of
time that grow. Whatever was cut off, the pool then does all its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from prewarmkit import Handle, Media, PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.stores import Enqueued, Job, MediaStore, MemoryStore, Outcome, SqliteStore, State, Turn
from prewarmkit.stores.base import Looked, MediaId
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

MOST_STEPS = 400
STEP_SECONDS = 0.001
SETTINGS = PoolSettings(concurrency=2, poll_interval_seconds=0.05, lease_seconds=30, retry_base_seconds=0)

Operation = Callable[[PrewarmPool], Awaitable[object]]


async def several_steps(media: Media) -> Warmed:
    """A push that may be cut off in several places."""
    for _ in range(3):
        await checkpoint()
    return Warmed(f"H:{media.key}")


class AwaitedStore(MemoryStore):
    """Memory that takes its time, as a database does: a cancellation may meet each call before and after."""

    async def enqueue(self, jobs: Sequence[Job], *, limit: int | None = None) -> list[Enqueued]:
        await checkpoint()
        answers = await super().enqueue(jobs, limit=limit)
        await checkpoint()
        return answers

    async def turn(
        self,
        settle: Sequence[Outcome] = (),
        lease: int = 0,
        targets: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> Turn:
        await checkpoint()
        turn = await super().turn(settle, lease, targets, lease_seconds)
        await checkpoint()
        return turn

    async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
        await checkpoint()
        return await super().lookup_many(ids)


def new_store(kind: str, directory: Path, number: int) -> MediaStore:
    return AwaitedStore() if kind == "memory" else SqliteStore(directory / f"{number}.db")


async def pass_steps(kind: str, step: int) -> None:
    if kind == "memory":
        for _ in range(step):
            await checkpoint()
    else:
        await anyio.sleep(step * STEP_SECONDS)


async def cancelled_at(kind: str, step: int, operation: Callable[[], Awaitable[object]]) -> bool:
    """Run it and cancel it at that step; whether it was in time."""
    finished = False

    async def run(scope: anyio.CancelScope) -> None:
        nonlocal finished
        with scope:
            await operation()
            finished = True

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(run, scope)
        await pass_steps(kind, step)
        scope.cancel()
    return not finished


def tasks_beside_this() -> int:
    """Tasks of this loop; on trio a nursery cannot be left with one in it."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


async def warm_all(pool: PrewarmPool) -> object:
    return await pool.warm("asked.png")


async def enqueue_some(pool: PrewarmPool) -> object:
    return await pool.enqueue_many(["asked.png", "other.png"])


async def require(pool: PrewarmPool) -> object:
    return await pool.require("warm.png")


async def invalidate(pool: PrewarmPool) -> object:
    return await pool.invalidate("warm.png")


async def stop(pool: PrewarmPool) -> object:
    return await pool.stop()


async def stop_at_once(pool: PrewarmPool) -> object:
    return await pool.stop(drain=False)


async def join(pool: PrewarmPool) -> None:
    await pool.join()


async def start_anew(pool: PrewarmPool) -> None:
    await pool.stop()
    await pool.start()


async def batch(pool: PrewarmPool) -> object:
    await pool.stop()
    return await pool.process_batch(4)


OPERATIONS: dict[str, Operation] = {
    "join": join,
    "start": start_anew,
    "process_batch": batch,
    "warm": warm_all,
    "enqueue": enqueue_some,
    "require": require,
    "invalidate": invalidate,
    "stop": stop,
    "stop without drain": stop_at_once,
}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_call_that_is_cancelled_anywhere_harms_nothing(tmp_path: Path, kind: str, name: str) -> None:
    """Beside a backlog; afterwards the pool starts if it must, and warms every medium that it said it has."""
    operation = OPERATIONS[name]
    before = tasks_beside_this()
    for step in range(MOST_STEPS):
        target = ScriptedTarget(act=several_steps)
        store = new_store(kind, tmp_path, step)
        async with store, PrewarmPool(UnreadSource(), target, store, settings=SETTINGS) as pool:
            await pool.warm("warm.png")
            await pool.enqueue_many(map(str, range(6)))
            was_cancelled = await cancelled_at(kind, step, lambda one=pool: operation(one))  # type: ignore[misc]
            await pool.stop()  # joins the one that may be under way
            await pool.start()
            await pool.join(timeout=10)
            counts = await pool.counts()
            assert {state for _, _, state in counts} == {State.READY}
            assert sum(counts.values()) >= 7
            assert await pool.warm("asked.png", timeout=10) is not None
            assert target.calls.count("asked.png") == 1
            assert pool.stats().processing == pool.stats().queue_size == 0
        assert tasks_beside_this() == before
        if not was_cancelled:
            return
    pytest.fail(f"{name} takes more than {MOST_STEPS} steps")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_host_that_is_cancelled_anywhere_leaves_nothing_leased(tmp_path: Path, kind: str) -> None:
    """From entering to leaving: each row is pending at no attempt's cost or ready, and the next pool finishes."""
    before = tasks_beside_this()
    for step in range(MOST_STEPS):
        target = ScriptedTarget(act=several_steps)
        store = new_store(kind, tmp_path, step)

        async def host(store: MediaStore = store, target: ScriptedTarget = target) -> None:
            async with PrewarmPool(UnreadSource(), target, store, settings=SETTINGS) as pool:
                await pool.enqueue_many(map(str, range(5)))
                await pool.warm("asked.png")
                await pool.join()

        async with store:
            await store.check_schema()
            was_cancelled = await cancelled_at(kind, step, host)
            rows = await store.list()
            assert {row.state for row in rows} <= {State.PENDING, State.READY}, step
            assert all(row.attempts == 0 for row in rows), step
            assert tasks_beside_this() == before
            async with PrewarmPool(UnreadSource(), target, store, settings=SETTINGS) as pool:
                await pool.join(timeout=10)
                assert len(await store.list(State.READY)) == len(rows)
        if not was_cancelled:
            return
    pytest.fail(f"more than {MOST_STEPS} steps")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_host_whose_task_asyncio_cancels_anywhere_leaves_nothing_leased(
    tmp_path: Path, kind: str
) -> None:
    """`Task.cancel` goes through every shield: on the way in, in the block, and on the way out, once and twice."""
    before = tasks_beside_this()
    for step in range(MOST_STEPS):
        target = ScriptedTarget(act=several_steps)
        store = new_store(kind, tmp_path, step)

        async def host(store: MediaStore = store, target: ScriptedTarget = target) -> None:
            async with PrewarmPool(UnreadSource(), target, store, settings=SETTINGS) as pool:
                await pool.enqueue_many(map(str, range(5)))
                await pool.warm("asked.png")
                await pool.join()

        async with store:
            await store.check_schema()
            task = asyncio.ensure_future(host())
            await pass_steps(kind, step)
            was_cancelled = task.cancel()
            if step % 2:
                await checkpoint()
                task.cancel()
            await asyncio.wait({task})
            assert task.cancelled() or task.exception() is None
            rows = await store.list()
            assert {row.state for row in rows} <= {State.PENDING, State.READY}, step
            assert all(row.attempts == 0 for row in rows), step
            assert tasks_beside_this() == before
        if not was_cancelled:
            return
    pytest.fail(f"more than {MOST_STEPS} steps")


@pytest.mark.parametrize("step", range(12))
async def test_a_worker_whose_lease_is_lost_anywhere_works_on(step: int) -> None:
    """An attempt is cut off at its n-th turn, since its row got another version: that one is warmed, by somebody."""
    target = ScriptedTarget(act=several_steps)
    async with PrewarmPool(UnreadSource(), target, settings=PoolSettings(concurrency=1)) as pool:
        await pool.enqueue_many([Media("a.png", etag="1"), "b.png"])
        for _ in range(step):
            await checkpoint()
        await pool.enqueue(Media("a.png", etag="2"))
        handle = await pool.warm(Media("a.png", etag="2"), timeout=5)
        assert isinstance(handle, Handle)
        await pool.join(timeout=5)
        assert await pool.lookup("b.png") is not None
        assert pool.stats().processing == 0


async def test_a_cancellation_that_comes_too_late_does_not_meet_the_next_medium() -> None:
    """The attempt ends in the very moment in which its lease is lost: only its own outcome is dropped."""
    gate = anyio.Event()

    async def push(media: Media) -> Warmed:
        await (gate.wait() if media.key == "a" else checkpoint())
        return Warmed(f"H:{media.key}")

    target = ScriptedTarget(act=push)
    async with PrewarmPool(UnreadSource(), target, settings=PoolSettings(concurrency=1)) as pool:
        await pool.enqueue_many(["a", "b", "c"])
        with anyio.fail_after(5):
            while target.calls != ["a"]:
                await checkpoint()
        for _ in range(5):
            await checkpoint()
        pump = pool._pump  # pyright: ignore[reportPrivateUsage]  # to do both at once
        gate.set()
        pump.drop([lease for lease in pump.held.values() if lease.id.key == "a"])
        for key in "bc":
            await pool.warm(key, timeout=5)
        assert sorted(target.calls) == ["a", "b", "c"]
        stats = pool.stats()
        assert (stats.succeeded, stats.deferred, stats.retried) == (2, 0, 0)
