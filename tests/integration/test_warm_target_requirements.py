"""What warm targets must do, requirement by requirement: kinds, handles, routes and albums (4, 5, 6, 7 and 9).

Pool, target and store before a Bot API server over real HTTP; an edge server is the web site that it fetches from.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from prewarmkit import Handle, Media, MediaKind, PoolSettings, PrewarmPool, WarmFailed
from prewarmkit.stores import MemoryStore, SqliteStore, State
from prewarmkit.targets import RateLimits, TelegramTarget
from prewarmkit.testing import edge as edges
from prewarmkit.testing.botapi import BotApiServer, Fault, FloodLimits
from prewarmkit.testing.contracts.target import MemorySource
from prewarmkit.testing.edge import EdgeServer
from prewarmkit.testing.media import make_media

pytestmark = pytest.mark.anyio

GROUP = -1001
MIB = 1024 * 1024
QUICK: dict[str, Any] = {"poll_interval_seconds": 0.05, "down_seconds": 0.2, "retry_base_seconds": 0.05}


@pytest.fixture
def server() -> Iterator[BotApiServer]:
    with BotApiServer() as server:
        yield server


@pytest.fixture
def edge() -> Iterator[EdgeServer]:
    with EdgeServer() as server:
        yield server


@asynccontextmanager
async def warming(
    server: BotApiServer,
    source: Any,
    *,
    settings: dict[str, Any] | None = None,
    store: Any = None,
    **options: Any,
) -> AsyncGenerator[tuple[PrewarmPool, TelegramTarget]]:
    """A pool of one bot of that server."""
    given: dict[str, Any] = {"warmup_chats": [GROUP], "budget": None, "api_base": server.url, **options}
    target = TelegramTarget(server.token, **given)
    with anyio.fail_after(30):
        async with (
            target,
            PrewarmPool(source, target, store, settings=PoolSettings(**QUICK, **(settings or {}))) as pool,
        ):
            yield pool, target


def routes(server: BotApiServer) -> list[str]:
    return [message.route for message in server.messages]


# ── 4: the kind that came is the kind there is ───────────────────────────────


async def test_requirement_04_kind_truth(server: BotApiServer) -> None:
    """Asked for a video, given an animation: weak and never ready; where that is accepted, an animation, sent as one."""
    source = MemorySource({"a.mp4": make_media("mp4", 60_000)})
    server.fail(Fault(method="sendVideo", substitute_kind=MediaKind.ANIMATION, times=99))
    store = MemoryStore()
    async with warming(server, source, store=store) as (pool, _target):
        with pytest.raises(WarmFailed, match="weak:kind_changed"):
            await pool.warm("a.mp4", timeout=20)
        assert await pool.lookup("a.mp4") is None
        [row] = await store.list()
        assert (row.id.kind, row.state, row.reason) == (MediaKind.VIDEO, State.FAILED, "weak:kind_changed")
    async with warming(server, source, settings={"weak": "store"}) as (pool, target):
        handle = await pool.warm("a.mp4", timeout=20)
        assert (handle.kind, handle.weak) == (MediaKind.ANIMATION, ("kind_changed",))
        await target.send(42, handle)
    assert server.calls[-1].method == "sendAnimation"
    assert server.sends[-1].sha256 == server.received[-1].sha256


async def test_requirement_04_kind_truth_of_an_animation(server: BotApiServer) -> None:
    """Its answer has a copy under `document` too, and that is not the handle."""
    async with warming(server, MemorySource({"a.gif": make_media("gif", 60_000)})) as (pool, target):
        handle = await pool.warm("a.gif", timeout=20)
        await target.send(42, handle)
    assert (handle.kind, handle.weak) == (MediaKind.ANIMATION, ())
    assert [call.method for call in server.calls] == ["sendAnimation", "sendAnimation"]


# ── 5: the largest photo ─────────────────────────────────────────────────────


async def test_requirement_05_photo_choice(server: BotApiServer) -> None:
    """Whatever the order, the one with the most pixels; all are kept, and the handle delivers."""
    server.fail(Fault(shuffle_photo_sizes=True))
    async with warming(server, MemorySource({"a.png": make_media("png", 3 * MIB)})) as (pool, target):
        handle = await pool.warm("a.png", timeout=20)
        await target.send(42, handle)
    sizes = handle.details["variants"]
    pixels = [size["width"] * size["height"] for size in sizes]
    assert len(sizes) > 2
    assert pixels != sorted(pixels)
    assert handle.value == sizes[pixels.index(max(pixels))]["file_id"]
    assert server.sends[0].sha256 == server.received[0].sha256


async def test_requirement_05_photo_choice_where_there_is_none(server: BotApiServer) -> None:
    """`photo: []` is weak, and no crash: tried once more, and failed if it stays so."""
    store = MemoryStore()
    async with warming(server, MemorySource({"a.png": make_media("png", 20_000)}), store=store) as (pool, _):
        server.fail(Fault(empty_photo_sizes=True, times=2))
        with pytest.raises(WarmFailed, match="weak:no_photo_size"):
            await pool.warm("a.png", timeout=20)
        assert await pool.requeue_failed(reason="weak:no_photo_size") == 1
        await pool.join()
        assert (await pool.require("a.png")).weak == ()


# ── 6: weak handles ──────────────────────────────────────────────────────────

WEAKNESSES = [
    pytest.param({"drop_unique_id": True}, "no_unique_id", id="unique id"),
    pytest.param({"file_id_is_url": True}, "url_handle", id="address"),
    pytest.param({"message_id_zero": True}, "scheduled", id="message 0"),
]


@pytest.mark.parametrize(
    "how", [{"drop_unique_id": True}, {"file_id_is_url": True}, {"message_id_zero": True}]
)
async def test_requirement_06_weak_detection(
    server: BotApiServer, edge: EdgeServer, how: dict[str, Any]
) -> None:
    """What comes weak by an address comes again by its bytes, and then it is ready."""
    edge.put("a.pdf", make_media("pdf", 30_000), content_type="application/pdf")
    server.fail(Fault(**how))
    async with warming(server, edge.source(), public_url=edge.url) as (pool, _):
        handle = await pool.warm("a.pdf", timeout=20)
        assert pool.stats().weak == 1
    assert routes(server) == ["url", "multipart"]
    assert (handle.value, handle.weak) == (server.received[1].file_id, ())


@pytest.mark.parametrize(("how", "reason"), WEAKNESSES)
async def test_requirement_06_weak_detection_of_what_stays_weak(
    server: BotApiServer, edge: EdgeServer, tmp_path: Path, how: dict[str, Any], reason: str
) -> None:
    """Tried n times more and never ready; why is in the row, for another process as well."""
    edge.put("a.pdf", make_media("pdf", 30_000), content_type="application/pdf")
    server.fail(Fault(**how, times=99))
    async with SqliteStore(tmp_path / "p.db") as store:
        settings = {"retry_weak_id": 2}
        async with warming(server, edge.source(), public_url=edge.url, store=store, settings=settings) as (
            pool,
            _,
        ):
            with pytest.raises(WarmFailed, match=f"weak:{reason}"):
                await pool.warm("a.pdf", timeout=20)
            assert await pool.lookup("a.pdf") is None
    assert routes(server) == ["url", "multipart", "multipart"]
    async with SqliteStore(tmp_path / "p.db") as store:
        [row] = await store.list()
        assert (row.state, row.reason, row.handle) == (State.FAILED, f"weak:{reason}", None)


# ── 7: the ladder of routes ──────────────────────────────────────────────────

LADDER = {
    ("a.png", "photo", 20_000): "url",
    ("large.png", "photo", 5 * MIB + 2): "multipart",
    ("a.mp4", "video", 60_000): "url",
    ("a.gif", "animation", 20_000): "url",
    ("a.mp3", "audio", 20_000): "url",
    ("a.wav", "audio", 20_000): "multipart",
    ("a.ogg", "voice", 20_000): "url",
    ("long.ogg", "voice", MIB + 2): "multipart",
    ("round.mp4", "video_note", 60_000): "multipart",
    ("a.pdf", "document", 20_000): "url",
    ("a.zip", "document", 20_000): "url",
    ("large.pdf", "document", 20 * MIB + 2): "multipart",
    ("a.txt", "document", 20_000): "multipart",
}


async def test_requirement_07_route_ladder(server: BotApiServer, edge: EdgeServer) -> None:
    """By kind, size and type: an address where Telegram fetches such a thing, else bytes; one call each."""
    for key, _kind, size in LADDER:
        edge.put(key, make_media(key.rpartition(".")[2], size))
    async with warming(server, edge.source(), public_url=edge.url) as (pool, _):
        await pool.enqueue_many([Media(key, kind) for key, kind, _size in LADDER])
        await pool.join()
        taken = {
            (key, kind, size): (await pool.require(key, kind=kind)).details["route"]
            for key, kind, size in LADDER
        }
    assert taken == LADDER
    assert {call.status for call in server.calls} == {200}
    assert len(server.calls) == len(LADDER)
    by_address = [message for message in server.received if message.route == "url"]
    assert all((message.content_length or 0) < 500 for message in by_address)  # no bytes of ours
    assert len(server.fetches) == len(by_address) == list(LADDER.values()).count("url")


async def test_requirement_07_route_ladder_after_a_failed_fetch(
    server: BotApiServer, edge: EdgeServer
) -> None:
    """One call by address and one upload; that address is not sent again, and another version gets past what failed."""
    edge.put("a.pdf", make_media("pdf", 30_000), etag="v1")
    edge.fail(edges.Fault(status=404))
    async with warming(server, edge.source(), public_url=edge.url) as (pool, _):
        first = await pool.warm(Media("a.pdf", etag="v1"), timeout=20)
        assert [call.status for call in server.calls] == [400, 200]
        assert await pool.invalidate(first)
        await pool.join()
        assert routes(server) == ["multipart", "multipart"]
        assert [fetch.url for fetch in server.fetches] == [f"{edge.url}/a.pdf?v=v1"]
        edge.put("a.pdf", make_media("pdf", 31_000), etag="v2")
        await pool.enqueue(Media("a.pdf", etag="v2"))
        await pool.join()
    assert routes(server)[2:] == ["url"]
    assert [(fetch.url, fetch.good) for fetch in server.fetches[1:]] == [(f"{edge.url}/a.pdf?v=v2", True)]
    assert server.received[-1].size == 31_000


@pytest.mark.parametrize("before_body", [False, True])
async def test_requirement_07_route_ladder_ends_at_413(server: BotApiServer, before_body: bool) -> None:
    """The page of the proxy before Telegram is no JSON: too large, at once and for good."""
    server.fail(Fault(status=413, html=True, before_body=before_body))
    store = MemoryStore()
    async with warming(server, MemorySource({"a.pdf": bytes(2 * MIB)}), store=store) as (pool, _):
        with pytest.raises(WarmFailed, match="too_large"):
            await pool.warm("a.pdf", timeout=20)
        [row] = await store.list(State.FAILED)
        assert (row.reason or "").startswith("too_large: ")
    assert len(server.calls) == 1


# ── 9: albums ────────────────────────────────────────────────────────────────


async def warm_together(
    server: BotApiServer, objects: dict[str, bytes], kinds: dict[str, str] | None = None, **options: Any
) -> dict[str, Handle]:
    """Warm all of them at once, with albums on; each ends ready at its first attempt."""
    media = [Media(key, (kinds or {}).get(key)) for key in objects]
    settings = {"concurrency": 16, "max_attempts": 1}
    async with warming(server, MemorySource(objects), settings=settings, albums=True, **options) as (pool, _):
        await pool.enqueue_many(media)
        await pool.join()
        assert (pool.stats().succeeded, pool.stats().failed) == (len(media), 0)
        return {each.key: await pool.require(each) for each in media}


def assert_each_has_its_own(
    server: BotApiServer, handles: dict[str, Handle], objects: dict[str, bytes]
) -> None:
    """A handle stands for the bytes of its own medium, and of no other."""
    arrived = {(message.chat_id, message.message_id): message for message in server.messages}
    for key, handle in handles.items():
        message = arrived[handle.details["chat_id"], handle.details["message_id"]]
        assert message.sha256 == hashlib.sha256(objects[key]).hexdigest()


def documents(count: int) -> dict[str, bytes]:
    return {f"{n:02}.pdf": make_media("pdf", 20_000 + n) for n in range(count)}


def groups(server: BotApiServer) -> dict[str, list[Any]]:
    """The messages of each album; those of none under the empty name."""
    found: dict[str, list[Any]] = {}
    for message in server.messages:
        found.setdefault(message.media_group_id, []).append(message)
    return found


async def test_requirement_09_album_safety(server: BotApiServer) -> None:
    """Two to ten of what may mix; what may not goes alone; a shuffled answer gives each medium its own handle."""
    server.fail(Fault(shuffle_album=True, method="sendMediaGroup", times=99))
    sorts = {"png": 4, "mp4": 2, "pdf": 12, "mp3": 2, "gif": 2, "ogg": 2}
    objects = {
        f"{n:02}.{sort}": make_media(sort, 60_000 + 100 * n, n)
        for sort, count in sorts.items()
        for n in range(count)
    }
    handles = await warm_together(server, objects, {f"{n:02}.ogg": "voice" for n in range(2)})
    assert_each_has_its_own(server, handles, objects)
    alone = groups(server).pop("", [])
    albums = [items for name, items in groups(server).items() if name]
    assert albums
    assert all(2 <= len(items) <= 10 for items in albums)
    for items in albums:
        kinds = {item.kind.value for item in items}
        assert kinds <= {"photo", "video"} or kinds in ({"document"}, {"audio"})
    assert {"animation", "voice"} <= {item.kind.value for item in alone}
    assert len(server.messages) == len(objects)


async def test_requirement_09_album_safety_without_the_switch(server: BotApiServer) -> None:
    async with warming(server, MemorySource(documents(4))) as (pool, _):
        await pool.enqueue_many(list(documents(4)))
        await pool.join()
    assert {call.method for call in server.calls} == {"sendDocument"}


@pytest.mark.parametrize(
    "fault",
    [{"fail_album_item": 2}, {"retry_after": 1}, {"status": 413, "html": True}],
    ids=["item", "429", "413"],
)
async def test_requirement_09_album_safety_when_one_fails(
    server: BotApiServer, fault: dict[str, Any]
) -> None:
    """The answer is an error for all of it: each item ends warm on its own, at the same attempt."""
    server.fail(Fault(method="sendMediaGroup", **fault))
    objects = documents(5)
    handles = await warm_together(server, objects)
    assert_each_has_its_own(server, handles, objects)
    [failed] = [call for call in server.calls if call.status != 200]
    assert failed.method == "sendMediaGroup"
    singles = [call for call in server.calls if call.method == "sendDocument"]
    assert singles
    assert min(call.at for call in singles) >= failed.at + fault.get("retry_after", 0)


async def test_requirement_09_album_safety_in_bytes(server: BotApiServer) -> None:
    """Three of 20 MB are no album: 50 MB in all, or the proxy would refuse it."""
    objects = {f"{n}.pdf": make_media("pdf", 20 * MIB + n) for n in range(3)}
    handles = await warm_together(server, objects)
    assert_each_has_its_own(server, handles, objects)
    assert {call.status for call in server.calls} == {200}
    assert all(sum(item.size for item in items) <= 50 * MIB for name, items in groups(server).items() if name)


async def test_requirement_09_album_safety_in_the_budget() -> None:
    """Each item is a message: the windows hold for albums as for single media."""
    caps: dict[str, Any] = {"group_per_minute": 6, "chat_per_second": 6, "window_seconds": 1}
    with BotApiServer(limits=FloodLimits(**caps, patience_seconds=0.5)) as server:
        await warm_together(server, documents(18), budget=RateLimits(**caps))
        assert {call.status for call in server.calls} == {200}
        assert any(groups(server))
        assert server.most_sent(1, chat_id=GROUP) <= 6
