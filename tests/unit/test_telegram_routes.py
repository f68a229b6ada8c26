"""Ways other than bytes: which medium takes which, what happens when one fails, and what stays unseen."""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attrs import define, evolve, field
from bot_wire import SECRET, TOKEN, FakeTransport, refusal, success

from prewarmkit.budget import MemoryBudget
from prewarmkit.errors import (
    ChatDead,
    ConfigurationError,
    MediaUnfit,
    Moved,
    NotFound,
    RateLimited,
    RouteUnfit,
    SourceMissing,
    TargetDown,
    TooLarge,
    Transient,
    TransportError,
)
from prewarmkit.media import Handle, Media, MediaKind, ObjectInfo
from prewarmkit.sources import DirectorySource
from prewarmkit.targets import RateLimits, Services, TelegramTarget
from prewarmkit.targets.telegram.calls import BASE_SECONDS, SLOWEST_BYTES_PER_SECOND
from prewarmkit.targets.telegram.handles import WeakReason
from prewarmkit.targets.telegram.methods import check_size, max_bytes_of
from prewarmkit.targets.telegram.routes import Reference, unfit_for_url, url_secrets
from prewarmkit.testing.contracts.target import MemorySource, MemoryState

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
BASE = "https://media.example.org"
SIGNATURE = "3f1e9c7b5a0d8e6f4c2b1a0998877665"
URL_FAILURES = [
    "Bad Request: failed to get HTTP URL content",
    "Bad Request: wrong type of the web page content",
    "Bad Request: wrong file identifier/HTTP URL specified",
    "Bad Request: wrong HTTP URL specified",
    "Bad Request: WEBPAGE_CURL_FAILED",
    "Bad Request: IMAGE_PROCESS_FAILED",
]


@define(eq=False)
class PublicSource(MemorySource):
    """A source whose objects are public, as `R2Client`'s are with ``public_base_url``."""

    etags: dict[str, str] = field(factory=dict[str, str])
    heads: int = 0

    async def head(self, key: str) -> ObjectInfo:
        self.heads += 1
        found = await super().head(key)
        return ObjectInfo(key, found.size, self.etags.get(key, "e1"), found.content_type)

    def url(self, key: str, *, version: str | None = None) -> str | None:
        return f"{BASE}/{key}" + (f"?v={version}" if version else "")


@define(eq=False)
class SigningSource(MemorySource):
    """A source that signs addresses, each another one."""

    signed: int = 0

    def presign(self, method: str, key: str, *, expires: Any = 60) -> str:
        assert method == "GET"
        assert expires >= 600
        self.signed += 1
        return (
            f"{BASE}/{key}?X-Amz-Credential=AKID12345678%2Fauto&X-Amz-Signature={SIGNATURE}{self.signed:04}"
        )


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def source() -> PublicSource:
    return PublicSource(
        {"a.pdf": b"%PDF-" * 9000, "b.png": b"\x89PNG" * 10, "c.mp4": b"film", "d.txt": b"text"}
    )


def target_of(transport: Any, *chats: int, **options: Any) -> TelegramTarget:
    given: dict[str, Any] = {"budget": None, **options}
    return TelegramTarget(TOKEN, warmup_chats=chats or (-1001,), transport=transport, **given)


def always(url: Any) -> Callable[[Media], Any]:
    def give(_: Media) -> Any:
        return url

    return give


def everything_said(error: BaseException) -> str:
    shown, link = "".join(traceback.format_exception(error)), error
    while link is not None:
        shown += f"{link} {link!r} {link.args!r}"
        link = link.__cause__ or link.__context__  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    return shown


# ── what Telegram fetches ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "kind", "stored", "size"),
    [
        ("a.jpg", "photo", "image/jpeg", 5 * MIB),
        ("a.png", "photo", "image/png", 1),
        ("a.webp", "photo", None, 1),
        ("a.mp4", "video", "video/mp4", 20 * MIB),
        ("a.gif", "animation", "image/gif", 20 * MIB),
        ("a.mp4", "animation", "video/mp4; codecs=avc1", 1),
        ("a.mp3", "audio", "audio/mpeg", 20 * MIB),
        ("a.ogg", "voice", "audio/ogg", 1 * MIB),
        ("a.webp", "sticker", "image/webp", 1),
        ("a.gif", "document", "image/gif", 1),
        ("a.pdf", "document", "application/pdf", 20 * MIB),
        ("a.zip", "document", "application/zip", 1),
        ("A.PDF", "document", "Application/PDF", 1),
    ],
)
async def test_what_fits_goes_by_its_address(key: str, kind: str, stored: str | None, size: int) -> None:
    """Bot API, "Sending files": 5 MB photos, 20 MB other content; sendDocument by URL takes GIF, PDF and ZIP."""
    media, info = Media(key, MediaKind.parse(kind)), ObjectInfo(key, size, content_type=stored)
    assert unfit_for_url(media, info, f"{BASE}/{key}?v=1") is None


@pytest.mark.parametrize(
    ("key", "kind", "stored", "size"),
    [
        ("a.jpg", "photo", "image/jpeg", 5 * MIB + 1),
        ("a.gif", "photo", "image/gif", 1),
        ("a.heic", "photo", "image/heic", 1),
        ("a.jpg", "photo", "application/octet-stream", 1),
        ("a", "photo", "image/jpeg", 1),
        ("a.mp4", "video", "video/mp4", 20 * MIB + 1),
        ("a.mov", "video", "video/quicktime", 1),
        ("a.m4a", "audio", "audio/mp4", 1),
        ("a.ogg", "voice", "audio/ogg", 1 * MIB + 1),
        ("a.mp3", "voice", "audio/mpeg", 1),
        ("a.mp4", "video_note", "video/mp4", 1),
        ("a.tgs", "sticker", "application/x-tgsticker", 1),
        ("a.webm", "sticker", "video/webm", 1),
        ("a.txt", "document", "text/plain", 1),
        ("a.mp4", "document", "video/mp4", 1),
        ("a.pdf", "document", "application/octet-stream", 1),
    ],
)
async def test_what_does_not_fit_goes_by_its_bytes(key: str, kind: str, stored: str, size: int) -> None:
    """Sections 1.1, 1.2 and 5: never a video note, TGS or WEBM; voice over 1 MB comes back as a file."""
    media, info = Media(key, MediaKind.parse(kind)), ObjectInfo(key, size, content_type=stored)
    assert unfit_for_url(media, info, f"{BASE}/{key}")


async def test_a_name_of_its_own_would_be_lost_by_address() -> None:
    """Telegram takes a document's name from the address; only a form names it."""
    info = ObjectInfo("x/1.pdf", 1, content_type="application/pdf")
    named = Media("x/1.pdf", filename="Report.pdf")
    assert "name" in (unfit_for_url(named, info, f"{BASE}/x/1.pdf") or "")
    assert unfit_for_url(Media("x/1.pdf", filename="1.pdf"), info, f"{BASE}/x/1.pdf") is None
    assert unfit_for_url(named, info, f"{BASE}/x/Report.pdf") is None


# ── the ladder ───────────────────────────────────────────────────────────────


async def test_a_public_address_is_sent_and_nothing_is_read(
    transport: FakeTransport, source: PublicSource
) -> None:
    """The URL carries the object's version, for Telegram keeps what it fetched for days (telegram-bot-api#782)."""
    transport.answers = [success(document={"file_id": "F1", "file_unique_id": "U1", "file_size": 45_000})]
    warmed = await target_of(transport).warm(Media("a.pdf"), source)
    [sent] = transport.sent
    assert sent.method == "sendDocument"
    assert sent.fields == {
        "chat_id": "-1001",
        "disable_notification": "true",
        "disable_content_type_detection": "true",
        "document": f"{BASE}/a.pdf?v=e1",
    }
    assert (source.opened, source.heads) == (0, 1)
    assert (warmed.handle, warmed.weak) == ("F1", ())
    assert (warmed.details["route"], warmed.details["bytes_sent"]) == ("url", 0)
    assert (warmed.details["source_etag"], warmed.details["rate_cost"]) == ("e1", 1)
    assert "source_sha256" not in warmed.details


async def test_the_deadline_leaves_time_to_fetch(transport: FakeTransport, source: PublicSource) -> None:
    await target_of(transport).warm(Media("a.pdf"), source)
    assert (transport.sent[0].deadline or 0) > BASE_SECONDS + 45_000 / SLOWEST_BYTES_PER_SECOND


async def test_a_size_that_telegram_reports_otherwise_is_weak(
    transport: FakeTransport, source: PublicSource
) -> None:
    """By address nothing else tells that Telegram fetched what the source has."""
    transport.answers = [success(document={"file_id": "F1", "file_unique_id": "U1", "file_size": 44_999})]
    warmed = await target_of(transport).warm(Media("a.pdf"), source)
    assert warmed.weak == (WeakReason.SIZE_CHANGED,)


@pytest.mark.parametrize("key", ["d.txt", "b.png"])
async def test_what_telegram_does_not_fetch_goes_by_its_bytes(
    transport: FakeTransport, source: PublicSource, key: str
) -> None:
    source.content_types = {"b.png": "application/octet-stream"}
    warmed = await target_of(transport).warm(Media(key), source)
    [sent] = transport.sent
    assert sent.has_file
    assert warmed.details["route"] == "multipart"


async def test_with_multipart_no_address_is_asked_for(transport: FakeTransport, source: PublicSource) -> None:
    await target_of(transport, route="multipart").warm(Media("a.pdf"), source)
    assert transport.sent[0].has_file


@pytest.mark.parametrize("description", URL_FAILURES)
async def test_a_failed_address_falls_back_to_bytes_once_and_is_never_sent_again(
    transport: FakeTransport, source: PublicSource, description: str
) -> None:
    """Requirement 7: within the same attempt, and both messages are in ``rate_cost``."""
    target = target_of(transport)
    transport.answers = [refusal(400, description)]
    warmed = await target.warm(Media("a.pdf"), source)
    assert [sent.has_file for sent in transport.sent] == [False, True]
    assert (warmed.details["route"], warmed.details["rate_cost"]) == ("multipart", 2)
    again = await target.warm(Media("a.pdf"), source)
    assert [sent.has_file for sent in transport.sent] == [False, True, True]
    assert again.details["rate_cost"] == 1


async def test_a_too_large_page_of_a_proxy_falls_back_as_well(
    transport: FakeTransport, source: PublicSource
) -> None:
    transport.answers = [(413, b"<html>413 Request Entity Too Large</html>")]
    await target_of(transport).warm(Media("a.pdf"), source)
    assert transport.sent[1].has_file


async def test_bytes_that_fail_after_the_address_are_not_followed_by_a_third(
    transport: FakeTransport, source: PublicSource
) -> None:
    transport.answers = [refusal(400, URL_FAILURES[0]), refusal(400, "Bad Request: IMAGE_PROCESS_FAILED")]
    with pytest.raises(MediaUnfit):
        await target_of(transport).warm(Media("b.png"), source)
    assert len(transport.sent) == 2


async def test_a_failed_address_is_remembered_by_other_processes_too(source: PublicSource) -> None:
    """Through the store, as a digest: the address itself is not kept."""
    state = MemoryState()
    for fails in (True, False):
        transport = FakeTransport([refusal(400, URL_FAILURES[0])] if fails else [])
        target = target_of(transport)
        target.bind(Services(MemoryBudget(), state, list[Any]().append))
        await target.warm(Media("a.pdf"), source)
        assert [sent.has_file for sent in transport.sent] == ([False, True] if fails else [True])
    assert len(state.facts) == 1
    assert BASE not in str(state.facts)


async def test_a_digest_that_the_host_gave_is_the_version(
    transport: FakeTransport, source: PublicSource
) -> None:
    """Section 5: ``?v=`` and the start of the SHA-256."""
    await target_of(transport, route="url").warm(Media("a.pdf", sha256="AB" * 32), source)
    assert transport.sent[0].fields["document"] == f"{BASE}/a.pdf?v={'ab' * 8}"


@pytest.mark.parametrize("route", ["auto", "presigned"])
async def test_a_medium_with_a_digest_goes_by_bytes_which_are_held_to_it(
    transport: FakeTransport, source: PublicSource, route: Any
) -> None:
    """Its handle becomes that of every key with the same digest: what somebody else fetched must not."""
    digest = hashlib.sha256(source.objects["a.pdf"]).hexdigest()
    await target_of(transport, route=route).warm(Media("a.pdf", sha256=digest), source)
    assert [sent.has_file for sent in transport.sent] == [True]


async def test_a_query_may_be_what_tells_media_apart(transport: FakeTransport) -> None:
    """One that failed does not spoil the others, though queries are not remembered."""

    def address(media: Media) -> str:
        return f"{BASE}/get.pdf?id={media.key}"

    source = MemorySource({"1.pdf": b"%PDF", "2.pdf": b"%PDF"})
    target = target_of(transport, public_url=address)
    transport.answers = [refusal(400, URL_FAILURES[0])]
    for key in source.objects:
        await target.warm(Media(key), source)
    assert [sent.has_file for sent in transport.sent] == [False, True, False]


async def test_another_version_has_another_address(transport: FakeTransport, source: PublicSource) -> None:
    """Section 1.8: the same URL only with a new version parameter."""
    target = target_of(transport)
    transport.answers = [refusal(400, URL_FAILURES[0])]
    await target.warm(Media("a.pdf"), source)
    source.etags["a.pdf"] = "e2"
    await target.warm(Media("a.pdf"), source)
    assert transport.sent[-1].fields["document"] == f"{BASE}/a.pdf?v=e2"


@pytest.mark.parametrize(
    ("answer", "failure", "sends_it_again"),
    [
        (refusal(429, "Too Many Requests: retry after 1", retry_after=1), RateLimited, True),
        (refusal(400, "group chat was upgraded", migrate_to_chat_id=-1005), Moved, True),
        (refusal(403, "Forbidden: bot was kicked from the supergroup chat"), ChatDead, True),
        (refusal(401, "Unauthorized"), TargetDown, True),
        (refusal(500, "Internal Server Error"), Transient, False),
        ((504, b"<html>"), Transient, False),
        (success(document=[]), None, False),
        ((200, b'{"ok": true, "result": true}'), Transient, False),
        (TransportError("reset", request_sent=True), Transient, False),
        (TransportError("refused", request_sent=False), Transient, True),
    ],
)
async def test_an_address_is_sent_again_only_where_it_is_not_to_blame(
    transport: FakeTransport, source: PublicSource, answer: Any, failure: Any, sends_it_again: bool
) -> None:
    """What the chat or the bot is refused for says nothing of the address; no answer may well."""
    target = target_of(transport, -1, -2)
    transport.answers = [answer]
    if failure is None:
        assert (await target.warm(Media("a.pdf"), source)).weak
    else:
        with pytest.raises(failure) as caught:
            await target.warm(Media("a.pdf"), source)
        if failure is Transient:
            assert caught.value.outcome_unknown is not (
                isinstance(answer, TransportError) and not answer.request_sent
            )
    await target.warm(Media("a.pdf"), source)
    assert [sent.has_file for sent in transport.sent] == [False, not sends_it_again]


async def test_a_weak_handle_by_address_is_retried_by_bytes(
    transport: FakeTransport, source: PublicSource
) -> None:
    """Requirement 6: another route. The server echoes the URL where it has no file of its own (section 1.4)."""
    target = target_of(transport)
    transport.answers = [success(document={"file_id": f"{BASE}/a.pdf?v=e1"})]
    weak = await target.warm(Media("a.pdf"), source)
    assert weak.weak == (WeakReason.NO_UNIQUE_ID, WeakReason.URL_HANDLE)
    good = await target.warm(Media("a.pdf"), source)
    assert (good.handle, good.weak, good.details["route"]) == ("F1", (), "multipart")
    assert good.details["rate_cost"] == 2


async def test_both_messages_are_paid_for(transport: FakeTransport, source: PublicSource) -> None:
    """The budget counts the one that failed, too: with room for one, the bytes wait, at no attempt's cost."""
    limits = RateLimits(group_per_minute=1, chat_per_second=9)
    target = target_of(transport, budget=limits)
    transport.answers = [refusal(400, URL_FAILURES[0])]
    with pytest.raises(RateLimited):
        await target.warm(Media("a.pdf"), source)
    assert len(transport.sent) == 1


async def test_what_is_missing_or_would_be_refused_is_known_before_a_message(
    transport: FakeTransport, source: PublicSource
) -> None:
    source.objects = {"empty.pdf": b"", "big.png": bytes(10 * MIB + 1)}
    target = target_of(transport)
    for key, failure in (("gone.pdf", SourceMissing), ("empty.pdf", MediaUnfit), ("big.png", TooLarge)):
        with pytest.raises(failure):
            await target.warm(Media(key), source)
    assert transport.sent == []


# ── where addresses come from ────────────────────────────────────────────────


async def test_a_base_url_of_the_host_comes_before_the_sources(
    transport: FakeTransport, source: PublicSource
) -> None:
    source.objects["ä b.pdf"] = b"%PDF"
    target = target_of(transport, public_url="https://cdn.example.org/m/")
    await target.warm(Media("ä b.pdf"), source)
    assert transport.sent[0].fields["document"] == "https://cdn.example.org/m/%C3%A4%20b.pdf?v=e1"


async def test_a_function_of_the_host_gives_the_address_or_none(
    transport: FakeTransport, source: PublicSource
) -> None:
    def address(media: Media) -> str | None:
        return "https://cdn.example.org/1.pdf" if media.key == "a.pdf" else None

    target = target_of(transport, public_url=address)
    await target.warm(Media("a.pdf"), source)
    await target.warm(Media("c.mp4"), source)
    assert transport.sent[0].fields["document"] == "https://cdn.example.org/1.pdf"
    assert transport.sent[1].has_file


@pytest.mark.parametrize(
    "url", ["ftp://x/1.pdf", "https:///1.pdf", "https://ä.example/1.pdf", b"https://x/1.pdf"]
)
async def test_a_function_that_gives_no_address_is_an_error_that_does_not_show_it(
    transport: FakeTransport, source: PublicSource, url: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.pdf") as caught:
        await target_of(transport, public_url=always(url)).warm(Media("a.pdf"), source)
    assert "1.pdf" not in str(caught.value)


# ── secrets ──────────────────────────────────────────────────────────────────


async def test_a_presigned_address_is_sent_only_where_it_was_asked_for(transport: FakeTransport) -> None:
    source = SigningSource({"a.pdf": b"%PDF"})
    await target_of(transport).warm(Media("a.pdf"), source)
    assert (transport.sent[0].has_file, source.signed) == (True, 0)
    await target_of(transport, route="presigned").warm(Media("a.pdf"), source)
    assert SIGNATURE in transport.sent[1].fields["document"]


async def test_a_public_address_comes_before_a_presigned_one(transport: FakeTransport) -> None:
    class Source(PublicSource):
        def presign(self, method: str, key: str, *, expires: Any = 60) -> str:
            raise AssertionError("nobody needs a secret for what is public")

    source = Source({"a.pdf": b"%PDF"})
    await target_of(transport, route="presigned").warm(Media("a.pdf"), source)
    assert transport.sent[0].fields["document"] == f"{BASE}/a.pdf?v=e1"


async def test_a_presigned_address_that_failed_is_not_signed_anew_for_the_same_object(
    transport: FakeTransport,
) -> None:
    """Each signature gives another URL; it is the object behind it that went wrong."""
    source = SigningSource({"a.pdf": b"%PDF"})
    target = target_of(transport, route="presigned")
    transport.answers = [refusal(400, URL_FAILURES[0])]
    await target.warm(Media("a.pdf"), source)
    await target.warm(Media("a.pdf"), source)
    assert [sent.has_file for sent in transport.sent] == [False, True, True]


class Leaky(Exception):
    """A transport's own error, which quotes the body."""


@pytest.mark.parametrize("place", ["text", "page", "escaped", "transport", "leak", "echo"])
@pytest.mark.parametrize("option", ["presigned", "function"])
async def test_the_query_of_an_address_is_in_no_error_log_or_row(
    place: str, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A presigned URL is a secret; so is whatever a host's own function puts in a query."""
    caplog.set_level(logging.DEBUG)
    source, state = SigningSource({"a.pdf": b"%PDF"}), MemoryState()
    url = f"{BASE}/a.pdf?X-Amz-Credential=AKID12345678%2Fauto&X-Amz-Signature={SIGNATURE}0001"
    if option == "presigned":
        target = target_of(transport := FakeTransport(), route="presigned")
    else:
        target = target_of(transport := FakeTransport(), public_url=always(url))
    target.bind(Services(MemoryBudget(), state, list[Any]().append))
    echo = {"file_id": url, "file_unique_id": url, "thumbnail": {"file_id": url}, "mime_type": url}
    answers: dict[str, Any] = {
        "text": [refusal(400, f"Bad Request: failed to get HTTP URL content {url}"), refusal(500, "x")],
        "page": [(502, f"<html>{'x' * 20}{url}</html>".encode())],
        "escaped": [(400, refusal(400, f"no {url}")[1].replace(b"/", rb"\/").replace(b"&", rb"\u0026"))],
        "transport": [TransportError(f"broke off: document={url}", request_sent=True)],
        "leak": [Leaky(url)],
        "echo": [success(document=echo)],
    }
    transport.answers = answers[place]
    shown = ""
    try:
        shown = repr(await target.warm(Media("a.pdf"), source))
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not show it
        shown = everything_said(error)
    shown += f"{target!r} {caplog.text} {state.facts}"
    assert transport.sent
    for part in (SIGNATURE, "AKID12345678", SECRET):
        assert part not in shown


async def test_parts_of_a_query_are_hidden_in_any_spelling() -> None:
    """A server may decode what it quotes, or quote one parameter alone."""
    url = f"{BASE}/a.pdf?k=abc&X-Amz-Credential=AKID12345678%2Fauto"
    reference = Reference("url", "d", value=url, secrets=url_secrets(url))
    for told in (url, quote(url, safe=""), "k=abc", "AKID12345678/auto", "AKID12345678%2Fauto", "k%3Dabc"):
        hidden = reference.hide(f"no {told} here")
        assert "abc" not in hidden
        assert "AKID" not in hidden
    assert SIGNATURE not in repr(Reference("url", "d", value=SIGNATURE, secrets=(SIGNATURE,)))


async def test_a_handle_that_is_a_secret_address_is_left_out(transport: FakeTransport) -> None:
    """Nobody may store it; the reason stays."""
    url = f"{BASE}/b.png?X-Amz-Credential=AKID12345678%2Fauto&X-Amz-Signature={SIGNATURE}0001"
    transport.answers = [success(photo=[{"file_id": url, "width": 1, "height": 1}])]
    target = target_of(transport, route="presigned")
    warmed = await target.warm(Media("b.png"), SigningSource({"b.png": b"\x89PNG"}))
    assert warmed.handle == ""
    assert WeakReason.URL_HANDLE in warmed.weak
    assert SIGNATURE not in repr(warmed)


# ── files of this machine ────────────────────────────────────────────────────


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


@pytest.fixture
def directory(root: Path) -> DirectorySource:
    (root / "f ä").mkdir()
    (root / "f ä" / "a.pdf").write_bytes(b"%PDF-1")
    return DirectorySource(root)


LOCAL = {"api_base": "http://127.0.0.1:8081", "local": True}


async def test_a_local_server_reads_the_file_itself(
    transport: FakeTransport, directory: DirectorySource, root: Path
) -> None:
    """Bot API, "Using a Local Bot API Server": upload files using their local path and the file URI scheme."""
    target = target_of(transport, **LOCAL)
    warmed = await target.warm(Media("f ä/a.pdf"), directory)
    [sent] = transport.sent
    assert sent.fields["document"] == (root / "f ä" / "a.pdf").as_uri()
    assert warmed.details["route"] == "local"
    assert str(root) not in repr(warmed)


async def test_a_file_that_the_server_cannot_read_goes_by_its_bytes(
    transport: FakeTransport, directory: DirectorySource
) -> None:
    target = target_of(transport, **LOCAL)
    transport.answers = [refusal(400, "Bad Request: wrong file identifier/HTTP URL specified")]
    for _ in range(2):
        await target.warm(Media("f ä/a.pdf"), directory)
    assert [sent.has_file for sent in transport.sent] == [False, True, True]


async def test_a_source_without_files_goes_on_down_the_ladder(
    transport: FakeTransport, source: PublicSource
) -> None:
    await target_of(transport, **LOCAL).warm(Media("a.pdf"), source)
    assert transport.sent[0].fields["document"].startswith(BASE)


async def test_a_local_server_takes_2000_mb_but_for_kinds_with_a_bound_of_their_own() -> None:
    """Bot API, "Using a Local Bot API Server": upload files up to 2000 MB."""
    check_size(Media("a.mp4"), 2000 * MIB, is_local=True)
    with pytest.raises(TooLarge) as caught:
        check_size(Media("a.mp4"), 2000 * MIB + 1, is_local=True)
    assert caught.value.limit == 2000 * MIB
    assert max_bytes_of(MediaKind.PHOTO, is_local=True) == 10 * MIB
    assert max_bytes_of(MediaKind.VIDEO_NOTE, is_local=True) == 12 * MIB
    assert max_bytes_of(MediaKind.VIDEO) == 50 * MIB


async def test_a_local_path_stays_inside_its_directory(directory: DirectorySource, root: Path) -> None:
    assert await directory.local_path("f ä/a.pdf") == root / "f ä" / "a.pdf"
    (root / "out").symlink_to("/etc/hostname")
    for key in ("../x", "/etc/hostname", "out", "f ä", "gone"):
        with pytest.raises(NotFound):
            await directory.local_path(key)


# ── one way alone ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"route": "url"}, "d.txt"),
        ({"route": "url", "public_url": always(None)}, "a.pdf"),
        ({"route": "local", **LOCAL}, "a.pdf"),
    ],
)
async def test_a_way_that_was_asked_for_and_cannot_be_is_route_unfit(
    transport: FakeTransport, source: PublicSource, options: Any, key: str
) -> None:
    with pytest.raises(RouteUnfit, match=rf"{key}.*route="):
        await target_of(transport, **options).warm(Media(key), source)
    assert transport.sent == []


async def test_an_address_that_was_asked_for_and_fails_is_not_followed_by_bytes(
    transport: FakeTransport, source: PublicSource
) -> None:
    target = target_of(transport, route="url")
    transport.answers = [refusal(400, URL_FAILURES[0])]
    for _ in range(2):
        with pytest.raises(RouteUnfit, match=r"a\.pdf"):
            await target.warm(Media("a.pdf"), source)
    assert len(transport.sent) == 1


async def test_a_source_without_addresses_is_route_unfit_by_url(transport: FakeTransport) -> None:
    with pytest.raises(RouteUnfit, match="neither the source nor public_url"):
        await target_of(transport, route="url").warm(Media("a.pdf"), MemorySource({"a.pdf": b"%PDF"}))


# ── forwarding ───────────────────────────────────────────────────────────────


def lent(**changes: Any) -> Callable[[Media], Awaitable[Handle | None]]:
    details = {"chat_id": -1009, "message_id": 55, "source_etag": "e1", **changes.pop("details", {})}

    async def lend(media: Media) -> Handle | None:
        return evolve(Handle("F-of-9", media.kind, "9", media.key, details=details), **changes)

    return lend


async def test_another_bots_message_is_forwarded_and_no_bytes_are_sent(
    transport: FakeTransport, source: PublicSource
) -> None:
    """Finding 5: the Message that is answered carries this bot's own file_id."""
    warmed = await target_of(transport, forward_from=lent()).warm(Media("a.pdf"), source)
    [sent] = transport.sent
    assert sent.method == "forwardMessage"
    assert sent.fields == {
        "chat_id": "-1001",
        "disable_notification": "true",
        "from_chat_id": "-1009",
        "message_id": "55",
    }
    assert (warmed.handle, warmed.weak, warmed.details["route"]) == ("F1", (), "forward")
    assert (warmed.details["source_etag"], warmed.details["message_id"]) == ("e1", 7)
    assert source.opened == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"stale": True},
        {"weak": ("no_unique_id",)},
        {"kind": MediaKind.ANIMATION},
        {"details": {"source_etag": "e0"}},
        {"details": {"source_etag": None}},
        {"details": {"message_id": 0}},
        {"details": {"chat_id": None}},
        {"details": {"source_sha256": "00" * 32}},
    ],
)
async def test_what_may_be_another_file_is_not_forwarded(
    transport: FakeTransport, source: PublicSource, changes: dict[str, Any]
) -> None:
    medium = Media("a.pdf", sha256=hashlib.sha256(source.objects["a.pdf"]).hexdigest())
    await target_of(transport, forward_from=lent(**changes)).warm(medium, source)
    assert transport.sent[0].method == "sendDocument"


async def test_without_etags_nothing_says_that_it_is_the_same_file(transport: FakeTransport) -> None:
    target = target_of(transport, forward_from=lent(details={"source_etag": None}))
    await target.warm(Media("a.pdf"), MemorySource({"a.pdf": b"%PDF"}))
    assert transport.sent[0].method == "sendDocument"


async def test_a_bot_without_the_medium_lends_nothing(transport: FakeTransport, source: PublicSource) -> None:
    async def nothing(_: Media) -> Handle | None:
        return None

    await target_of(transport, forward_from=nothing).warm(Media("a.pdf"), source)
    assert transport.sent[0].method == "sendDocument"


@pytest.mark.parametrize(
    ("status", "description"),
    [
        (400, "Bad Request: message to forward not found"),
        (400, "Bad Request: the message can't be forwarded"),
        (400, "Bad Request: chat not found"),
        (403, "Forbidden: bot is not a member of the channel chat"),
        (404, "Not Found: method not found"),
    ],
)
async def test_a_message_that_cannot_be_forwarded_is_followed_by_bytes(
    transport: FakeTransport, source: PublicSource, status: int, description: str
) -> None:
    """A refusal may speak of the other chat: no warmup chat is given up for it."""
    target = target_of(transport, forward_from=lent())
    transport.answers = [refusal(status, description)]
    await target.warm(Media("a.pdf"), source)
    assert transport.sent[1].has_file
    await target.warm(Media("a.pdf"), source)
    assert [sent.method for sent in transport.sent[2:]] == ["sendDocument"]


async def test_a_rate_limit_holds_for_a_message_that_is_forwarded(
    transport: FakeTransport, source: PublicSource
) -> None:
    transport.answers = [refusal(429, "Too Many Requests", retry_after=30)]
    with pytest.raises(RateLimited):
        await target_of(transport, forward_from=lent()).warm(Media("a.pdf"), source)
