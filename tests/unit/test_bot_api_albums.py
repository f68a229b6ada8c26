"""Albums, forwards and copies on the Bot API server of prewarmkit.testing.

Rules are cited by where research found them: "docs" is the Bot API's reference, "source" is tdlib/telegram-bot-api and tdlib/td.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from bot_api_client import CHAT, OTHER_BOT, Client, error_of

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import BotApiServer, Fault, FloodLimits, read_journal
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.media import make_media

pytestmark = pytest.mark.usefixtures("close_bot_clients")

PHOTOS = [make_media("png", 20_000 + 1000 * number) for number in range(4)]
SHARED = -1007


@pytest.fixture
def server() -> Iterator[BotApiServer]:
    with BotApiServer() as running:
        yield running


@pytest.fixture
def bot(server: BotApiServer) -> Client:
    return Client(server)


@pytest.fixture
def other(server: BotApiServer) -> Client:
    server.add_bot(OTHER_BOT)
    return Client(server, OTHER_BOT)


def _album(
    bot: Client, contents: Sequence[bytes], kind: str = "photo", name: str = "a.png", **fields: Any
) -> httpx.Response:
    media = [
        {"type": kind, "media": f"attach://part{number}", "caption": f"item {number}"}
        for number in range(len(contents))
    ]
    files = {f"part{number}": (name, content) for number, content in enumerate(contents)}
    return bot.call("sendMediaGroup", files, **{"chat_id": CHAT, "media": json.dumps(media), **fields})


# ── albums ───────────────────────────────────────────────────────────────────


def test_an_album_is_a_row_of_messages_of_one_group(server: BotApiServer, bot: Client) -> None:
    """Docs, sendMediaGroup: an array of the messages sent; each item is a message of its own (nazurin#6)."""
    answer = _album(bot, PHOTOS, disable_notification="true")
    messages = answer.json()["result"]
    assert [message["message_id"] for message in messages] == [1, 2, 3, 4]
    assert [message["caption"] for message in messages] == [f"item {number}" for number in range(4)]
    (group,) = {message["media_group_id"] for message in messages}
    assert [upload.media_group_id for upload in server.received] == [group] * 4
    assert [upload.sha256 for upload in server.received] == [
        hashlib.sha256(photo).hexdigest() for photo in PHOTOS
    ]
    assert server.received[0].fields == {"disable_notification": "true", "caption": "item 0"}
    again = bot.call("sendPhoto", chat_id=CHAT, photo=messages[2]["photo"][-1]["file_id"])
    assert again.json()["result"]["photo"] == messages[2]["photo"]
    other_group = _album(bot, PHOTOS[:2]).json()["result"][0]["media_group_id"]
    assert other_group != group


def test_an_album_may_be_answered_in_another_order(server: BotApiServer, bot: Client) -> None:
    """Source: results are appended as each message is completed, so the index of the answer proves nothing."""
    server.fail(Fault(shuffle_album=True))
    messages = _album(bot, PHOTOS).json()["result"]
    assert [message["caption"] for message in messages] == ["item 1", "item 3", "item 2", "item 0"]
    for message, upload in zip(messages, server.received, strict=True):
        number = int(message["caption"].removeprefix("item "))
        assert upload.sha256 == hashlib.sha256(PHOTOS[number]).hexdigest()
        assert message["photo"][-1]["file_id"] == upload.file_id


def test_one_failed_item_hides_the_handles_of_the_others(server: BotApiServer, bot: Client) -> None:
    """Source: the answer for an album is one answer; "failed to send message #N" counts completions, not inputs."""
    server.fail(
        Fault(fail_album_item=2),
        Fault(fail_album_item=4, shuffle_album=True, description="PHOTO_SAVE_FILE_INVALID"),
    )
    assert error_of(_album(bot, PHOTOS)) == (
        400,
        'Bad Request: failed to send message #2 with the error message "MEDIA_INVALID"',
    )
    assert [upload.fields["caption"] for upload in server.received] == ["item 0", "item 2", "item 3"]
    assert error_of(_album(bot, PHOTOS)) == (
        400,
        'Bad Request: failed to send message #2 with the error message "PHOTO_SAVE_FILE_INVALID"',
    )
    assert len(server.messages) == 6


def test_an_item_that_cannot_be_fetched_fails_the_album_too(server: BotApiServer, bot: Client) -> None:
    """Source: Telegram's name of the error stands in the text; URL albums fail where single sends work (#505)."""
    media = [
        {"type": "photo", "media": "attach://one"},
        {"type": "photo", "media": "http://127.0.0.1:1/a.png"},
    ]
    answer = bot.call("sendMediaGroup", {"one": ("a.png", PHOTOS[0])}, chat_id=CHAT, media=json.dumps(media))
    assert error_of(answer) == (
        400,
        'Bad Request: failed to send message #2 with the error message "WEBPAGE_CURL_FAILED"',
    )
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("kinds", "description"),
    [
        (["photo", "document"], "document can't be mixed with other media types"),
        (["audio", "video"], "audio can't be mixed with other media types"),
        (["animation", "photo"], "can't use the media of the specified type in the album"),
        (["voice", "voice"], "can't use the media of the specified type in the album"),
        (["video_note", "photo"], "can't use the media of the specified type in the album"),
        (["sticker", "sticker"], "can't use the media of the specified type in the album"),
        ([], "there are no messages to send"),
        (["photo"] * 11, "too many messages to send as an album"),
    ],
)
def test_an_album_that_mixes_what_may_not_be_mixed_is_refused_as_a_whole(
    server: BotApiServer, bot: Client, kinds: list[str], description: str
) -> None:
    """Docs, sendMediaGroup: 2-10 items; documents and audio only among themselves; others never (source, td, for texts)."""
    media = [{"type": kind, "media": "attach://one"} for kind in kinds]
    answer = bot.call("sendMediaGroup", {"one": ("a.png", PHOTOS[0])}, chat_id=CHAT, media=json.dumps(media))
    assert error_of(answer) == (400, f"Bad Request: {description}")
    assert server.messages == []


def test_photos_and_films_mix_and_a_silent_film_stays_one(server: BotApiServer, bot: Client) -> None:
    from prewarmkit.testing.media.films import mp4

    media = [{"type": "photo", "media": "attach://one"}, {"type": "video", "media": "attach://two"}]
    files = {"one": ("a.png", PHOTOS[0]), "two": ("a.mp4", mp4(40_000, 0, sound=False))}
    bot.call("sendMediaGroup", files, chat_id=CHAT, media=json.dumps(media))
    assert [upload.kind for upload in server.received] == ["photo", "video"]


@pytest.mark.parametrize(("kind", "name"), [("document", "pdf"), ("audio", "mp3"), ("video", "mp4")])
def test_an_album_of_other_kinds(server: BotApiServer, bot: Client, kind: str, name: str) -> None:
    contents = [make_media(name, 20_000 + number) for number in range(2)]
    messages = _album(bot, contents, kind, f"a.{name}").json()["result"]
    assert all(kind in message for message in messages)
    assert {upload.kind for upload in server.received} == {kind}


def test_what_cannot_be_read_refuses_the_album(bot: Client) -> None:
    for media, description in (
        ("{", "can't parse media JSON object"),
        ("{}", "there are no messages to send"),
        ('{"a": 1}', "expected an Array of InputMedia"),
        ('["photo", "photo"]', "can't parse InputMedia: expected an Object"),
        ('[{"type": "photo"}, {"type": "photo"}]', "can't parse InputMedia: media not found"),
    ):
        assert bot.refused("sendMediaGroup", chat_id=CHAT, media=media) == (
            400,
            f"Bad Request: {description}",
        )


def test_one_item_is_a_message_outside_of_any_album(bot: Client) -> None:
    """Source (td, send_message_group)."""
    (message,) = _album(bot, PHOTOS[:1]).json()["result"]
    assert "media_group_id" not in message


def test_each_item_counts_as_a_message_unless_the_server_is_told_otherwise() -> None:
    """Users report both (nazurin#6, Telegraph-Image#245); the cautious reading is the default."""
    clock = FakeClock()
    for album_is_one, statuses in ((False, [200, 200, 429]), (True, [200, 200, 200])):
        with BotApiServer(
            limits=FloodLimits(group_per_minute=8, album_is_one=album_is_one), clock=clock
        ) as server:
            bot = Client(server)
            got: list[int] = []
            for _ in range(3):
                got.append(_album(bot, PHOTOS[:3]).status_code)
                clock.advance(1.001)
            assert got == statuses


def test_a_whole_album_has_the_proxys_limit_for_its_body(server: BotApiServer, bot: Client) -> None:
    """The proxy counts the request's body (research 1.2): two files that fit alone do not fit together."""
    contents = [make_media("zip", 26 * 1024 * 1024 + number) for number in range(2)]
    answer = _album(bot, contents, "document", "a.zip")
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "text/html"
    assert server.messages == []


# ── forwards and copies ──────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "name"), [("sendPhoto", "png"), ("sendVideo", "mp4"), ("sendDocument", "pdf")]
)
def test_a_forward_gives_another_bot_its_own_handle_without_bytes(
    server: BotApiServer, bot: Client, other: Client, method: str, name: str
) -> None:
    """Docs: a file_id is one bot's; a forwarded message carries the forwarding bot's (research, finding 5: unproven live)."""
    sent = bot.sent(method, make_media(name, 40_000), f"a.{name}", chat_id=SHARED, caption="hello")
    forwarded = other.call(
        "forwardMessage",
        chat_id=5,
        from_chat_id=SHARED,
        message_id=sent["message_id"],
        disable_notification="true",
    ).json()["result"]
    kind = method.removeprefix("send").lower()
    mine, theirs = (message[kind][-1] if kind == "photo" else message[kind] for message in (sent, forwarded))
    assert mine["file_id"] != theirs["file_id"]
    assert mine["file_unique_id"] == theirs["file_unique_id"]
    assert forwarded["caption"] == "hello"
    assert forwarded["forward_origin"]["sender_user"]["id"] == server.bot_id
    (forward,) = server.sends
    assert (forward.route, forward.method, forward.chat_id, forward.file_id) == (
        "forward",
        "forwardMessage",
        5,
        theirs["file_id"],
    )
    assert len(server.received) == 1
    assert other.call(method, chat_id=CHAT, **{kind: theirs["file_id"]}).status_code == 200
    assert bot.refused(method, chat_id=CHAT, **{kind: theirs["file_id"]})[0] == 400
    assert other.refused(method, chat_id=CHAT, **{kind: mine["file_id"]})[0] == 400


def test_a_copy_says_a_number_and_no_handle(server: BotApiServer, bot: Client, other: Client) -> None:
    """Docs, copyMessage: "Returns the MessageId": nothing to learn a handle from."""
    sent = bot.sent("sendDocument", b"hello", "a.txt", chat_id=SHARED)
    copied = other.call("copyMessage", chat_id=5, from_chat_id=SHARED, message_id=sent["message_id"]).json()[
        "result"
    ]
    assert copied == {"message_id": 1}
    assert [(send.route, send.kind) for send in server.sends] == [("copy", MediaKind.DOCUMENT)]


def test_what_cannot_be_forwarded(server: BotApiServer, bot: Client, other: Client) -> None:
    """Docs, protect_content; a private chat is seen by its own bot alone."""
    protected = bot.sent("sendDocument", b"x", "a", chat_id=SHARED, protect_content="true")["message_id"]
    private = bot.sent("sendDocument", b"x", "a", chat_id=42)["message_id"]
    for chat, message, what in (
        (SHARED, 999, "message to {} not found"),
        (42, private, "message to {} not found"),
        (SHARED, protected, None),
    ):
        for method, verb, done in (
            ("forwardMessage", "forward", "forwarded"),
            ("copyMessage", "copy", "copied"),
        ):
            refused = other.refused(method, chat_id=5, from_chat_id=chat, message_id=message)
            expected = f"message can't be {done}" if what is None else what.format(verb)
            assert refused == (400, f"Bad Request: {expected}")
    server.kick(SHARED, "not_member", bot_id=987654321)
    assert other.refused("forwardMessage", chat_id=5, from_chat_id=SHARED, message_id=1)[0] == 403
    assert server.sends == []


def test_a_deleted_message_can_no_longer_be_forwarded(bot: Client, other: Client) -> None:
    """Research, section 1.3: deleting a warm message gives up forwarding."""
    sent = bot.sent("sendDocument", b"x", "a", chat_id=SHARED)["message_id"]
    bot.call("deleteMessage", chat_id=SHARED, message_id=sent)
    refused = other.refused("forwardMessage", chat_id=5, from_chat_id=SHARED, message_id=sent)
    assert refused == (400, "Bad Request: message to forward not found")


def test_a_forward_counts_as_a_message() -> None:
    clock = FakeClock()
    with BotApiServer(limits=FloodLimits(), clock=clock) as server:
        bot = Client(server)
        sent = bot.sent("sendDocument", b"x", "a", chat_id=SHARED)["message_id"]
        codes = [
            bot.call("forwardMessage", chat_id=5, from_chat_id=SHARED, message_id=sent).status_code
            for _ in range(2)
        ]
        assert codes == [200, 429]


def test_a_forwarded_handle_outlives_the_server_by_its_journal(tmp_path: Path) -> None:
    journal = tmp_path / "uploads.jsonl"
    with BotApiServer(journal=journal) as server:
        server.add_bot(OTHER_BOT)
        sent = Client(server).sent("sendDocument", b"hello", "a.txt", chat_id=SHARED)
        forwarded = Client(server, OTHER_BOT).call(
            "forwardMessage", chat_id=5, from_chat_id=SHARED, message_id=sent["message_id"]
        )
        handle = forwarded.json()["result"]["document"]["file_id"]
    assert [upload.route for upload in read_journal(journal)] == ["multipart", "forward"]
    with BotApiServer(journal=journal) as server:
        server.add_bot(OTHER_BOT)
        again = Client(server, OTHER_BOT).call("sendDocument", chat_id=5, document=handle)
        assert again.status_code == 200
