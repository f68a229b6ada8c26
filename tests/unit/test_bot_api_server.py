"""The Bot API server of prewarmkit.testing, asked over plain HTTP.

Rules of the live service are cited by where research found them: the Bot API's documentation ("docs"), the source of
tdlib/telegram-bot-api and tdlib/td ("source"), or reports in issue threads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bot_api_client import CHAT, OTHER_BOT, Client, error_of

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import FAKE_BOT, BotApiServer, Fault, Gone, read_journal
from prewarmkit.testing.media import make_media

pytestmark = pytest.mark.usefixtures("close_bot_clients")


@pytest.fixture
def server() -> Iterator[BotApiServer]:
    with BotApiServer() as running:
        yield running


@pytest.fixture
def bot(server: BotApiServer) -> Client:
    return Client(server)


# ── the least that a Bot API server is ───────────────────────────────────────


def test_get_me_answers_by_get_and_by_post_in_any_case(server: BotApiServer, bot: Client) -> None:
    """Docs, "Making requests": GET and POST; method names are case-insensitive."""
    for answer in (bot.http.get("getMe"), bot.http.post("GETME"), bot.http.post("getme", json={})):
        assert answer.json()["result"]["id"] == server.bot_id
        assert answer.json()["result"]["is_bot"] is True


def test_what_is_no_bot_and_no_method_is_not_found(server: BotApiServer, bot: Client) -> None:
    assert error_of(bot.http.post("sendMoney")) == (404, "Not Found")
    assert error_of(httpx.get(f"{server.url}/index.html")) == (404, "Not Found")


def test_an_unknown_token_is_unauthorized(server: BotApiServer) -> None:
    assert error_of(Client(server, OTHER_BOT).call("getMe")) == (401, "Unauthorized")


def test_a_revoked_token_is_unauthorized_until_it_is_added_again(server: BotApiServer, bot: Client) -> None:
    server.revoke()
    assert error_of(bot.send("sendDocument", b"x", "a.txt")) == (401, "Unauthorized")
    assert server.received == []
    server.add_bot(server.token)
    assert bot.call("getMe").status_code == 200


def test_parameters_come_in_query_form_and_json_alike(server: BotApiServer, bot: Client) -> None:
    """Docs: URL query string, urlencoded, JSON (except for files), multipart."""
    file_id = bot.sent("sendDocument", b"hello", "a.txt")["document"]["file_id"]
    fields = {"chat_id": CHAT, "document": file_id, "disable_notification": True}
    bot.http.get("sendDocument", params=fields)
    bot.http.post("sendDocument", data=fields)
    bot.http.post("sendDocument", json=fields)
    assert [send.fields for send in server.sends] == [{"disable_notification": "true"}] * 3


def test_it_serves_a_thread_without_an_event_loop() -> None:
    with BotApiServer() as server, httpx.Client() as client:
        assert client.get(f"{server.url}/bot{server.token}/getMe").status_code == 200


@pytest.mark.anyio
async def test_it_serves_an_event_loop_without_sharing_it() -> None:
    async with BotApiServer() as server, httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/bot{server.token}/getMe")
        assert answer.json()["ok"] is True


def test_it_frees_its_port_and_its_thread() -> None:
    before = threading.active_count()
    with BotApiServer() as server:
        url = server.url
    with BotApiServer(port=httpx.URL(url).port or 0) as again:
        assert again.url == url
    assert threading.active_count() == before


def test_a_taken_port_is_an_error_at_the_start(server: BotApiServer) -> None:
    with (
        pytest.raises(OSError, match="address already in use"),
        BotApiServer(port=httpx.URL(server.url).port or 0),
    ):
        pass


def test_a_token_of_the_wrong_shape_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValueError, match="token must look like") as refused:
        BotApiServer(token="secret-without-colon")
    assert "secret" not in str(refused.value)


def test_no_token_is_ever_logged(server: BotApiServer, bot: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):  # the client of this test logs its own URLs
        caplog.set_level(logging.ERROR, logger=name)
    bot.call("getMe")
    bot.http.post("sendPhoto", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert server.token.split(":")[1] not in caplog.text
    assert server.token.split(":")[1] not in repr(server)


# ── uploads ──────────────────────────────────────────────────────────────────


def test_an_upload_is_hashed_recorded_and_answered(server: BotApiServer, bot: Client) -> None:
    content = make_media("pdf", 300_000)
    message = bot.sent("sendDocument", content, "paper.pdf", caption="one", disable_notification="true")
    assert message["message_id"] == 1
    assert message["chat"] == {"id": CHAT, "type": "supergroup", "title": f"Chat {CHAT}"}
    assert message["caption"] == "one"
    assert abs(message["date"] - time.time()) < 5
    (upload,) = server.received
    assert upload.sha256 == hashlib.sha256(content).hexdigest()
    assert upload.size == len(content) == message["document"]["file_size"]
    assert (upload.method, upload.kind, upload.filename) == ("sendDocument", "document", "paper.pdf")
    assert upload.fields == {"caption": "one", "disable_notification": "true"}
    assert upload.file_id == message["document"]["file_id"]
    assert upload.content_length is not None
    assert upload.content_length > len(content)


def test_a_chunked_body_is_understood_and_recorded_as_such(server: BotApiServer, bot: Client) -> None:
    """Source: chunked transfer encoding is accepted; a target is judged by `content_length`."""
    head = b'--b\r\nContent-Disposition: form-data; name="chat_id"\r\n\r\n5\r\n--b\r\n'
    head += b'Content-Disposition: form-data; name="document"; filename="a"\r\n\r\n'
    body = [head, b"x" * 10, b"\r\n-", b"-b--\r\n"]
    answer = bot.http.post(
        "sendDocument", content=iter(body), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 200, answer.text
    assert server.received[0].size == 10
    assert server.received[0].content_length is None
    assert server.received[0].transfer_encoding == "chunked"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"x", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=" + "b" * 71),
        (b"no boundary here", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\ncut off',
            "multipart/form-data; boundary=b",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\nx\r\n--b',
            "multipart/form-data; boundary=b",
        ),
        (b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"{", "application/json"),
        (b"[1]", "application/json"),
    ],
    ids=[
        "no boundary",
        "long boundary",
        "no parts",
        "cut off",
        "last boundary cut",
        "no name",
        "no JSON",
        "no object",
    ],
)
def test_a_malformed_body_is_a_bad_request(
    server: BotApiServer, bot: Client, body: bytes, content_type: str
) -> None:
    answer = bot.http.post("sendDocument", content=body, headers={"Content-Type": content_type})
    status, description = error_of(answer)
    assert status == 400
    assert description.startswith("Bad Request: ")
    assert server.received == []


def test_a_part_without_a_filename_is_a_parameter_not_a_file(bot: Client) -> None:
    """Source: only a part with a filename is a file; so its bytes are read as a file_id."""
    answer = bot.http.post("sendDocument", files={"chat_id": (None, "5"), "document": (None, "bytes")})
    assert error_of(answer) == (400, "Bad Request: wrong file identifier/HTTP URL specified")


def test_too_many_parameters_or_files_are_refused(bot: Client) -> None:
    """Source: parameters of 1 MiB in total, 50 files."""
    assert "parameters are too long" in error_of(bot.call("sendPhoto", caption="x" * 1_100_000))[1]
    assert "parameters are too long" in error_of(bot.send("sendPhoto", b"x", "a", caption="x" * 1_100_000))[1]
    files = {f"f{n}": ("a", b"x") for n in range(51)}
    assert "too many files" in error_of(bot.call("sendPhoto", files))[1]


def test_a_file_may_be_attached_under_another_name(server: BotApiServer, bot: Client) -> None:
    """Docs, InputFile: attach://name."""
    bot.call("sendDocument", {"part-1": ("a.txt", b"hello")}, chat_id=CHAT, document="attach://part-1")
    assert server.received[0].size == 5
    refused = bot.call("sendDocument", {"part-1": ("a.txt", b"x")}, chat_id=CHAT, document="attach://part-2")
    assert error_of(refused) == (400, "Bad Request: there is no document in the request")


def test_nothing_and_an_empty_file_are_told_apart(bot: Client) -> None:
    assert error_of(bot.call("sendVideoNote", chat_id=CHAT)) == (
        400,
        "Bad Request: there is no video note in the request",
    )
    assert error_of(bot.send("sendDocument", b"", "a.txt")) == (400, "Bad Request: file must be non-empty")


def test_a_url_cannot_be_fetched_by_this_server(bot: Client) -> None:
    answer = bot.call("sendPhoto", chat_id=CHAT, photo="https://example.org/a.png")
    assert error_of(answer) == (400, "Bad Request: failed to get HTTP URL content")


def test_a_client_that_leaves_in_the_middle_leaves_no_upload(
    server: BotApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as connection:
        head = f"POST /bot{server.token}/sendDocument HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
        part = '--b\r\nContent-Disposition: form-data; name="document"; filename="a"\r\n\r\n'
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n{part}some".encode())
        time.sleep(0.1)
    end = time.monotonic() + 5
    while not server.aborted:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert server.received == []
    server.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ── sizes ────────────────────────────────────────────────────────────────────


def test_a_body_over_fifty_megabytes_meets_nginx(server: BotApiServer, bot: Client) -> None:
    """go-telegram-bot-api#31, telegraf#222: the proxy's HTML page, not JSON. Announced, and found out on the way."""
    answer = bot.send("sendDocument", bytes(50 * 1024 * 1024), "a.bin")
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "text/html"
    assert b"<title>413 Request Entity Too Large</title>" in answer.content
    head = b'--b\r\nContent-Disposition: form-data; name="document"; filename="a"\r\n\r\n'
    chunks = (part for part in (head, *[bytes(1024 * 1024)] * 51, b"\r\n--b--\r\n"))
    answer = bot.http.post(
        "sendDocument", content=chunks, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 413
    assert server.received == []


def test_a_local_server_takes_more() -> None:
    """Docs, "Using a Local Bot API Server": up to 2000 MB."""
    with BotApiServer(local=True) as server:
        assert Client(server).send("sendDocument", bytes(51 * 1024 * 1024), "a.bin").status_code == 200


def test_a_photo_has_a_limit_of_its_own(bot: Client) -> None:
    """Source (td, FileManager): the text names both sizes."""
    answer = bot.send("sendPhoto", make_media("png", 10 * 1024 * 1024 + 1), "a.png")
    assert error_of(answer) == (
        400,
        "Bad Request: file of size 10485761 bytes is too big for a photo; the maximum size is 10485760 bytes",
    )
    assert bot.send("sendPhoto", make_media("png", 10 * 1024 * 1024), "a.png").status_code == 200


def test_a_photo_that_is_too_long_is_refused(bot: Client) -> None:
    """Docs, sendPhoto: width and height at most 10000 together, ratio at most 20."""
    import struct

    for width, height in ((9_999, 2), (2_100, 100), (6_000, 4_001)):
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(100)
        assert error_of(bot.send("sendPhoto", data, "a.png")) == (
            400,
            "Bad Request: PHOTO_INVALID_DIMENSIONS",
        )


def test_bytes_that_are_no_image_are_refused_where_strict(bot: Client) -> None:
    assert bot.send("sendPhoto", b"no image", "a.png").status_code == 200
    with BotApiServer(strict_images=True) as strict:
        answer = Client(strict).send("sendPhoto", b"no image", "a.png")
        assert error_of(answer) == (400, "Bad Request: IMAGE_PROCESS_FAILED")


# ── kinds ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "name", "filename", "kind", "keys"),
    [
        ("sendPhoto", "png", "a.png", "photo", {"photo"}),
        ("sendPhoto", "gif", "a.gif", "photo", {"photo"}),
        ("sendVideo", "mp4", "a.mp4", "video", {"video"}),
        ("sendVideo", "gif", "a.gif", "animation", {"animation", "document"}),
        ("sendVideo", "pdf", "a.avi", "document", {"document"}),
        ("sendAnimation", "gif", "a.gif", "animation", {"animation", "document"}),
        ("sendAnimation", "mp4", "a.mp4", "video", {"video"}),
        ("sendAudio", "mp3", "a.mp3", "audio", {"audio"}),
        ("sendAudio", "wav", "a.wav", "audio", {"audio"}),
        ("sendAudio", "ogg", "a.ogg", "voice", {"voice"}),
        ("sendAudio", "zip", "a.zip", "document", {"document"}),
        ("sendVoice", "ogg", "a.ogg", "voice", {"voice"}),
        ("sendVoice", "mp3", "a.mp3", "voice", {"voice"}),
        ("sendVoice", "wav", "a.wav", "audio", {"audio"}),
        ("sendVoice", "pdf", "a.pdf", "document", {"document"}),
        ("sendVideoNote", "mp4", "a.mp4", "video_note", {"video_note"}),
        ("sendVideoNote", "gif", "a.gif", "document", {"document"}),
        ("sendSticker", "png", "a.png", "document", {"document"}),
        ("sendDocument", "png", "a.png", "document", {"document"}),
        ("sendDocument", "gif", "a.gif", "animation", {"animation", "document"}),
        ("sendDocument", "mp4", "a.mp4", "video", {"video"}),
    ],
)
def test_what_a_file_becomes(
    server: BotApiServer, bot: Client, method: str, name: str, filename: str, kind: str, keys: set[str]
) -> None:
    """A file becomes what its method and its bytes make of it.

    Docs for each method; GIF to animation and silent film: pyTelegramBotAPI#672, aiogram#641; FLAC as audio:
    python-telegram-bot#4352; OGG by sendAudio as voice: EDM115/unzip-bot#164; a GIF as a photo is a still: telepot#159.
    """
    message = bot.sent(method, make_media(name, 40_000), filename)
    assert set(message) - {"message_id", "from", "chat", "date"} == keys
    assert server.received[0].kind == kind


def test_a_film_without_sound_is_an_animation(bot: Client) -> None:
    """Docs, sendAnimation: "GIF or H.264/MPEG-4 AVC video without sound"; the server decides by the sound, not by the method."""
    from prewarmkit.testing.media.films import mp4

    message = bot.sent("sendVideo", mp4(40_000, 0, sound=False), "a.mp4")
    assert message["animation"]["file_id"] == message["document"]["file_id"]


@pytest.mark.parametrize("name", ["gif", "mp4"])
def test_detection_can_be_switched_off_for_a_document(bot: Client, name: str) -> None:
    """Docs, sendDocument: disable_content_type_detection."""
    message = bot.sent(
        "sendDocument", make_media(name, 40_000), f"a.{name}", disable_content_type_detection="true"
    )
    assert "document" in message
    assert not {"animation", "video"} & set(message)


def test_bytes_that_nobody_knows_are_taken_at_the_word_of_their_name(bot: Client) -> None:
    assert "video" in bot.sent("sendVideo", b"\1\2\3", "a.bin")
    assert "video" in bot.sent("sendVideo", b"\1\2\3", "a.mp4")
    assert "document" in bot.sent("sendVideo", b"\1\2\3", "a.mkv")


def test_a_photo_comes_in_sizes_in_the_order_of_their_bytes(bot: Client) -> None:
    """Source: sorted by bytes, then by pixels; each size has ids of its own."""
    sizes = bot.sent("sendPhoto", make_media("png", 3_000_000), "a.png")["photo"]
    assert [size["file_size"] for size in sizes] == sorted(size["file_size"] for size in sizes)
    assert [size["width"] for size in sizes] == [90, 320, 799, 999]
    assert sizes[-1]["height"] == 1000
    assert sizes[-1]["file_size"] == 3_000_000
    assert len({size["file_id"] for size in sizes}) == len({size["file_unique_id"] for size in sizes}) == 4


def test_a_jpeg_and_a_webp_say_their_size() -> None:
    from prewarmkit.testing.botapi.probe import probe

    jpeg = bytes.fromhex("ffd8ffe000044a46ffc400040000ffc0000b08012c0190")
    assert probe(jpeg + bytes(20), "a.jpg").height == 300
    assert probe(jpeg + bytes(20), "a.jpg").width == 400
    assert probe(jpeg[:12], "a.jpg").width == 0, "cut off"
    webp = b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + (511).to_bytes(3, "little") + (255).to_bytes(3, "little")
    assert (probe(webp, "a").width, probe(webp, "a").height) == (512, 256)


# ── handles ──────────────────────────────────────────────────────────────────


def test_a_handle_sends_the_same_again_and_no_bytes(server: BotApiServer, bot: Client) -> None:
    first = bot.sent("sendVideo", make_media("mp4", 40_000), "a.mp4")
    again = bot.call("sendVideo", chat_id=7, video=first["video"]["file_id"]).json()["result"]
    assert again["video"] == first["video"]
    assert again["chat"]["type"] == "private"
    assert len(server.received) == 1
    assert [(send.chat_id, send.kind, send.file_id) for send in server.sends] == [
        (7, "video", first["video"]["file_id"])
    ]


def test_any_size_of_a_photo_sends_all_its_sizes(bot: Client) -> None:
    """Docs, "Sending files": "you can use any of the file_ids"; all sizes are sent."""
    photo = bot.sent("sendPhoto", make_media("png", 400_000), "a.png")["photo"]
    for size in photo:
        again = bot.call("sendPhoto", chat_id=CHAT, photo=size["file_id"]).json()["result"]
        assert again["photo"] == photo


def test_a_handle_is_its_bots_own_while_the_unique_id_is_everybodys(
    server: BotApiServer, bot: Client
) -> None:
    """Docs: file_id is valid for one bot; file_unique_id is the same for all, and cannot be sent."""
    server.add_bot(OTHER_BOT)
    other = Client(server, OTHER_BOT)
    mine = bot.sent("sendAudio", make_media("mp3", 40_000), "a.mp3")["audio"]
    theirs = other.sent("sendAudio", make_media("mp3", 40_000), "b.mp3")["audio"]
    assert mine["file_id"] != theirs["file_id"]
    assert mine["file_unique_id"] == theirs["file_unique_id"]
    assert 12 <= len(mine["file_unique_id"]) <= 19
    wrong = (400, "Bad Request: wrong file identifier/HTTP URL specified")
    assert error_of(other.call("sendAudio", chat_id=CHAT, audio=mine["file_id"])) == wrong
    assert error_of(bot.call("sendAudio", chat_id=CHAT, audio=mine["file_unique_id"])) == wrong


def test_a_handle_changes_its_kind_only_within_its_class(bot: Client) -> None:
    """Source (td): photos and the rest are told apart; within the rest the stored kind is shown."""
    photo = bot.sent("sendPhoto", make_media("png", 40_000), "a.png")["photo"][-1]["file_id"]
    video = bot.sent("sendVideo", make_media("mp4", 40_000), "a.mp4")["video"]["file_id"]
    refused = error_of(bot.call("sendDocument", chat_id=CHAT, document=photo))
    assert refused == (400, "Bad Request: can't use file of type Photo as Document")
    refused = error_of(bot.call("sendPhoto", chat_id=CHAT, photo=video))
    assert refused == (400, "Bad Request: can't use file of type Video as Photo")
    assert "video" in bot.call("sendDocument", chat_id=CHAT, document=video).json()["result"]


def test_get_file_knows_handles_up_to_twenty_megabytes(bot: Client) -> None:
    """Docs, getFile: at most 20 MB."""
    small = bot.sent("sendDocument", b"hello", "a.txt")["document"]
    assert bot.call("getFile", file_id=small["file_id"]).json()["result"]["file_size"] == 5
    large = bot.sent("sendDocument", bytes(20 * 1024 * 1024 + 1), "a.bin")["document"]
    assert error_of(bot.call("getFile", file_id=large["file_id"])) == (400, "Bad Request: file is too big")
    assert error_of(bot.call("getFile", file_id="x")) == (400, "Bad Request: invalid file_id")


def test_a_deleted_message_leaves_its_handle_usable(bot: Client) -> None:
    """td#1264, pyTelegramBotAPI#2104."""
    message = bot.sent("sendDocument", b"hello", "a.txt")
    assert bot.call("deleteMessage", chat_id=CHAT, message_id=message["message_id"]).json()["result"] is True
    again = bot.call("deleteMessage", chat_id=CHAT, message_id=message["message_id"])
    assert error_of(again) == (400, "Bad Request: message to delete not found")
    assert bot.call("deleteMessages", chat_id=CHAT, message_ids="[1, 2]").json()["result"] is True
    sent = bot.call("sendDocument", chat_id=CHAT, document=message["document"]["file_id"])
    assert sent.json()["result"]["message_id"] == 2


# ── chats ────────────────────────────────────────────────────────────────────


def test_every_chat_exists_unless_they_are_named(bot: Client) -> None:
    assert bot.sent("sendDocument", b"x", "a", chat_id=42)["chat"]["type"] == "private"
    assert bot.sent("sendDocument", b"x", "a", chat_id=-42)["chat"]["type"] == "group"
    assert bot.sent("sendDocument", b"x", "a", chat_id=-1001234567890)["chat"]["type"] == "supergroup"
    assert bot.sent("sendDocument", b"x", "a", chat_id="@channel")["chat"]["id"] < 0
    with BotApiServer(known_chats=[5, "@mine"]) as server:
        strict = Client(server)
        assert strict.send("sendDocument", b"x", "a", chat_id=5).status_code == 200
        assert strict.send("sendDocument", b"x", "a", chat_id="@mine").status_code == 200
        missing = (400, "Bad Request: chat not found")
        for chat in (6, "@yours", "nonsense"):
            assert error_of(strict.send("sendDocument", b"x", "a", chat_id=chat)) == missing
    assert error_of(bot.send("sendDocument", b"x", "a", chat_id="")) == (400, "Bad Request: chat_id is empty")


def test_a_chat_can_kick_the_bot_and_take_it_back(server: BotApiServer, bot: Client) -> None:
    server.kick(CHAT)
    refused = error_of(bot.send("sendDocument", b"x", "a"))
    assert refused == (403, "Forbidden: bot was kicked from the supergroup chat")
    server.kick(5)
    assert (
        error_of(bot.send("sendDocument", b"x", "a", chat_id=5))[1]
        == "Forbidden: bot was blocked by the user"
    )
    server.invite(CHAT)
    assert bot.send("sendDocument", b"x", "a").status_code == 200


@pytest.mark.parametrize(
    ("chat", "why", "description"),
    [
        (5, "kicked", "bot was blocked by the user"),
        (5, "deleted", "user is deactivated"),
        (-5, "kicked", "bot was kicked from the group chat"),
        (-5, "deleted", "the group chat was deleted"),
        (CHAT, "not_member", "bot is not a member of the supergroup chat"),
    ],
)
def test_a_dead_chat_says_why(
    server: BotApiServer, bot: Client, chat: int, why: Gone, description: str
) -> None:
    """Source: the texts of 403."""
    server.kick(chat, why)
    assert error_of(bot.send("sendDocument", b"x", "a", chat_id=chat)) == (403, f"Forbidden: {description}")


def test_one_bot_may_be_out_of_a_chat_that_another_is_in(server: BotApiServer, bot: Client) -> None:
    other = server.add_bot(OTHER_BOT)
    server.kick(CHAT, "not_member", bot_id=other)
    assert bot.send("sendDocument", b"x", "a").status_code == 200
    assert Client(server, OTHER_BOT).send("sendDocument", b"x", "a").status_code == 403
    server.invite(CHAT)
    assert Client(server, OTHER_BOT).send("sendDocument", b"x", "a").status_code == 200


def test_a_group_that_was_upgraded_names_its_new_id(server: BotApiServer, bot: Client) -> None:
    server.migrate(CHAT, -1009)
    answer = bot.send("sendDocument", b"x", "a")
    assert error_of(answer) == (400, "Bad Request: group chat was upgraded to a supergroup chat")
    assert answer.json()["parameters"] == {"migrate_to_chat_id": -1009}
    assert bot.send("sendDocument", b"x", "a", chat_id=-1009).status_code == 200


def test_messages_are_counted_in_each_chat(bot: Client) -> None:
    numbers = [bot.sent("sendDocument", b"x", "a", chat_id=chat)["message_id"] for chat in (1, 1, 2, 1)]
    assert numbers == [1, 2, 1, 3]


# ── faults ───────────────────────────────────────────────────────────────────


def test_a_rate_limit_is_told_in_three_forms(server: BotApiServer, bot: Client) -> None:
    """Source: body and header; a 429 inside a 400: TelegramBots#1520, td#3003."""
    server.fail(*(Fault(retry_after=7, retry_after_in=where) for where in ("body", "header", "text")))
    body, header, text = (bot.send("sendDocument", b"x", "a") for _ in range(3))
    assert error_of(body) == (429, "Too Many Requests: retry after 7")
    assert body.json()["parameters"] == {"retry_after": 7}
    assert body.headers["retry-after"] == "7"
    assert error_of(header) == (429, "Too Many Requests")
    assert "parameters" not in header.json()
    assert header.headers["retry-after"] == "7"
    assert error_of(text) == (400, "Bad Request: Too Many Requests: retry after 7")
    assert "retry-after" not in text.headers
    assert server.received == []
    assert server.pending_faults == ()


def test_a_fault_hits_whom_it_names_as_often_as_it_says(server: BotApiServer, bot: Client) -> None:
    server.fail(
        Fault(status=500, method="sendphoto", times=2),
        Fault(status=502, chat_id=9),
        Fault(status=503, method="getMe"),
    )
    assert bot.send("sendDocument", b"x", "a").status_code == 200
    photo = make_media("png", 12_000)
    codes = [bot.send("sendPhoto", photo, "a.png").status_code for _ in range(3)]
    assert codes == [500, 500, 200]
    assert bot.send("sendDocument", b"x", "a", chat_id=9).status_code == 502
    assert bot.send("sendDocument", b"x", "a", chat_id=9).status_code == 200
    assert bot.call("getMe").status_code == 503
    assert server.pending_faults == ()


def test_a_fault_without_a_method_waits_for_a_send(server: BotApiServer, bot: Client) -> None:
    server.fail(Fault(status=500))
    assert bot.call("getMe").status_code == 200
    assert bot.send("sendDocument", b"x", "a").status_code == 500
    server.fail(Fault(status=500, method="*"))
    assert bot.call("getMe").status_code == 500


def test_a_page_of_the_proxy_is_no_json(server: BotApiServer, bot: Client) -> None:
    """telegraf#110: 502 and 504 come as HTML."""
    server.fail(Fault(html=True), Fault(status=504, html="<p>own</p>", before_body=True))
    assert b"<h1>502 Bad Gateway</h1>" in bot.send("sendDocument", b"x", "a").content
    assert bot.send("sendDocument", b"x", "a").text == "<p>own</p>"


def test_a_reset_in_the_middle_leaves_no_upload(server: BotApiServer, bot: Client) -> None:
    server.fail(Fault(reset_after_bytes=1_000_000), Fault(reset_after_bytes=0))
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            bot.send("sendDocument", bytes(8_000_000), "a.bin")
    assert server.received == []


def test_a_reset_before_the_answer_leaves_an_upload_that_nobody_was_told_of(
    server: BotApiServer, bot: Client
) -> None:
    server.fail(Fault(reset_before_answer=True))
    with pytest.raises(httpx.TransportError):
        bot.send("sendDocument", b"hello", "a.bin")
    assert [upload.size for upload in server.received] == [5]


def test_an_answer_can_be_weak_in_each_known_way(server: BotApiServer, bot: Client) -> None:
    """Warm-target research, section 1.4: what the server sends when a handle is not to be trusted."""
    photo = make_media("png", 400_000)
    server.fail(
        Fault(drop_unique_id=True),
        Fault(file_id_is_url=True),
        Fault(message_id_zero=True),
        Fault(empty_photo_sizes=True),
        Fault(shuffle_photo_sizes=True),
    )
    answers = [bot.sent("sendPhoto", photo, "a.png") for _ in range(5)]
    assert all(size["file_unique_id"] == "" for size in answers[0]["photo"])
    assert all("://" in size["file_id"] for size in answers[1]["photo"])
    assert answers[2]["message_id"] == 0
    assert answers[3]["photo"] == []
    sizes = [size["file_size"] for size in answers[4]["photo"]]
    assert sizes != sorted(sizes)
    assert len(sizes) == 3
    assert len(server.received) == 5, "each was an upload all the same"


def test_a_kind_can_be_substituted(server: BotApiServer, bot: Client) -> None:
    server.fail(Fault(substitute_kind="animation"))
    message = bot.sent("sendVideo", make_media("mp4", 40_000), "a.mp4")
    assert {"animation", "document"} <= set(message)
    assert server.received[0].kind is MediaKind.ANIMATION
    assert bot.call("sendVideo", chat_id=CHAT, video=message["animation"]["file_id"]).status_code == 200


def test_an_answer_can_be_late(server: BotApiServer, bot: Client) -> None:
    server.fail(Fault(delay_seconds=0.3))
    start = time.monotonic()
    assert bot.send("sendDocument", b"x", "a").status_code == 200
    assert time.monotonic() - start > 0.28


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({}, "does nothing"),
        ({"status": 200}, "status"),
        ({"status": 500, "times": 0}, "times"),
        ({"before_body": True, "drop_unique_id": True}, "before_body"),
        ({"status": 500, "before_body": True, "chat_id": 1}, "chat"),
        ({"substitute_kind": "movie"}, "Unknown kind 'movie'"),
        ({"retry_after": 1, "retry_after_in": "mail"}, "retry_after_in"),
        ({"delay_seconds": -1}, "delay_seconds"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(fault: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault(**fault)


def test_every_answer_is_a_call_with_its_time(server: BotApiServer, bot: Client) -> None:
    bot.call("getme")
    server.fail(Fault(retry_after=1))
    bot.send("sendDocument", b"x", "a")
    assert [(call.method, call.status, call.chat_id) for call in server.calls] == [
        ("getMe", 200, None),
        ("sendDocument", 429, str(CHAT)),
    ]
    assert server.calls[0].at <= server.calls[1].at <= time.monotonic()
    server.clear()
    assert (server.calls, server.received, server.sends) == ([], [], [])


# ── the journal, and the process ─────────────────────────────────────────────


def test_handles_outlive_the_server_by_its_journal(tmp_path: Path) -> None:
    journal = tmp_path / "uploads.jsonl"
    with BotApiServer(journal=journal) as server:
        photo = Client(server).sent("sendPhoto", make_media("png", 40_000), "a.png")["photo"]
    with BotApiServer(journal=journal) as server:
        client = Client(server)
        assert server.received == []
        again = client.call("sendPhoto", chat_id=CHAT, photo=photo[0]["file_id"]).json()["result"]
        assert again["photo"] == photo
        assert again["message_id"] == 2
        client.sent("sendDocument", b"more", "b.txt")
    assert [upload.filename for upload in read_journal(journal)] == ["a.png", "b.txt"]


def test_a_torn_last_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    journal = tmp_path / "uploads.jsonl"
    with BotApiServer(journal=journal) as server:
        Client(server).sent("sendDocument", b"one", "a.txt")
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[:40])
    with BotApiServer(journal=journal) as server:
        Client(server).sent("sendDocument", b"two", "b.txt")
    assert [upload.filename for upload in read_journal(journal)] == ["a.txt", "b.txt"]


def test_a_journal_that_is_none_is_anerror_of(tmp_path: Path) -> None:
    journal = tmp_path / "uploads.jsonl"
    journal.write_text('{"what": "else"}\n')
    with pytest.raises(ValueError, match="Line 1 of the journal"), BotApiServer(journal=journal):
        pass
    assert journal.read_text() == '{"what": "else"}\n'


def _process(*arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "prewarmkit.testing.botapi", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def test_the_process_can_be_killed_and_started_again_on_its_port(tmp_path: Path) -> None:
    journal = str(tmp_path / "uploads of mine.jsonl")
    process, ready = _process("--journal", journal, "--token", OTHER_BOT)
    with process, httpx.Client(base_url=f"{ready['url']}/bot{OTHER_BOT}/") as client:
        assert ready["pid"] == process.pid
        sent = client.post("sendDocument", data={"chat_id": 1}, files={"document": ("a", b"hello")})
        file_id = sent.json()["result"]["document"]["file_id"]
        process.kill()
    again, ready_again = _process(
        "--journal", journal, "--token", OTHER_BOT, "--port", str(httpx.URL(ready["url"]).port)
    )
    with again, httpx.Client(base_url=f"{ready['url']}/bot{OTHER_BOT}/") as client:
        assert ready_again["url"] == ready["url"]
        assert client.post("sendDocument", json={"chat_id": 1, "document": file_id}).status_code == 200
        again.send_signal(signal.SIGTERM)
        assert again.wait(10) == 0


def test_the_process_may_hold_the_limits_of_another_minute() -> None:
    """However slow this machine is: of 21 messages into a group in an hour that passes for a minute, one is too many."""
    process, ready = _process("--minute", "3600")
    with process, httpx.Client(base_url=f"{ready['url']}/bot{FAKE_BOT}/") as client:
        codes = [
            client.post("sendDocument", data={"chat_id": -5}, files={"document": ("a", b"x")}).status_code
            for _ in range(21)
        ]
        process.terminate()
    assert codes[0] == 200
    assert 429 in codes


def test_the_process_ends_with_its_standard_input() -> None:
    process, _ = _process("--token", FAKE_BOT)
    with process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_host_gets_the_server_as_a_fixture(tmp_path: Path) -> None:
    """``pytest_plugins = ["prewarmkit.testing.pytest"]``, in a run of its own with warnings as errors."""
    (tmp_path / "test_host.py").write_text(
        "import urllib.request\n"
        "def test_it(bot_api_server):\n"
        "    url = f'{bot_api_server.url}/bot{bot_api_server.token}/getMe'\n"
        "    assert urllib.request.urlopen(url).status == 200\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "prewarmkit.testing.pytest",
            "test_host.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
