"""RingQueue: lanes, keys, bounded skipping, waiting, closing."""

# what lies in memory shows nowhere else
# pyright: reportPrivateUsage=false
from __future__ import annotations

import _thread
import asyncio
import gc
import operator
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from prewarmkit import QueueClosed, QueueEmpty, QueueFull, RingQueue

on_both_loops = pytest.mark.anyio


def identity(item: Any) -> Any:
    return item


def drain(queue: RingQueue[Any]) -> list[Any]:
    return queue.dequeue_batch(len(queue))


# ── order ────────────────────────────────────────────────────────────────────


def test_one_lane_is_first_in_first_out() -> None:
    queue = RingQueue[int](10)
    for item in range(10):
        assert queue.enqueue_nowait(item) is True
    assert [queue.dequeue_nowait() for _ in range(10)] == list(range(10))


def test_a_better_lane_leaves_first_and_each_lane_keeps_its_order() -> None:
    queue = RingQueue[str](10, lanes=3)
    for item in ("c1", "a1", "b1", "a2", "c2"):
        queue.enqueue_nowait(item, "abc".index(item[0]))
    assert drain(queue) == ["a1", "a2", "b1", "c1", "c2"]


@pytest.mark.parametrize("lanes", [2, 5, 64])
@pytest.mark.parametrize("max_skips", [1, 8])
def test_an_endless_flow_into_lane_0_lets_an_item_of_lane_k_out_after_its_bound(
    lanes: int, max_skips: int
) -> None:
    queue = RingQueue[tuple[int, int]](1000, lanes=lanes, max_skips=max_skips)
    for lane in range(1, lanes):
        queue.enqueue_nowait((lane, 0), lane)
    served: list[int] = []
    for number in range(lanes * (max_skips + 2)):
        queue.enqueue_nowait((0, number))
        served.append(queue.dequeue_nowait()[0])
    for lane in range(1, lanes):
        better = [other for other in served[: served.index(lane)] if other < lane]
        # Exactly: neither starved, nor let out before its time.
        assert len(better) == max_skips * lane


def test_the_bound_holds_for_every_item_of_a_lane_not_only_its_first() -> None:
    queue = RingQueue[str](100, lanes=2, max_skips=3)
    for number in range(6):
        queue.enqueue_nowait(f"a{number}")
        queue.enqueue_nowait(f"b{number}", 1)
    late = [queue.dequeue_nowait() for _ in range(3)]
    queue.enqueue_nowait("b-late", 1)
    assert late == ["a0", "a1", "a2"]
    assert drain(queue) == ["b0", "b1", "b2", "b3", "b4", "b5", "a3", "a4", "a5", "b-late"]


def test_a_max_skips_of_maxsize_drains_any_backlog_strictly_by_lane() -> None:
    queue = RingQueue[int](300, lanes=3, max_skips=300)
    for item in range(300):
        queue.enqueue_nowait(item % 3, item % 3)
    assert drain(queue) == sorted([0, 1, 2] * 100)


def test_a_snapshot_is_the_order_of_leaving_and_takes_nothing() -> None:
    rng = Random(7)
    queue = RingQueue[int](500, lanes=6, key=identity, max_skips=2)
    for item in range(400):
        queue.enqueue_nowait(item, rng.randrange(6))
        if rng.random() < 0.3:
            queue.dequeue_nowait()
        queue.discard(rng.randrange(400))
        queue.promote(rng.randrange(400), rng.randrange(6))
    foretold, size = queue.snapshot(1000), len(queue)
    assert queue.snapshot(5) == foretold[:5]
    assert queue.snapshot() == foretold
    assert queue.snapshot(0) == []
    assert queue.peek() == foretold[0]
    assert len(queue) == size == len(foretold)
    assert drain(queue) == foretold


def test_a_batch_is_what_is_there_up_to_its_limit() -> None:
    queue = RingQueue[int](10)
    assert queue.dequeue_batch(3) == []
    for item in range(4):
        queue.enqueue_nowait(item)
    assert queue.dequeue_batch(0) == []
    assert queue.dequeue_batch(3) == [0, 1, 2]
    assert queue.dequeue_batch(3) == [3]
    queue.close()
    assert queue.dequeue_batch(3) == []


# ── keys ─────────────────────────────────────────────────────────────────────


def test_a_duplicate_is_found_before_fullness() -> None:
    queue = RingQueue[tuple[str, int]](1, key=operator.itemgetter(0))
    assert queue.enqueue_nowait(("k", 1)) is True
    assert queue.enqueue_nowait(("k", 2)) is False
    with pytest.raises(QueueFull, match="1 places"):
        queue.enqueue_nowait(("other", 3))
    assert drain(queue) == [("k", 1)]
    assert queue.enqueue_nowait(("k", 4)) is True


def test_a_duplicate_on_a_better_lane_moves_the_first_item_there() -> None:
    queue = RingQueue[tuple[str, int]](9, lanes=3, key=operator.itemgetter(0))
    queue.enqueue_nowait(("k", 1), 2)
    queue.enqueue_nowait(("m", 1), 1)
    assert queue.enqueue_nowait(("k", 2), 1) is False
    assert queue.statistics().lane_sizes == (0, 2, 0)
    assert queue.enqueue_nowait(("m", 2), 2) is False
    assert drain(queue) == [("m", 1), ("k", 1)]


def test_discard_removes_one_item_and_leaves_the_order() -> None:
    queue = RingQueue[int](9, lanes=2, key=identity)
    for item in range(6):
        queue.enqueue_nowait(item, item % 2)
    assert queue.discard(2) is True
    assert queue.discard(2) is False
    assert queue.discard(1) is True
    assert 2 not in queue
    assert 3 in queue
    assert queue.enqueue_nowait(2) is True
    assert drain(queue) == [0, 4, 2, 3, 5]


def test_promote_moves_to_another_lanes_tail_better_or_worse() -> None:
    queue = RingQueue[int](9, lanes=3, key=identity)
    for item in range(4):
        queue.enqueue_nowait(item, 1)
    assert queue.promote(2) is True
    assert queue.promote(0, 2) is True
    assert queue.promote(1, 1) is True  # its own lane: it keeps its place
    assert queue.promote(99) is False
    assert drain(queue) == [2, 1, 3, 0]


@pytest.mark.parametrize("use", ["discard", "promote", "in"])
def test_without_a_key_function_there_is_nothing_to_find(use: str) -> None:
    queue = RingQueue[int](9)
    calls: dict[str, Callable[[], object]] = {
        "discard": lambda: queue.discard(1),
        "promote": lambda: queue.promote(1),
        "in": lambda: 1 in queue,
    }
    with pytest.raises(TypeError, match=rf"'{use}' needs a key"):
        calls[use]()
    assert queue.enqueue_nowait(1) is queue.enqueue_nowait(1) is True


def test_an_unhashable_key_is_named_and_changes_nothing() -> None:
    queue = RingQueue[list[int]](9, key=identity)
    with pytest.raises(TypeError, match="key must be hashable, not list"):
        queue.enqueue_nowait([1])
    unhashable: Any = []
    calls: list[Callable[[Any], object]] = [queue.discard, queue.promote, queue.__contains__]
    for call in (partial(call, unhashable) for call in calls):
        with pytest.raises(TypeError, match="key must be hashable, not list"):
            call()
    assert len(queue) == queue.statistics().enqueued == 0


# ── bad input ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"maxsize": 0}, ValueError, "maxsize"),
        ({"maxsize": 1.5}, TypeError, "maxsize"),
        ({"maxsize": True}, TypeError, "maxsize"),
        ({"maxsize": 1, "lanes": 0}, ValueError, "lanes"),
        ({"maxsize": 1, "lanes": 65}, ValueError, "lanes"),
        ({"maxsize": 1, "lanes": "2"}, TypeError, "lanes"),
        ({"maxsize": 1, "max_skips": 0}, ValueError, "max_skips"),
        ({"maxsize": 1, "key": "id"}, TypeError, "key"),
    ],
)
def test_a_bad_argument_is_named_by_the_constructor(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=rf"^{named} must be"):
        RingQueue(**arguments)


@pytest.mark.parametrize("lane", [-1, 2, 64, None, "0", 0.5, [0]])
def test_a_lane_that_is_not_there_is_named(lane: Any) -> None:
    queue = RingQueue[int](1, lanes=2, key=identity)
    error = ValueError if isinstance(lane, int) else TypeError
    with pytest.raises(error, match="lane must be"):
        queue.enqueue_nowait(1, lane)
    queue.enqueue_nowait(1)
    with pytest.raises(error, match="lane must be"):
        queue.enqueue_nowait(2, lane)  # before fullness
    with pytest.raises(error, match="lane must be"):
        queue.promote(1, lane)


@pytest.mark.parametrize("lane", [-1, 2, 64, None, "0", 0.5, [0]])
def test_a_lane_that_is_not_there_is_named_where_room_is_at_hand(lane: Any) -> None:
    queue = RingQueue[int](9, lanes=2)
    queue.enqueue_nowait(1)
    error = ValueError if isinstance(lane, int) else TypeError
    with pytest.raises(error, match="lane must be"):
        queue.enqueue_nowait(2, lane)
    assert queue.statistics().enqueued == 1


@pytest.mark.parametrize("lane", [1, -1, 64])
def test_a_bare_queue_has_no_other_lane_where_room_is_at_hand_either(lane: int) -> None:
    queue = RingQueue[int](9)
    queue.enqueue_nowait(1)
    calls: list[Callable[[], object]] = [
        partial(queue.enqueue_nowait, 2, lane),
        lambda: asyncio.run(queue.enqueue(2, lane)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="lane must be"):
            call()
    assert drain(queue) == [1]


@pytest.mark.parametrize("call", ["dequeue_batch", "snapshot"])
def test_a_bad_limit_is_named(call: str) -> None:
    queue = RingQueue[int](1)
    with pytest.raises(ValueError, match="limit must be"):
        getattr(queue, call)(-1)
    with pytest.raises(TypeError, match="limit must be"):
        getattr(queue, call)("1")


def test_nothing_to_take_and_nothing_to_see_is_an_error_that_can_pass() -> None:
    queue = RingQueue[int](1)
    for call in (queue.dequeue_nowait, queue.peek):
        with pytest.raises(QueueEmpty) as refusal:
            call()
        assert refusal.value.is_retryable
        assert not isinstance(refusal.value, QueueClosed)


# ── waiting ──────────────────────────────────────────────────────────────────


async def take(
    queue: RingQueue[Any], name: str, log: list[Any], scope: anyio.CancelScope | None = None
) -> None:
    with scope or anyio.CancelScope():
        log.append((name, await queue.dequeue()))


async def put(
    queue: RingQueue[Any], item: Any, log: list[Any], scope: anyio.CancelScope | None = None
) -> None:
    with scope or anyio.CancelScope():
        log.append((item, await queue.enqueue(item)))


@on_both_loops
async def test_consumers_are_served_in_the_order_they_came() -> None:
    queue, log = RingQueue[int](9), list[Any]()
    async with anyio.create_task_group() as tasks:
        for name in "abcdefgh":
            tasks.start_soon(take, queue, name, log)
            await wait_all_tasks_blocked()
        assert queue.statistics().waiting_consumers == 8
        for item in range(8):  # all are woken at once, which trio runs in any order
            queue.enqueue_nowait(item)
    assert log == [(name, item) for item, name in enumerate("abcdefgh")]
    assert queue.statistics().waiting_consumers == 0


@on_both_loops
async def test_what_woke_a_consumer_is_kept_for_it() -> None:
    queue, log = RingQueue[int](9, key=identity), list[Any]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, queue, "waits", log)
        await wait_all_tasks_blocked()
        queue.enqueue_nowait(1)
        for call in (queue.dequeue_nowait, queue.peek):
            with pytest.raises(QueueEmpty):
                call()
        assert queue.dequeue_batch(5) == []
        assert len(queue) == 1
        assert queue.enqueue_nowait(1) is False
        queue.enqueue_nowait(2)
        assert len(queue.dequeue_batch(5)) == 1
    assert len(log) == 1
    assert len(queue) == 0


@on_both_loops
async def test_a_new_call_does_not_overtake_a_consumer_that_was_called() -> None:
    queue, log = RingQueue[int](9), list[Any]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, queue, "first", log)
        await wait_all_tasks_blocked()
        queue.enqueue_nowait(1)
        tasks.start_soon(take, queue, "third", log)
        tasks.start_soon(queue.enqueue, 2)
        await take(queue, "second", log)
        tasks.start_soon(queue.enqueue, 3)
    assert ("first", 1) in log
    assert sorted(name for name, _ in log) == ["first", "second", "third"]


@on_both_loops
@pytest.mark.parametrize("called_first", [False, True])
async def test_a_cancelled_consumer_loses_neither_the_item_nor_the_turn(*, called_first: bool) -> None:
    """Also when the item has woken it already and the cancellation comes on top."""
    queue, log = RingQueue[int](9), list[Any]()
    async with anyio.create_task_group() as tasks:
        doomed = anyio.CancelScope()
        tasks.start_soon(take, queue, "cancelled", log, doomed)
        await wait_all_tasks_blocked()
        tasks.start_soon(take, queue, "next", log)
        await wait_all_tasks_blocked()
        if called_first:
            doomed.cancel()
            queue.enqueue_nowait(1)
        else:
            queue.enqueue_nowait(1)
            doomed.cancel()
        await wait_all_tasks_blocked()
        if len(log) == 1 and log[0][0] == "cancelled":  # the loop let it finish: then its item is its own
            queue.enqueue_nowait(2)
    assert [item for _, item in log] == list(range(1, 1 + len(log)))
    assert log[-1][0] == "next"
    assert len(queue) == 0


def test_asyncios_own_cancellation_after_the_call_passes_the_item_on() -> None:
    """`asyncio.Task.cancel`, and so `asyncio.timeout`, cut a wait that is over already; the item must stay."""

    async def main() -> None:
        queue = RingQueue[int](9)
        first = asyncio.create_task(queue.dequeue())
        second = asyncio.create_task(queue.dequeue())
        await asyncio.sleep(0)
        queue.enqueue_nowait(1)
        first.cancel()
        assert await second == 1
        assert first.cancelled()

    asyncio.run(main())


@on_both_loops
async def test_a_discard_takes_the_call_back_and_the_consumer_keeps_its_place() -> None:
    queue, log = RingQueue[int](9, key=identity), list[Any]()
    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(take, queue, name, log)
            await wait_all_tasks_blocked()
        queue.enqueue_nowait(1)
        queue.enqueue_nowait(2)
        assert queue.discard(1)
        assert queue.discard(2)
        await wait_all_tasks_blocked()
        assert log == []
        for item in (3, 4, 5):
            queue.enqueue_nowait(item)
    assert log == [("a", 3), ("b", 4), ("c", 5)]


@on_both_loops
async def test_producers_get_room_in_the_order_they_came() -> None:
    queue, log, got = RingQueue[int](3), list[Any](), list[int]()
    async with anyio.create_task_group() as tasks:
        for item in range(9):
            tasks.start_soon(put, queue, item, log)
            await wait_all_tasks_blocked()
        assert queue.statistics().waiting_producers == 6
        got.extend(queue.dequeue_batch(3))
        got.extend([await queue.dequeue() for _ in range(6)])
    assert got == list(range(9))
    assert log == [(item, True) for item in range(9)]


@on_both_loops
async def test_a_new_producer_does_not_overtake_one_in_line_though_there_is_room_for_both() -> None:
    queue, log = RingQueue[int](2), list[Any]()
    queue.enqueue_nowait(0)
    queue.enqueue_nowait(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put, queue, 1, log)
        await wait_all_tasks_blocked()
        queue.dequeue_batch(2)
        await put(queue, 2, log)
    assert drain(queue) == [1, 2]


@on_both_loops
async def test_room_is_kept_for_the_producer_that_was_called() -> None:
    queue, log = RingQueue[int](1), list[Any]()
    queue.enqueue_nowait(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put, queue, 1, log)
        await wait_all_tasks_blocked()
        assert queue.dequeue_nowait() == 0
        with pytest.raises(QueueFull):
            queue.enqueue_nowait(9)
    assert drain(queue) == [1]
    assert queue.statistics().rejected == 1


@on_both_loops
@pytest.mark.parametrize("lanes", [1, 2])
async def test_each_of_two_producers_that_are_called_keeps_its_place(lanes: int) -> None:
    queue, log = RingQueue[int](2, lanes=lanes), list[Any]()
    queue.enqueue_nowait(0)
    queue.enqueue_nowait(0)
    async with anyio.create_task_group() as tasks:
        for item in (1, 2):
            tasks.start_soon(put, queue, item, log)
            await wait_all_tasks_blocked()
        assert queue.dequeue_batch(2) == [0, 0]
        with pytest.raises(QueueFull):
            queue.enqueue_nowait(9)
    assert drain(queue) == [1, 2]


@on_both_loops
async def test_a_cancelled_producers_room_goes_to_the_next() -> None:
    queue, log = RingQueue[int](1), list[Any]()
    queue.enqueue_nowait(0)
    async with anyio.create_task_group() as tasks:
        doomed = anyio.CancelScope()
        tasks.start_soon(put, queue, 1, log, doomed)
        await wait_all_tasks_blocked()
        tasks.start_soon(put, queue, 2, log)
        await wait_all_tasks_blocked()
        doomed.cancel()
        queue.dequeue_nowait()
        await wait_all_tasks_blocked()
        assert drain(queue) == [2]
    assert log == [(2, True)]


@on_both_loops
async def test_a_key_that_came_while_a_producer_waited_makes_it_a_duplicate_and_frees_its_room() -> None:
    queue, log = RingQueue[str](1, key=identity), list[Any]()
    queue.enqueue_nowait("x")
    async with anyio.create_task_group() as tasks:
        for item in ("same", "same", "other"):
            tasks.start_soon(put, queue, item, log)
            await wait_all_tasks_blocked()
        queue.dequeue_nowait()
        await wait_all_tasks_blocked()
        assert log == [("same", True)]
        # The room of "same" comes free: the second "same" takes it, since nothing is queued now.
        assert queue.dequeue_nowait() == "same"
        await wait_all_tasks_blocked()
        assert log == [("same", True), ("same", True)]
        assert await queue.enqueue("same") is False
        queue.dequeue_nowait()
    assert log[-1] == ("other", True)


@on_both_loops
async def test_two_producers_of_one_key_that_are_called_together_put_it_once() -> None:
    queue, log = RingQueue[str](2, key=identity), list[Any]()
    queue.enqueue_nowait("x")
    queue.enqueue_nowait("y")
    async with anyio.create_task_group() as tasks:
        for item in ("same", "same", "other"):
            tasks.start_soon(put, queue, item, log)
            await wait_all_tasks_blocked()
        assert queue.dequeue_batch(2) == ["x", "y"]
    assert log == [("same", True), ("same", False), ("other", True)]
    assert drain(queue) == ["same", "other"]


@on_both_loops
async def test_awaited_calls_that_need_not_wait_let_others_run_now_and_then() -> None:
    queue, other = RingQueue[int](1), list[int]()

    async def beat() -> None:
        while True:
            other.append(1)
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await checkpoint()
        other.clear()
        for _ in range(320):
            await queue.enqueue(1)
            await queue.dequeue()
        tasks.cancel_scope.cancel()
    assert 8 <= len(other) <= 12


@on_both_loops
async def test_a_consumer_that_never_waits_can_be_cancelled() -> None:
    queue = RingQueue[int](1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        for taken in count():
            assert taken < 100
            queue.enqueue_nowait(taken)
            await queue.dequeue()
    assert scope.cancelled_caught
    assert len(queue) == 1


@on_both_loops
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("call", ["enqueue", "dequeue"])
async def test_either_awaited_call_alone_can_be_cancelled_without_ever_waiting(call: str, lanes: int) -> None:
    queue = RingQueue[int](200, lanes=lanes)
    with anyio.CancelScope() as scope:
        scope.cancel()
        for number in range(100):
            if call == "enqueue":
                await queue.enqueue(number)
                queue.dequeue_nowait()
            else:
                queue.enqueue_nowait(number)
                await queue.dequeue()
    assert scope.cancelled_caught


@on_both_loops
async def test_a_key_function_that_fails_in_a_waiting_producer_frees_its_room() -> None:
    calls = count()

    def key(item: int) -> int:
        if item == 1 and next(calls):
            raise LookupError("second look")
        return item

    queue, log = RingQueue[int](1, key=key), list[Any]()
    queue.enqueue_nowait(0)

    async def failing() -> None:
        with pytest.raises(LookupError):
            await queue.enqueue(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(failing)
        await wait_all_tasks_blocked()
        tasks.start_soon(put, queue, 2, log)
        await wait_all_tasks_blocked()
        queue.dequeue_nowait()
    assert drain(queue) == [2]


# ── closing ──────────────────────────────────────────────────────────────────


def test_a_closed_queue_takes_nothing_more_and_gives_what_it_has() -> None:
    queue = RingQueue[int](9, key=identity)
    queue.enqueue_nowait(1)
    queue.enqueue_nowait(2)
    queue.close()
    queue.close()
    assert queue.closed
    for item in (1, 3):
        with pytest.raises(QueueClosed):
            queue.enqueue_nowait(item)
    assert [queue.dequeue_nowait(), queue.dequeue_nowait()] == [1, 2]
    for call in (queue.dequeue_nowait, queue.peek):
        with pytest.raises(QueueEmpty) as refusal:
            call()
        assert isinstance(refusal.value, QueueClosed)
        assert not refusal.value.is_retryable


@on_both_loops
async def test_close_wakes_everyone_who_waits() -> None:
    full, empty, log = RingQueue[int](1), RingQueue[int](1), list[str]()
    full.enqueue_nowait(0)

    async def refused(call: Callable[[], Any]) -> None:
        with pytest.raises(QueueClosed):
            await call()
        log.append("refused")

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(refused, empty.dequeue)
            tasks.start_soon(refused, partial(full.enqueue, 1))
        await wait_all_tasks_blocked()
        full.close()
        empty.close()
    await refused(empty.dequeue)
    await refused(partial(empty.enqueue, 1))
    assert len(log) == 8
    assert await full.dequeue() == 0
    await refused(full.dequeue)


@on_both_loops
async def test_iteration_ends_when_the_queue_is_closed_and_drained() -> None:
    queue, got = RingQueue[int](4), list[int]()

    async def consume() -> None:
        got.extend([item async for item in queue])

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(consume)
        for item in range(50):
            await queue.enqueue(item)
        queue.close()
    assert sorted(got) == list(range(50))


@on_both_loops
async def test_close_does_not_send_a_consumer_home_while_an_item_may_still_become_its_own() -> None:
    """The item is kept for the first, who is cancelled: the second must get it, closed or not."""
    queue, log = RingQueue[int](4), list[Any]()
    async with anyio.create_task_group() as tasks:
        doomed = anyio.CancelScope()
        tasks.start_soon(take, queue, "first", log, doomed)
        await wait_all_tasks_blocked()
        tasks.start_soon(take, queue, "second", log)
        await wait_all_tasks_blocked()
        doomed.cancel()
        queue.enqueue_nowait(1)
        queue.close()
    assert log == [("second", 1)]
    with pytest.raises(QueueClosed):
        await queue.dequeue()


@on_both_loops
@pytest.mark.parametrize("lanes", [1, 2])
async def test_a_new_call_does_not_overtake_a_consumer_that_was_called_before_the_close(lanes: int) -> None:
    queue, log = RingQueue[int](4, lanes=lanes), list[Any]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, queue, "first", log)
        await wait_all_tasks_blocked()
        queue.enqueue_nowait(1)
        queue.close()
        with pytest.raises(QueueEmpty) as refusal:
            queue.dequeue_nowait()
        assert not isinstance(refusal.value, QueueClosed)  # the item may come free yet
        with pytest.raises(QueueClosed):
            await queue.dequeue()
    assert log == [("first", 1)]


@on_both_loops
async def test_close_keeps_the_order_of_those_in_line() -> None:
    queue, log = RingQueue[int](4), list[Any]()

    async def refused() -> None:
        with pytest.raises(QueueClosed):
            await queue.dequeue()

    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(take, queue, name, log)
            await wait_all_tasks_blocked()
        for _ in range(4):
            tasks.start_soon(refused)
        await wait_all_tasks_blocked()
        for item in range(4):
            queue.enqueue_nowait(item)
        queue.close()
    assert log == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]


@on_both_loops
async def test_the_last_discard_of_a_closed_queue_sends_consumers_home() -> None:
    queue = RingQueue[int](4, key=identity)
    async with anyio.create_task_group() as tasks:

        async def consume() -> None:
            with pytest.raises(QueueClosed):
                await queue.dequeue()

        tasks.start_soon(consume)
        await wait_all_tasks_blocked()
        queue.enqueue_nowait(1)
        queue.close()
        queue.discard(1)


# ── threads and loops ────────────────────────────────────────────────────────


@on_both_loops
async def test_another_thread_gets_an_error_that_says_what_to_do() -> None:
    queue = RingQueue[int](4, key=identity)
    calls: list[Callable[[], object]] = [
        partial(queue.enqueue_nowait, 1),
        queue.dequeue_nowait,
        partial(queue.dequeue_batch, 1),
        queue.peek,
        queue.snapshot,
        partial(queue.discard, 1),
        partial(queue.promote, 1),
        queue.close,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"anyio\.from_thread\.run_sync"):
            await anyio.to_thread.run_sync(call)
    assert await anyio.to_thread.run_sync(queue.statistics) == queue.statistics()
    await anyio.to_thread.run_sync(lambda: anyio.from_thread.run_sync(queue.enqueue_nowait, 5))
    assert queue.dequeue_nowait() == 5


@on_both_loops
@pytest.mark.parametrize("lanes", [1, 2])
async def test_another_thread_is_refused_also_where_items_and_room_are_at_hand(lanes: int) -> None:
    """The usual way asks whose the queue is, too."""
    queue = RingQueue[int](9, lanes=lanes)
    queue.enqueue_nowait(1)
    before = queue.statistics()
    calls: list[Callable[[], object]] = [
        partial(queue.enqueue_nowait, 2),
        queue.dequeue_nowait,
        partial(queue.dequeue_batch, 1),
        queue.peek,
        queue.snapshot,
        queue.close,
        lambda: asyncio.run(queue.enqueue(2)),
        lambda: asyncio.run(queue.dequeue()),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="belongs to the thread"):
            await anyio.to_thread.run_sync(call)
    assert queue.statistics() == before
    assert not queue.closed


@on_both_loops
@pytest.mark.parametrize("lanes", [1, 2])
async def test_another_threads_task_is_refused_instead_of_waiting(lanes: int) -> None:
    full, empty = RingQueue[int](1, lanes=lanes), RingQueue[int](1, lanes=lanes)
    full.enqueue_nowait(1)
    calls: list[Callable[[], Any]] = [partial(full.enqueue, 2), empty.dequeue]

    def run(call: Callable[[], Any]) -> None:
        asyncio.run(asyncio.wait_for(call(), 5))

    for call in calls:
        with pytest.raises(RuntimeError, match="belongs to the thread"):
            await anyio.to_thread.run_sync(run, call)
    assert full.statistics().waiting_producers == empty.statistics().waiting_consumers == 0


def test_a_queue_made_outside_a_loop_belongs_to_the_first_thread_that_uses_it_and_then_to_its_heir() -> None:
    queue = RingQueue[int](4)
    thread = threading.Thread(target=lambda: asyncio.run(queue.enqueue(1)))
    thread.start()
    thread.join()
    assert queue.dequeue_nowait() == 1
    failures: list[Exception] = []

    def intrude() -> None:
        try:
            queue.enqueue_nowait(2)
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=intrude)
    thread.start()
    thread.join()
    assert len(failures) == 1
    assert len(queue) == 0


def test_of_two_heirs_one_becomes_the_owner_and_the_other_is_refused() -> None:
    """The owner has ended; 8 threads come at once, again and again, and all but one must hear it."""
    for _ in range(50):
        queue = RingQueue[int](100)
        first = threading.Thread(target=queue.enqueue_nowait, args=(0,))
        first.start()
        first.join()
        start, may_end = threading.Barrier(8), threading.Event()
        outcomes = list[str]()

        def inherit(
            queue: RingQueue[int] = queue,
            start: threading.Barrier = start,
            outcomes: list[str] = outcomes,
            may_end: threading.Event = may_end,
        ) -> None:
            start.wait()
            try:
                queue.enqueue_nowait(1)
            except RuntimeError:
                outcomes.append("refused")
            else:
                outcomes.append("owner")
            may_end.wait()  # whoever owns it must be alive, or the next is an heir too

        threads = [threading.Thread(target=inherit) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(outcomes) < 8:
            pass
        may_end.set()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["owner"] + ["refused"] * 7
        assert len(queue) == 2


def test_a_subclass_may_override_what_it_likes_and_is_called_once() -> None:
    class Loud(RingQueue[int]):
        calls = 0

        def enqueue_nowait(self, item: int, lane: int = 0) -> bool:
            self.calls += 1
            return super().enqueue_nowait(item, lane)

        def dequeue_nowait(self) -> int:
            self.calls += 1
            return super().dequeue_nowait()

    for queue in (Loud(2), Loud(2, lanes=2, key=identity)):
        queue.enqueue_nowait(1)
        queue.enqueue_nowait(2)
        assert [queue.dequeue_nowait(), queue.dequeue_nowait()] == [1, 2]
        assert queue.calls == 4


@pytest.mark.parametrize("lane", [1, -1, 64])
def test_a_bare_queue_has_lane_0_and_no_other(lane: int) -> None:
    queue = RingQueue[int](2)
    calls: list[Callable[[], object]] = [
        partial(queue.enqueue_nowait, 1, lane),
        lambda: asyncio.run(queue.enqueue(1, lane)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"lane must be from 0 to 0 in this queue, not {lane}"):
            call()
    assert queue.statistics().enqueued == 0
    assert queue.enqueue_nowait(1, 0)


def test_one_queue_serves_one_loop_after_the_other() -> None:
    queue = RingQueue[int](4)

    async def wait_a_moment() -> None:
        with anyio.move_on_after(0.01):
            await queue.dequeue()

    async def meet() -> list[Any]:
        log = list[Any]()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take, queue, "taker", log)
            await wait_all_tasks_blocked()
            await queue.enqueue(1)
        return log

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(wait_a_moment, backend=backend)
        assert anyio.run(meet, backend=backend) == [("taker", 1)]


def test_many_tasks_of_the_next_loop_may_wait_together() -> None:
    queue = RingQueue[int](4)

    async def meet() -> list[Any]:
        log = list[Any]()
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(take, queue, name, log)
                await wait_all_tasks_blocked()
            for item in range(3):
                queue.enqueue_nowait(item)
        return log

    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(meet, backend=backend) == [("a", 0), ("b", 1), ("c", 2)]


def test_producers_of_two_loops_at_once_are_refused() -> None:
    queue = RingQueue[int](1)
    queue.enqueue_nowait(0)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        waiting = first.create_task(queue.enqueue(1))
        first.run_until_complete(asyncio.sleep(0))
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run_until_complete(asyncio.wait_for(queue.enqueue(2), 5))
        assert queue.dequeue_nowait() == 0
        assert first.run_until_complete(waiting) is True
    finally:
        first.close()
        second.close()
    assert drain(queue) == [1]


def test_two_loops_at_once_are_refused() -> None:
    queue = RingQueue[int](4)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        waiting = first.create_task(queue.dequeue())
        first.run_until_complete(asyncio.sleep(0))
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run_until_complete(queue.dequeue())
        queue.enqueue_nowait(1)
        assert first.run_until_complete(waiting) == 1
    finally:
        first.close()
        second.close()


# ── figures and memory ───────────────────────────────────────────────────────


def test_statistics_count_what_happened_and_cannot_be_changed() -> None:
    queue = RingQueue[int](3, lanes=2, key=identity)
    for item in (1, 2, 3):
        queue.enqueue_nowait(item, 1)
    queue.enqueue_nowait(3)
    with pytest.raises(QueueFull):
        queue.enqueue_nowait(4)
    queue.discard(1)
    queue.dequeue_nowait()
    figures = queue.statistics()
    assert (figures.size, figures.capacity, figures.lane_sizes) == (1, 3, (0, 1))
    assert (figures.enqueued, figures.dequeued, figures.discarded) == (3, 1, 1)
    assert (figures.duplicates, figures.rejected) == (1, 1)
    assert (figures.waiting_producers, figures.waiting_consumers) == (0, 0)
    with pytest.raises(AttributeError):
        figures.size = 5  # type: ignore[misc] # frozen is what is tested


def test_the_repr_shows_no_items() -> None:
    queue = RingQueue[str](3)
    queue.enqueue_nowait("secret")
    assert repr(queue) == "<RingQueue 1/3>"
    queue.close()
    assert repr(queue) == "<RingQueue 1/3 closed>"


def test_the_dead_never_outnumber_the_living() -> None:
    """White box: what discards and moves leave behind, lane by lane, after every call."""
    rng = Random(3)
    queue = RingQueue[int](10_000, lanes=3, key=identity, max_skips=4)
    for item in range(5000):
        queue.enqueue_nowait(item, rng.randrange(3))
        if rng.random() < 0.9:
            queue.discard(rng.randrange(item + 1))
        if rng.random() < 0.2:
            queue.promote(rng.randrange(item + 1), rng.randrange(3))
        if len(queue) and rng.random() < 0.3:
            queue.dequeue_nowait()
        lanes = queue._lanes.values()
        assert all(lane.dead <= lane.living for lane in lanes)
        assert sum(lane.dead for lane in lanes) == queue._dead
        assert sum(lane.living for lane in lanes) == len(queue) == sum(queue.statistics().lane_sizes)


def test_the_dead_never_outnumber_the_living_when_all_but_the_head_are_discarded() -> None:
    queue = RingQueue[int](100, key=identity)
    for item in range(100):
        queue.enqueue_nowait(item)
    (lane,) = queue._lanes.values()
    for item in range(99, 0, -1):
        assert queue.discard(item)
        assert lane.dead <= lane.living == item
    assert drain(queue) == [0]


@pytest.mark.parametrize("way_out", ["dequeue", "batch", "snapshot"])
def test_the_dead_stay_out_of_the_way_while_the_queue_grows_large(way_out: str) -> None:
    queue = RingQueue[int](9000, lanes=2, key=identity)
    for item in range(1000):
        queue.enqueue_nowait(item)
    gone = {500, 501, 700, 999}
    for item in gone:
        assert queue.discard(item)
    for item in range(1000, 9000):
        queue.enqueue_nowait(item)
    expected = [item for item in range(9000) if item not in gone]
    if way_out == "snapshot":
        assert queue.snapshot() == expected
    elif way_out == "batch":
        assert drain(queue) == expected
    else:
        assert [queue.dequeue_nowait() for _ in expected] == expected


class Counted:
    """A key that counts how often any of its kind is looked at."""

    looks = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Counted.looks += 1
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counted) and other.number == self.number


def test_no_mix_of_calls_looks_at_more_than_a_few_keys_for_each() -> None:
    """Where a walk over what is queued would hide: each discard, move or short snapshot would show it."""
    rng, size, calls = Random(11), 2000, 0
    queue = RingQueue[Counted](size, lanes=4, key=identity, max_skips=2)
    numbers = [Counted(number) for number in range(size)]
    Counted.looks = 0
    for number in numbers:
        queue.enqueue_nowait(number, number.number % 4)
    for _ in range(200):
        queue.snapshot(2)
    calls += size + 200 * 2 * 4
    for number in rng.sample(numbers, size // 2):
        queue.promote(number, rng.randrange(4))
        queue.discard(number)
        calls += 2
    while len(queue):
        queue.peek()
        queue.dequeue_nowait()
        calls += 2
    assert calls < Counted.looks < 8 * calls


def test_the_dict_is_made_anew_a_few_times_on_the_way_down_and_fits_all_the_way() -> None:
    queue = RingQueue[int](30_000, key=identity)
    for item in range(30_000):
        queue.enqueue_nowait(item)
    table, times = queue._index, 0
    while len(queue) > 10:
        queue.dequeue_nowait()
        if queue._index is not table:
            table, times = queue._index, times + 1
        if len(queue) in (10_000, 3000, 1000, 300):
            assert sys.getsizeof(table) < 24 * sys.getsizeof(dict.fromkeys(range(len(queue))))
    assert 1 <= times <= 8


@pytest.mark.parametrize("left", [0, 5])
@pytest.mark.parametrize("way_out", ["dequeue", "discard"])
def test_memory_follows_what_is_queued(left: int, way_out: str) -> None:
    """A dict alone would keep the room of its largest moment."""
    queue = RingQueue[int](100_000, lanes=4, key=identity)
    tracemalloc.start()
    try:
        for item in range(30_000):
            queue.enqueue_nowait(item, item % 4)
        gc.collect()
        full = tracemalloc.get_traced_memory()[0]
        for item in range(30_000 - left):
            queue.dequeue_nowait() if way_out == "dequeue" else queue.discard(item)
        gc.collect()
        drained = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert full > 2_000_000
    assert drained < 200_000


# ── everything at once ───────────────────────────────────────────────────────


@on_both_loops
async def test_many_producers_and_consumers_lose_and_double_nothing() -> None:
    queue, got = RingQueue[int](7, lanes=4, key=identity), list[int]()
    total, crowd = 6400, 32

    async def produce(start: int) -> None:
        for item in range(start, total, crowd):
            assert await queue.enqueue(item, item % 4)

    async def consume() -> None:
        async for item in queue:
            got.append(item)

    async with anyio.create_task_group() as consumers:
        for _ in range(crowd):
            consumers.start_soon(consume)
        async with anyio.create_task_group() as producers:
            for start in range(crowd):
                producers.start_soon(produce, start)
        queue.close()
    assert sorted(got) == list(range(total))


@on_both_loops
@pytest.mark.parametrize("seed", range(8))
async def test_cancelling_at_random_loses_and_doubles_nothing(seed: int) -> None:
    """Producers and consumers are cut off at any await; what was taken in comes out once."""
    rng = Random(seed)
    queue = RingQueue[int](3, lanes=2, key=identity)
    taken_in, handed_out, numbers = set[int](), list[int](), count()

    async def work(scope: anyio.CancelScope, *, produces: bool) -> None:
        with scope:
            for _ in range(4):
                if produces:
                    item = next(numbers)
                    assert await queue.enqueue(item, item % 2)
                    taken_in.add(item)
                else:
                    handed_out.append(await queue.dequeue())
                if rng.random() < 0.3:
                    await checkpoint()

    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope() for _ in range(120)]
        for number, scope in enumerate(scopes):
            tasks.start_soon(partial(work, scope, produces=number % 2 == 0))
            while rng.random() < 0.4:
                rng.choice(scopes).cancel()
                await checkpoint()
        for scope in scopes:
            scope.cancel()
    figures = queue.statistics()
    assert (figures.waiting_producers, figures.waiting_consumers) == (0, 0)
    left = drain(queue)
    assert len(left) == figures.size
    assert sorted([*handed_out, *left]) == sorted(taken_in)


# ── what a review found ──────────────────────────────────────────────────────


def test_tasks_that_use_up_each_others_turns_do_not_switch_fairness_off() -> None:
    queue = RingQueue[int](5)

    async def use(times: int) -> None:
        for _ in range(times):
            queue.enqueue_nowait(1)
            await queue.dequeue()

    async def meet() -> int:
        await asyncio.gather(use(65), use(64))
        others = 0

        async def beat() -> None:
            nonlocal others
            while True:
                others += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(beat())
        await use(1000)
        task.cancel()
        return others

    assert asyncio.run(meet()) > 10


def test_an_owner_that_threading_did_not_start_is_known_to_be_alive() -> None:
    queue, used, go_on, failures = RingQueue[int](4), threading.Event(), threading.Event(), list[Exception]()

    def own() -> None:
        queue.enqueue_nowait(1)
        used.set()
        go_on.wait()
        try:
            queue.enqueue_nowait(2)
        except RuntimeError as error:
            failures.append(error)
        used.set()

    _thread.start_new_thread(own, ())
    used.wait()
    used.clear()
    with pytest.raises(RuntimeError, match="belongs to the thread"):
        queue.dequeue_nowait()
    go_on.set()
    used.wait()
    assert failures == []


def test_a_finalizer_may_use_the_queue_that_drops_its_item() -> None:
    class Item:
        def __init__(self, name: str) -> None:
            self.name = name

        def __del__(self) -> None:
            if self.name == "b":
                queue.discard("c")

    queue = RingQueue[Item](9, key=operator.attrgetter("name"))
    for name in "abcd":
        queue.enqueue_nowait(Item(name))
    queue.discard("b")
    queue.dequeue_nowait()
    gc.collect()
    assert queue.statistics().lane_sizes == (len(queue),) == (1,)
    assert queue.dequeue_nowait().name == "d"


def test_a_key_function_that_uses_the_queue_breaks_neither_bound_nor_close() -> None:
    def key(item: int) -> int:
        if item == 0:
            queue.enqueue_nowait(1)
        if item == 2:
            queue.close()
        return item

    queue = RingQueue[int](2, key=key)
    queue.enqueue_nowait(5)
    with pytest.raises(QueueFull):
        queue.enqueue_nowait(0)
    assert (len(queue), queue.statistics().dequeued) == (2, 0)
    queue.dequeue_batch(2)
    with pytest.raises(QueueClosed):
        queue.enqueue_nowait(2)
    assert len(queue) == 0


def test_a_key_that_fails_when_it_is_hashed_again_leaves_all_as_it_was() -> None:
    class Key:
        fails = False

        def __hash__(self) -> int:
            if self.fails:
                raise LookupError("hash")
            return 1

    key = Key()
    queue = RingQueue[Key](4, key=identity)
    queue.enqueue_nowait(key)
    key.fails = True
    for _ in range(2):
        with pytest.raises(LookupError):
            queue.dequeue_nowait()
    assert queue.statistics().lane_sizes == (1,)
    key.fails = False
    assert queue.dequeue_nowait() is key
    assert len(queue) == 0


def test_a_type_error_of_a_keys_own_comparison_stays_what_it_is() -> None:
    class Key:
        def __eq__(self, other: object) -> bool:
            raise TypeError("not to be compared")

        def __hash__(self) -> int:
            return 1

    queue = RingQueue[Key](4, key=identity)
    queue.enqueue_nowait(Key())
    with pytest.raises(TypeError, match=r"^not to be compared$"):
        queue.enqueue_nowait(Key())


def test_a_key_function_that_is_false_is_one_nevertheless() -> None:
    class Table(dict[str, str]):
        def __call__(self, item: str) -> str:
            return item

    queue = RingQueue[str](4, key=Table())
    assert queue.enqueue_nowait("a") is True
    assert queue.enqueue_nowait("a") is False


def test_a_snapshot_of_a_few_does_not_walk_over_the_dead_each_time() -> None:
    looks = count()

    class Key(int):
        def __hash__(self) -> int:
            next(looks)
            return int(self)

    queue = RingQueue[Key](10_000, key=identity)
    for number in range(10_000):
        queue.enqueue_nowait(Key(number))
    for number in range(1, 4_900):
        queue.discard(Key(number))
    before = next(looks)
    for _ in range(100):
        assert queue.snapshot(2) == [0, 4_900]
    assert next(looks) - before < 12_000
    assert len(queue.snapshot(10**30)) == len(queue)


def test_a_queue_can_be_referred_to_weakly() -> None:
    for queue in (RingQueue[int](1), RingQueue[int](1, lanes=2)):
        assert weakref.ref(queue)() is queue
