"""`MemoryBudget` keeps every closed window, on a clock that the test moves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarmkit.budget import Budget, MemoryBudget, Window
from prewarmkit.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

MINUTE = Window(20, 60.0)
SECOND = Window(1, 1.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def budget(clock: FakeClock) -> MemoryBudget:
    return MemoryBudget(clock)


def test_it_is_a_budget(budget: MemoryBudget) -> None:
    assert isinstance(budget, Budget)


async def test_a_window_lets_its_limit_through_and_then_names_the_wait(
    budget: MemoryBudget, clock: FakeClock
) -> None:
    limits = {"chat": [Window(2, 10.0)]}
    assert await budget.take(limits) == 0
    clock.advance(4)
    assert await budget.take(limits) == 0
    assert await budget.take(limits) == pytest.approx(6, abs=1e-3)


async def test_the_window_is_closed_so_its_far_end_still_counts(
    budget: MemoryBudget, clock: FakeClock
) -> None:
    """Two calls exactly one window apart share a closed span; a moment later they do not."""
    assert await budget.take({"chat": [SECOND]}) == 0
    clock.advance(1.0)
    wait = await budget.take({"chat": [SECOND]})
    assert 0 < wait < 0.001
    clock.advance(wait)
    assert await budget.take({"chat": [SECOND]}) == 0


async def test_the_longest_wait_of_several_windows_counts(budget: MemoryBudget, clock: FakeClock) -> None:
    limits = {"chat": [SECOND, Window(2, 60.0)]}
    assert await budget.take(limits) == 0
    clock.advance(2)
    assert await budget.take(limits) == 0
    assert await budget.take(limits) == pytest.approx(58, abs=1e-3)


async def test_all_names_are_spent_or_none(budget: MemoryBudget) -> None:
    """A full bot costs the chat nothing."""
    assert await budget.take({"bot": [SECOND]}) == 0
    assert await budget.take({"chat": [SECOND], "bot": [SECOND]}) > 0
    assert await budget.take({"chat": [SECOND]}) == 0


async def test_a_cost_spends_several_at_once(budget: MemoryBudget, clock: FakeClock) -> None:
    limits = {"chat": [Window(10, 60.0)]}
    assert await budget.take(limits, cost=4) == 0
    clock.advance(10)
    assert await budget.take(limits, cost=6) == 0
    assert await budget.take(limits, cost=4) == pytest.approx(50, abs=1e-3)
    assert await budget.take(limits, cost=5) == pytest.approx(60, abs=1e-3)


@pytest.mark.parametrize("cost", [0, -1])
async def test_a_cost_of_nothing_is_an_error(budget: MemoryBudget, cost: int) -> None:
    with pytest.raises(ValueError, match="cost"):
        await budget.take({"chat": [SECOND]}, cost=cost)


async def test_a_cost_that_never_fits_is_an_error_and_spends_nothing(budget: MemoryBudget) -> None:
    with pytest.raises(ValueError, match="never fits"):
        await budget.take({"bot": [MINUTE], "chat": [SECOND]}, cost=2)
    assert await budget.take({"bot": [MINUTE]}, cost=20) == 0


async def test_a_hold_closes_a_name_and_is_never_shortened(budget: MemoryBudget, clock: FakeClock) -> None:
    await budget.hold("chat", 30)
    await budget.hold("chat", 5)
    assert await budget.take({"chat": []}) == pytest.approx(30)
    assert await budget.take({"other": []}) == 0
    clock.advance(30)
    assert await budget.take({"chat": []}) == 0


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
async def test_a_hold_of_no_finite_time_is_an_error(budget: MemoryBudget, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        await budget.hold("chat", seconds)


async def test_a_short_window_does_not_forget_what_a_longer_one_needs(
    budget: MemoryBudget, clock: FakeClock
) -> None:
    """Deliveries that ask for the second only must not widen the minute of the warming beside them."""
    for _ in range(20):
        assert await budget.take({"chat": [SECOND, MINUTE]}) == 0
        clock.advance(1.5)
    assert await budget.take({"chat": [SECOND]}) == 0
    clock.advance(2)
    assert await budget.take({"chat": [SECOND, MINUTE]}) > 20


async def test_a_clock_that_starts_below_zero_holds_nobody_up() -> None:
    """Event loops count from wherever they like."""
    clock = FakeClock(-500.0)
    budget = MemoryBudget(clock)
    assert await budget.take({"chat": [SECOND]}) == 0
    await budget.hold("chat", 3)
    assert await budget.take({"chat": [SECOND]}) == pytest.approx(3, abs=1e-3)


async def test_names_that_were_left_are_forgotten(budget: MemoryBudget, clock: FakeClock) -> None:
    """A bot that writes to a hundred thousand users does not keep them all for ever."""
    for user in range(5000):
        await budget.take({f"chat:{user}": [SECOND], "bot": [MINUTE]})
        clock.advance(0.01)
    assert len(budget._logs) < 2500  # pyright: ignore[reportPrivateUsage] - what is kept shows nowhere else


async def test_forgetting_names_never_forgets_what_still_counts(
    budget: MemoryBudget, clock: FakeClock
) -> None:
    await budget.hold("held", 10_000)
    assert await budget.take({"kept": [Window(1, 10_000)]}) == 0
    for user in range(3000):
        await budget.take({f"chat:{user}": [SECOND]})
        clock.advance(1)
    assert await budget.take({"held": []}) == pytest.approx(7000)
    assert await budget.take({"kept": [Window(1, 10_000)]}) == pytest.approx(7000, abs=1e-3)


@pytest.mark.parametrize(
    "values",
    [(0, 1.0), (-1, 1.0), (1.5, 1.0), (True, 1.0), (1, 0.0), (1, -1.0), (1, math.nan), (1, math.inf)],
)
def test_a_window_that_is_none_is_an_error(values: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(*values)


@settings(max_examples=60, deadline=None)
@given(
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=80),
    limit=st.integers(1, 6),
    seconds=st.sampled_from([0.5, 1.0, 3.0]),
)
async def test_no_closed_window_ever_holds_more_than_its_limit(
    pauses: list[float], limit: int, seconds: float
) -> None:
    """Whatever the pauses, and with every named wait slept out to the letter."""
    clock = FakeClock(1e6)
    budget = MemoryBudget(clock)
    spent: list[float] = []
    for pause in pauses:
        clock.advance(pause)
        while wait := await budget.take({"chat": [Window(limit, seconds)]}):
            clock.advance(wait)
        spent.append(clock.now)
    for first, last in zip(spent, spent[limit:], strict=False):
        assert last - first > seconds


async def test_the_wait_is_no_longer_than_needed(budget: MemoryBudget, clock: FakeClock) -> None:
    """A queue that always waits gets 20 a minute, not 19."""
    start = clock.now
    for _ in range(200):
        while wait := await budget.take({"chat": [SECOND, MINUTE]}):
            clock.advance(wait)
    assert clock.now - start == pytest.approx(9 * 60 + 19, abs=0.1)
