"""RingQueue against a plain list that does everything by walking: the same answers, always."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.abc import TaskGroup
from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prewarmkit import QueueClosed, QueueEmpty, QueueFull, RingQueue

LANES = 4
KEYS = 30
keys = st.integers(0, KEYS - 1)
lane_numbers = st.integers(0, LANES - 1)


@define
class Queued:
    """One item of the model, and how many of other, and of better lanes left while it was in its lane."""

    key: int
    serial: int
    lane: int
    passed: int = 0
    passed_by_better: int = 0


def item_key(item: tuple[int, int]) -> int:
    return item[0]


@define
class Model:
    """The contract of the order, in so many words."""

    max_skips: int
    items: list[Queued] = field(factory=list[Queued])

    def find(self, key: int) -> Queued | None:
        return next((queued for queued in self.items if queued.key == key), None)

    def next_index(self) -> int:
        """The worst lane's item that has been passed often enough goes first, or else the best lane's first."""
        due = [
            queued.lane
            for queued in self.items
            if queued.lane and queued.passed >= self.max_skips * queued.lane
        ]
        lane = max(due, default=min(queued.lane for queued in self.items))
        return next(index for index, queued in enumerate(self.items) if queued.lane == lane)

    def pop(self) -> tuple[int, int]:
        served = self.items.pop(self.next_index())
        for queued in self.items:
            queued.passed += queued.lane != served.lane
            queued.passed_by_better += queued.lane > served.lane
            assert queued.passed_by_better <= self.max_skips * queued.lane, "the contract's bound"
        return served.key, served.serial

    def move(self, queued: Queued, lane: int) -> None:
        self.items.remove(queued)
        self.items.append(Queued(queued.key, queued.serial, lane))

    def order(self) -> list[tuple[int, int]]:
        twin = Model(self.max_skips, [evolve(queued) for queued in self.items])
        return [twin.pop() for _ in self.items]


class Subclass(RingQueue[tuple[int, int]]):
    """A host's own, which has the general form also without lanes and keys."""


FORMS: dict[str, Callable[[int, int], RingQueue[tuple[int, int]]]] = {
    "lanes and keys": lambda size, skips: RingQueue(size, lanes=LANES, key=item_key, max_skips=skips),
    "lanes": lambda size, skips: RingQueue(size, lanes=LANES, max_skips=skips),
    "keys": lambda size, _: RingQueue(size, key=item_key),
    "bare": lambda size, _: RingQueue(size),
    "a subclass, bare": lambda size, _: Subclass(size),
}


class RingQueueAgainstList(RuleBasedStateMachine):
    """Every call on both; whatever one answers or raises, the other must."""

    queue: RingQueue[tuple[int, int]]
    model: Model

    @initialize(
        form=st.sampled_from(list(FORMS)), maxsize=st.sampled_from([1, 3, 40]), max_skips=st.integers(1, 3)
    )
    def make(self, form: str, maxsize: int, max_skips: int) -> None:
        self.queue = FORMS[form](maxsize, max_skips)
        self.keyed = "keys" in form
        self.lanes = LANES if "lanes" in form else 1
        self.model = Model(max_skips)
        self.serial = self.taken_in = self.handed_out = self.closed = 0

    def is_keyed(self) -> bool:
        return getattr(self, "keyed", False)

    @rule(key=keys, lane=lane_numbers)
    def enqueue(self, key: int, lane: int) -> None:
        lane %= self.lanes
        self.serial += 1
        there = self.model.find(key) if self.keyed else None
        item = (key, self.serial)
        if self.closed:
            with pytest.raises(QueueClosed):
                self.queue.enqueue_nowait(item, lane)
        elif there is not None:
            assert self.queue.enqueue_nowait(item, lane) is False
            if lane < there.lane:
                self.model.move(there, lane)
        elif len(self.model.items) == self.queue.maxsize:
            with pytest.raises(QueueFull):
                self.queue.enqueue_nowait(item, lane)
        else:
            assert self.queue.enqueue_nowait(item, lane) is True
            self.model.items.append(Queued(key, self.serial, lane))
            self.taken_in += 1

    @rule(items=st.lists(st.tuples(keys, lane_numbers), max_size=12))
    def enqueue_many(self, items: list[tuple[int, int]]) -> None:
        for key, lane in items:
            self.enqueue(key, lane)

    @rule()
    def dequeue(self) -> None:
        if self.model.items:
            assert self.queue.dequeue_nowait() == self.model.pop()
            self.handed_out += 1
        else:
            with pytest.raises(QueueClosed if self.closed else QueueEmpty):
                self.queue.dequeue_nowait()

    @rule(limit=st.integers(0, 5))
    def dequeue_batch(self, limit: int) -> None:
        expected = [self.model.pop() for _ in range(min(limit, len(self.model.items)))]
        assert self.queue.dequeue_batch(limit) == expected
        self.handed_out += len(expected)

    @precondition(is_keyed)
    @rule(key=keys)
    def discard(self, key: int) -> None:
        there = self.model.find(key)
        assert self.queue.discard(key) is (there is not None)
        if there is not None:
            self.model.items.remove(there)

    @precondition(is_keyed)
    @rule(key=keys, lane=lane_numbers)
    def promote(self, key: int, lane: int) -> None:
        lane %= self.lanes
        there = self.model.find(key)
        assert self.queue.promote(key, lane) is (there is not None)
        if there is not None and there.lane != lane:
            self.model.move(there, lane)

    @rule(limit=st.integers(0, 5))
    def snapshot(self, limit: int) -> None:
        assert self.queue.snapshot(limit) == self.model.order()[:limit]

    @precondition(lambda self: self.serial > 15)
    @rule()
    def close(self) -> None:
        self.queue.close()
        self.closed = 1

    @invariant()
    def the_same_is_queued(self) -> None:
        items = self.model.items
        assert len(self.queue) == len(items)
        if self.keyed:
            assert [key for key in range(KEYS) if key in self.queue] == sorted(queued.key for queued in items)
        if items:
            assert self.queue.peek() == self.model.order()[0]
        figures = self.queue.statistics()
        assert figures.lane_sizes == tuple(sum(q.lane == lane for q in items) for lane in range(self.lanes))
        assert (figures.size, figures.enqueued, figures.dequeued) == (
            len(items),
            self.taken_in,
            self.handed_out,
        )


RingQueueAgainstList.TestCase.settings = settings(max_examples=250, stateful_step_count=60, deadline=None)
TestRingQueueAgainstList = RingQueueAgainstList.TestCase


@pytest.mark.parametrize("max_skips", [1, 2, 8])
@pytest.mark.parametrize("form", ["lanes and keys", "lanes"])
def test_a_long_run_of_every_call_leaves_in_the_order_of_the_list(form: str, max_skips: int) -> None:
    """Tides of enqueues and dequeues, so that lanes fill, starve and run empty; each answer is compared."""
    rng = Random(max_skips)
    machine = RingQueueAgainstList()
    machine.make(form, 40, max_skips)
    for step in range(12_000):
        rising = step // 60 % 2
        dice = rng.random()
        if dice < 0.1 and machine.keyed:
            machine.discard(rng.randrange(KEYS))
        elif dice < 0.2 and machine.keyed:
            machine.promote(rng.randrange(KEYS), rng.randrange(LANES))
        elif dice < (0.8 if rising else 0.4):
            machine.enqueue(rng.randrange(KEYS), rng.randrange(LANES))
        else:
            machine.dequeue()
    assert machine.handed_out > 3000


# ── tasks that wait, on both loops ───────────────────────────────────────────

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["consume", "dequeue_nowait", "run", "close"]), st.just(0)),
        st.tuples(st.sampled_from(["produce", "enqueue_nowait", "discard"]), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
    ),
    max_size=40,
)


@define
class Scene:
    """Tasks on one queue, started and cut off step by step, and what became of them."""

    queue: RingQueue[tuple[int, int]]
    keyed: bool
    tasks: TaskGroup = field(init=False)
    scopes: list[anyio.CancelScope] = field(factory=list[anyio.CancelScope])
    taken_in: list[tuple[int, int]] = field(factory=list[tuple[int, int]])
    handed_out: list[tuple[int, int]] = field(factory=list[tuple[int, int]])
    discarded: int = 0
    serial: int = 0
    served: list[int] = field(factory=list[int])

    def start(self, work: Callable[[], Any]) -> None:
        async def run(scope: anyio.CancelScope) -> None:
            with scope:
                await work()

        self.scopes.append(anyio.CancelScope())
        self.tasks.start_soon(run, self.scopes[-1])

    async def consume(self, number: int) -> None:
        try:
            self.handed_out.append(await self.queue.dequeue())
        except QueueClosed:
            assert len(self.queue) == 0
        else:
            self.served.append(number)

    async def produce(self, item: tuple[int, int]) -> None:
        try:
            if await self.queue.enqueue(item):
                self.taken_in.append(item)
        except QueueClosed:
            assert self.queue.closed

    async def step(self, action: str, number: int) -> None:
        self.serial += 1
        match action:
            case "consume":
                self.start(partial(self.consume, self.serial))
                await wait_all_tasks_blocked()  # so that the order in which they came is known
            case "produce":
                self.start(partial(self.produce, (number, self.serial)))
            case "cancel":
                for scope in self.scopes[number : number + 1]:
                    scope.cancel()
            case "run":
                await wait_all_tasks_blocked()
            case "close":
                self.queue.close()
            case "discard":
                self.discarded += self.keyed and self.queue.discard(number)
            case "dequeue_nowait":
                self.dequeue_nowait()
            case _:
                self.enqueue_nowait((number, self.serial))

    def dequeue_nowait(self) -> None:
        try:
            self.handed_out.append(self.queue.dequeue_nowait())
        except QueueEmpty:
            figures = self.queue.statistics()
            assert figures.size <= figures.waiting_consumers

    def enqueue_nowait(self, item: tuple[int, int]) -> None:
        try:
            if self.queue.enqueue_nowait(item):
                self.taken_in.append(item)
        except QueueFull:
            figures = self.queue.statistics()
            assert figures.size + figures.waiting_producers >= figures.capacity
        except QueueClosed:
            assert self.queue.closed


async def play(script: list[tuple[str, int]], maxsize: int, keyed: bool) -> None:
    queue = FORMS["lanes and keys" if keyed else "bare"](maxsize, 1)
    scene = Scene(queue, keyed)
    async with anyio.create_task_group() as scene.tasks:
        for action, number in script:
            await scene.step(action, number)
        await wait_all_tasks_blocked()
        figures = queue.statistics()
        # At rest, nobody waits for what is there.
        assert not (figures.waiting_consumers and figures.size)
        assert not (figures.waiting_producers and figures.size < maxsize)
        assert not (queue.closed and (figures.waiting_consumers or figures.waiting_producers))
        for scope in scene.scopes:
            scope.cancel()
    figures = queue.statistics()
    assert (figures.waiting_consumers, figures.waiting_producers) == (0, 0)
    left = queue.dequeue_batch(maxsize)
    assert scene.served == sorted(scene.served), "consumers are served in the order they came"
    gone = set(scene.taken_in) - {*scene.handed_out, *left}
    assert len(gone) == scene.discarded
    assert len({*scene.handed_out, *left}) == len(scene.handed_out) + len(left)
    assert queue.statistics().enqueued == len(scene.taken_in)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=steps, maxsize=st.integers(1, 3), keyed=st.booleans())
def test_any_mix_of_waiting_cancelling_and_closing_loses_nothing(
    backend: str, script: list[tuple[str, int]], maxsize: int, *, keyed: bool
) -> None:
    anyio.run(play, script, maxsize, keyed, backend=backend)
