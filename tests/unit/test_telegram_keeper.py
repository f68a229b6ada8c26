"""Which warmup chats there are: a resolver and its cache, moves, and chats that come and go."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import define, field
from bot_wire import TOKEN, FakeTransport, refusal

from prewarmkit.budget import MemoryBudget
from prewarmkit.errors import ChatDead, ConfigurationError, Moved, RateLimited, TargetDown
from prewarmkit.media import Media
from prewarmkit.targets import Services, TelegramTarget
from prewarmkit.targets.telegram.chats import ChatPool
from prewarmkit.targets.telegram.keeper import RESOLVED_SECONDS, UNRESOLVED_SECONDS, ChatKeeper
from prewarmkit.targets.telegram.slots import Slots
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.target import MemorySource, MemoryState

pytestmark = pytest.mark.anyio


@define
class Directory:
    """Gives what it is told, and counts."""

    chats: Any = field(factory=lambda: [-1, -2])
    asked: int = 0
    gate: anyio.Event | None = None

    async def __call__(self) -> Any:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.chats, Exception):
            raise self.chats
        return self.chats


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


def keeper_of(clock: FakeClock, directory: Directory | None = None, *chats: int) -> ChatKeeper:
    return ChatKeeper("9", Slots(None, ChatPool(chats), clock=clock), directory, clock)


async def test_a_resolver_is_asked_once_in_five_minutes(clock: FakeClock) -> None:
    directory = Directory()
    keeper = keeper_of(clock, directory)
    for _ in range(3):
        await keeper.refresh()
    assert (directory.asked, keeper.slots.chats.ids) == (1, (-1, -2))
    clock.advance(RESOLVED_SECONDS - 1)
    await keeper.refresh()
    assert directory.asked == 1
    clock.advance(1)
    directory.chats = [-2, -3]
    await keeper.refresh()
    assert (directory.asked, keeper.slots.chats.ids) == (2, (-2, -3))


async def test_many_that_ask_at_once_ask_the_resolver_once(clock: FakeClock) -> None:
    directory = Directory(gate=anyio.Event())
    keeper = keeper_of(clock, directory)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(keeper.refresh)
        await anyio.wait_all_tasks_blocked()
        assert directory.gate is not None
        directory.gate.set()
    assert directory.asked == 1


async def test_with_chats_from_before_nobody_waits_for_a_slow_resolver(clock: FakeClock) -> None:
    directory = Directory()
    keeper = keeper_of(clock, directory)
    await keeper.refresh()
    clock.advance(RESOLVED_SECONDS)
    directory.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.refresh)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await keeper.refresh()
        directory.gate.set()
    assert directory.asked == 2


async def test_what_is_known_of_a_chat_that_stays_is_kept(clock: FakeClock) -> None:
    """A held chat is not free again because the list was read again."""
    directory = Directory()
    keeper = keeper_of(clock, directory)
    await keeper.refresh()
    await keeper.note(RateLimited("full", 900, "chat"), -1)
    clock.advance(RESOLVED_SECONDS)
    await keeper.refresh()
    assert keeper.slots.chats.free(clock.now) == [-2]


@pytest.mark.parametrize("answer", [OSError("the directory's password is hunter2"), [], ["x"], None])
async def test_a_resolver_that_fails_is_target_down_until_it_works(clock: FakeClock, answer: Any) -> None:
    """No attempt is spent, and it is asked again after half a minute."""
    directory = Directory(answer)
    keeper = keeper_of(clock, directory)
    with pytest.raises(TargetDown) as caught:
        await keeper.refresh()
    assert caught.value.retry_after == UNRESOLVED_SECONDS
    assert "hunter2" not in str(caught.value)
    directory.chats = [-5]
    clock.advance(UNRESOLVED_SECONDS)
    await keeper.refresh()
    assert keeper.slots.chats.ids == (-5,)


async def test_while_a_resolver_fails_the_chats_from_before_serve(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Directory()
    keeper = keeper_of(clock, directory)
    await keeper.refresh()
    clock.advance(RESOLVED_SECONDS)
    directory.chats = OSError("hunter2")
    for _ in range(3):
        await keeper.refresh()
    assert (directory.asked, keeper.slots.chats.ids) == (2, (-1, -2))
    assert "OSError" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_chat_that_moved_stays_moved_when_the_resolver_still_has_its_old_id(
    clock: FakeClock,
) -> None:
    keeper = keeper_of(clock, directory := Directory())
    await keeper.refresh()
    await keeper.note(Moved("moved", -1001), -1)
    clock.advance(RESOLVED_SECONDS)
    await keeper.refresh()
    assert (directory.asked, keeper.slots.chats.ids) == (2, (-1001, -2))


async def test_a_move_that_another_process_met_holds_for_resolved_chats(clock: FakeClock) -> None:
    state = MemoryState({"moved:-2": "-1002"})
    keeper = keeper_of(clock, directory := Directory())
    keeper.bind(Services(MemoryBudget(), state, list[Any]().append))
    await keeper.refresh()
    assert keeper.slots.chats.ids == (-1, -1002)
    await state.put("moved:-3", "-1003")
    directory.chats = [-3]
    clock.advance(RESOLVED_SECONDS)
    await keeper.refresh()
    assert list(keeper.slots.chats.ids) == [-1003]


async def test_a_dead_chat_leaves_the_others(clock: FakeClock) -> None:
    keeper = keeper_of(clock, None, -1, -2)
    assert isinstance(await keeper.note(ChatDead("kicked"), -1), ChatDead)
    assert keeper.slots.chats.free(clock.now) == [-2]
    assert isinstance(await keeper.note(ChatDead("kicked"), -2), TargetDown)


async def test_a_target_takes_its_chats_from_an_async_function() -> None:
    transport, directory = FakeTransport(), Directory()
    target = TelegramTarget(TOKEN, warmup_chats=directory, transport=transport, budget=None)
    async with target:
        for _ in range(2):
            await target.warm(Media("a.pdf"), MemorySource({"a.pdf": b"%PDF"}))
    async with target:
        await target.warm(Media("a.pdf"), MemorySource({"a.pdf": b"%PDF"}))
    assert [sent.has_field("chat_id", "-2") for sent in transport.sent] == [False, True, False]
    assert directory.asked == 2


async def test_a_revoked_token_is_asked_once_and_moves_nothing() -> None:
    """Requirement 10: 401 stops the target within one request."""
    transport = FakeTransport([refusal(401, "Unauthorized")])
    target = TelegramTarget(TOKEN, warmup_chats=[-1, -2], transport=transport, budget=None)
    with pytest.raises(TargetDown) as caught:
        await target.warm(Media("a.pdf"), MemorySource({"a.pdf": b"%PDF"}))
    assert (len(transport.sent), caught.value.spends_attempt) == (1, False)


async def test_chats_that_are_neither_a_list_nor_a_function_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="warmup_chats"):
        TelegramTarget(TOKEN, warmup_chats=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
