"""PostgresStore where the server falls silent: half-open connections, a network that is away and comes back."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from relay import Relay, relay

from prewarmkit import PoolSettings, PrewarmPool, StoreError
from prewarmkit.media import MediaKind, Warmed
from prewarmkit.stores import Hint, PostgresStore, State, Succeeded
from prewarmkit.stores.postgres import link, listen
from prewarmkit.stores.postgres.session import Session, connect
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    async with PostgresStore(postgres_dsn, notify=False) as store:
        await store.migrate()
    return postgres_dsn


@pytest.fixture
async def line(dsn: str) -> AsyncIterator[Relay]:
    async with relay(dsn) as line:
        yield line


# ── calls ────────────────────────────────────────────────────────────────────


async def test_turns_and_heartbeats_give_a_half_open_connection_up_soon(
    line: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases run out in a minute, so that what holds them is not waited for as long as a look-up may be."""
    assert link.URGENT_SECONDS == 5
    monkeypatch.setattr(link, "URGENT_SECONDS", 0.5)
    async with PostgresStore(line.dsn, notify=False) as store:
        await store.enqueue([job("a.png")])
        [lease] = (await store.turn(lease=1)).leased
        line.stall()
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"did not answer within 0\.\d+ s"):
            await store.heartbeat([lease])
        assert time.monotonic() - began < 3
        assert await store.heartbeat([lease]) == []
        assert not (await store.turn([Succeeded(lease, Warmed("H"))])).lost


async def test_a_pool_whose_connections_all_fall_silent_goes_on_by_new_ones(
    line: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No medium is warmed again for it, but those whose lease nobody heard of."""
    monkeypatch.setattr(link, "URGENT_SECONDS", 0.5)
    async with PostgresStore(line.dsn) as store:
        await store.enqueue([job(f"{n}.png") for n in range(400)])
        target = ScriptedTarget(seconds=0.01)
        settings = PoolSettings(concurrency=8, poll_interval_seconds=0.2, lease_seconds=5)
        async with PrewarmPool(UnreadSource(), target, store, settings=settings) as pool:
            while pool.stats().succeeded < 50:  # noqa: ASYNC110 - the pool tells nobody
                await anyio.sleep(0.01)
            assert line.stall() >= 2
            await pool.join(timeout=30)
            assert pool.stats().failed == 0
        assert (await store.counts())["bot", MediaKind.PHOTO, State.READY] == 400
        assert len(target.calls) <= 400 + 16


async def test_a_call_that_the_host_cuts_off_on_a_half_open_connection_ends_soon(
    line: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is asked to stop, and its word on it not waited for."""
    caplog.set_level(logging.ERROR, logger="psycopg")  # it tells that it closed the connection
    async with PostgresStore(line.dsn, notify=False) as store:
        await store.lookup_many([job().id])
        line.stall()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):  # cancels once; anyio's scopes do so again and again
                await store.lookup_many([job().id])
        assert time.monotonic() - began < 2
        assert await store.lookup_many([job().id]) == {}


async def test_a_slow_server_is_given_more_time_and_a_large_turn_too(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes longer than the bound must not fail for ever."""
    monkeypatch.setattr(link, "URGENT_SECONDS", 0.2)
    sent = Session.send
    wait = 0.3

    async def slow(self: Session, query: str, *values: Any) -> Any:
        if query == "plan":
            await anyio.sleep(wait)
        return await sent(self, query, *values)

    async with PostgresStore(dsn, notify=False) as store:
        monkeypatch.setattr(Session, "send", slow)
        with pytest.raises(StoreError, match=r"within 0\.2 s"):
            await store.turn()
        for _ in range(3):
            await store.turn()
        assert store._link._urgent_seconds >= 0.6  # twice what the last one took
        wait = 0
        for _ in range(30):
            await store.turn()
        assert store._link._urgent_seconds == 0.2
        wait = 0.3
        await store.turn(lease=1000)


async def test_own_connections_notice_a_peer_that_is_gone(dsn: str) -> None:
    """By what is not acknowledged, and by probes where nothing is under way; a host's own settings win."""
    async with await connect(dsn) as connection:
        known = connection.info.get_parameters()
    assert known["tcp_user_timeout"] == "10000"
    assert int(known["keepalives_idle"]) <= 30
    async with await connect(f"{dsn}?tcp_user_timeout=7&application_name=mine") as connection:
        known = connection.info.get_parameters()
    assert known["tcp_user_timeout"] == "7"
    assert known["application_name"] == "mine"


# ── hints ────────────────────────────────────────────────────────────────────


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listeners ask themselves often whether they hear."""
    monkeypatch.setattr(listen, "_PROBE_SECONDS", 0.1)
    monkeypatch.setattr(listen, "_ANSWER_SECONDS", 0.5)


@pytest.mark.usefixtures("_often")
async def test_a_listener_whose_connection_is_half_open_makes_another(dsn: str, line: Relay) -> None:
    """It asks itself and gets no answer."""
    async with (
        PostgresStore(dsn) as producer,
        PostgresStore(dsn, listen_dsn=line.dsn) as worker,
        worker.wakeups() as hints,
    ):
        with anyio.fail_after(10):
            await anext(hints)  # what it may have missed before it listened
            line.stall()
            await anext(hints)  # the same, of the next connection
            await producer.enqueue([job()])
            await anext(hints)


@pytest.mark.usefixtures("_often")
async def test_a_listener_hears_again_once_the_network_is_back(dsn: str, line: Relay) -> None:
    """Nobody has to tell it anything anew: what it missed it is told as it begins to listen."""
    async with (
        PostgresStore(dsn) as producer,
        PostgresStore(dsn, listen_dsn=line.dsn) as worker,
        worker.wakeups() as hints,
    ):
        with anyio.fail_after(20):
            await anext(hints)
            line.block()
            assert worker._listener is not None
            while worker._listener.is_hearing:  # noqa: ASYNC110 - it tells nobody
                await anyio.sleep(0.02)
            await producer.enqueue([job()])
            line.unblock()
            await anext(hints)


@pytest.mark.usefixtures("_often")
async def test_a_listener_that_asks_itself_wakes_nobody(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither itself nor others: idle pools have nothing to look for."""
    asked = 0
    probe = listen.Listener._probe

    async def counted(self: listen.Listener, *given: Any) -> None:
        nonlocal asked
        await probe(self, *given)
        asked += 1

    monkeypatch.setattr(listen.Listener, "_probe", counted)
    async with PostgresStore(dsn) as a, PostgresStore(dsn) as b, a.wakeups() as one, b.wakeups() as two:
        with anyio.fail_after(20):
            for hints in (one, two):
                await anext(hints)
            heard = 0

            async def hear(hints: AsyncIterator[Hint]) -> None:
                nonlocal heard
                async for _ in hints:
                    heard += 1

            async with anyio.create_task_group() as group:
                group.start_soon(hear, one)
                group.start_soon(hear, two)
                while asked < 10:  # noqa: ASYNC110 - they tell nobody
                    await anyio.sleep(0.02)
                group.cancel_scope.cancel()
            assert heard == 0
