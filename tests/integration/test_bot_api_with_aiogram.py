"""aiogram, an independent client, drives the Bot API server of prewarmkit.testing: so the server is known to speak Bot API."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
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
from aiogram.types import BufferedInputFile, Message

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import BotApiServer, Fault
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


async def test_another_bots_handle_is_refused(server: BotApiServer, bot: Bot) -> None:
    message = await bot.send_document(CHAT, BufferedInputFile(b"hello", "a.txt"))
    token = "987654321:AAGtheOtherBotsTokenWhichNobodyHas000"
    server.add_bot(token)
    async with Bot(token, session=AiohttpSession(api=TelegramAPIServer.from_base(server.url))) as other:
        with pytest.raises(TelegramBadRequest, match="wrong file identifier"):
            await _send(other, MediaKind.DOCUMENT, _handle(message, MediaKind.DOCUMENT))
