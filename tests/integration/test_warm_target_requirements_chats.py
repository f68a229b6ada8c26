"""What warm targets must do, requirement by requirement: rates, refusals and chats (1, 2, 3 and 10).

Pool, target and the Bot API server are the real ones. Where a test is about minutes, all of them go by trio's mock clock: it
stands while a request is under way, and jumps when nobody has anything to do, so a message arrives at the very moment
that it was sent. Where a test is about processes, it is in real time, on a minute that lasts a second.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from attrs import define, field
from telegram_workers import TelegramWorkers
from trio.testing import MockClock

from prewarmkit import Media, PoolSettings, PrewarmPool, TargetDown
from prewarmkit.stores import Job, MemoryStore, PostgresStore, SqliteStore, State
from prewarmkit.targets import TelegramTarget
from prewarmkit.testing.botapi import BotApiServer, Fault, FloodLimits
from prewarmkit.testing.contracts.target import MemorySource
from prewarmkit.transports import DirectTransport, Request, Response

GROUP = -1001


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def anyio_backend(clock: MockClock) -> tuple[str, dict[str, MockClock]]:
    return "trio", {"clock": clock}


@define
class Standing:
    """A transport that lets no time pass while a request is under way."""

    clock: MockClock
    inner: DirectTransport
    under_way: int = field(init=False, default=0)

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        self.under_way += 1
        self.clock.autojump_threshold = math.inf
        try:
            async with self.inner.send(request, deadline_seconds=deadline_seconds) as response:
                yield response
        finally:
            self.under_way -= 1
            if not self.under_way:
                self.clock.autojump_threshold = 0


@define
class Stage:
    """One pool, one bot, one server that counts, and the clock that all of them go by."""

    server: BotApiServer
    transport: Standing
    source: MemorySource
    store: MemoryStore
    events: list[Any] = field(factory=list[Any])

    @asynccontextmanager
    async def pool(self, *chats: int, concurrency: int = 16, **options: Any) -> AsyncGenerator[PrewarmPool]:
        """A pool whose bot has these chats, and whose media have one attempt: one that were spent for nothing would fail them."""
        settings = PoolSettings(
            concurrency=concurrency,
            max_queue=1000,
            max_attempts=1,
            poll_interval_seconds=30,
            autostart=False,
        )
        target = TelegramTarget(
            self.server.token,
            warmup_chats=chats,
            api_base=self.server.url,
            transport=self.transport,
            **options,
        )
        made = PrewarmPool(
            self.source,
            target,
            self.store,
            settings=settings,
            clock=anyio.current_time,
            on_event=self.events.append,
        )
        async with target, made as pool:
            yield pool

    async def warm_all(self, pool: PrewarmPool, jobs: int) -> None:
        """Warm as many documents as are said."""
        self.source.objects = {f"{n:03}.pdf": b"%PDF" + bytes(n) for n in range(jobs)}
        await pool.enqueue_many(sorted(self.source.objects))
        await pool.start()
        await pool.join()

    def refused(self) -> list[float]:
        """When the server said no."""
        return [call.at for call in self.server.calls if call.status != 200]

    def times(self, chat: int | None = None) -> list[float]:
        """When messages came, into that chat."""
        return [each.at for each in self.server.messages if chat in {None, each.chat_id}]

    async def states(self) -> set[State]:
        """Those that rows are in."""
        return {row.state for row in await self.store.list(limit=1000)}


@pytest.fixture
async def stage(clock: MockClock) -> AsyncIterator[Stage]:
    with BotApiServer(limits=FloodLimits(), clock=clock.current_time) as server:
        async with DirectTransport() as inner:
            yield Stage(server, Standing(clock, inner), MemorySource(), MemoryStore(anyio.current_time))


# ── 1: sliding caps ──────────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize("jobs", [90, pytest.param(600, marks=pytest.mark.slow)])
async def test_requirement_01_sliding_caps(stage: Stage, jobs: int) -> None:
    """One group, one bot, Telegram's own numbers: no 429, no window too full, and 19 in every full minute at least.

    The server counts what arrives, in closed windows of 60 s and 1 s, and would refuse whatever is too much.
    """
    async with stage.pool(GROUP) as pool:
        await stage.warm_all(pool, jobs)
        assert (pool.stats().succeeded, pool.stats().retried) == (jobs, 0)
    assert stage.refused() == []
    assert stage.server.most_sent(60, chat_id=GROUP) == 20
    assert stage.server.most_sent(1) == 1
    times = stage.times()
    assert len(times) == jobs
    full_minutes = int(times[-1] - times[0]) - 60
    for minute in range(full_minutes):
        first = bisect_left(times, times[0] + minute)
        assert bisect_left(times, times[0] + minute + 60) - first >= 19
    assert full_minutes > 60


@pytest.mark.anyio
async def test_requirement_01_sliding_caps_of_the_whole_bot(stage: Stage) -> None:
    """With more chats than it can serve, the bot sends 25 a second: its 30 less the reserve."""
    async with stage.pool(*range(1001, 1041), concurrency=40) as pool:
        await stage.warm_all(pool, 240)
    assert stage.refused() == []
    assert stage.server.most_sent(1) == 25
    assert stage.times()[-1] - stage.times()[0] <= 240 / 25 * 1.05


# ── 3: a 429 is obeyed ───────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["body", "header", "text"])
async def test_requirement_03_429_obeyed(stage: Stage, where: Literal["body", "header", "text"]) -> None:
    """Nothing goes to that chat before its time is over, the other one goes on, and no attempt is spent.

    However it is said: in the body, in the header alone, in the text of a 400 alone.
    """
    closed, other = GROUP, -1002
    stage.server.fail(Fault(retry_after=45, retry_after_in=where, chat_id=closed, nth=3))
    async with stage.pool(closed, other) as pool:
        await stage.warm_all(pool, 40)
        stats = pool.stats()
    assert (stats.succeeded, stats.failed, stats.retried) == (40, 0, 0)
    assert await stage.states() == {State.READY}
    [refused_at] = stage.refused()
    after = [at for at in stage.times(closed) if at > refused_at]
    assert min(after) >= refused_at + 45
    assert any(refused_at < at < refused_at + 45 for at in stage.times(other))


# ── 10: a pool of chats ──────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize(("chats", "minutes"), [(2, 3), (5, 2), (15, 1)])
async def test_requirement_10_chat_pool(stage: Stage, chats: int, minutes: int) -> None:
    """As many chats give as many times twenty media a minute, within 5 %."""
    jobs = chats * 20 * (minutes + 1)
    async with stage.pool(*(GROUP - n for n in range(chats))) as pool:
        await stage.warm_all(pool, jobs)
    assert stage.refused() == []
    times, ideal_seconds = stage.times(), 60 * minutes + 19  # the last twenty take 19 s, at one a second
    assert times[-1] - times[0] <= 1.05 * ideal_seconds
    for chat in range(chats):
        assert stage.server.most_sent(60, chat_id=GROUP - chat) <= 20


@pytest.mark.anyio
async def test_requirement_10_chat_pool_without_a_dead_chat(stage: Stage) -> None:
    """The bot is thrown out in the middle of it: the other chat takes the rest, and no job notices."""
    stage.server.fail(Fault(status=403, chat_id=GROUP, nth=5, times=100))
    async with stage.pool(GROUP, -1002) as pool:
        await stage.warm_all(pool, 60)
        stats = pool.stats()
    assert (stats.succeeded, stats.failed, stats.retried) == (60, 0, 0)
    assert await stage.states() == {State.READY}
    assert len(stage.times(GROUP)) == 4
    assert len(stage.refused()) <= 3  # it is asked again five minutes later, no sooner


@pytest.mark.anyio
async def test_requirement_10_chat_pool_after_a_migration(stage: Stage) -> None:
    """A group becomes a supergroup: it is known by its new id from then on, after a restart too."""
    stage.server.migrate(-5, -1005)
    async with stage.pool(-5) as pool:
        await stage.warm_all(pool, 10)
        assert (pool.stats().succeeded, pool.stats().failed) == (10, 0)
    refusals = len(stage.refused())
    async with stage.pool(-5) as pool:
        stage.source.objects["new.pdf"] = b"%PDF"
        await pool.enqueue("new.pdf")
        await pool.start()
        await pool.join()
    assert {message.chat_id for message in stage.server.messages} == {-1005}
    assert len(stage.refused()) == refusals
    assert refusals <= 10  # at most those that were under way
    assert await stage.states() == {State.READY}


@pytest.mark.anyio
async def test_requirement_10_chat_pool_of_a_revoked_token(stage: Stage) -> None:
    """401: one request, no job fails, and all go on where the token is a good one again."""
    stage.server.revoke()
    async with stage.pool(GROUP, -1002, concurrency=1) as pool:
        stage.source.objects = {f"{n}.pdf": b"%PDF" for n in range(20)}
        await pool.enqueue_many(sorted(stage.source.objects))
        await pool.start()
        with pytest.raises(TargetDown):
            await pool.warm("3.pdf", timeout=10)
        assert len(stage.server.calls) == 1
        assert await stage.states() <= {State.PENDING, State.WARMING}
        stage.server.add_bot(stage.server.token)
        await pool.join()
    assert await stage.states() == {State.READY}


# ── processes, in real time ──────────────────────────────────────────────────

DOCUMENTS = {f"{n:03}.pdf": "%PDF" + "x" * n for n in range(60)}


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "p.db" if request.param == "sqlite" else request.getfixturevalue("postgres_dsn"))


def opened(address: str) -> PostgresStore | SqliteStore:
    return PostgresStore(address, auto_migrate=True) if "://" in address else SqliteStore(address)


def fill(address: str, bot_id: int, keys: list[str]) -> None:
    """Put jobs into the table."""

    async def put() -> None:
        async with opened(address) as store:
            await store.enqueue([Job(str(bot_id), Media(key)) for key in keys])

    anyio.run(put)


def states(address: str) -> list[State]:
    """Of all rows."""

    async def look() -> list[State]:
        async with opened(address) as store:
            return [row.state for row in await store.list()]

    return anyio.run(look)


def test_requirement_02_shared_budget(address: str) -> None:
    """Two processes of one bot are one bot: together they leave the reserve alone.

    30 a second, 10 of which are for users: the server takes 20, and not one more is sent. It sits out what arrives
    nearer together than it was sent, as the hosted one does.
    """
    limits = {"bot_per_second": 30, "reserve_per_second": 10, "chat_per_second": 9}
    chats = [GROUP, -1002, -1003]
    flood = FloodLimits(bot_per_second=20, chat_per_second=9, patience_seconds=0.5)
    with BotApiServer(limits=flood) as server:
        fill(address, server.bot_id, sorted(DOCUMENTS))
        told: dict[str, Any] = {
            "address": address,
            "url": server.url,
            "token": server.token,
            "chats": chats,
            "objects": DOCUMENTS,
            "limits": limits,
            # So little is leased ahead that both have something to do until the end.
            "settings": {"concurrency": 8, "max_queue": 8},
        }
        with TelegramWorkers(**told) as workers:
            workers.start(2)
            done = [each["succeeded"] for each in workers.go()]
        assert {call.status for call in server.calls} == {200}
        assert sum(done) == len(DOCUMENTS) == len(server.messages)
        assert min(done) > 0
        assert server.most_sent(1) <= 20
        assert all(server.most_sent(1, chat_id=chat) <= 9 for chat in chats)
        times = [message.at for message in server.messages]
        assert 2 <= times[-1] - times[0] <= 5  # 20 at once, then 20 a second; more on a busy machine


def test_requirement_03_429_obeyed_by_other_processes_and_after_a_restart(address: str) -> None:
    """One process meets a 429 and ends; one that ran already and one that starts then leave the chat alone as long."""
    keys = sorted(DOCUMENTS)[:2]
    with BotApiServer() as server:
        server.fail(Fault(retry_after=2))
        fill(address, server.bot_id, keys)
        told: dict[str, Any] = {
            "address": address,
            "url": server.url,
            "token": server.token,
            "chats": [GROUP],
            "objects": {key: DOCUMENTS[key] for key in keys},
            "limits": {"chat_per_second": 20},
            "settings": {"concurrency": 1, "max_attempts": 1},
        }
        with TelegramWorkers(**told) as meeting, TelegramWorkers(**told) as others:
            others.start()
            meeting.start(leaves_when_held=True)
            assert meeting.go()[0]["succeeded"] == 0
            others.start()
            assert sum(each["succeeded"] for each in others.go()) == len(keys)
        refused, *taken = server.calls
        assert (refused.status, [call.status for call in taken]) == (429, [200, 200])
        assert min(call.at for call in taken) >= refused.at + 2
    assert states(address) == [State.READY] * len(keys)
