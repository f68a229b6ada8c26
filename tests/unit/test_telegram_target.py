"""`TelegramTarget` against a transport that keeps what it is given and answers what it is told."""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest
from bot_wire import SECRET, TOKEN, FakeTransport, refusal, success

from prewarmkit.budget import MemoryBudget
from prewarmkit.errors import (
    BadHandle,
    ChatDead,
    ConfigurationError,
    MediaUnfit,
    Moved,
    PrewarmKitError,
    RateLimited,
    SourceChanged,
    TargetDown,
    TooLarge,
    Transient,
    TransportError,
)
from prewarmkit.media import Handle, Media, MediaKind
from prewarmkit.targets import RateLimits, Services, TelegramTarget
from prewarmkit.targets.telegram.calls import BASE_SECONDS, SLOWEST_BYTES_PER_SECOND
from prewarmkit.targets.telegram.events import ChatHeld, ChatLeft, ChatMoved
from prewarmkit.testing.contracts.target import MemorySource, MemoryState
from prewarmkit.transports import Request, Response

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def source() -> MemorySource:
    return MemorySource({"a.pdf": b"%PDF-" * 9000, "b.png": b"\x89PNG" * 10, "c.mp4": b"film"})


def target_of(transport: FakeTransport, *chats: int, **options: Any) -> TelegramTarget:
    options = {"budget": None, **options}
    return TelegramTarget(TOKEN, warmup_chats=chats or (-1001,), transport=transport, **options)


def bound(target: TelegramTarget) -> tuple[MemoryState, list[Any]]:
    state, events = MemoryState(), list[Any]()
    target.bind(Services(MemoryBudget(), state, events.append))
    return state, events


# ── what is sent ─────────────────────────────────────────────────────────────


async def test_an_upload_is_one_form_with_its_exact_length(
    transport: FakeTransport, source: MemorySource
) -> None:
    """Chat, silence and the file as it is; the length is known before the first byte."""
    warmed = await target_of(transport).warm(Media("a.pdf"), source)
    [sent] = transport.sent
    assert sent.url == f"https://api.telegram.org/bot{TOKEN}/sendDocument"
    assert len(sent.body) == sent.content_length
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert sent.has_field("chat_id", "-1001")
    assert sent.has_field("disable_notification", "true")
    assert sent.has_field("disable_content_type_detection", "true")
    assert b'name="document"; filename="a.pdf"\r\nContent-Type: application/pdf\r\n' in sent.body
    assert source.objects["a.pdf"] in sent.body
    assert warmed.handle == "F1"
    assert source.open_now == 0


async def test_a_video_is_sent_for_streaming(transport: FakeTransport, source: MemorySource) -> None:
    await target_of(transport).warm(Media("c.mp4"), source)
    [sent] = transport.sent
    assert sent.method == "sendVideo"
    assert sent.has_field("supports_streaming", "true")
    assert b"disable_content_type_detection" not in sent.body


@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_source_that_fails_to_close_after_the_upload_does_not_cost_the_handle(
    source: MemorySource, is_sent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The message stands in the chat: an error now would send it again. One of the upload itself stays an error."""

    class Source(MemorySource):
        @asynccontextmanager
        async def open(self, key: str) -> AsyncGenerator[Any, None]:
            async with super().open(key) as reader:
                yield reader
            raise OSError("the disk went away")

    transport = FakeTransport([success() if is_sent else refusal(500, "Internal Server Error")])
    warming = target_of(transport).warm(Media("a.pdf"), Source(source.objects))
    if is_sent:
        assert (await warming).handle == "F1"
        assert "OSError" in caplog.text
    else:
        with pytest.raises(Transient):
            await warming


@pytest.mark.parametrize("kind", list(MediaKind))
async def test_each_kind_goes_by_its_own_method(
    transport: FakeTransport, source: MemorySource, kind: MediaKind
) -> None:
    await target_of(transport).warm(Media("a.pdf", kind), source)
    [sent] = transport.sent
    assert sent.method.lower() == f"send{kind.value}".replace("_", "")
    assert f'name="{kind.value}"; filename="'.encode() in sent.body


async def test_the_deadline_leaves_a_slow_line_and_the_server_their_time(
    transport: FakeTransport, source: MemorySource
) -> None:
    """The answer comes after the server has uploaded again: 120 s and more (section 1.6)."""
    await target_of(transport).warm(Media("a.pdf"), source)
    [sent] = transport.sent
    assert sent.deadline is not None
    assert sent.deadline >= BASE_SECONDS + len(source.objects["a.pdf"]) / SLOWEST_BYTES_PER_SECOND


async def test_each_upload_has_a_boundary_of_its_own(transport: FakeTransport, source: MemorySource) -> None:
    target = target_of(transport)
    for _ in range(3):
        await target.warm(Media("a.pdf"), source)
    assert len({sent.headers["content-type"] for sent in transport.sent}) == 3


@pytest.mark.parametrize(
    ("key", "kind", "size", "failure"),
    [
        ("big.png", "photo", 10 * MIB + 1, TooLarge),
        ("big.mp4", "video_note", 12 * MIB + 1, TooLarge),
        ("empty.png", "photo", 0, MediaUnfit),
    ],
)
async def test_what_cannot_be_taken_is_refused_before_a_byte_is_sent(
    transport: FakeTransport, key: str, kind: str, size: int, failure: type[Exception]
) -> None:
    source = MemorySource({key: bytes(size)})
    with pytest.raises(failure, match=key):
        await target_of(transport).warm(Media(key, MediaKind.parse(kind)), source)
    assert transport.sent == []


# ── the source fails under way ───────────────────────────────────────────────


@pytest.mark.parametrize("notices", [True, False])
@pytest.mark.parametrize("wrap", [None, TransportError, RuntimeError])
async def test_a_body_that_ends_early_is_the_sources_fault_however_the_transport_puts_it(
    source: MemorySource, wrap: type[Exception] | None, notices: bool
) -> None:
    source.end_after, source.notices_early_end = 20_000, notices
    with pytest.raises(SourceChanged):
        await target_of(FakeTransport(on_body_error=wrap)).warm(Media("a.pdf"), source)


async def test_a_digest_that_does_not_hold_breaks_the_upload_off(
    transport: FakeTransport, source: MemorySource
) -> None:
    with pytest.raises(SourceChanged, match="SHA-256"):
        await target_of(transport).warm(Media("a.pdf", sha256="00" * 32), source)
    assert transport.sent == []


async def test_a_success_before_the_upload_was_whole_is_no_handle(source: MemorySource) -> None:
    with pytest.raises(Transient) as caught:
        await target_of(FakeTransport(reads_body=False)).warm(Media("a.pdf"), source)
    assert caught.value.outcome_unknown is False


# ── the world fails ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(("reads_body", "unknown"), [(True, True), (False, False)])
async def test_no_answer_leaves_the_outcome_open_once_all_was_sent(
    source: MemorySource, reads_body: bool, unknown: bool
) -> None:
    """Section 1.8: reset and timeout, outcome unknown after the body was sent."""

    class Broken(FakeTransport):
        @asynccontextmanager
        async def send(
            self, request: Request, *, deadline_seconds: float | None = None
        ) -> AsyncGenerator[Response]:
            if reads_body:
                async with super().send(request, deadline_seconds=deadline_seconds):
                    pass
            raise TransportError("reset")
            yield

    with pytest.raises(Transient) as caught:
        await target_of(Broken()).warm(Media("a.pdf"), source)
    assert caught.value.outcome_unknown is unknown


async def test_an_answer_in_the_middle_of_the_upload_lets_go_of_the_source(source: MemorySource) -> None:
    """A refusal comes before the body is out: what was suspended in the source is closed."""
    closed: list[str] = []

    class Early(FakeTransport):
        @asynccontextmanager
        async def send(
            self, request: Request, *, deadline_seconds: float | None = None
        ) -> AsyncGenerator[Response]:
            assert request.body is not None
            assert not isinstance(request.body, bytes)
            chunks = aiter(request.body)
            assert len(await anext(chunks) + await anext(chunks)) > 16_000
            self.reads_body = False
            async with super().send(request, deadline_seconds=deadline_seconds) as response:
                yield response

    head = await source.head("a.pdf")

    class Reader:
        info = head

        async def __aiter__(self) -> AsyncGenerator[bytes]:
            try:
                yield source.objects["a.pdf"][:20_000]
                yield source.objects["a.pdf"][20_000:]
            finally:
                closed.append("reader")

        async def read(self) -> bytes:
            raise AssertionError("a target streams")

    class Source(MemorySource):
        @asynccontextmanager
        async def open(self, key: str) -> AsyncGenerator[Any]:
            yield Reader()

    with pytest.raises(TooLarge):
        await target_of(Early([(413, b"<html>")])).warm(Media("a.pdf"), Source())
    assert closed == ["reader"]


async def test_an_answer_without_a_message_is_transient(
    transport: FakeTransport, source: MemorySource
) -> None:
    transport.answers = [(200, b'{"ok": true, "result": true}'), (200, b"<html>")]
    for _ in range(2):
        with pytest.raises(Transient) as caught:
            await target_of(transport).warm(Media("a.pdf"), source)
        assert caught.value.outcome_unknown is True


async def test_an_answer_without_end_is_not_read_to_its_end(source: MemorySource) -> None:
    with pytest.raises(Transient):
        await target_of(FakeTransport([(200, b"x" * 5 * MIB)])).warm(Media("a.pdf"), source)


class Leaky(Exception):
    def __str__(self) -> str:
        return f"POST https://api.telegram.org/bot{TOKEN}/sendDocument failed"


def leaky_chain() -> Exception:
    error = RuntimeError("wrapped")
    error.__cause__ = Leaky()
    return error


@pytest.mark.parametrize(
    "fault",
    [
        TransportError(f"no answer from https://api.telegram.org/bot{TOKEN}/sendDocument"),
        TransportError(f"no answer from /bot{TOKEN.replace(':', '%3A')}/sendDocument"),
        TransportError(f"no answer from {SECRET}"),
        Leaky(),
        leaky_chain(),
        (502, f"<html>Cannot POST /bot{TOKEN}/sendDocument</html>".encode()),
        (502, b"<html>" + b"x" * 70 + f"/bot{TOKEN}/sendDocument</html>".encode()),
        refusal(400, f"Bad Request: /bot{TOKEN}/ is odd"),
        refusal(404, f"Not Found: /bot{TOKEN}/sendDocument"),
    ],
)
@pytest.mark.parametrize("call", ["warm", "send"])
async def test_the_token_is_in_no_error_and_nothing_that_hangs_on_it(
    source: MemorySource, fault: Any, call: str
) -> None:
    """URLs hold the token; tracebacks, causes and contexts are looked through as well."""
    target = target_of(FakeTransport([fault]))
    handle = Handle("F1", MediaKind.DOCUMENT, target.id, "a.pdf")
    with pytest.raises(PrewarmKitError) as caught:
        await (target.warm(Media("a.pdf"), source) if call == "warm" else target.send(42, handle))
    shown = "".join(traceback.format_exception(caught.value))
    error: BaseException | None = caught.value
    while error is not None:
        shown += f"{error} {error!r} {error.args!r}"
        error = error.__cause__ or error.__context__
    for part in (SECRET, SECRET[:12]):
        assert part not in shown


async def test_a_bug_of_a_transport_is_not_dressed_up(source: MemorySource) -> None:
    with pytest.raises(ZeroDivisionError):
        await target_of(FakeTransport([ZeroDivisionError()])).warm(Media("a.pdf"), source)


async def test_a_word_in_a_tests_token_is_no_secret(source: MemorySource) -> None:
    """With the token ``1:token`` a sentence about tokens stays readable."""
    transport = FakeTransport([refusal(400, "Bad Request: token of /bot1:token/ is odd")])
    target = TelegramTarget("1:token", warmup_chats=[1], transport=transport, budget=None)
    with pytest.raises(Transient, match="token of /bot<token>/ is odd"):
        await target.warm(Media("a.pdf"), source)


# ── chats ────────────────────────────────────────────────────────────────────


async def test_chats_take_turns(transport: FakeTransport, source: MemorySource) -> None:
    target = target_of(transport, -1, -2, -3)
    for _ in range(6):
        await target.warm(Media("a.pdf"), source)
    chats = [
        chat for sent in transport.sent for chat in ("-1", "-2", "-3") if sent.has_field("chat_id", chat)
    ]
    assert chats == ["-1", "-2", "-3"] * 2


async def test_a_rate_limit_holds_the_only_chat_and_the_target(
    transport: FakeTransport, source: MemorySource
) -> None:
    """Requirement 3: nothing goes to a chat before its retry_after is over."""
    target = target_of(transport)
    _, events = bound(target)
    transport.answers = [refusal(429, "Too Many Requests: retry after 30", retry_after=30)]
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            await target.warm(Media("a.pdf"), source)
        assert caught.value.scope == "target"
        assert 29 < caught.value.retry_after <= 30
    assert len(transport.sent) == 1
    assert source.opened == 1
    assert events == [ChatHeld(target=target.id, chat_id=-1001, seconds=30, whole_bot=False)]


async def test_a_rate_limit_of_one_chat_leaves_the_other(
    transport: FakeTransport, source: MemorySource
) -> None:
    target = target_of(transport, -1, -2)
    transport.answers = [refusal(429, "Too Many Requests", retry_after=30)]
    with pytest.raises(RateLimited) as caught:
        await target.warm(Media("a.pdf"), source)
    assert (caught.value.scope, caught.value.retry_after) == ("chat", 0)
    for _ in range(3):
        await target.warm(Media("a.pdf"), source)
    assert [sent.has_field("chat_id", "-2") for sent in transport.sent] == [False, True, True, True]


async def test_a_retry_after_in_the_header_alone_is_obeyed(source: MemorySource) -> None:
    transport = FakeTransport([(429, b"<html>")], headers=(("retry-after", "12"),))
    with pytest.raises(RateLimited) as caught:
        await target_of(transport).warm(Media("a.pdf"), source)
    assert 11 < caught.value.retry_after <= 12


async def test_a_moved_chat_is_used_and_remembered(transport: FakeTransport, source: MemorySource) -> None:
    """Also by another process that shares the store, and after a restart."""
    target = target_of(transport, -5)
    state, events = bound(target)
    transport.answers = [
        refusal(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-1005)
    ]
    with pytest.raises(Moved) as caught:
        await target.warm(Media("a.pdf"), source)
    assert caught.value.new_id == -1005
    assert events == [ChatMoved(target=target.id, old_id=-5, new_id=-1005)]
    await target.warm(Media("a.pdf"), source)
    again = target_of(transport, -5)
    again.bind(Services(MemoryBudget(), state, events.append))
    await again.warm(Media("a.pdf"), source)
    assert [sent.has_field("chat_id", "-1005") for sent in transport.sent] == [False, True, True]


async def test_a_chat_that_moved_twice_is_followed(transport: FakeTransport, source: MemorySource) -> None:
    target = target_of(transport, -5)
    state, _ = bound(target)
    await state.put("moved:-5", "-6")
    await state.put("moved:-6", "-7")
    await target.warm(Media("a.pdf"), source)
    assert transport.sent[0].has_field("chat_id", "-7")


async def test_a_dead_chat_leaves_and_the_last_one_stops_the_target(
    transport: FakeTransport, source: MemorySource
) -> None:
    """Section 1.8: the target stops only when the pool is empty."""
    target = target_of(transport, -1, -2)
    _, events = bound(target)
    kicked = refusal(403, "Forbidden: bot was kicked from the supergroup chat")
    transport.answers = [kicked, success(), kicked]
    with pytest.raises(ChatDead):
        await target.warm(Media("a.pdf"), source)
    await target.warm(Media("a.pdf"), source)
    for _ in range(2):
        with pytest.raises(TargetDown) as caught:
            await target.warm(Media("a.pdf"), source)
        assert caught.value.retry_after is not None
    assert [sent.has_field("chat_id", "-2") for sent in transport.sent] == [False, True, True]
    assert events == [
        ChatLeft(target=target.id, chat_id=-1, left=1),
        ChatLeft(target=target.id, chat_id=-2, left=0),
    ]


async def test_a_refused_token_is_target_down(transport: FakeTransport, source: MemorySource) -> None:
    transport.answers = [refusal(401, "Unauthorized")]
    with pytest.raises(TargetDown, match="bot token was refused: check it with @BotFather"):
        await target_of(transport).warm(Media("a.pdf"), source)


async def test_the_budget_of_a_pool_is_spent(transport: FakeTransport, source: MemorySource) -> None:
    """20 into a group, then nothing is even opened."""
    target = target_of(transport, budget=RateLimits(chat_per_second=100, bot_per_second=200))
    bound(target)
    for _ in range(20):
        await target.warm(Media("a.pdf"), source)
    for _ in range(3):
        with pytest.raises(RateLimited) as caught:
            await target.warm(Media("a.pdf"), source)
        assert caught.value.scope == "target"
    assert (len(transport.sent), source.opened) == (20, 21)


async def test_a_slot_that_is_near_is_waited_for(transport: FakeTransport, source: MemorySource) -> None:
    target = target_of(
        transport, budget=RateLimits(group_per_minute=1, chat_per_second=9, window_seconds=0.2)
    )
    before = anyio.current_time()
    for _ in range(3):
        await target.warm(Media("a.pdf"), source)
    assert anyio.current_time() - before > 0.4


# ── delivery ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", list(MediaKind))
async def test_a_delivery_is_the_handle_and_no_bytes(transport: FakeTransport, kind: MediaKind) -> None:
    target = target_of(transport)
    sent = await target.send(42, Handle("F&1=", kind, target.id, "a.pdf"))
    assert (sent.chat_id, sent.message_id) == (-1001, 7)
    [request] = transport.sent
    assert request.method.lower() == f"send{kind.value}".replace("_", "")
    assert parse_qs(request.body.decode()) == {"chat_id": ["42"], kind.value: ["F&1="]}


async def test_a_refused_handle_is_a_bad_handle(transport: FakeTransport) -> None:
    target = target_of(transport)
    handle = Handle("F1", MediaKind.PHOTO, target.id, "a.png")
    transport.answers = [refusal(400, "Bad Request: wrong file identifier/HTTP URL specified")]
    with pytest.raises(BadHandle, match="invalidate") as caught:
        await target.send(42, handle)
    assert caught.value.handle is handle


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (refusal(429, "Too Many Requests", retry_after=9), RateLimited),
        (refusal(403, "Forbidden: bot was blocked by the user"), ChatDead),
        (refusal(401, "Unauthorized"), TargetDown),
        (refusal(400, "group chat was upgraded", migrate_to_chat_id=-9), Moved),
        ((502, b"<html>"), Transient),
        ((200, b'{"ok": true, "result": {}}'), Transient),
        (TransportError("reset"), Transient),
    ],
)
async def test_a_delivery_that_fails_says_how(
    transport: FakeTransport, answer: Any, failure: type[Exception]
) -> None:
    target = target_of(transport)
    transport.answers = [answer]
    with pytest.raises(failure):
        await target.send(42, Handle("F1", MediaKind.PHOTO, target.id, "a.png"))


async def test_a_user_who_blocked_the_bot_costs_no_warmup_chat(
    transport: FakeTransport, source: MemorySource
) -> None:
    target = target_of(transport, 42)
    transport.answers = [refusal(403, "Forbidden: bot was blocked by the user")]
    with pytest.raises(ChatDead):
        await target.send(43, Handle("F1", MediaKind.PHOTO, target.id, "a.png"))
    assert (await target.warm(Media("a.pdf"), source)).handle


async def test_after_a_rate_limit_a_delivery_waits_its_time(transport: FakeTransport) -> None:
    target = target_of(transport)
    handle = Handle("F1", MediaKind.PHOTO, target.id, "a.png")
    transport.answers = [refusal(429, "Too Many Requests", retry_after=60)]
    for _ in range(2):
        with pytest.raises(RateLimited):
            await target.send(42, handle)
    await target.send(43, handle)
    assert len(transport.sent) == 2


async def test_what_cannot_be_delivered_is_an_error_at_the_call(transport: FakeTransport) -> None:
    """A file_id works for its own bot only (grammyjs/website#1021)."""
    target = target_of(transport)
    handle = Handle("F1", MediaKind.PHOTO, target.id, "a.png")
    with pytest.raises(ValueError, match="for its own bot only"):
        await target.send(42, Handle("F1", MediaKind.PHOTO, "999", "a.png"))
    with pytest.raises(TypeError, match="handle"):
        await target.send(42, "F1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for chat_id in (0, "", True, 1.5):
        with pytest.raises(TypeError, match="chat_id"):
            await target.send(chat_id, handle)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadHandle):
        await target.send(42, Handle("", MediaKind.PHOTO, target.id, "a.png"))
    assert transport.sent == []


# ── making, entering ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "token", ["", "123456", "123456:", ":secret", "abc:secret", "1:se cret", "1:a\n", None, 5]
)
async def test_a_token_that_is_none_is_refused_and_not_repeated(token: Any) -> None:
    with pytest.raises(ConfigurationError, match="@BotFather") as caught:
        TelegramTarget(token, warmup_chats=[1])
    assert not token or str(token) not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"warmup_chats": []}, "warmup_chats"),
        ({"warmup_chats": ["-1001"]}, "warmup_chats"),
        ({"warmup_chats": "-1001"}, "warmup_chats"),
        ({"warmup_chats": [True]}, "warmup_chats"),
        ({"warmup_chats": [0]}, "warmup_chats"),
        ({"warmup_chats": 5}, "warmup_chats"),
        ({"route": "ftp"}, "auto, multipart"),
        ({"public_url": 5}, "public_url"),
        ({"public_url": "cdn.example"}, "public_url"),
        ({"local": True}, "api_base"),
        ({"route": "local", "api_base": "http://127.0.0.1:8081"}, "local=True"),
        ({"weak": "retry"}, "PoolSettings.weak"),
        ({"budget": 20}, "budget"),
        ({"api_base": "api.telegram.org"}, "api_base"),
        ({"api_base": "ftp://x"}, "api_base"),
        ({"api_base": "https://"}, "api_base"),
        ({"api_base": "https://x?y=1"}, "api_base"),
        ({"api_base": "https://user:pw@x"}, "api_base"),
        ({"api_base": "https://x:99999"}, "api_base"),
        ({"api_base": "https://x y"}, "api_base"),
        ({"api_base": "https://ä.example"}, "api_base"),
    ],
)
async def test_what_cannot_work_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    given: dict[str, Any] = {"warmup_chats": [-1001], **options}
    with pytest.raises(ConfigurationError, match=named):
        TelegramTarget(TOKEN, **given)


async def test_the_id_is_the_bots_number_and_the_repr_shows_no_token(transport: FakeTransport) -> None:
    target = target_of(transport, 1, 2)
    assert target.id == "110201543"
    assert repr(target) == "TelegramTarget(id='110201543', warmup_chats=2, route='auto')"


async def test_a_local_server_may_have_a_path(transport: FakeTransport, source: MemorySource) -> None:
    await target_of(transport, api_base="http://127.0.0.1:8081/tg/").warm(Media("a.pdf"), source)
    assert transport.sent[0].url == f"http://127.0.0.1:8081/tg/bot{TOKEN}/sendDocument"


async def test_unentered_it_says_so(source: MemorySource) -> None:
    with pytest.raises(ConfigurationError, match="async with"):
        await TelegramTarget(TOKEN, warmup_chats=[1]).warm(Media("a.pdf"), source)


async def test_entered_twice_it_says_so() -> None:
    target = TelegramTarget(TOKEN, warmup_chats=[1])
    async with target:
        with pytest.raises(RuntimeError, match="entered already"):
            await target.__aenter__()
    async with target:
        pass


async def test_a_transport_that_was_given_is_used_and_never_closed(
    transport: FakeTransport, source: MemorySource
) -> None:
    """It is not even entered: whoever made it does that."""
    target = target_of(transport)
    async with target:
        await target.warm(Media("a.pdf"), source)
    await target.warm(Media("a.pdf"), source)
    assert len(transport.sent) == 2
