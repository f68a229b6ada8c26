"""`TelegramTarget` against a Bot API server over real HTTP, with the transport of its own."""

from __future__ import annotations

import hashlib
import random
import time
import traceback
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from prewarmkit.budget import MemoryBudget, Window
from prewarmkit.errors import (
    BadHandle,
    ChatDead,
    Moved,
    RateLimited,
    SourceChanged,
    TargetDown,
    TooLarge,
    Transient,
)
from prewarmkit.media import Handle, Media, MediaKind, Warmed
from prewarmkit.targets import RateLimits, Services, TelegramTarget
from prewarmkit.targets.telegram.handles import WeakReason
from prewarmkit.testing.botapi import BotApiServer, Fault
from prewarmkit.testing.contracts.target import MemorySource, MemoryState
from prewarmkit.transports import DirectTransport

pytestmark = pytest.mark.anyio

SECRET = "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
MIB = 1024 * 1024


def png(width: int = 400, height: int = 300, extra: int = 0) -> bytes:
    """A PNG of noise, and bytes after its end to make it as large as is liked."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return len(data).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    noise = random.Random(width)
    rows = b"".join(b"\x00" + noise.randbytes(width) for _ in range(height))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body + noise.randbytes(extra)


OBJECTS = {
    "p/photo.png": png(),
    "v/clip.mp4": b"\x00\x00\x00\x18ftypisom" + random.Random(1).randbytes(300_000),
    "g/loop.gif": b"GIF89a" + (64).to_bytes(2, "little") * 2 + random.Random(2).randbytes(50_000),
    "a/song.mp3": b"ID3" + random.Random(3).randbytes(90_000),
    "a/note.ogg": b"OggS" + random.Random(4).randbytes(30_000),
    "n/round": b"\x00\x00\x00\x18ftypisom" + random.Random(5).randbytes(30_000),
    "s/sticker.webp": b"RIFF\x00\x00\x00\x00WEBPVP8 " + random.Random(6).randbytes(9_000),
    "d/Résumé “final”; v2.pdf": b"%PDF-1.7" + random.Random(7).randbytes(70_000),
}
KINDS = {
    "p/photo.png": MediaKind.PHOTO,
    "v/clip.mp4": MediaKind.VIDEO,
    "g/loop.gif": MediaKind.ANIMATION,
    "a/song.mp3": MediaKind.AUDIO,
    "a/note.ogg": MediaKind.VOICE,
    "n/round": MediaKind.VIDEO_NOTE,
    "s/sticker.webp": MediaKind.STICKER,
    "d/Résumé “final”; v2.pdf": MediaKind.DOCUMENT,
}
PHOTO = Media("p/photo.png")
DOCUMENT = Media("v/clip.mp4", "document")


@pytest.fixture
def server() -> Iterator[BotApiServer]:
    with BotApiServer() as server:
        yield server


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(dict(OBJECTS))


def target_of(server: BotApiServer, *chats: int, **options: Any) -> TelegramTarget:
    given: dict[str, Any] = {"budget": None, **options}
    return TelegramTarget(server.token, warmup_chats=chats or (-1001,), api_base=server.url, **given)


@pytest.fixture
async def target(server: BotApiServer) -> AsyncIterator[TelegramTarget]:
    async with target_of(server) as target:
        yield target


def handle_of(target: TelegramTarget, media: Media, warmed: Warmed) -> Handle:
    return Handle(warmed.handle, warmed.kind or media.kind, target.id, media.key)


# ── every kind, there and back ───────────────────────────────────────────────


@pytest.mark.parametrize("key", list(OBJECTS))
async def test_each_kind_arrives_whole_and_is_delivered_by_its_handle(
    server: BotApiServer, target: TelegramTarget, source: MemorySource, key: str
) -> None:
    """The bytes have the source's SHA-256 at the far end, and the handle sends them again."""
    digest = hashlib.sha256(OBJECTS[key]).hexdigest()
    media = Media(key, KINDS[key], sha256=digest)
    warmed = await target.warm(media, source)
    [upload] = server.received
    assert warmed.details["source_sha256"] == digest
    assert (upload.sha256, upload.size, upload.kind) == (digest, len(OBJECTS[key]), KINDS[key])
    assert (upload.file_id, upload.chat_id) == (warmed.handle, -1001)
    assert upload.content_length is not None
    assert upload.transfer_encoding is None
    assert upload.fields["disable_notification"] == "true"
    assert (warmed.kind, warmed.weak) == (KINDS[key], ())
    assert warmed.unique_id == upload.file_unique_id
    assert warmed.details["message_id"] == upload.message_id

    sent = await target.send(42, handle_of(target, media, warmed))
    [delivery] = server.sends
    assert (delivery.file_id, delivery.chat_id, delivery.message_id) == (warmed.handle, 42, sent.message_id)
    assert delivery.method == upload.method


async def test_names_and_types_arrive_as_telegram_needs_them(
    server: BotApiServer, target: TelegramTarget, source: MemorySource
) -> None:
    """A name without extension gets one; a ";" would cut the name short in Telegram's parser."""
    await target.warm(Media("n/round", "video_note"), source)
    await target.warm(Media("d/Résumé “final”; v2.pdf"), source)
    await target.warm(Media("p/photo.png", filename='my "best"\r\nphoto.png'), source)
    assert [(upload.filename, upload.content_type) for upload in server.received] == [
        ("round.mp4", "video/mp4"),
        ("Résumé “final”_ v2.pdf", "application/pdf"),
        ("my _best___photo.png", "image/png"),
    ]


async def test_a_directory_warms_as_well(
    server: BotApiServer, target: TelegramTarget, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "photo.png").write_bytes(OBJECTS["p/photo.png"])
    from prewarmkit.sources import DirectorySource

    async with DirectorySource(tmp_path) as source:
        warmed = await target.warm(PHOTO, source)
    assert server.received[0].sha256 == hashlib.sha256(OBJECTS["p/photo.png"]).hexdigest()
    assert "source_sha256" not in warmed.details  # nothing expects one


async def test_a_large_file_arrives_whole_in_small_chunks(
    server: BotApiServer, target: TelegramTarget
) -> None:
    data = random.Random(8).randbytes(12 * MIB)
    source = MemorySource({"big.bin": data}, chunk_bytes=64 * 1024)
    warmed = await target.warm(Media("big.bin"), source)
    assert server.received[0].sha256 == hashlib.sha256(data).hexdigest()
    assert warmed.weak == ()


async def test_several_at_once_share_connections(
    server: BotApiServer, target: TelegramTarget, source: MemorySource
) -> None:
    async with anyio.create_task_group() as tasks:
        for key, kind in KINDS.items():
            tasks.start_soon(target.warm, Media(key, kind), source)
    digests = {hashlib.sha256(data).hexdigest() for data in OBJECTS.values()}
    assert {upload.sha256 for upload in server.received} == digests


async def test_a_transport_of_the_host_is_shared_and_stays_open(
    server: BotApiServer, source: MemorySource
) -> None:
    async with DirectTransport() as transport:
        for _ in range(2):
            async with target_of(server, transport=transport) as target:
                await target.warm(PHOTO, source)
        assert (transport.statistics().requests, transport.statistics().busy) == (2, 0)


# ── weak handles ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("media", "fault", "reason"),
    [
        (DOCUMENT, Fault(drop_unique_id=True), WeakReason.NO_UNIQUE_ID),
        (DOCUMENT, Fault(file_id_is_url=True), WeakReason.URL_HANDLE),
        (DOCUMENT, Fault(message_id_zero=True), WeakReason.SCHEDULED),
        (Media("v/clip.mp4"), Fault(substitute_kind=MediaKind.ANIMATION), WeakReason.KIND_CHANGED),
        (PHOTO, Fault(empty_photo_sizes=True), WeakReason.NO_PHOTO_SIZE),
    ],
)
async def test_a_weak_answer_is_weak_by_its_reason(
    server: BotApiServer,
    target: TelegramTarget,
    source: MemorySource,
    media: Media,
    fault: Fault,
    reason: WeakReason,
) -> None:
    """Requirements 4 to 6 of the research notes: kind truth, empty photo, weak detection."""
    server.fail(fault)
    assert (await target.warm(media, source)).weak == (reason,)
    assert (await target.warm(media, source)).weak == ()


async def test_the_largest_photo_is_picked_in_whatever_order_they_come(
    server: BotApiServer, target: TelegramTarget
) -> None:
    """Requirement 5."""
    source = MemorySource({"p/photo.png": png(1500, 900)})
    server.fail(Fault(shuffle_photo_sizes=True))
    warmed = await target.warm(PHOTO, source)
    variants = warmed.details["variants"]
    largest = max(variants, key=lambda size: size["width"] * size["height"])
    assert len(variants) > 2
    assert variants[-1] != largest
    assert (warmed.handle, warmed.details["width"]) == (largest["file_id"], 1500)


# ── refusals ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("where", ["body", "header", "text"])
async def test_a_rate_limit_is_obeyed_wherever_it_stands(
    server: BotApiServer, source: MemorySource, where: Any
) -> None:
    """Requirement 3: the chat is left alone for its time, then it goes on."""
    async with target_of(server) as target:
        server.fail(Fault(retry_after=1, retry_after_in=where))
        with pytest.raises(RateLimited) as caught:
            await target.warm(PHOTO, source)
        assert caught.value.retry_after == pytest.approx(1, abs=0.2)
        assert caught.value.scope == "target"
        before = anyio.current_time()
        await target.warm(PHOTO, source)
        assert anyio.current_time() - before > 0.8


@pytest.mark.parametrize("before_body", [False, True])
@pytest.mark.parametrize("html", [None, True])
async def test_413_is_too_large_as_json_and_as_a_page(
    server: BotApiServer, target: TelegramTarget, html: Any, before_body: bool
) -> None:
    """Requirement 7: a page of nginx is no decode error (go-telegram-bot-api#31, telegraf#222)."""
    source = MemorySource({"big.bin": bytes(3 * MIB)})
    server.fail(Fault(status=413, html=html, before_body=before_body))
    with pytest.raises(TooLarge) as caught:
        await target.warm(Media("big.bin"), source)
    assert caught.value.limit == 50 * MIB
    assert source.open_now == 0


@pytest.mark.parametrize(
    ("fault", "unknown"),
    [
        (Fault(status=500), True),
        (Fault(status=502, html=True), True),
        (Fault(status=504, html=True), True),
        (Fault(reset_before_answer=True), True),
        (Fault(reset_after_bytes=100_000), False),
        (Fault(status=400), False),
    ],
)
async def test_a_fault_of_the_world_is_transient_and_the_next_try_works(
    server: BotApiServer, target: TelegramTarget, fault: Fault, unknown: bool
) -> None:
    """Section 1.8: transient; after the whole body was sent the outcome is unknown."""
    source = MemorySource({"big.bin": bytes(8 * MIB)})
    server.fail(fault)
    with pytest.raises(Transient) as caught:
        await target.warm(Media("big.bin"), source)
    assert caught.value.outcome_unknown is unknown
    assert (await target.warm(Media("big.bin"), source)).weak == ()


async def test_a_revoked_token_is_target_down_and_not_repeated(
    server: BotApiServer, target: TelegramTarget, source: MemorySource
) -> None:
    """Requirement 10: 401 stops the target within one request."""
    server.revoke(server.token)
    with pytest.raises(TargetDown, match="token was refused") as caught:
        await target.warm(PHOTO, source)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_server_that_is_not_there_is_transient_without_the_token(source: MemorySource) -> None:
    with BotApiServer() as server:
        gone = target_of(server)
    async with gone:
        with pytest.raises(Transient) as caught:
            await gone.warm(PHOTO, source)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.outcome_unknown is False


async def test_a_kicked_bot_goes_on_in_the_other_chat(server: BotApiServer, source: MemorySource) -> None:
    """Requirement 10: a dead chat leaves the pool without failing jobs."""
    server.kick(-1001)
    async with target_of(server, -1001, -1002) as target:
        with pytest.raises(ChatDead):
            await target.warm(PHOTO, source)
        for _ in range(2):
            await target.warm(PHOTO, source)
        assert {upload.chat_id for upload in server.received} == {-1002}
        server.kick(-1002)
        with pytest.raises(TargetDown):
            await target.warm(PHOTO, source)


async def test_a_chat_that_is_not_found_is_dead() -> None:
    with BotApiServer(known_chats=[-1002]) as server:
        async with target_of(server, -1001, -1002) as target:
            with pytest.raises(ChatDead, match="-1001"):
                await target.warm(PHOTO, MemorySource(dict(OBJECTS)))


async def test_a_migrated_group_is_followed_also_after_a_restart(
    server: BotApiServer, source: MemorySource
) -> None:
    """Requirement 10: migrate updates the stored id and loses no job."""
    server.migrate(-5, -1005)
    state = MemoryState()
    async with target_of(server, -5) as target:
        target.bind(Services(MemoryBudget(), state, lambda _event: None))
        with pytest.raises(Moved) as caught:
            await target.warm(PHOTO, source)
        assert caught.value.new_id == -1005
        await target.warm(PHOTO, source)
    async with target_of(server, -5) as again:
        again.bind(Services(MemoryBudget(), state, lambda _event: None))
        await again.warm(PHOTO, source)
    assert [upload.chat_id for upload in server.received] == [-1005, -1005]


async def test_a_source_that_ends_early_leaves_no_upload_behind(
    server: BotApiServer, target: TelegramTarget, source: MemorySource
) -> None:
    """Requirement 8: aborted, never stored as warm; the next upload is not disturbed."""
    source.end_after = 200_000
    with pytest.raises(SourceChanged):
        await target.warm(DOCUMENT, source)
    source.end_after = None
    await target.warm(DOCUMENT, source)
    assert len(server.received) == 1


async def test_a_cancelled_upload_frees_its_connection(server: BotApiServer, source: MemorySource) -> None:
    async with DirectTransport() as transport, target_of(server, transport=transport) as target:
        source.hang_after = 100_000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(target.warm, DOCUMENT, source)
            await source.is_hanging.wait()
            tasks.cancel_scope.cancel()
        assert (transport.statistics().busy, source.open_now) == (0, 0)
        source.hang_after = None
        await target.warm(DOCUMENT, source)
    assert len(server.received) == 1


# ── delivery, budget ─────────────────────────────────────────────────────────


async def test_a_handle_that_is_none_of_this_bots_is_refused(
    server: BotApiServer, target: TelegramTarget
) -> None:
    """The server says "wrong file identifier"; the host gets its handle back to invalidate it."""
    handle = Handle("AgACAgQAAxkBnothing", MediaKind.PHOTO, target.id, "p/photo.png")
    with pytest.raises(BadHandle) as caught:
        await target.send(42, handle)
    assert caught.value.handle is handle


async def test_a_delivery_to_a_user_who_is_gone_says_so(
    server: BotApiServer, target: TelegramTarget, source: MemorySource
) -> None:
    warmed = await target.warm(PHOTO, source)
    server.kick(42)
    with pytest.raises(ChatDead):
        await target.send(42, handle_of(target, PHOTO, warmed))


class SpendingLog(MemoryBudget):
    """Notes when each name was spent from, by the budget's own clock."""

    def __init__(self) -> None:
        super().__init__(clock=self._tick)
        self.now = 0.0
        self.spent: dict[str, list[float]] = {}

    def _tick(self) -> float:
        self.now = time.monotonic()
        return self.now

    async def take_at(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> tuple[float, float]:
        wait, at = await super().take_at(limits, cost=cost)
        if not wait:
            for name in limits:
                self.spent.setdefault(name, []).append(self.now)
        return wait, at


async def test_the_caps_hold_over_many_chats(server: BotApiServer, source: MemorySource) -> None:
    """Requirement 1 in short: never more than the caps in any closed window, as it was spent in real time."""
    limits = RateLimits(
        group_per_minute=3, chat_per_second=2, bot_per_second=9, reserve_per_second=1, window_seconds=1
    )
    budget = SpendingLog()
    async with target_of(server, -1, -2, -3, -4, budget=limits) as target, anyio.create_task_group() as tasks:
        target.bind(Services(budget, MemoryState(), lambda _event: None))
        for _ in range(20):
            tasks.start_soon(target.warm, PHOTO, source)
    assert len(server.calls) == 20
    assert max(len(times) for times in budget.spent.values()) == 20  # the bot as a whole
    for times in budget.spent.values():
        cap = 8 if len(times) == 20 else 2
        assert all(late - soon > 1 for soon, late in zip(times, times[cap:], strict=False))
