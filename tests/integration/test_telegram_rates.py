"""How many media a minute a bot's chats allow, and that the pool gets them without one message too many.

First on trio's mock clock, which jumps to the next thing that is to happen: pool, target, budget and the judge all
go by it, so half an hour of warming is some seconds. Then in three processes, on a minute that lasts two seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import anyio
import pytest
from attrs import define, field
from trio.testing import MockClock

from prewarmkit import Media, PoolSettings, PrewarmPool
from prewarmkit.budget import MemoryBudget, Window
from prewarmkit.stores import Job, MemoryStore, PostgresStore, SqliteStore
from prewarmkit.targets import TelegramTarget
from prewarmkit.targets.telegram.limits import RateLimits
from prewarmkit.testing.botapi import BotApiServer, FloodLimits
from prewarmkit.testing.contracts.target import MemorySource
from prewarmkit.transports import Request, Response

JOBS, TOGETHER = 600, 300
UPLOAD_SECONDS = 0.4


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, MockClock]]:
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@define
class Judge:
    """A transport that is Telegram: it takes an upload's time, and counts each message when it came."""

    upload_seconds: Callable[[], float] = lambda: UPLOAD_SECONDS
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
        await anyio.sleep(self.upload_seconds())
        self.times.setdefault(chat, []).append(anyio.current_time())
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
    """From the first message to the last of somebody who does nothing but send, at the very moment when he may."""
    now = 0.0
    budget = MemoryBudget(lambda: now)
    for _ in range(JOBS):
        while True:
            waits: list[float] = []
            for chat in chats:
                a_minute = limits.private_per_minute if chat > 0 else limits.group_per_minute
                of_chat = [Window(limits.chat_per_second, 1), Window(a_minute, limits.window_seconds)]
                of_bot = [Window(limits.bot_per_second - limits.reserve_per_second, 1)]
                waits.append(await budget.take({str(chat): of_chat, "bot": of_bot}))
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
    if len(chats) == 1:  # requirement 1: at least 19 in every full minute while there is something to send
        minutes = range(int(everything[-1] - everything[0]) - 60)
        assert (
            min(sum(minute <= at - everything[0] < minute + 60 for at in everything) for minute in minutes)
            >= 19
        )


@pytest.mark.anyio
async def test_no_minute_holds_more_though_uploads_take_as_long_as_they_like() -> None:
    """A large medium arrives long after it was sent, a small one overtakes it: both count where they arrive."""
    dice = Random(5)
    judge, limits = Judge(lambda: dice.choice([0.1, 0.5, 3, 12])), RateLimits()
    chats = [-1001, -1002, -1003]
    target = TelegramTarget("123456:token", warmup_chats=chats, budget=limits, transport=judge)
    source = MemorySource({f"{n:03}.pdf": b"%PDF" for n in range(300)})
    settings = PoolSettings(concurrency=32, max_queue=300, autostart=False)
    store = MemoryStore(anyio.current_time)
    async with (
        target,
        PrewarmPool(source, target, store, settings=settings, clock=anyio.current_time) as pool,
    ):
        await pool.enqueue_many(sorted(source.objects))
        await pool.start()
        await pool.join()
    assert sum(map(len, judge.times.values())) == 300
    for times in judge.times.values():
        assert most_in_any(60, sorted(times)) <= limits.group_per_minute
    everything = judge.everything
    # 60 a minute; each minute may be longer by as long as its first upload took.
    assert everything[-1] - everything[0] <= (300 / 60 - 1) * (60 + 12) + 60


# ── in three processes ───────────────────────────────────────────────────────

PROCESS = '''
"""One of several workers of one bot: warms what there is and ends."""
import sys
import anyio
from prewarmkit import Media, PoolSettings, PrewarmPool
from prewarmkit.stores import PostgresStore, SqliteStore
from prewarmkit.targets import RateLimits, TelegramTarget
from prewarmkit.testing.botapi import BotApiServer, FloodLimits
from prewarmkit.testing.contracts.target import MemorySource

address, url, token, jobs, *chats = sys.argv[1:]
limits = RateLimits(chat_per_second=20, bot_per_second=1000, reserve_per_second=0, window_seconds=2)
source = MemorySource({f"{n:03}.pdf": b"%PDF" for n in range(int(jobs))})

async def main():
    store = PostgresStore(address) if address.startswith("postgresql:") else SqliteStore(address)
    settings = PoolSettings(concurrency=16, autostart=False, poll_interval_seconds=0.1)
    target = TelegramTarget(token, warmup_chats=[int(chat) for chat in chats], api_base=url, budget=limits)
    async with store, target, PrewarmPool(source, target, store, settings=settings) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        await pool.start()
        await pool.join()

anyio.run(main)
'''


async def fill(address: str, bot_id: str) -> None:
    """Put all there is to do into the table."""
    store = PostgresStore(address, auto_migrate=True) if "://" in address else SqliteStore(address)
    async with store:
        await store.enqueue([Job(bot_id, Media(f"{n:03}.pdf")) for n in range(TOGETHER)])


def run_together(address: str, server: BotApiServer, chats: Sequence[int]) -> None:
    """Three processes, from a start in common to the end of the work."""
    token = server.token
    command = [sys.executable, "-c", PROCESS, address, server.url, token, str(TOGETHER), *map(str, chats)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.communicate("go\n", timeout=120)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    "patience",
    [0.5, pytest.param(0, marks=pytest.mark.slow)],
    ids=["on any machine", "on one that never stalls"],
)
def test_three_processes_keep_to_the_caps_together(
    tmp_path: Path, request: pytest.FixtureRequest, store: str, patience: float
) -> None:
    """Real time, a real server that counts what arrives: its minute is two seconds, in which five groups take a hundred.

    A machine that stalls an upload for as long as this minute would have it share the next one; the server sits that out.
    """
    address = str(tmp_path / "p.db") if store == "sqlite" else str(request.getfixturevalue("postgres_dsn"))
    chats = [-1001 - n for n in range(5)]
    limits = FloodLimits(chat_per_second=20, bot_per_second=1000, window_seconds=2, patience_seconds=patience)
    with BotApiServer(limits=limits) as server:
        anyio.run(fill, address, server.token.partition(":")[0])
        run_together(address, server, chats)
        assert [call.status for call in server.calls if call.method == "sendDocument"] == [200] * TOGETHER
        assert all(server.most_sent(2, chat_id=chat) <= 20 for chat in chats)
        assert len({message.sha256 for message in server.messages}) == 1
        times = sorted(message.at for message in server.messages)
    # The first hundred go at once, and then as many each two seconds: four between the first and the last.
    took = times[-1] - times[0]
    print(f"{store}: {took:.2f} s where 4 s is the least: {4 / took:.3f}")  # noqa: T201 - `pytest -s` shows it
    assert took <= 4 / 0.4  # a busy machine; 0.9 on a quiet one
