"""RingQueue under cancellation at every await, under a crowd, and after ten million operations."""

# what lies in memory, and who is called, shows nowhere else
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from prewarmkit import RingQueue

Item = tuple[int, int]
Make = Callable[[int], RingQueue[Item]]

FORMS: dict[str, Make] = {
    "bare": RingQueue,
    "lanes and keys": lambda size: RingQueue(size, lanes=2, key=itemgetter(0), max_skips=1),
}
WORKERS, EACH, STEPS = 6, 3, 40


class Crossing:
    """Three producers and three consumers on a queue of one place, and what became of the items."""

    def __init__(self, make: Make) -> None:
        self.queue = make(1)
        self.lanes = len(self.queue.statistics().lane_sizes)
        self.taken_in: list[Item] = []
        self.handed_out: list[Item] = []

    async def work(self, number: int) -> None:
        for turn in range(EACH):
            if number % 2:
                self.handed_out.append(await self.queue.dequeue())
            else:
                item = (number * EACH + turn, turn)
                assert await self.queue.enqueue(item, turn % self.lanes)
                self.taken_in.append(item)

    def where(self) -> str:
        """What the tasks that a cancellation may meet are doing now."""
        consumers, producers = self.queue._consumers, self.queue._producers
        return " ".join(
            word
            for word, there in {
                "called-out": consumers.called,
                "called-in": producers.called,
                "waiting-out": len(consumers) - consumers.called,
                "waiting-in": len(producers) - producers.called,
            }.items()
            if there
        )

    def check_at_rest(self) -> None:
        figures = self.queue.statistics()
        assert not (figures.waiting_consumers and figures.size)
        assert not (figures.waiting_producers and figures.size < figures.capacity)

    def check_at_end(self) -> None:
        figures = self.queue.statistics()
        assert (figures.waiting_consumers, figures.waiting_producers) == (0, 0)
        left = self.queue.dequeue_batch(9)
        assert sorted(self.handed_out + left) == sorted(self.taken_in)
        assert figures.enqueued == len(self.taken_in)
        # Whoever stood in line has left no trace: the queue is as good as new.
        assert self.queue.enqueue_nowait((99, 0))
        assert self.queue.dequeue_nowait() == (99, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("form", FORMS)
async def test_a_task_that_is_cancelled_at_any_step_loses_nothing_and_holds_up_nobody(form: str) -> None:
    """Every task of six, at every step of the loop until all has come to rest."""
    met = Counter[str]()
    for victim in range(WORKERS):
        for moment in range(STEPS):
            crossing = Crossing(FORMS[form])
            scopes = [anyio.CancelScope() for _ in range(WORKERS)]

            async def run(number: int, scope: anyio.CancelScope, crossing: Crossing) -> None:
                with scope:
                    await crossing.work(number)

            async with anyio.create_task_group() as tasks:
                for number, scope in enumerate(scopes):
                    tasks.start_soon(run, number, scope, crossing)
                for _ in range(moment):
                    await checkpoint()
                met.update(crossing.where().split())
                scopes[victim].cancel()
                for _ in range(STEPS):
                    await checkpoint()
                crossing.check_at_rest()
                for scope in scopes:
                    scope.cancel()
            crossing.check_at_end()
    # The moments were those that matter: tasks in line, and tasks called that had not run yet.
    assert met.keys() == {"called-out", "called-in", "waiting-out", "waiting-in"}


@pytest.mark.parametrize("form", FORMS)
def test_asyncios_own_cancellation_at_any_step_loses_nothing_and_holds_up_nobody(form: str) -> None:
    """``Task.cancel`` delivers once, also to a task whose wake-up is on its way: harsher than a scope."""

    async def run(victim: int, moment: int) -> None:
        crossing = Crossing(FORMS[form])
        tasks = [asyncio.create_task(crossing.work(number)) for number in range(WORKERS)]
        for _ in range(moment):
            await asyncio.sleep(0)
        tasks[victim].cancel()
        for _ in range(STEPS):
            await asyncio.sleep(0)
        crossing.check_at_rest()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert [task.exception() for task in tasks if not task.cancelled() and task.exception()] == []
        crossing.check_at_end()

    async def every() -> None:
        for victim in range(WORKERS):
            for moment in range(STEPS):
                await run(victim, moment)

    asyncio.run(every())


async def crowd(total: int, *, keyed: bool) -> None:
    """32 producers and 32 consumers; each item comes out once."""
    queue = RingQueue[int](50, lanes=4, key=lambda item: item) if keyed else RingQueue[int](50)
    lanes = 4 if keyed else 1
    seen = bytearray(total)

    async def produce(start: int) -> None:
        for item in range(start, total, 32):
            assert await queue.enqueue(item, item % lanes)

    async def consume() -> None:
        async for item in queue:
            seen[item] += 1

    async with anyio.create_task_group() as consumers:
        for _ in range(32):
            consumers.start_soon(consume)
        async with anyio.create_task_group() as producers:
            for start in range(32):
                producers.start_soon(produce, start)
        queue.close()
    assert seen.count(1) == total
    figures = queue.statistics()
    assert (figures.enqueued, figures.dequeued, figures.duplicates, figures.size) == (total, total, 0, 0)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("total", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_crowd_loses_and_doubles_nothing(total: int, backend: str, *, keyed: bool) -> None:
    anyio.run(partial(crowd, total, keyed=keyed), backend=backend)


def memory_of(queue: RingQueue[Any]) -> int:
    """Bytes of all that grows: the dict of keys and the lanes."""
    return sys.getsizeof(queue._index) + sum(sys.getsizeof(lane.queue) for lane in queue._lanes.values())


@pytest.mark.parametrize("operations", [300_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_memory_follows_what_is_queued_after_any_number_of_operations(operations: int) -> None:
    """Tides between 0 and 20,000 queued, by enqueue, dequeue, discard and promote."""
    queue = RingQueue[int](20_000, lanes=4, key=lambda item: item)
    done = item = peak = 0
    gc.collect()
    blocks = sys.getallocatedblocks()
    while done < operations:
        first = item
        while item < first + 20_000:
            queue.enqueue_nowait(item, item % 4)
            item += 1
        peak = max(peak, memory_of(queue))
        for key in range(first, item, 2):
            queue.promote(key, key % 3)
        for key in range(first, item, 4):
            assert queue.discard(key)
        while len(queue) > 10:
            queue.dequeue_nowait()
        assert memory_of(queue) < peak / 20
        queue.dequeue_batch(10)
        done += 60_000
    assert memory_of(queue) < 50_000  # what the dict of a small queue may be
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 1_000
