"""`TelegramTarget` against a Bot API server that somebody else wrote: lo-bot-api-emulator (MIT).

Its multipart reader, its refusals and its answers are not ours, so they cannot share a mistake with the server of
prewarmkit.testing. It speaks the contract of another service that is modelled on Telegram's: photos, films, voice messages and
documents are uploaded; sound only by ``file_id``; animations, video notes and stickers never; URLs never.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from aiohttp import web

from prewarmkit.errors import BadHandle, ChatDead, RateLimited, TargetFailure, TooLarge, Transient
from prewarmkit.media import Handle, Media, MediaKind
from prewarmkit.targets import TelegramTarget
from prewarmkit.testing.botapi import FAKE_BOT
from prewarmkit.testing.contracts.target import MemorySource
from prewarmkit.testing.media import make_media

lo: Any = pytest.importorskip(
    "lo_bot_api_emulator", reason="lo-bot-api-emulator is not installed: it is in the group `tests`"
)

pytestmark = pytest.mark.anyio

CHAT = -1001
OBJECTS = {
    "p/photo.png": make_media("png", 200_000),
    "v/clip.mp4": make_media("mp4", 700_000),
    "a/note.ogg": make_media("ogg", 60_000),
    "a/song.mp3": make_media("mp3", 60_000),
    "g/loop.gif": make_media("gif", 60_000),
    "d/Résumé “final”; v2.pdf": make_media("pdf", 300_000),
}


class Foreign:
    """The emulator in a thread of its own, as it serves tests of any event loop."""

    def __init__(self, **options: Any) -> None:
        self.emulator: Any = lo.LoBotApiEmulator(**options)
        self._ready: Future[int] = Future()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._ready.result(10)}"

    async def _serve(self) -> None:
        runner = web.AppRunner(self.emulator.app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._ready.set_result(runner.addresses[0][1])
        await self._end.wait()
        await runner.cleanup()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def requests(self) -> list[tuple[str, list[str], int]]:
        """Method, names of file parts and status of each request."""
        return [(entry["method"], entry["files"], entry["status"]) for entry in self.emulator.requests]


@pytest.fixture
def foreign() -> Iterator[Callable[..., Foreign]]:
    started: list[Foreign] = []

    def start(**options: Any) -> Foreign:
        started.append(Foreign(**options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(foreign: Callable[..., Foreign]) -> Foreign:
    return foreign()


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(dict(OBJECTS))


def target_of(server: Foreign, *chats: int) -> TelegramTarget:
    return TelegramTarget(FAKE_BOT, warmup_chats=chats or (CHAT,), api_base=server.url, budget=None)


@pytest.fixture
async def target(server: Foreign) -> AsyncIterator[TelegramTarget]:
    async with target_of(server) as target:
        yield target


@pytest.fixture
def takes_the_detection_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telegram's own ``disable_content_type_detection``, which the emulated service does not know, is let through."""
    method = lo.CONTRACT["methods"]["sendDocument"]
    monkeypatch.setitem(method, "parameters", [*method["parameters"], "disable_content_type_detection"])


@pytest.mark.parametrize(
    ("key", "kind", "name"),
    [
        ("p/photo.png", MediaKind.PHOTO, "photo.png"),
        ("v/clip.mp4", MediaKind.VIDEO, "clip.mp4"),
        ("a/note.ogg", MediaKind.VOICE, "note.ogg"),
        ("d/Résumé “final”; v2.pdf", MediaKind.DOCUMENT, "Résumé “final”_ v2.pdf"),
    ],
)
@pytest.mark.usefixtures("takes_the_detection_switch")
async def test_a_medium_arrives_whole_and_is_delivered_by_its_handle(
    server: Foreign, target: TelegramTarget, source: MemorySource, key: str, kind: MediaKind, name: str
) -> None:
    """Byte for byte in one request, under the right part and name, as another reader of multipart has it."""
    media = Media(key, kind)
    warmed = await target.warm(media, source)
    assert (warmed.kind, warmed.weak) == (kind, ())
    asset = server.emulator.assets[warmed.handle]
    assert (asset["data"], asset["filename"]) == (OBJECTS[key], name)
    sent = await target.send(42, Handle(warmed.handle, kind, target.id, key))
    assert sent.message_id > warmed.details["message_id"]
    method = f"send{kind.value.capitalize()}"
    assert server.requests == [(method, [kind.value], 200), (method, [], 200)]


async def test_a_large_film_arrives_whole(server: Foreign, target: TelegramTarget) -> None:
    data = make_media("mp4", 12 * 1024 * 1024)
    warmed = await target.warm(
        Media("v/large.mp4"), MemorySource({"v/large.mp4": data}, chunk_bytes=64 * 1024)
    )
    assert server.emulator.assets[warmed.handle]["data"] == data


async def test_its_rate_limit_says_how_long(foreign: Callable[..., Foreign], source: MemorySource) -> None:
    server = foreign(video_retry_count=1)
    async with target_of(server) as target:
        with pytest.raises(RateLimited) as limited:
            await target.warm(Media("v/clip.mp4"), source)
    assert limited.value.retry_after == pytest.approx(10, abs=1)
    assert server.emulator.assets == {}


async def test_a_handle_that_it_never_gave_is_a_bad_one(target: TelegramTarget) -> None:
    with pytest.raises(BadHandle):
        await target.send(42, Handle("fixture-photo-99", MediaKind.PHOTO, target.id, "p/photo.png"))


async def test_a_chat_that_it_does_not_know_is_left_out(server: Foreign, source: MemorySource) -> None:
    """The number is one too small for its chats."""
    async with target_of(server, -(2**63) - 1, CHAT) as target:
        with pytest.raises(ChatDead, match="chat not found"):
            await target.warm(Media("p/photo.png"), source)
        await target.warm(Media("p/photo.png"), source)
    assert [status for _method, _files, status in server.requests] == [400, 200]


async def test_a_body_over_its_limit_is_too_large(
    foreign: Callable[..., Foreign], source: MemorySource
) -> None:
    """413 as JSON, which the hosted service answers as a page."""
    async with target_of(foreign(request_bytes=100_000)) as target:
        with pytest.raises(TooLarge):
            await target.warm(Media("v/clip.mp4"), source)


async def test_a_full_server_is_the_worlds_fault(
    foreign: Callable[..., Foreign], source: MemorySource
) -> None:
    """507: nothing was stored, and a later try may go through."""
    async with target_of(foreign(max_assets=1)) as target:
        await target.warm(Media("p/photo.png"), source)
        with pytest.raises(Transient):
            await target.warm(Media("v/clip.mp4"), source)


@pytest.mark.parametrize(
    ("key", "kind", "status"),
    [("a/song.mp3", "audio", 400), ("g/loop.gif", "animation", 501), ("v/clip.mp4", "document", 400)],
)
async def test_what_it_does_not_take_is_a_failure_that_says_so(
    server: Foreign, target: TelegramTarget, source: MemorySource, key: str, kind: str, status: int
) -> None:
    """No upload of sound, no animations, and no switch for the detection of content: no handle comes of any of them."""
    with pytest.raises(TargetFailure, match=str(status)):
        await target.warm(Media(key, kind), source)
    assert server.emulator.assets == {}
    assert [state for _method, _files, state in server.requests] == [status]
