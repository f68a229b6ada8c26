"""Limits, the chat pool, and waiting for slots, on a clock that the test moves."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import pytest

from prewarmkit.budget import MemoryBudget, Window
from prewarmkit.errors import ConfigurationError, RateLimited, TargetDown
from prewarmkit.targets import RateLimits
from prewarmkit.targets.telegram.chats import DEAD_CHAT_REST_SECONDS, ChatPool
from prewarmkit.targets.telegram.slots import PATIENCE_SECONDS, Slots
from prewarmkit.testing.clock import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A clock that sleeping moves."""
    clock = FakeClock(1000.0)

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr("prewarmkit.targets.telegram.slots.anyio.sleep", sleep)
    return clock


def slots(clock: FakeClock, *chats: int, limits: RateLimits | None = None) -> Slots:
    return Slots(limits, ChatPool(chats), clock=clock)


# ── limits ───────────────────────────────────────────────────────────────────


def test_the_defaults_are_those_of_the_faq() -> None:
    """core.telegram.org/bots/faq: 1 a second in a chat, 20 a minute in a group, about 30 a second in all.

    A second is a little longer here: a message is counted where it arrives, and the later of two may arrive sooner.
    """
    limits = RateLimits()
    assert limits.chat_windows(-1001) == (Window(1, 1.03), Window(20, 60.0))
    assert limits.chat_windows("@channel") == (Window(1, 1.03), Window(20, 60.0))
    assert limits.chat_windows(42) == (Window(1, 1.03), Window(60, 60.0))
    assert limits.warm_windows() == (Window(25, 1.03),)
    assert limits.send_windows() == (Window(30, 1.03),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_per_minute": 0},
        {"private_per_minute": -1},
        {"chat_per_second": 1.5},
        {"bot_per_second": True},
        {"reserve_per_second": -1},
        {"window_seconds": 0},
        {"window_seconds": float("nan")},
        {"bot_per_second": 5, "reserve_per_second": 5},
    ],
)
def test_limits_that_are_none_name_their_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RateLimits(**wrong)


# ── the chat pool ────────────────────────────────────────────────────────────


def test_chats_take_turns() -> None:
    pool = ChatPool([1, 2, 3])
    assert pool.free(0) == [1, 2, 3]
    pool.note_used(1)
    pool.note_used(2)
    assert pool.free(0) == [3, 1, 2]


def test_a_full_chat_waits_and_the_soonest_counts() -> None:
    pool = ChatPool([1, 2])
    pool.note_full(1, 10)
    pool.note_full(2, 4)
    pool.note_full(2, 3)
    assert pool.free(0) == []
    assert pool.wait(1) == 3
    assert pool.free(4) == [2]


def test_a_dead_chat_rests_and_is_tried_again() -> None:
    pool = ChatPool([1])
    pool.note_dead(1, 100)
    assert (pool.free(100), pool.alive(100), pool.wait(100)) == ([], 0, None)
    assert pool.revival(150) == DEAD_CHAT_REST_SECONDS - 50
    assert pool.free(100 + DEAD_CHAT_REST_SECONDS) == [1]


def test_a_moved_chat_keeps_its_place_and_is_not_there_twice() -> None:
    pool = ChatPool([1, 2, 3])
    assert pool.move(2, 20)
    assert list(pool.ids) == [1, 20, 3]
    assert not pool.move(2, 20)
    assert pool.move(3, 1)
    assert list(pool.ids) == [1, 20]


def test_the_other_chats_stay_held_and_dead_when_one_moves() -> None:
    """Requirement 3: nothing goes to a held chat before its time, whatever happens to another."""
    pool = ChatPool([1, 2, 3, 4])
    pool.note_held(1, 30, 0)
    pool.note_dead(2, 0)
    pool.move(3, 30)
    assert pool.free(10) == [30, 4]
    pool.replace([1, 2, 30, 5])
    assert pool.free(10) == [30, 5]


def test_a_second_chat_held_while_the_first_still_is_is_noticed() -> None:
    pool = ChatPool([1, 2])
    assert not pool.note_held(1, 10, 0)
    assert not pool.note_held(1, 12, 1)
    assert pool.note_held(2, 10, 5)
    assert not ChatPool([1, 2]).note_held(2, 30, 20)


def test_what_is_said_of_a_chat_that_left_changes_nothing() -> None:
    pool = ChatPool([1])
    pool.note_used(9)
    pool.note_full(9, 10)
    pool.note_held(9, 10, 0)
    pool.note_dead(9, 0)
    assert pool.free(0) == [1]


# ── slots ────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_one_group_gets_20_in_any_minute_and_one_a_second(clock: FakeClock) -> None:
    """Requirement 1 in small: never over a cap, and no slower than it must be."""
    one = slots(clock, -1001, limits=RateLimits())
    start, at = clock.now, list[float]()
    refusals: list[RateLimited] = []
    while len(at) < 60:
        try:
            assert (await one.take())[0] == -1001
            at.append(clock.now)
        except RateLimited as full:
            refusals.append(full)
            clock.advance(full.retry_after)
    assert {full.scope for full in refusals} == {"target"}
    assert min(full.retry_after for full in refusals) > PATIENCE_SECONDS
    assert all(later - sooner > 60 for sooner, later in zip(at, at[20:], strict=False))
    assert all(later - sooner > 1 for sooner, later in itertools.pairwise(at))
    assert at[-1] - start == pytest.approx(2 * 60 + 19 * 1.03, abs=0.1)


@pytest.mark.anyio
async def test_many_chats_share_the_load_up_to_the_bot_less_its_reserve(clock: FakeClock) -> None:
    """Requirement 10 in small: 40 private chats warm 25 a second, and no chat more than one."""
    many = slots(clock, *range(1, 41), limits=RateLimits())
    start = clock.now
    taken = [((await many.take())[0], clock.now) for _ in range(250)]
    assert all(later - sooner > 1 for (_, sooner), (_, later) in zip(taken, taken[25:], strict=False))
    assert clock.now - start == pytest.approx(9 * 1.03, abs=0.1)
    for chat in range(1, 41):
        times = [at for id_, at in taken if id_ == chat]
        assert len(times) >= 5
        assert all(later - sooner > 1 for sooner, later in itertools.pairwise(times))


@pytest.mark.anyio
async def test_deliveries_have_the_reserve_to_themselves(clock: FakeClock) -> None:
    limits = RateLimits(bot_per_second=4, reserve_per_second=2, chat_per_second=100)
    both = slots(clock, -1, limits=limits)
    start = clock.now
    assert [(await both.take())[0], (await both.take())[0]] == [-1, -1]
    await both.take_in(501)
    await both.take_in(502)
    assert clock.now == start
    await both.take_in(503)
    assert clock.now - start == pytest.approx(1.03, abs=0.01)


@pytest.mark.anyio
async def test_a_delivery_into_a_chat_that_is_held_long_is_rate_limited(clock: FakeClock) -> None:
    some = slots(clock, -1, limits=RateLimits())
    await some.limited(77, 60)
    with pytest.raises(RateLimited) as caught:
        await some.take_in(77)
    assert caught.value.scope == "chat"
    assert caught.value.retry_after == pytest.approx(60)
    await some.take_in(78)


@pytest.mark.anyio
@pytest.mark.parametrize("limits", [RateLimits(), None], ids=["limits", "no-limits"])
async def test_a_held_chat_gets_nothing_and_the_other_goes_on(
    clock: FakeClock, limits: RateLimits | None
) -> None:
    """A 429 is obeyed with and without limits of ours."""
    two = slots(clock, -1, -2, limits=limits)
    assert await two.limited(-1, 30) == (0, False)
    for _ in range(5):
        assert (await two.take())[0] == -2
    clock.advance(30)
    assert {(await two.take())[0], (await two.take())[0]} == {-1, -2}


@pytest.mark.anyio
async def test_a_second_held_chat_holds_the_bot(clock: FakeClock) -> None:
    """Section 1.8: a second chat of the same bot inside the window → hold the bot."""
    three = slots(clock, -1, -2, -3, limits=RateLimits())
    assert await three.limited(-1, 30) == (0, False)
    assert await three.limited(-2, 20) == (20, True)
    with pytest.raises(RateLimited):
        await three.take()
    with pytest.raises(RateLimited):
        three.check()
    clock.advance(20.1)
    assert (await three.take())[0] in {-2, -3}


@pytest.mark.anyio
async def test_no_chat_left_is_target_down_until_one_has_rested(clock: FakeClock) -> None:
    one = slots(clock, -1)
    assert one.dead(-1) == 0
    with pytest.raises(TargetDown) as caught:
        one.check()
    assert caught.value.retry_after == DEAD_CHAT_REST_SECONDS
    with pytest.raises(TargetDown):
        await one.take()
    clock.advance(DEAD_CHAT_REST_SECONDS)
    assert (await one.take())[0] == -1


@pytest.mark.anyio
async def test_a_shared_budget_is_spent_by_both(clock: FakeClock) -> None:
    """Requirement 2 in small: two targets of one bot obey the caps together."""
    shared = MemoryBudget(clock)
    pair = [slots(clock, -1, limits=RateLimits()) for _ in range(2)]
    for one in pair:
        one.use(shared)
    for turn in range(20):
        await pair[turn % 2].take()
    for one in pair:
        with pytest.raises(RateLimited):
            await one.take()
