"""What the Bot API server lets through: sliding windows, and faults for the nth call.

Rules are cited by where research found them: "docs" is the Bot API's FAQ and reference, "source" is tdlib/telegram-bot-api.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from bot_api_client import CHAT, OTHER_BOT, Client, error_of
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarmkit.testing.botapi import BotApiServer, Fault, FloodLimits, most_in_window
from prewarmkit.testing.botapi.limits import Floods, FloodWait
from prewarmkit.testing.clock import FakeClock

pytestmark = pytest.mark.usefixtures("close_bot_clients")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=1000.0)


@pytest.fixture
def server(clock: FakeClock) -> Iterator[BotApiServer]:
    with BotApiServer(limits=FloodLimits(), clock=clock) as running:
        yield running


@pytest.fixture
def bot(server: BotApiServer) -> Client:
    return Client(server)


def _send(bot: Client, chat: int = CHAT) -> int:
    return bot.send("sendDocument", b"x", "a.txt", chat_id=chat).status_code


# ── sliding windows ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(("chat", "cap"), [(CHAT, 20), (-5, 20), (42, 60)])
def test_a_chat_takes_its_messages_in_any_minute(
    server: BotApiServer, clock: FakeClock, bot: Client, chat: int, cap: int
) -> None:
    """Docs, FAQ: 20 a minute in a group, one a second (60 a minute) in a private chat.

    Channels are as groups (Telegraph-Image#245). The window is closed: the message of a minute ago still counts.
    """
    start = clock.now
    for number in range(cap):
        clock.now = start + number * 1.0001 if cap == 60 else start + number * 2
        assert _send(bot, chat) == 200
    for moment in (60.0, 59.9999):
        clock.now = start + moment
        if cap == 20:
            assert _send(bot, chat) == 429
    clock.now = start + 60.01
    assert _send(bot, chat) == 200
    assert server.most_sent(60, chat_id=chat) == cap


def test_a_chat_takes_one_message_in_any_second(clock: FakeClock, bot: Client) -> None:
    """Docs, FAQ: "avoid sending more than one message per second" in one chat."""
    assert _send(bot) == 200
    clock.advance(1.0)
    answer = bot.send("sendDocument", b"x", "a.txt")
    assert error_of(answer) == (429, "Too Many Requests: retry after 1")
    clock.advance(0.001)
    assert _send(bot) == 200


def test_a_bot_sends_thirty_messages_in_any_second_and_another_bot_as_many(
    server: BotApiServer, clock: FakeClock, bot: Client
) -> None:
    """Docs, FAQ: about 30 a second for a bot; the limits are worded per bot (telegra.ph/Hitting-limits-bot-FAQ)."""
    server.add_bot(OTHER_BOT)
    other = Client(server, OTHER_BOT)
    assert [_send(bot, -chat) for chat in range(1, 32)] == [200] * 30 + [429]
    assert [_send(other, -chat) for chat in range(1, 32)] == [200] * 30 + [429]
    clock.advance(1.001)
    assert _send(bot, -31) == 200
    assert server.most_sent(1, bot_id=server.bot_id) == 30
    assert server.most_sent(1) == 60


def test_the_answer_says_when_the_window_opens(clock: FakeClock, bot: Client) -> None:
    """Source: whole seconds, in the body and in the header; they are enough, and not one second more."""
    for _ in range(20):
        assert _send(bot) == 200
        clock.advance(1.5)
    answer = bot.send("sendDocument", b"x", "a.txt")
    told = answer.json()["parameters"]["retry_after"]
    assert told == int(answer.headers["retry-after"]) == 31
    clock.advance(told - 1)
    assert _send(bot) == 429
    clock.advance(1)
    assert _send(bot) == 200


@pytest.mark.parametrize("told_in", ["body", "header", "text"])
def test_a_limit_is_told_in_each_known_form(
    clock: FakeClock, told_in: Literal["body", "header", "text"]
) -> None:
    """Source: body and header; a 429 inside a 400's text: TelegramBots#1520, td#3003."""
    with BotApiServer(limits=FloodLimits(told_in=told_in), clock=clock) as server:
        bot = Client(server)
        assert _send(bot) == 200
        answer = bot.send("sendDocument", b"x", "a.txt")
        assert (answer.status_code, "retry-after" in answer.headers, "parameters" in answer.json()) == {
            "body": (429, True, True),
            "header": (429, True, False),
            "text": (400, False, False),
        }[told_in]
        assert ("retry after 2" in answer.json()["description"]) is (told_in != "header")


def test_a_short_flood_may_be_sat_out(clock: FakeClock) -> None:
    """Source (td): for bots, waits of up to 8 s in total are sat out before anything is answered."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    limits = FloodLimits(group_per_minute=3, window_seconds=20, patience_seconds=8)
    with BotApiServer(limits=limits, clock=clock, sleep=sleep) as server:
        bot = Client(server)
        assert [_send(bot) for _ in range(4)] == [200, 200, 200, 429]
        assert slept == pytest.approx([1, 1])
        assert server.most_sent(1) == 1
        clock.advance(11)
        assert _send(bot) == 200
        assert slept == pytest.approx([1, 1, 7])
        assert server.most_sent(20) == 3


def test_a_flood_may_lose_its_answer(server: BotApiServer, bot: Client) -> None:
    assert _send(bot) == 200
    server.fail(Fault(reset_before_answer=True))
    with pytest.raises(httpx.TransportError):
        _send(bot)
    assert [call.status for call in server.calls] == [200, 429]


def test_the_minute_may_be_shorter(clock: FakeClock) -> None:
    """As a target's ``RateLimits(window_seconds=…)``: so that a minute of the service can be lived through in a test."""
    limits = FloodLimits(group_per_minute=3, chat_per_second=100, window_seconds=1)
    with BotApiServer(limits=limits, clock=clock) as server:
        bot = Client(server)
        assert [_send(bot) for _ in range(4)] == [200, 200, 200, 429]
        clock.advance(1.001)
        assert _send(bot) == 200


def test_what_was_refused_and_what_is_no_message_is_not_counted(
    server: BotApiServer, clock: FakeClock, bot: Client
) -> None:
    file_id = bot.sent("sendDocument", b"x", "a.txt")["document"]["file_id"]
    assert [_send(bot) for _ in range(5)] == [429] * 5
    for _ in range(5):
        assert bot.call("getFile", file_id=file_id).status_code == 200
    clock.advance(1.001)
    assert bot.call("sendDocument", chat_id=CHAT, document=file_id).status_code == 200
    assert [entry.route for entry in server.messages] == ["multipart", "file_id"]


def test_the_journal_says_what_went_where_by_which_route_and_when(
    server: BotApiServer, clock: FakeClock, bot: Client
) -> None:
    sent = bot.sent("sendDocument", b"hello", "a.txt")
    clock.advance(2)
    bot.call("sendDocument", chat_id=7, document=sent["document"]["file_id"])
    first, second = server.messages
    assert (first.route, first.chat_id, first.at) == ("multipart", CHAT, 1000)
    assert (second.route, second.chat_id, second.at) == ("file_id", 7, 1002)
    assert first.sha256 == second.sha256
    assert [call.at for call in server.calls] == [1000, 1002]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 0.4), max_size=80), st.integers(1, 6), st.integers(1, 4))
def test_no_closed_window_ever_holds_more_than_its_cap(
    waits: list[float], per_minute: int, per_second: int
) -> None:
    """Whatever the schedule: and where something is refused, the wait that is named is enough."""
    clock = FakeClock(now=0.0)
    limits = FloodLimits(
        group_per_minute=per_minute, chat_per_second=per_second, bot_per_second=7, window_seconds=3
    )
    floods = Floods(limits=limits, clock=clock)
    passed: dict[int, list[float]] = {-1: [], -2: []}
    for number, wait in enumerate(waits):
        clock.advance(wait)
        chat = -1 - number % 2
        try:
            floods.take(1, chat)
        except FloodWait as flood:
            clock.advance(flood.seconds + 1e-6)
            floods.take(1, chat)
        passed[chat].append(clock.now)
    for times in passed.values():
        assert most_in_window(times, 3) <= per_minute
        assert most_in_window(times, 1) <= per_second
    assert most_in_window([*passed[-1], *passed[-2]], 1) <= 7


def test_the_busiest_window_is_found_at_both_of_its_ends() -> None:
    assert most_in_window([], 60) == 0
    assert most_in_window([0, 60], 60) == 2
    assert most_in_window([0, 60.001], 60) == 1
    assert most_in_window([5, 1, 3, 2, 9], 2) == 3


@pytest.mark.parametrize(
    "wrong", [{"group_per_minute": 0}, {"window_seconds": 0.0}, {"window_seconds": float("nan")}]
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FloodLimits(**wrong)


# ── faults for the nth call ──────────────────────────────────────────────────


def _codes(bot: Client, count: int, method: str = "sendDocument", chat: int = CHAT) -> list[int]:
    answers: list[httpx.Response] = [bot.send(method, b"x", "a.txt", chat_id=chat) for _ in range(count)]
    return [answer.status_code for answer in answers]


def test_a_fault_may_wait_for_the_nth_call_of_its_method_and_chat() -> None:
    with BotApiServer() as server:
        bot = Client(server)
        server.fail(Fault(status=500, nth=3, times=2))
        assert _codes(bot, 6) == [200, 200, 500, 500, 200, 200]
        server.fail(Fault(status=502, nth=2, chat_id=-9, method="sendDocument"), Fault(status=503, nth=2))
        assert _codes(bot, 1) == [200]
        assert _codes(bot, 1, chat=-9) == [503], "the other's second"
        assert _codes(bot, 2, chat=-9) == [502, 200]
        assert server.pending_faults == ()


def test_a_call_passes_a_waiting_fault_and_meets_the_next() -> None:
    with BotApiServer() as server:
        server.fail(Fault(status=500, nth=2), Fault(status=502, nth=1))
        assert _codes(Client(server), 3) == [502, 500, 200]


def test_a_file_size_may_be_reported_wrong() -> None:
    """Research, section 1.4: ``file_size`` unlike the sent size says truncation or transcoding."""
    with BotApiServer() as server:
        server.fail(Fault(report_bytes=3))
        assert Client(server).sent("sendDocument", b"hello", "a.txt")["document"]["file_size"] == 3
        assert server.received[0].size == 5
