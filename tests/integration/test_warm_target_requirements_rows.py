"""What warm targets must do, requirement by requirement: what is done once, and an edge's verdicts (7, 11 and 12).

A pool and its rows, in this process and in others, before a Bot API server and a CDN edge over real HTTP.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from attrs import evolve
from telegram_workers import TelegramWorkers

from prewarmkit import BadHandle, Enqueued, Media, PoolSettings, PrewarmPool
from prewarmkit.stores import Job, MediaId, MemoryStore, PostgresStore, SqliteStore, State
from prewarmkit.targets import EdgeTarget, TelegramTarget
from prewarmkit.testing import edge as edges
from prewarmkit.testing.botapi import BotApiServer, Fault
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.target import MemorySource
from prewarmkit.testing.edge import EdgeServer
from prewarmkit.testing.media import make_media

GROUP, USER = -1001, 42
QUICK = PoolSettings(poll_interval_seconds=0.05, down_seconds=0.2, retry_base_seconds=0.05, max_attempts=3)


@pytest.fixture
def server() -> Iterator[BotApiServer]:
    with BotApiServer() as server:
        yield server


def bot_of(server: BotApiServer) -> TelegramTarget:
    return TelegramTarget(server.token, warmup_chats=[GROUP], budget=None, api_base=server.url)


# ── 11: once is enough, 7: and an address that failed is not repeated ────────


def opened(address: str) -> PostgresStore | SqliteStore:
    return PostgresStore(address) if "://" in address else SqliteStore(address)


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is that processes share; its tables are made."""
    address = tmp_path / "p.db" if request.param == "sqlite" else request.getfixturevalue("postgres_dsn")

    async def migrate() -> None:
        async with opened(str(address)) as store:
            await store.migrate()

    anyio.run(migrate)
    return str(address)


def queue(address: str, bot_id: int, key: str, *, again: bool = False) -> None:
    """Put one medium into the table, or make it due once more."""

    async def put() -> None:
        async with opened(address) as store:
            media = Media(key)
            if again:
                assert await store.invalidate(MediaId(str(bot_id), key, media.kind))
            else:
                await store.enqueue([Job(str(bot_id), media)])

    anyio.run(put)


def told_of(server: BotApiServer, address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "url": server.url, "token": server.token, "chats": [GROUP], **more}


def test_requirement_07_route_ladder_never_repeats_an_address_from_another_process(
    server: BotApiServer, address: str
) -> None:
    """One process meets the failure: one call by address and one upload. Another one, later, sends bytes alone."""
    queue(address, server.bot_id, "a.pdf")
    with EdgeServer() as edge:  # it has no such object
        told = told_of(server, address, objects={"a.pdf": "%PDF"}, public_url=edge.url)
        with TelegramWorkers(**told) as workers:
            workers.start()
            workers.go()
            assert [call.status for call in server.calls] == [400, 200]
            queue(address, server.bot_id, "a.pdf", again=True)
            workers.start()
            workers.go()
    assert [call.status for call in server.calls] == [400, 200, 200]
    assert len(server.fetches) == 1
    assert [message.route for message in server.messages] == ["multipart", "multipart"]


def test_requirement_11_idempotence(server: BotApiServer, address: str) -> None:
    """Fifty callers in two processes want one medium at once: one upload, and all get its handle."""
    server.fail(Fault(delay_seconds=0.3))
    content = "%PDF of one's own"
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    told = told_of(server, address, objects={"a.pdf": content}, sha256=sha256, callers=25)
    with TelegramWorkers(**told) as workers:
        workers.start(2)
        ended = workers.go()
    [upload] = server.received
    assert upload.sha256 == sha256
    assert [handle for each in ended for handle in each["handles"]] == [upload.file_id] * 50
    assert len(server.calls) == 1


@pytest.mark.anyio
async def test_requirement_11_idempotence_by_digest(server: BotApiServer) -> None:
    """Another key of the same SHA-256 and kind takes the handle over; another kind is another upload."""
    content = make_media("pdf", 30_000)
    digest = hashlib.sha256(content).hexdigest()
    source = MemorySource({"a.pdf": content, "b.pdf": content})
    async with bot_of(server) as bot, PrewarmPool(source, bot, settings=QUICK) as pool:
        first = await pool.warm(Media("a.pdf", sha256=digest), timeout=20)
        second = await pool.warm(Media("b.pdf", sha256=digest), timeout=20)
    assert first.value == second.value
    assert len(server.calls) == 1


@pytest.mark.anyio
async def test_requirement_11_idempotence_pays_for_both_messages(server: BotApiServer) -> None:
    """The answer is lost after the body was sent: it is sent again, and `rate_cost` says two."""
    server.fail(Fault(reset_before_answer=True))
    source = MemorySource({"a.pdf": make_media("pdf", 30_000)})
    async with bot_of(server) as bot, PrewarmPool(source, bot, settings=QUICK) as pool:
        handle = await pool.warm("a.pdf", timeout=20)
        assert pool.stats().retried == 1
    assert len(server.received) == handle.details["rate_cost"] == 2
    assert handle.value == server.received[1].file_id


@pytest.mark.anyio
async def test_requirement_11_idempotence_of_refused_handles(server: BotApiServer) -> None:
    """Telegram knows the file no more: `BadHandle`, and one `invalidate` warms it anew; fifty of them do so once."""
    source = MemorySource({"a.pdf": make_media("pdf", 30_000)})
    store = MemoryStore()
    async with bot_of(server) as bot, PrewarmPool(source, bot, store, settings=QUICK) as pool:
        handle = await pool.warm("a.pdf", timeout=20)
        port = int(server.url.rpartition(":")[2])
        server.stop()
        with BotApiServer(port=port) as forgetful:
            refused: list[Any] = []

            async def deliver() -> None:
                with pytest.raises(BadHandle) as caught:
                    await bot.send(USER, handle)
                refused.append(caught.value.handle)

            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(deliver)
            assert [await pool.invalidate(each) for each in refused] == [True] + [False] * 49
            await pool.join()
            await bot.send(USER, await pool.require("a.pdf"))
            assert len(forgetful.received) == 1


# ── 12: the edge's verdicts ──────────────────────────────────────────────────

BODY = bytes(range(256)) * 100


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(time.time())


@pytest.fixture
def edge(clock: FakeClock) -> Iterator[EdgeServer]:
    with EdgeServer(clock=clock) as server:
        server.put("a.jpg", BODY, cache_control="max-age=600", etag="v1")
        yield server


@pytest.fixture
async def target(edge: EdgeServer, clock: FakeClock) -> AsyncIterator[EdgeTarget]:
    async with EdgeTarget(edge.url, verify_delays=(0, 0, 0), clock=clock) as target:
        yield target


def view(edge: EdgeServer, key: str = "a.jpg") -> httpx.Response:
    """What a viewer gets; the server is in a thread of its own."""
    return httpx.get(f"{edge.url}/{key}")


def bring_about(edge: EdgeServer, clock: FakeClock, said: str) -> str:
    """Have the edge say that of the key that is returned."""
    if said == "MISS":
        return "a.jpg"
    if said == "UPDATING":
        edge.put("a.jpg", BODY, cache_control="max-age=600, stale-while-revalidate=60", etag="v1")
    view(edge)
    if said == "HIT":
        clock.advance(100)
        return "a.jpg"
    clock.advance(610)
    if said == "EXPIRED":
        edge.put("a.jpg", BODY[:-1], cache_control="max-age=600", etag="v2")
    edge.origin.is_reachable = said != "STALE"
    return "a.jpg"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "life"),
    [("MISS", 600), ("HIT", 500), ("EXPIRED", 600), ("REVALIDATED", 600), ("UPDATING", 600)],
)
async def test_requirement_12_cdn_verdicts_that_are_warm(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock, tmp_path: Path, said: str, life: int
) -> None:
    """The row has colo, ETag and the end of its life, and is due again before that; no request has a Range."""
    key = bring_about(edge, clock, said)
    viewed = len(edge.requests)
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(edge.source(), target, store, settings=QUICK) as pool,
    ):
        handle = await pool.warm(key, timeout=20)
        [row] = await store.list()
    asked = edge.requests[viewed:]
    assert asked[0].cache_status == said
    assert [request.cache_status for request in asked[1:]] == (["HIT"] if said in {"MISS", "EXPIRED"} else [])
    assert not any("range" in request.headers for request in asked)
    assert (handle.weak, handle.value) == ((), f"{edge.url}/{key}")
    assert handle.expires_at is not None
    assert handle.expires_at.timestamp() - clock() == pytest.approx(life, abs=1)
    assert (handle.details["colo"], handle.unique_id) == ("FRA", "v2" if said == "EXPIRED" else "v1")
    assert row.state is State.READY
    assert row.renew_in is not None
    assert 0 < row.renew_in < handle.expires_at.timestamp() - time.time()  # what a pool goes by


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("case", "reason", "most_requests"),
    [
        ("STALE", "weak:stale", 4),
        ("not kept", "weak:not_retained", 19),
        ("DYNAMIC", "weak:ineligible_extension", 2),
        ("BYPASS", "weak:origin_forbids", 2),
        ("NONE", "weak:not_cloudflare_cache", 2),
        ("no word", "weak:not_cloudflare_cache", 2),
        ("cached 404", "transient", 3),
        ("403", "transient", 3),
        ("another ETag", "source_changed", 3),
        ("another length", "source_changed", 3),
    ],
)
async def test_requirement_12_cdn_verdicts_that_are_not(
    edge: EdgeServer,
    target: EdgeTarget,
    clock: FakeClock,
    tmp_path: Path,
    case: str,
    reason: str,
    most_requests: int,
) -> None:
    """Never ready, the reason is in the row; what only configuration mends costs two requests at most, however often."""
    key = {"DYNAMIC": "a.m4a", "BYPASS": "private.jpg", "cached 404": "late.jpg"}.get(case, "a.jpg")
    if case == "STALE":
        bring_about(edge, clock, case)
    elif case == "cached 404":
        assert view(edge, key).status_code == 404
        assert view(edge, key).headers["cf-cache-status"] == "HIT"
    elif case.startswith("another"):
        view(edge)
        edge.put(key, BODY[:-1] if case == "another length" else BODY, etag="v2" if "ETag" in case else "v1")
    faults: dict[str, dict[str, Any]] = {
        "not kept": {"cache_status": "MISS"},
        "NONE": {"cache_status": "NONE"},
        "no word": {"hides_cache": True},
        "403": {"status": 403},
    }
    if case in faults:
        edge.fail(edges.Fault(times=99, **faults[case]))
    if key != "a.jpg":
        edge.put(key, BODY, cache_control="private" if case == "BYPASS" else None)
    asked = len(edge.requests)
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(edge.source(), target, store, settings=evolve(QUICK, retry_weak_id=3)) as pool,
    ):
        await pool.enqueue(key)
        await pool.join(timeout=20)
        assert await pool.lookup(key) is None
        assert await pool.enqueue(key) is Enqueued.FAILED
        [row] = await store.list()
    assert row.state is State.FAILED
    assert (row.reason or "").startswith(reason)
    assert len(edge.requests) - asked <= most_requests
    assert not any("range" in request.headers for request in edge.requests)
