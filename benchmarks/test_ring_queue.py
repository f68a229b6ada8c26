"""RingQueue is O(1): what a call costs does not grow with what is queued.

Two proofs, since a clock alone is a poor witness on a busy machine:

* **Bytecodes.** The interpreter counts every instruction that a call executes. From 10³
  to 10⁶ queued that number must stay the same within 5 %. It does not depend on load.
* **Time.** Caches and the allocator make any structure slower as it grows, a bare dict
  beside a bare deque too. From 10³ to 10⁶ queued RingQueue may gain at most 2.5 times
  what that pair gains in the same run. Medians of rounds in which all series take turns.

The same means must see O(n) where it is: ``list.pop(0)``, and a duplicate looked for by
walking the queue, which is what a queue without an index does.

Needs the project and pytest, nothing else: ``pytest benchmarks/test_ring_queue.py``.
"""

from __future__ import annotations

import heapq
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest
from measuring import interleaved

from prewarmkit import RingQueue

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
COMPARED = SIZES[1:]  # below, everything sits in the nearest cache
ROUNDS = 11
CALLS = 400  # in one sample of a series that is O(1)
SLOW_CALLS = 4  # in one of a series that is not
LANES = 4
NEVER_DUE = 1 << 40

Step = Callable[[], object]
"""One operation that leaves the queue as large as it found it."""


def identity(item: int) -> int:
    return item


def filled(size: int, *, lanes: int = LANES, max_skips: int = NEVER_DUE) -> RingQueue[int]:
    """A keyed queue of the numbers below ``size``; a number's lane is its rest by ``lanes``."""
    queue = RingQueue[int](2 * size, lanes=lanes, key=identity, max_skips=max_skips)
    for item in range(size):
        queue.enqueue_nowait(item, item % lanes)
    return queue


# ── what is measured ─────────────────────────────────────────────────────────


def ring_plain(size: int) -> Step:
    queue = RingQueue[int](2 * size)
    for item in range(size):
        queue.enqueue_nowait(item)
    fresh = count(size)

    def pair() -> None:
        queue.enqueue_nowait(next(fresh))
        queue.dequeue_nowait()

    return pair


def ring_keyed(size: int) -> Step:
    queue = filled(size)
    fresh = count(size)

    def pair() -> None:
        queue.enqueue_nowait(next(fresh), 0)
        queue.dequeue_nowait()

    return pair


def ring_overdue(size: int) -> Step:
    """Every dequeue serves a lane that has been passed over often enough: the longest way through the code."""
    queue = filled(size, max_skips=1)
    for _ in range(LANES):
        queue.dequeue_nowait()
    fresh = count(size)

    def pair() -> None:
        queue.enqueue_nowait(next(fresh), 0)
        queue.dequeue_nowait()

    return pair


def ring_discard(size: int) -> Step:
    queue = filled(size)
    fresh = count(size)

    def pair() -> None:
        item = next(fresh)
        queue.enqueue_nowait(item, 1)
        queue.discard(item)

    return pair


def ring_promote(size: int) -> Step:
    queue = filled(size)
    lanes = count()

    def move() -> None:
        queue.promote(size // 2, next(lanes) % LANES)

    return move


def ring_duplicate(size: int) -> Step:
    queue = filled(size)
    item = size // 2 * 2

    def check() -> None:
        queue.enqueue_nowait(item - 2, LANES - 1)

    return check


def bare(size: int) -> Step:
    """The least that a keyed queue can be: no bound, no lanes, no close, nobody waits."""
    index: dict[int, int] = {}
    order: deque[int] = deque()
    for item in range(size):
        index[item] = item
        order.append(item)
    fresh = count(size)

    def pair() -> None:
        item = next(fresh)
        if item not in index:
            index[item] = item
            order.append(item)
        del index[order.popleft()]

    return pair


def heap(size: int) -> Step:
    """A priority queue as most are made: O(log n)."""
    items = [(item % LANES, item) for item in range(size)]
    heapq.heapify(items)
    fresh = count(size)

    def pair() -> None:
        item = next(fresh)
        heapq.heappush(items, (item % LANES, item))
        heapq.heappop(items)

    return pair


def list_pop_0(size: int) -> Step:
    queue = list(range(size))
    fresh = count(size)

    def pair() -> None:
        queue.append(next(fresh))
        queue.pop(0)

    return pair


def duplicate_scan(size: int) -> Step:
    queue = deque(range(size))

    def check() -> bool:
        return any(item == -1 for item in queue)

    return check


RINGS: dict[str, Callable[[int], Step]] = {
    "RingQueue, plain: put + get": ring_plain,
    "RingQueue, keyed, 4 lanes: put + get": ring_keyed,
    "RingQueue, a lane overdue: put + get": ring_overdue,
    "RingQueue, keyed: put + discard": ring_discard,
    "RingQueue, keyed: promote": ring_promote,
    "RingQueue, keyed: duplicate found": ring_duplicate,
}
BARE = "dict + deque, bare: put + get"
HEAP: dict[str, Callable[[int], Step]] = {"heapq: put + get": heap}
LINEAR: dict[str, Callable[[int], Step]] = {
    "list: append + pop(0)": list_pop_0,
    "deque: duplicate by a walk": duplicate_scan,
}


# ── how ──────────────────────────────────────────────────────────────────────


def bytecodes(step: Step, calls: int) -> float:
    """Instructions executed in one call of ``step``, its callees among them."""
    executed = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal executed
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            executed += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(calls):
            step()
    finally:
        sys.settrace(before)
    return executed / calls


def nanoseconds(step: Step, calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        step()
    return (time.perf_counter_ns() - start) / calls


def medians(makers: dict[str, Callable[[int], Step]]) -> dict[str, list[float]]:
    """Nanoseconds a call for each series at each size; in a round, every series has its turn."""
    calls = {name: SLOW_CALLS if name in LINEAR else CALLS for name in makers}
    figures: dict[str, list[float]] = {name: [] for name in makers}
    for size in SIZES:
        series = {name: partial(nanoseconds, maker(size)) for name, maker in makers.items()}
        for name, figure in interleaved(series, rounds=ROUNDS, calls=calls).items():
            figures[name].append(figure)
    return figures


def gain(figures: list[float]) -> float:
    """How many times slower the largest is than 10³."""
    return figures[-1] / figures[SIZES.index(COMPARED[0])]


def slope(figures: list[float]) -> float:
    """Of the line through the logarithms: 0 is O(1), 1 is O(n)."""
    x = [math.log(size) for size in COMPARED]
    y = [math.log(figure) for figure in figures[-len(COMPARED) :]]
    return statistics.linear_regression(x, y).slope


# ── the proofs ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", RINGS)
def test_the_bytecodes_of_a_call_do_not_depend_on_what_is_queued(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    executed = [bytecodes(RINGS[name](size), 100) for size in COMPARED]
    with capsys.disabled():
        print(f"\n{name:38} bytecodes at 10^3 .. 10^6: {', '.join(f'{figure:.1f}' for figure in executed)}")
    assert max(executed) <= min(executed) * 1.05


def test_shedding_the_dead_costs_the_same_at_any_size(capsys: pytest.CaptureFixture[str]) -> None:
    """Over a whole cycle, as many discards as are queued, with the walk that clears away what they left."""
    executed = [bytecodes(ring_discard(size), 2 * size) for size in (500, 2_000, 8_000)]
    with capsys.disabled():
        print(
            f"\n{'a whole cycle of put + discard':38} bytecodes a pair: {', '.join(f'{figure:.1f}' for figure in executed)}"
        )
    assert max(executed) <= min(executed) * 1.05


def test_the_count_of_bytecodes_sees_a_walk() -> None:
    """The means above would notice O(n)."""
    small, large = (bytecodes(duplicate_scan(size), 2) for size in (1_000, 10_000))
    assert large > 9 * small


def test_time_gains_no_more_than_a_bare_dict_and_deque_gain(
    capsys: pytest.CaptureFixture[str], plots: dict[str, dict[str, float]]
) -> None:
    figures = medians({BARE: bare, **RINGS, **HEAP, **LINEAR})
    for name, row in figures.items():
        plots[f"growth: {name}"] = {str(size): figure for size, figure in zip(SIZES, row, strict=True)}
    with capsys.disabled():
        print(
            f"\n{'nanoseconds a call, queued:':38}{''.join(f'{size:>12,}' for size in SIZES)}{'gain':>9}{'slope':>8}"
        )
        for name, row in figures.items():
            cells = "".join(f"{figure:>12,.0f}" for figure in row)
            print(f"{name:38}{cells}{gain(row):>8.2f}x{slope(row):>8.3f}")
    allowed = 2.5 * max(1.0, gain(figures[BARE]))
    for name in RINGS:
        assert gain(figures[name]) <= allowed, name
    for name in LINEAR:
        assert gain(figures[name]) > 20 * allowed, name
