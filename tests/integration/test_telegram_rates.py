"""How many media a minute a bot's chats allow, and that the pool gets them without one message too many.

Time is trio's mock clock, which jumps to the next thing that is to happen: pool, target, budget and the judge all
go by it, so half an hour of warming is some seconds here.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import define, field
from trio.testing import MockClock

from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.budget import MemoryBudget
from prewarmkit.stores import MemoryStore
from prewarmkit.targets import TelegramTarget
from prewarmkit.targets.telegram.limits import RateLimits
from prewarmkit.testing.contracts.target import MemorySource
from prewarmkit.transports import Request, Response

JOBS = 600
UPLOAD_SECONDS = 0.4


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, MockClock]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@define
class Judge:
    """A transport that is Telegram: it takes an upload's time, and counts each message when it came."""

    times: dict[int, list[float]] = field(factory=dict[int, list[float]])

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        del deadline_seconds
        assert request.body is not None
        assert not isinstance(request.body, bytes)
        form = b"".join([piece async for piece in request.body])
        chat = int(form.partition(b'name="chat_id"\r\n\r\n')[2].partition(b"\r\n")[0])
        self.times.setdefault(chat, []).append(anyio.current_time())
        await anyio.sleep(UPLOAD_SECONDS)
        file = {"file_id": f"F{len(self.everything)}", "file_unique_id": "U"}
        message = {"message_id": 1, "chat": {"id": chat}, "document": file}

        async def body() -> AsyncGenerator[bytes]:
            yield json.dumps({"ok": True, "result": message}).encode()

        yield Response(200, (), body())

    @property
    def everything(self) -> list[float]:
        """When anything came, into whichever chat."""
        return sorted(time for times in self.times.values() for time in times)


def most_in_any(seconds: float, times: list[float]) -> int:
    """The most that ever came within a closed window of that length."""
    return max(place - bisect_left(times, time - seconds) + 1 for place, time in enumerate(times))


async def ideal_seconds(limits: RateLimits, chats: list[int]) -> float:
    """From the first message to the last of somebody who does nothing but send, and knows when he may."""
    now = 0.0
    budget = MemoryBudget(lambda: now)
    for _ in range(JOBS):
        while True:
            waits: list[float] = []
            for chat in chats:
                windows = {str(chat): limits.chat_windows(chat), "bot": limits.warm_windows()}
                waits.append(await budget.take(windows))
                if not waits[-1]:
                    break
            if not waits[-1]:
                break
            now += min(waits)
    return now


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("chats", "a_minute"),
    [
        pytest.param([-1001], 20, id="1 group"),
        pytest.param([-1001 - n for n in range(15)], 300, id="15 groups"),
        pytest.param([-1001 - n for n in range(79)], 1500, id="79 groups"),
        pytest.param([1001 + n for n in range(27)], 1500, id="27 private chats"),
    ],
)
async def test_six_hundred_media_go_as_fast_as_the_chats_allow_and_no_faster(
    chats: list[int], a_minute: int
) -> None:
    """300 a minute take 15 groups, 1,500 take 79 or 27 private chats: the bot's 30 a second less the reserve of 5.

    "20 messages per minute to the same group", "1 message per second" in a chat, "30 messages per second"
    (core.telegram.org/bots/faq, "My bot is hitting limits, how do I avoid this?"). Any closed window is looked at.
    """
    judge, limits = Judge(), RateLimits()
    target = TelegramTarget("123456:token", warmup_chats=chats, budget=limits, transport=judge)
    source = MemorySource({f"{n:03}.pdf": b"%PDF" for n in range(JOBS)})
    settings = PoolSettings(concurrency=32, max_queue=JOBS, autostart=False)
    async with (
        target,
        PrewarmPool(
            source, target, MemoryStore(anyio.current_time), settings=settings, clock=anyio.current_time
        ) as pool,
    ):
        await pool.enqueue_many(sorted(source.objects))
        await pool.start()
        await pool.join()
        stats = pool.stats()
    assert (stats.succeeded, stats.failed, stats.retried) == (JOBS, 0, 0)
    everything = judge.everything
    assert len(everything) == JOBS
    took, ideal = everything[-1] - everything[0], await ideal_seconds(limits, chats)
    print(f"{JOBS * 60 / took:,.0f} a minute, {JOBS * 60 / ideal:,.0f} at best: {ideal / took:.3f}")  # noqa: T201 - `pytest -s` shows it
    assert ideal >= 0.95 * took
    assert JOBS * 60 / took >= 0.95 * a_minute
    for chat, times in judge.times.items():
        assert most_in_any(60, times) <= (limits.private_per_minute if chat > 0 else limits.group_per_minute)
        assert most_in_any(1, times) <= limits.chat_per_second
    assert most_in_any(1, everything) <= limits.bot_per_second - limits.reserve_per_second
