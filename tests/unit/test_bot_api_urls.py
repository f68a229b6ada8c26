"""Media that a request only names: addresses that the Bot API server fetches itself, and paths beside a local one.

Rules are cited by where research found them: "docs" is the Bot API's reference, "source" is tdlib/telegram-bot-api and
tdlib/td, numbers are issues of the former where no other repository is named.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bot_api_client import CHAT, OTHER_BOT, Client

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import BotApiServer, Fault
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.media import make_media

pytestmark = pytest.mark.usefixtures("close_bot_clients")

MIB = 1024 * 1024
FAILED = (400, "Bad Request: failed to get HTTP URL content")
UNFIT = (400, "Bad Request: wrong type of the web page content")


class Site:
    """A web site of pages that are set by path: content and type, or a status."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[bytes, str] | int] = {}
        self.asked: list[tuple[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, self.headers["User-Agent"]))
                page = site.pages.get(self.path, 404)
                content, mime = (b"", "text/html") if isinstance(page, int) else page
                self.send_response(page if isinstance(page, int) else 200)
                self.send_header("Content-Type", mime)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Location", "/a.png")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Iterator[BotApiServer]:
    with BotApiServer(clock=clock) as running:
        yield running


@pytest.fixture
def bot(server: BotApiServer) -> Client:
    return Client(server)


# ── what may be sent by URL ──────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "medium", "path", "mime"),
    [
        ("sendPhoto", "png", "/a.png", "image/png"),
        ("sendVideo", "mp4", "/a.mp4", "video/mp4"),
        ("sendAnimation", "gif", "/a.gif", "image/gif"),
        ("sendAudio", "mp3", "/a.mp3", "audio/mpeg"),
        ("sendVoice", "ogg", "/a.ogg", "audio/ogg; codecs=opus"),
        ("sendDocument", "pdf", "/a.pdf?v=1", "application/pdf"),
        ("sendDocument", "zip", "/a.zip", "application/zip"),
    ],
)
def test_telegram_fetches_what_its_method_allows(
    server: BotApiServer, bot: Client, site: Site, method: str, medium: str, path: str, mime: str
) -> None:
    """Docs, "Sending files": by URL, of the right MIME type; its fetcher calls itself a TelegramBot (DrKLO/Telegram#1093)."""
    content = make_media(medium, 40_000)
    site.pages[path] = (content, mime)
    kind = MediaKind.parse(method.removeprefix("send").lower())
    answer = bot.call(method, chat_id=CHAT, **{kind.value: site.url + path})
    assert answer.status_code == 200, answer.text
    assert kind.value in answer.json()["result"]
    (upload,) = server.received
    assert (upload.route, upload.source, upload.kind) == ("url", site.url + path, kind)
    assert (upload.sha256, upload.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (upload.filename, upload.content_length) == (path[1:].partition("?")[0], None)
    assert [agent.startswith("TelegramBot") for _path, agent in site.asked] == [True]
    again = bot.call(method, chat_id=CHAT, **{kind.value: upload.file_id})
    assert again.status_code == 200, "the handle is one like another"


@pytest.mark.parametrize(
    ("method", "medium", "path", "mime"),
    [
        ("sendDocument", "png", "/a.png", "image/png"),
        ("sendDocument", "mp4", "/a.mp4", "video/mp4"),
        ("sendAudio", "ogg", "/a.ogg", "audio/ogg"),
        ("sendVoice", "mp3", "/a.mp3", "audio/mpeg"),
        ("sendSticker", "mp4", "/a.webm", "video/webm"),
        ("sendPhoto", "png", "/a.png", "application/octet-stream"),
        ("sendVideo", "mp4", "/a.mp4", ""),
        ("sendPhoto", "png", "/without-extension", "image/png"),
    ],
)
def test_another_type_is_unfit(
    server: BotApiServer, bot: Client, site: Site, method: str, medium: str, path: str, mime: str
) -> None:
    """Docs: document only GIF, PDF, ZIP; audio/mpeg; audio/ogg; static WEBP. No extension: python-telegram-bot#2300.

    WEBPAGE_MEDIA_EMPTY in the server's words (source).
    """
    site.pages[path] = (make_media(medium, 40_000), mime)
    name = method.removeprefix("send").lower()
    assert bot.refused(method, chat_id=CHAT, **{name: site.url + path}) == UNFIT
    assert server.messages == []


def test_a_video_note_is_never_sent_by_url(bot: Client, site: Site) -> None:
    """Docs, sendVideoNote: "by a URL is currently unsupported"; the file would have to be generated (source)."""
    refused = bot.refused("sendVideoNote", chat_id=CHAT, video_note=f"{site.url}/a.mp4")
    assert refused == (400, "Bad Request: can't upload file by URL")
    assert site.asked == []


@pytest.mark.parametrize(
    ("method", "medium", "mime"), [("sendPhoto", "png", "image/png"), ("sendVideo", "mp4", "video/mp4")]
)
def test_a_url_has_limits_of_its_own(bot: Client, site: Site, method: str, medium: str, mime: str) -> None:
    """Docs: 5 MB for a photo, 20 MB for the rest, also with --local (#28, #150), where the text is this one."""
    limit = (5 if method == "sendPhoto" else 20) * MIB
    name = method.removeprefix("send").lower()
    site.pages[f"/fits.{medium}"] = (make_media(medium, limit), mime)
    site.pages[f"/over.{medium}"] = (make_media(medium, limit + 1), mime)
    assert bot.call(method, chat_id=CHAT, **{name: f"{site.url}/fits.{medium}"}).status_code == 200
    assert bot.refused(method, chat_id=CHAT, **{name: f"{site.url}/over.{medium}"}) == FAILED


def test_a_voice_message_over_a_megabyte_comes_back_as_a_file(bot: Client, site: Site) -> None:
    """Docs, "Sending files": "1-20MB … will be sent as files"."""
    site.pages["/small.ogg"] = (make_media("ogg", MIB), "audio/ogg")
    site.pages["/large.ogg"] = (make_media("ogg", MIB + 1), "audio/ogg")
    sent = bot.call("sendVoice", chat_id=CHAT, voice=f"{site.url}/small.ogg").json()["result"]
    assert "voice" in sent
    sent = bot.call("sendVoice", chat_id=CHAT, voice=f"{site.url}/large.ogg").json()["result"]
    assert "voice" not in sent
    assert sent["document"]["file_size"] == MIB + 1


def test_a_photo_by_url_is_checked_as_a_photo(server: BotApiServer, bot: Client, site: Site) -> None:
    site.pages["/a.png"] = (b"no image", "image/png")
    with BotApiServer(strict_images=True) as strict:
        refused = Client(strict).refused("sendPhoto", chat_id=CHAT, photo=f"{site.url}/a.png")
    assert refused == (400, "Bad Request: IMAGE_PROCESS_FAILED")


# ── what cannot be fetched, and what is remembered ───────────────────────────


def test_what_is_not_there_cannot_be_fetched(server: BotApiServer, bot: Client, site: Site) -> None:
    """Source: WEBPAGE_CURL_FAILED. A redirect is not followed: whether the service does is not documented."""
    site.pages["/broken.png"] = 500
    site.pages["/moved.png"] = 302  # to /a.png
    site.pages["/a.png"] = (make_media("png", 20_000), "image/png")
    for path in ("/missing.png", "/broken.png", "/moved.png"):
        assert bot.refused("sendPhoto", chat_id=CHAT, photo=site.url + path) == FAILED
    assert bot.refused("sendPhoto", chat_id=CHAT, photo="http://127.0.0.1:1/a.png") == FAILED
    assert bot.refused("sendPhoto", chat_id=CHAT, photo="https://") == (
        400,
        "Bad Request: wrong HTTP URL specified",
    )
    assert server.messages == []


def test_an_empty_page_is_no_medium(bot: Client, site: Site) -> None:
    site.pages["/a.png"] = (b"", "image/png")
    assert bot.refused("sendPhoto", chat_id=CHAT, photo=f"{site.url}/a.png") == UNFIT


def test_nobody_but_this_machine_is_asked(server: BotApiServer, bot: Client, site: Site) -> None:
    """By its own names alone: 0.0.0.0 would lead here too, and is not one of them."""
    site.pages["/a.png"] = (make_media("png", 20_000), "image/png")
    addresses = ["https://example.org/a.png", f"{site.url.replace('127.0.0.1', '0.0.0.0')}/a.png"]
    for address in addresses:
        assert bot.refused("sendPhoto", chat_id=CHAT, photo=address) == FAILED
    assert [(fetch.url, fetch.good) for fetch in server.fetches] == [
        (address, False) for address in addresses
    ]
    assert site.asked == []


def test_a_failed_url_stays_failed_for_days_and_a_new_version_does_not(
    server: BotApiServer, clock: FakeClock, bot: Client, site: Site
) -> None:
    """#782, a maintainer: what was fetched is cached for a few days, negative results too."""
    url = f"{site.url}/a.png"
    assert bot.refused("sendPhoto", chat_id=CHAT, photo=url) == FAILED
    site.pages["/a.png"] = (make_media("png", 20_000), "image/png")
    site.pages["/a.png?v=2"] = site.pages["/a.png"]
    clock.advance(2 * 24 * 3600)
    assert bot.refused("sendPhoto", chat_id=CHAT, photo=url) == FAILED
    assert [path for path, _agent in site.asked] == ["/a.png"], "asked once"
    assert bot.call("sendPhoto", chat_id=CHAT, photo=f"{url}?v=2").status_code == 200
    clock.advance(24 * 3600)
    assert bot.call("sendPhoto", chat_id=CHAT, photo=url).status_code == 200
    assert [(fetch.url, fetch.good, fetch.cached) for fetch in server.fetches] == [
        (url, False, False),
        (url, False, True),
        (f"{url}?v=2", True, False),
        (url, True, False),
    ]


def test_a_changed_page_stays_what_it_was_for_every_bot(
    server: BotApiServer, bot: Client, site: Site
) -> None:
    """#782; the cache is the service's, not a bot's."""
    server.add_bot(OTHER_BOT)
    first, second = make_media("pdf", 20_000), make_media("pdf", 30_000)
    for content, client in ((first, bot), (second, bot), (second, Client(server, OTHER_BOT))):
        site.pages["/a.pdf"] = (content, "application/pdf")
        client.call("sendDocument", chat_id=CHAT, document=f"{site.url}/a.pdf")
    assert {upload.size for upload in server.received} == {20_000}
    assert len(site.asked) == 1


def test_a_file_that_the_server_never_got_is_named_by_its_address(
    server: BotApiServer, bot: Client, site: Site
) -> None:
    """Source, tdlib/td: where there is no remote file, the ``file_id`` is the URL that was sent, query and all."""
    site.pages["/a.pdf?key=secret"] = (make_media("pdf", 20_000), "application/pdf")
    server.fail(Fault(file_id_is_url=True, drop_unique_id=True))
    url = f"{site.url}/a.pdf?key=secret"
    document = bot.call("sendDocument", chat_id=CHAT, document=url).json()["result"]["document"]
    assert (document["file_id"], document["file_unique_id"]) == (url, "")


def test_a_public_address_may_lead_to_this_machine(site: Site) -> None:
    site.pages["/bucket/a.png"] = (make_media("png", 20_000), "image/png")
    with BotApiServer(reaches={"https://media.example.org/": f"{site.url}/bucket/"}) as server:
        answer = Client(server).call("sendPhoto", chat_id=CHAT, photo="https://media.example.org/a.png")
        assert answer.status_code == 200
        assert server.received[0].source == "https://media.example.org/a.png"


def test_a_request_that_is_refused_fetches_nothing(server: BotApiServer, bot: Client, site: Site) -> None:
    server.fail(Fault(retry_after=3))
    assert bot.refused("sendPhoto", chat_id=CHAT, photo=f"{site.url}/a.png")[0] == 429
    server.revoke()
    assert bot.refused("sendPhoto", chat_id=CHAT, photo=f"{site.url}/a.png")[0] == 401
    assert site.asked == []


# ── paths beside a local server ──────────────────────────────────────────────


def test_a_local_server_reads_a_file_by_its_path(tmp_path: Path) -> None:
    """Docs, "Using a Local Bot API Server": "Upload files using their local path and the file URI scheme"."""
    content = make_media("mp4", 300_000)
    path = tmp_path / "my film.mp4"
    path.write_bytes(content)
    with BotApiServer(local=True) as server:
        bot = Client(server)
        sent = bot.call("sendVideo", chat_id=CHAT, video=path.as_uri()).json()["result"]
        (upload,) = server.received
        assert (upload.route, upload.filename, upload.kind) == ("local_path", "my film.mp4", "video")
        assert upload.sha256 == hashlib.sha256(content).hexdigest()
        assert sent["video"]["mime_type"] == "video/mp4"
        missing = (tmp_path / "none.mp4").as_uri()
        assert bot.refused("sendVideo", chat_id=CHAT, video=missing) == (
            400,
            f"Bad Request: realpath failed for {tmp_path}/none.mp4",
        ), "#28"


def test_a_local_file_may_have_two_thousand_megabytes(tmp_path: Path) -> None:
    """Docs: 2000 MB; a photo keeps its own limit (source, td)."""
    path = tmp_path / "a.bin"
    path.touch()
    os.truncate(path, 2000 * MIB + 1)
    with BotApiServer(local=True) as server:
        bot = Client(server)
        assert bot.refused("sendDocument", chat_id=CHAT, document=path.as_uri()) == (
            400,
            "Bad Request: file of size 2097152001 bytes is too big; the maximum size is 2097152000 bytes",
        )
        os.truncate(path, 10 * MIB + 1)
        assert "too big for a photo" in bot.refused("sendPhoto", chat_id=CHAT, photo=path.as_uri())[1]
        assert bot.call("sendDocument", chat_id=CHAT, document=path.as_uri()).status_code == 200


def test_the_hosted_server_reads_no_paths(bot: Client, tmp_path: Path) -> None:
    """#467, a maintainer: only in local mode; the text is the one of that report."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"hello")
    assert bot.refused("sendDocument", chat_id=CHAT, document=path.as_uri()) == (
        400,
        "Bad Request: wrong remote file identifier specified: Wrong character in the string",
    )
