"""aiogram, an independent client, drives the Bot API server of prewarmkit.testing: so the server is known to speak Bot API."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramEntityTooLarge,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.types import BufferedInputFile, InputMediaPhoto, MediaUnion, Message, MessageOriginUser
from aiohttp import web

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import BotApiServer, Fault, FloodLimits
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.media import make_media

pytestmark = pytest.mark.anyio

CHAT = -1001234567890
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\xff\x01\x00\xff\x01\x00" + bytes(200)
CONTENT = {
    MediaKind.PHOTO: (make_media("png", 300_000), "a.png"),
    MediaKind.VIDEO: (make_media("mp4", 300_000), "a.mp4"),
    MediaKind.ANIMATION: (make_media("gif", 300_000), "a.gif"),
    MediaKind.AUDIO: (make_media("mp3", 300_000), "a.mp3"),
    MediaKind.VOICE: (make_media("ogg", 300_000), "a.ogg"),
    MediaKind.VIDEO_NOTE: (make_media("mp4", 300_000, 2), "b.mp4"),
    MediaKind.STICKER: (WEBP, "a.webp"),
    MediaKind.DOCUMENT: (make_media("pdf", 300_000), "a.pdf"),
}


@pytest.fixture
def anyio_backend() -> str:
    """Runs on asyncio only, as aiogram does."""
    return "asyncio"


@pytest.fixture
def server() -> Iterator[BotApiServer]:
    with BotApiServer() as running:
        yield running


@pytest.fixture
async def bot(server: BotApiServer) -> AsyncIterator[Bot]:
    session = AiohttpSession(api=TelegramAPIServer.from_base(server.url))
    async with Bot(server.token, session=session) as client:
        yield client


async def _send(bot: Bot, kind: MediaKind, medium: BufferedInputFile | str, chat: int = CHAT) -> Message:
    senders: dict[MediaKind, Any] = {
        MediaKind.PHOTO: bot.send_photo,
        MediaKind.VIDEO: bot.send_video,
        MediaKind.ANIMATION: bot.send_animation,
        MediaKind.AUDIO: bot.send_audio,
        MediaKind.VOICE: bot.send_voice,
        MediaKind.VIDEO_NOTE: bot.send_video_note,
        MediaKind.STICKER: bot.send_sticker,
        MediaKind.DOCUMENT: bot.send_document,
    }
    message: Message = await senders[kind](chat, medium)
    return message


def _handle(message: Message, kind: MediaKind) -> str:
    medium: Any = getattr(message, kind.value)
    return str((medium[-1] if kind is MediaKind.PHOTO else medium).file_id)


async def _fails(bot: Bot, chat: int = CHAT) -> None:
    await _send(bot, MediaKind.DOCUMENT, BufferedInputFile(b"hello", "a.txt"), chat)


async def test_it_knows_itself(server: BotApiServer, bot: Bot) -> None:
    me = await bot.get_me()
    assert me.id == server.bot_id == bot.id
    assert me.is_bot


@pytest.mark.parametrize("kind", list(MediaKind))
async def test_each_kind_is_uploaded_and_sent_again_by_its_handle(
    server: BotApiServer, bot: Bot, kind: MediaKind
) -> None:
    content, filename = CONTENT[kind]
    message = await _send(bot, kind, BufferedInputFile(content, filename))
    assert message.content_type == kind.value
    (upload,) = server.received
    assert upload.sha256 == hashlib.sha256(content).hexdigest()
    assert upload.kind is kind
    assert upload.file_id == _handle(message, kind)
    again = await _send(bot, kind, _handle(message, kind), 77)
    assert _handle(again, kind) == _handle(message, kind)
    assert again.chat.type == "private"
    assert len(server.received) == 1


async def test_a_gif_sent_as_a_document_comes_back_as_animation_and_document(bot: Bot) -> None:
    """What a target must not take for a document: `animation` is read first (pyTelegramBotAPI#1005)."""
    message = await bot.send_document(CHAT, BufferedInputFile(*CONTENT[MediaKind.ANIMATION]))
    assert message.animation is not None
    assert message.document is not None
    assert message.animation.file_id == message.document.file_id
    assert message.animation.mime_type in {"video/mp4", "application/octet-stream"}


async def test_a_file_is_looked_up_and_its_message_deleted(bot: Bot) -> None:
    message = await bot.send_document(CHAT, BufferedInputFile(b"hello", "a.txt"))
    assert message.document is not None
    assert (await bot.get_file(message.document.file_id)).file_size == 5
    assert await bot.delete_message(CHAT, message.message_id)
    with pytest.raises(TelegramBadRequest, match="message to delete not found"):
        await bot.delete_message(CHAT, message.message_id)


async def test_a_rate_limit_says_how_long(server: BotApiServer, bot: Bot) -> None:
    server.fail(Fault(retry_after=17))
    with pytest.raises(TelegramRetryAfter) as limited:
        await _fails(bot)
    assert limited.value.retry_after == 17


async def test_a_migrated_chat_says_where_to(server: BotApiServer, bot: Bot) -> None:
    server.migrate(-5, -1005)
    with pytest.raises(TelegramMigrateToChat) as moved:
        await _fails(bot, -5)
    assert moved.value.migrate_to_chat_id == -1005


async def test_a_revoked_token_is_unauthorized(server: BotApiServer, bot: Bot) -> None:
    server.revoke()
    with pytest.raises(TelegramUnauthorizedError):
        await _fails(bot)


async def test_a_kicked_bot_is_forbidden(server: BotApiServer, bot: Bot) -> None:
    server.kick(CHAT)
    with pytest.raises(TelegramForbiddenError, match="bot was kicked"):
        await _fails(bot)


async def test_a_json_413_is_an_entity_too_large(server: BotApiServer, bot: Bot) -> None:
    server.fail(Fault(status=413))
    with pytest.raises(TelegramEntityTooLarge):
        await _fails(bot)


async def test_the_proxys_413_is_no_json_even_to_aiogram(server: BotApiServer, bot: Bot) -> None:
    """The reason why a target must look at the status before the body."""
    with pytest.raises(ClientDecodeError, match="413 Request Entity Too Large"):
        await bot.send_document(CHAT, BufferedInputFile(bytes(51 * 1024 * 1024), "a.bin"))
    assert server.received == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=500), TelegramServerError),
        (Fault(status=404), TelegramNotFound),
        (Fault(status=400), TelegramBadRequest),
        (Fault(reset_after_bytes=0), TelegramNetworkError),
    ],
)
async def test_other_faults_are_what_aiogram_calls_them(
    server: BotApiServer, bot: Bot, fault: Fault, error: type[Exception]
) -> None:
    server.fail(fault)
    with pytest.raises(error):
        await _fails(bot)


async def _other(server: BotApiServer) -> AsyncIterator[Bot]:
    token = "987654321:AAGtheOtherBotsTokenWhichNobodyHas000"
    server.add_bot(token)
    async with Bot(token, session=AiohttpSession(api=TelegramAPIServer.from_base(server.url))) as client:
        yield client


other = pytest.fixture(_other)


async def test_another_bots_handle_is_refused(bot: Bot, other: Bot) -> None:
    message = await bot.send_document(CHAT, BufferedInputFile(b"hello", "a.txt"))
    with pytest.raises(TelegramBadRequest, match="wrong file identifier"):
        await _send(other, MediaKind.DOCUMENT, _handle(message, MediaKind.DOCUMENT))


# ── limits ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("told_in", ["body", "header", "text"])
async def test_a_limit_reaches_aiogram_where_it_looks_for_it(
    told_in: Literal["body", "header", "text"],
) -> None:
    """Of the three forms, the body's ``parameters`` are what aiogram reads; a target has to read all of them."""
    clock = FakeClock()
    with BotApiServer(limits=FloodLimits(told_in=told_in), clock=clock) as server:
        session = AiohttpSession(api=TelegramAPIServer.from_base(server.url))
        async with Bot(server.token, session=session) as bot:
            for _ in range(20):
                await _fails(bot)
                clock.advance(1.001)
            expected = TelegramRetryAfter if told_in == "body" else TelegramAPIError
            with pytest.raises(expected, match=r"Too Many Requests") as limited:
                await _fails(bot)
            if isinstance(limited.value, TelegramRetryAfter):
                clock.advance(limited.value.retry_after)
            else:
                clock.advance(60)
            await _fails(bot)
    assert server.most_sent(60) == 20


# ── by URL and by path ───────────────────────────────────────────────────────


@pytest.fixture
async def page() -> AsyncIterator[str]:
    """The address of a photo."""

    async def photo(_request: web.Request) -> web.Response:
        return web.Response(body=CONTENT[MediaKind.PHOTO][0], content_type="image/png")

    app = web.Application()
    app.router.add_get("/a.png", photo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/a.png"
    await runner.cleanup()


async def test_a_photo_is_sent_by_its_address(server: BotApiServer, bot: Bot, page: str) -> None:
    message = await bot.send_photo(CHAT, page)
    (upload,) = server.received
    assert upload.sha256 == hashlib.sha256(CONTENT[MediaKind.PHOTO][0]).hexdigest()
    assert (upload.route, upload.file_id) == ("url", _handle(message, MediaKind.PHOTO))


async def test_an_address_that_fails_and_one_that_does_not_fit_are_told_apart(bot: Bot, page: str) -> None:
    with pytest.raises(TelegramBadRequest, match="failed to get HTTP URL content"):
        await bot.send_photo(CHAT, page.replace("a.png", "b.png"))
    with pytest.raises(TelegramBadRequest, match="wrong type of the web page content"):
        await bot.send_document(CHAT, page)


async def test_a_local_server_takes_a_path(tmp_path: Path) -> None:
    content, name = CONTENT[MediaKind.VIDEO]
    (tmp_path / name).write_bytes(content)
    with BotApiServer(local=True) as server:
        session = AiohttpSession(api=TelegramAPIServer.from_base(server.url, is_local=True))
        async with Bot(server.token, session=session) as bot:
            message = await bot.send_video(CHAT, (tmp_path / name).as_uri())
        assert message.video is not None
        assert server.received[0].sha256 == hashlib.sha256(content).hexdigest()


# ── answers that are not what was asked ──────────────────────────────────────


async def test_a_video_may_come_back_as_another_kind(server: BotApiServer, bot: Bot) -> None:
    server.fail(Fault(substitute_kind="document"), Fault(substitute_kind="animation"))
    first, second = [
        await _send(bot, MediaKind.VIDEO, BufferedInputFile(*CONTENT[MediaKind.VIDEO])) for _ in "ab"
    ]
    assert (first.video, first.animation, first.content_type) == (None, None, "document")
    assert (second.video, second.content_type) == (None, "animation")
    assert second.document is not None


async def test_weak_answers_are_still_answers(server: BotApiServer, bot: Bot) -> None:
    server.fail(
        Fault(message_id_zero=True),
        Fault(drop_unique_id=True),
        Fault(shuffle_photo_sizes=True),
        Fault(empty_photo_sizes=True),
    )
    zero, nameless, unordered, empty = [
        await _send(bot, MediaKind.PHOTO, BufferedInputFile(*CONTENT[MediaKind.PHOTO])) for _ in range(4)
    ]
    assert zero.message_id == 0
    assert nameless.photo is not None
    assert {size.file_unique_id for size in nameless.photo} == {""}
    assert unordered.photo is not None
    assert unordered.photo[-1].width < max(size.width for size in unordered.photo)
    assert empty.photo == []


# ── albums, forwards, copies ─────────────────────────────────────────────────


def _photos() -> list[MediaUnion]:
    return [
        InputMediaPhoto(media=BufferedInputFile(make_media("png", 40_000 + n), f"{n}.png"), caption=str(n))
        for n in range(3)
    ]


async def test_an_album_is_sent_and_may_come_back_in_another_order(server: BotApiServer, bot: Bot) -> None:
    messages = await bot.send_media_group(CHAT, _photos())
    assert [message.caption for message in messages] == ["0", "1", "2"]
    assert len({message.media_group_id for message in messages}) == 1
    server.fail(Fault(shuffle_album=True))
    messages = await bot.send_media_group(CHAT, _photos())
    assert [message.caption for message in messages] == ["1", "2", "0"]
    for message in messages:
        upload = server.received[3 + messages.index(message)]
        assert upload.file_id == _handle(message, MediaKind.PHOTO)
        assert upload.fields["caption"] == message.caption


async def test_an_album_fails_as_a_whole(server: BotApiServer, bot: Bot) -> None:
    server.fail(Fault(fail_album_item=3))
    with pytest.raises(TelegramBadRequest, match="failed to send message #3"):
        await bot.send_media_group(CHAT, _photos())
    assert len(server.received) == 2, "and those are in the chat"


async def test_a_second_bot_gets_a_handle_of_its_own_by_forwarding(
    server: BotApiServer, bot: Bot, other: Bot
) -> None:
    """Research, finding 5: the parts are documented, the whole is not proven against the live service."""
    message = await _send(bot, MediaKind.VIDEO, BufferedInputFile(*CONTENT[MediaKind.VIDEO]))
    forwarded = await other.forward_message(42, CHAT, message.message_id)
    assert isinstance(forwarded.forward_origin, MessageOriginUser)
    assert forwarded.forward_origin.sender_user.id == bot.id
    handle = _handle(forwarded, MediaKind.VIDEO)
    assert handle != _handle(message, MediaKind.VIDEO)
    await _send(other, MediaKind.VIDEO, handle)
    copied = await other.copy_message(42, CHAT, message.message_id)
    assert isinstance(copied.message_id, int)
    assert len(server.received) == 1, "no byte was sent again"
    assert [send.route for send in server.sends] == ["forward", "file_id", "copy"]
