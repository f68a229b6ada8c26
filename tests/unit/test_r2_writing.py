"""What is written to R2 is whole or not there, under its rules, its faults and any cancellation."""

from __future__ import annotations

import hashlib
import itertools
import threading
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from r2_model import (
    BACKENDS,
    CONTENT,
    CREDENTIALS,
    FORMS,
    MIB,
    Answer,
    Call,
    Fault,
    Gauge,
    R2Model,
    Stored,
    answering,
    body_of,
    client,
    composed,
    loses,
    md5,
    on_wire,
    small_parts,
)

from prewarmkit import R2Client
from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    ConnectionFault,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    ServiceFault,
)
from prewarmkit.media import ObjectInfo
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports import Request, Response

pytestmark = pytest.mark.anyio


@pytest.fixture
def tiny() -> Iterator[None]:
    with small_parts():
        yield


# ── parts, side by side ──────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_any_body_arrives_whole_in_parts_of_one_size(
    form: str, backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any form, cut anyhow, in parts of any size, by any number at once; the model refuses unequal parts."""
    directory = tmp_path_factory.mktemp("bodies")

    @settings(max_examples=25, deadline=None)
    @given(
        content=st.binary(max_size=60),
        cuts=st.lists(st.integers(0, 20), max_size=5),
        part_size=st.integers(1, 21),
        concurrency=st.integers(1, 5),
    )
    def check(content: bytes, cuts: list[int], part_size: int, concurrency: int) -> None:
        model = R2Model()

        async def put() -> None:
            async with client(model) as r2:
                body = body_of(form, content, cuts, directory)
                info = await r2.put("k", body, part_size=part_size, concurrency=concurrency)
            stored = model.objects["k"]
            assert stored.content == content
            assert (info.size, info.etag) == (len(content), stored.etag)

        with small_parts():
            anyio.run(put, backend=backend)
        assert model.uploads == {}

    check()


@pytest.mark.parametrize("form", ["bytes", "path", "stream"])
async def test_so_many_parts_go_at_once_and_no_more(form: str, tiny: None, tmp_path: Path) -> None:
    content = bytes(range(100))
    model, gauge = R2Model(), Gauge()
    async with serve(answering(model, gauge)) as server, on_wire(server.url) as r2:
        body = body_of(form, content, [10], tmp_path)
        info = await r2.put("k", body, part_size=10, concurrency=3)
    assert model.objects["k"].content == content
    assert (info.etag, gauge.now, gauge.most) == (composed(content, 10), 0, 3)


class Sink:
    """A transport that keeps nothing, and answers parts only when ``together`` of them are there."""

    def __init__(self, together: int) -> None:
        self._together = together
        self._waiting = 0
        self._etags: list[str] = []
        self.peak = 0

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response, None]:
        headers: tuple[tuple[str, str], ...] = ()
        content = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        if request.method == "PUT":
            digest = hashlib.md5(usedforsecurity=False)
            async with aclosing(cast("AsyncGenerator[bytes, None]", request.body)) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    await anyio.lowlevel.checkpoint()
            self._waiting += 1
            with anyio.move_on_after(0.3):
                while self._waiting % self._together:  # noqa: ASYNC110 - nobody knows who comes last
                    await anyio.sleep(0.01)
            self.peak = max(self.peak, tracemalloc.get_traced_memory()[1])
            headers = (("etag", f'"{digest.hexdigest()}"'),)
            content = b""
        elif "uploads=" not in request.url:
            content = b"<CompleteMultipartUploadResult/>"

        async def give() -> AsyncGenerator[bytes, None]:
            yield content

        async with aclosing(give()) as body:
            yield Response(200, headers, body)


@pytest.mark.parametrize("form", ["path", "file", "pipe", "iterable", "stream"])
async def test_one_part_more_than_go_at_once_is_all_that_is_in_memory(form: str, tmp_path: Path) -> None:
    concurrency, size, count = 3, 5 * MIB, 10
    path = tmp_path / "body"
    with path.open("wb") as file:
        file.truncate(size * count)

    def chunks() -> Iterator[bytes]:
        for _ in range(count * 16):
            yield bytes(size // 16)

    async def stream() -> AsyncGenerator[bytes, None]:
        for chunk in chunks():
            yield chunk

    class Unseekable:
        def __init__(self) -> None:
            self._left = size * count

        def read(self, amount: int = -1, /) -> bytes:
            given = min(amount, self._left)
            self._left -= given
            return bytes(given)

    sink = Sink(concurrency)
    r2 = R2Client(endpoint="https://r2.example.com", bucket="media", credentials=CREDENTIALS, transport=sink)
    with path.open("rb", buffering=0) as opened:
        bodies: dict[str, Callable[[], Any]] = {
            "path": lambda: path,
            "file": lambda: opened,
            "pipe": Unseekable,
            "iterable": chunks,
            "stream": stream,
        }
        body = bodies[form]()
        tracemalloc.start()
        try:
            info = await r2.put("k", body, part_size=size, concurrency=concurrency)
        finally:
            tracemalloc.stop()
    assert info.size == size * count
    # The rest are chunks on their way, of 256 KiB each.
    assert concurrency * size <= sink.peak <= (concurrency + 1) * size + 2 * MIB


async def test_a_generator_may_hold_its_own_blocks_open(tiny: None) -> None:
    """It is read by one task, and closed before any block around it is: cancel scopes and task groups stay nested."""
    is_closed = False

    async def body() -> AsyncGenerator[bytes, None]:
        nonlocal is_closed
        try:
            with anyio.fail_after(5):
                async with anyio.create_task_group():
                    for _ in range(10):
                        await anyio.sleep(0)  # noqa: ASYNC115 - as a source would
                        yield b"abc"
        finally:
            is_closed = True

    model = R2Model()
    async with client(model) as r2:
        await r2.put("k", body(), part_size=4)
    assert (model.objects["k"].content, is_closed) == (b"abc" * 10, True)


async def test_a_stream_of_too_many_parts_is_refused_and_aborted(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prewarmkit.r2.multipart._MAX_PARTS", 3)
    model = R2Model()
    async with client(model) as r2:
        with pytest.raises(InvalidRequest, match="larger part_size"):
            await r2.put("k", iter([b"x" * 40]), part_size=10)
        with pytest.raises(ValueError, match="do not fit"):
            await r2.put("k", b"x" * 40, part_size=10)
        with pytest.raises(ValueError, match="concurrency"):
            await r2.put("k", b"", concurrency=0)
    assert (model.uploads, model.objects, model.count("abort")) == ({}, {}, 1)


# ── faults ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["refuse", "drop", "lose"])
@pytest.mark.parametrize("form", ["bytes", "path", "stream"])
async def test_a_fault_at_any_request_is_overcome(
    form: str, fault: Fault, tiny: None, tmp_path: Path
) -> None:
    """Refused, broken before or after it was carried out: sent again, and judged by what is there."""
    content = bytes(range(50))
    for at in range(7):
        model = R2Model(fault=lambda n, _call, at=at: fault if n == at else None)  # type: ignore[misc]
        async with client(model) as r2:
            body = body_of(form, content, [7], tmp_path)
            info = await r2.put("k", body, part_size=10, if_none_match="*")
        assert (model.objects["k"].content, info.etag) == (content, composed(content, 10))
        # One that was begun by a request whose answer was lost is known to nobody, and ends by itself.
        unknown = at == 0 and fault == "lose"
        assert [upload.parts for upload in model.uploads.values()] == [{}] * unknown
        assert len(model.calls) > 7


@pytest.mark.parametrize("fault", ["refuse", "drop", "lose"])
async def test_a_fault_at_any_request_without_retries_leaves_all_or_nothing(fault: Fault, tiny: None) -> None:
    content = bytes(range(50))
    outcomes: list[bool] = []
    for at in range(7):
        model = R2Model(fault=lambda n, _call, at=at: fault if n == at else None)  # type: ignore[misc]
        async with client(model, attempts=1) as r2:
            try:
                await r2.put("k", content, part_size=10, concurrency=1)
            except (ServiceFault, ConnectionFault):
                assert model.objects == {}
                outcomes.append(False)
            else:
                assert model.objects["k"].content == content
                outcomes.append(True)
        assert [upload.parts for upload in model.uploads.values()] == [{}] * (at == 0 and fault == "lose")
    # What was carried out is found out, part by part and in the end; only the begin's answer cannot be done without.
    assert outcomes == [False, *[fault == "lose"] * 6]


async def test_a_part_that_stands_is_not_sent_again(tiny: None) -> None:
    """Its answers are lost until the attempts are used up: ListParts has it, and the upload goes on."""
    model = R2Model(fault=lambda _n, call: "lose" if call.number == 3 else None)
    async with client(model, attempts=2) as r2:
        await r2.put("k", bytes(50), part_size=10, concurrency=1)
    assert (model.objects["k"].content, model.count("upload_part")) == (bytes(50), 4 + 2)
    assert model.count("list_parts") == 2  # pages, of two parts each


async def test_a_part_that_is_another_one_later_is_sent_once_more(tiny: None) -> None:
    def replace_a_part(call: Call) -> None:
        if call.operation == "complete" and model.count("complete") == 1:
            model.uploads[call.query["uploadId"]].parts[2] = b"another"

    model = R2Model(before=replace_a_part)
    async with client(model) as r2:
        await r2.put("k", CONTENT, part_size=10)
    assert model.objects["k"].content == CONTENT
    assert [call.number for call in model.calls if call.operation == "upload_part"][6:] == [2]


async def test_a_part_that_is_lost_later_is_sent_once_more(tiny: None, tmp_path: Path) -> None:
    """An attempt that was given up fails late and takes the good part with it: Complete finds a part missing."""

    def lose_a_part(call: Call) -> None:
        if call.operation == "complete" and model.count("complete") == 1:
            del model.uploads[call.query["uploadId"]].parts[2]

    (tmp_path / "f").write_bytes(bytes(range(50)))
    model = R2Model(before=lose_a_part)
    async with client(model) as r2:
        await r2.put("k", tmp_path / "f", part_size=10)
    assert model.objects["k"].content == bytes(range(50))
    assert [call.number for call in model.calls if call.operation == "upload_part"][5:] == [2]

    model = R2Model(before=lose_a_part)
    async with client(model) as r2:
        with pytest.raises(InvalidRequest) as caught:  # a stream has nothing to send it from
            await r2.put("k", iter([bytes(50)]), part_size=10)
    assert (caught.value.code, model.uploads, model.objects) == ("InvalidPart", {}, {})


@pytest.mark.parametrize("form", ["bytes", "path", "stream"])
async def test_cancelled_at_any_point_no_upload_is_left(form: str, tiny: None, tmp_path: Path) -> None:
    """Also while the upload begins: its answer is waited for, since without its id nothing can be aborted."""
    content = bytes(range(30))
    aborted = 0
    for at in itertools.count():
        model, points = R2Model(), itertools.count()
        scope = anyio.CancelScope()

        def step(at: int = at, points: Iterator[int] = points, scope: anyio.CancelScope = scope) -> None:
            if next(points) == at:
                scope.cancel()

        async with client(model, step=step) as r2:
            with scope:
                await r2.put("k", body_of(form, content, [7], tmp_path), part_size=10, concurrency=2)
        assert model.uploads == {}
        if "k" in model.objects:
            assert model.objects["k"].content == content
        elif model.count("begin"):
            assert model.count("abort") == 1
            aborted += 1
        if next(points) <= at:  # it was over before
            break
    assert aborted > 10


async def test_a_cancelled_begin_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch, tiny: None
) -> None:
    monkeypatch.setattr("prewarmkit.r2.multipart._LAST_WORD_SECONDS", 0.1)

    async def silence(wire: Wire) -> None:
        await wire.request()
        await anyio.sleep(10)

    async with serve(silence) as server, on_wire(server.url) as r2:
        with anyio.fail_after(2):
            with anyio.move_on_after(0.05) as scope:
                await r2.put("k", bytes(50), part_size=10)
            assert scope.cancelled_caught


async def test_an_abort_that_fails_does_not_hide_why(tiny: None, caplog: pytest.LogCaptureFixture) -> None:
    model = R2Model(fault=lambda _n, call: "refuse" if call.number or call.operation == "abort" else None)
    async with client(model) as r2:
        with pytest.raises(ServiceFault, match="UploadPart"):
            await r2.put("k", bytes(50), part_size=10)
    assert "could not be aborted" in caplog.text


# ── conditions, and answers that are lost ────────────────────────────────────


@pytest.mark.parametrize("form", ["bytes", "path", "file", "stream"])
@pytest.mark.parametrize("condition", ["if_none_match", "if_match"])
async def test_a_conditional_put_that_broke_its_own_condition_is_a_success(
    form: str, condition: str, tmp_path: Path
) -> None:
    """In one request: the second attempt gets 412 for what the first one wrote, perhaps before it sent its body."""
    content = b"new" * 700_000
    model = R2Model(objects={"k": Stored(b"old", md5(b"old"), {})}, fault=loses("put"))
    conditions: dict[str, Any] = {"if_match": md5(b"old")}
    if condition == "if_none_match":
        model.objects.clear()
        conditions = {"if_none_match": "*"}
    async with client(model) as r2:
        info = await r2.put("k", body_of(form, content, [65536], tmp_path), **conditions)
        assert (info.etag, model.count("put")) == (md5(content), 2)
        with pytest.raises(PreconditionFailed):
            await r2.put("k", body_of(form, content, [65536], tmp_path), **conditions)


async def test_a_412_that_comes_before_the_body_is_read_is_judged_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content := b"x" * 3 * MIB)
    seen = 0

    async def handler(wire: Wire) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            await wire.request()
            await wire.reset()
        elif seen == 2:
            await wire.head()
            await wire.answer(
                412, [("Connection", "close")], b"<Error><Code>PreconditionFailed</Code></Error>"
            )
        else:
            await wire.request()
            await wire.answer(200, [("ETag", f'"{md5(content)}"')], length=len(content))

    async with serve(handler) as server, on_wire(server.url) as r2:
        assert (await r2.put("k", tmp_path / "f", if_none_match="*")).etag == md5(content)


REFUSED: list[dict[str, Any]] = [{"if_none_match": "*"}, {"if_match": "other"}]


async def test_a_condition_of_complete_that_fails_takes_the_upload_with_it(tiny: None) -> None:
    model = R2Model(objects={"k": Stored(b"theirs", md5(b"theirs"), {})})
    async with client(model) as r2:
        for condition in REFUSED:
            with pytest.raises(PreconditionFailed):
                await r2.put("k", bytes(50), part_size=10, on_upload=lambda _token: None, **condition)
        info = await r2.put("k", bytes(50), part_size=10, if_match=md5(b"theirs"))
    assert (info.etag, model.uploads) == (composed(bytes(50), 10), {})


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("condition", [{}, {"if_none_match": "*"}])
async def test_a_complete_whose_answers_were_lost_is_a_success(
    times: int, condition: dict[str, Any], tiny: None
) -> None:
    """Once, or each time: the upload is gone, and the object has the ETag that its parts must give."""
    model = R2Model(fault=loses("complete", times))
    async with client(model) as r2:
        assert (await r2.put("k", bytes(50), part_size=10, **condition)).etag == composed(bytes(50), 10)
    assert model.count("complete") == min(times + 1, 3)


async def test_a_refusal_by_complete_whose_answer_was_lost_is_told_as_one(tiny: None) -> None:
    """The second attempt only says NoSuchUpload: the condition took the upload, and the object there tells."""
    for condition in REFUSED:
        model = R2Model(objects={"k": Stored(b"theirs", md5(b"theirs"), {})}, fault=loses("complete"))
        async with client(model) as r2:
            with pytest.raises(PreconditionFailed, match="condition"):
                await r2.put("k", bytes(50), part_size=10, **condition)
        assert model.objects["k"].content == b"theirs"


async def test_an_upload_that_somebody_else_ended_is_an_error(tiny: None) -> None:
    def end(call: Call) -> None:
        if call.operation == "complete":
            model.uploads.clear()

    for fault in (loses("complete"), loses("nothing")):
        model = R2Model(before=end, fault=fault)
        async with client(model) as r2:
            with pytest.raises(NotFound) as caught:
                await r2.put("k", bytes(50), part_size=10)
        assert caught.value.code == "NoSuchUpload"


async def test_a_complete_that_fails_late_is_sent_again(tiny: None) -> None:
    """200 OK, and an error inside."""
    left = iter([True])
    model = R2Model(
        fault=lambda _n, call: "late" if call.operation == "complete" and next(left, False) else None
    )
    async with client(model) as r2:
        await r2.put("k", bytes(50), part_size=10)
    assert (model.objects["k"].content, model.count("complete")) == (bytes(50), 2)


async def test_a_large_body_is_hashed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS it is hashed twice before it goes out; neither holds up the loop."""
    threads: list[tuple[str, int]] = []

    def spy(name: str) -> Callable[..., Any]:
        real = getattr(hashlib, name)

        def hashing(data: bytes = b"", **options: Any) -> Any:
            if len(data) > MIB:
                threads.append((name, threading.get_ident()))
            return real(data, **options)

        return hashing

    spies = SimpleNamespace(md5=spy("md5"), sha256=spy("sha256"))
    for module in ("writer", "multipart", "requests"):
        monkeypatch.setattr(f"prewarmkit.r2.{module}.hashlib", spies)
    async with client(R2Model(), endpoint="http://localhost") as r2:
        await r2.put("k", body := bytes(4 * MIB))
        await r2.put("k", iter([body] * 2), part_size=5 * MIB)
    assert sorted({name for name, _ in threads}) == ["md5", "sha256"]
    assert threading.get_ident() not in {thread for _, thread in threads}


async def test_an_abort_that_cannot_even_be_signed_does_not_hide_why(
    tiny: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Credentials that ran out may be what ended the upload."""

    def sign(call: Call) -> None:
        if call.operation == "abort":
            raise KeyError("nobody gives credentials any more")

    model = R2Model(fault=lambda _n, call: "refuse" if call.number else None, before=sign)
    async with client(model, attempts=1) as r2:
        with pytest.raises(ServiceFault, match="UploadPart"):
            await r2.put("k", bytes(50), part_size=10, concurrency=1)
    assert "could not be aborted" in caplog.text


# ── ETags of services, good and bad ──────────────────────────────────────────


@define
class Elsewhere(R2Model):
    """A service that gives ETags of its own, and takes them back."""

    etag: Callable[[str], str | None] = str
    more: Mapping[str, str] = field(factory=dict[str, str])
    given: dict[str, str] = field(factory=dict[str, str])

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        for other, etag in self.given.items():
            body = body.replace(other.strip('"').encode(), etag.encode())
        answer = super().handle(method, target, headers, body)
        assert answer is not None
        status, answered, content = answer
        if "etag" in answered:
            etag = answered.pop("etag").strip('"')
            foreign = self.etag(etag)
            if foreign is not None:
                answered["etag"] = foreign
                self.given[foreign] = etag
        return status, {**answered, **self.more}, content


FOREIGN: list[tuple[Callable[[str], str | None], dict[str, str]]] = [
    (lambda etag: f'W/"{etag}"', {}),
    (lambda etag: f'"{etag.upper()}"', {}),
    (lambda etag: f'"id-{etag[:5]}"', {}),
    (lambda etag: etag, {}),
    (lambda etag: f'"{etag[::-1]}"', {"x-amz-server-side-encryption": "aws:kms"}),
    (lambda etag: f'"{etag[::-1]}"', {"x-amz-server-side-encryption-customer-algorithm": "AES256"}),
]


@pytest.mark.parametrize("number", range(len(FOREIGN)))
async def test_etags_that_are_no_md5s_raise_no_false_alarm(number: int, tiny: None) -> None:
    etag, more = FOREIGN[number]
    model = Elsewhere(etag=etag, more=more)
    async with client(model) as r2:
        whole = await r2.put("whole", CONTENT)
        await r2.put("parts", CONTENT, part_size=10)
    assert model.objects["whole"].content == model.objects["parts"].content == CONTENT
    assert whole.etag == (etag(md5(CONTENT)) or "").removeprefix("W/").strip('"')


async def test_one_part_whose_etag_is_no_md5_is_enough_not_to_tell(tiny: None) -> None:
    class Mixed(Elsewhere):
        def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
            self.more = {"x-amz-server-side-encryption": "aws:kms"} if "partNumber=1&" in target else {}
            return super().handle(method, target, headers, body)

    first = md5(CONTENT[:10])
    model = Mixed(etag=lambda etag: f'"{etag[::-1]}"' if etag == first else f'"{etag}"')
    async with client(model) as r2:
        info = await r2.put("k", CONTENT, part_size=10)
    assert (model.objects["k"].content, info.etag) == (CONTENT, composed(CONTENT, 10))


async def test_a_put_without_an_etag_has_none_and_a_part_needs_one(tiny: None) -> None:
    async with client(Elsewhere(etag=lambda _etag: None)) as r2:
        assert (await r2.put("k", CONTENT)).etag is None
        with pytest.raises(BodyFault, match="no ETag for part 1"):
            await r2.put("k", CONTENT, part_size=10, concurrency=1)


@pytest.mark.parametrize("form", ["bytes", "path", "file", "stream"])
async def test_other_bytes_than_were_sent_are_a_fault(form: str, tiny: None, tmp_path: Path) -> None:
    """By the MD5 of the whole, and of each part."""
    model = Elsewhere(etag=lambda etag: f'"{etag[::-1]}"')
    async with client(model) as r2:
        with pytest.raises(BodyFault, match=r"stored with the MD5|arrived with another MD5") as caught:
            await r2.put("k", body_of(form, CONTENT, [7], tmp_path))
        assert caught.value.is_retryable
        with pytest.raises(BodyFault, match="arrived with another MD5"):
            await r2.put("parts", body_of(form, CONTENT, [7], tmp_path), part_size=10)
    assert (model.uploads, "parts" in model.objects) == ({}, False)


async def test_an_object_that_was_put_together_of_other_parts_is_a_fault(tiny: None) -> None:
    """By the MD5 of the parts' MD5s, in the answer to Complete."""

    class Wrong(R2Model):
        def _complete(self, call: Call) -> Answer:
            status, headers, body = super()._complete(call)
            return status, headers, body.replace(composed(CONTENT, 10).encode(), b"0" * 32 + b"-6")

    async with client(Wrong()) as r2:
        with pytest.raises(BodyFault, match="put together with the ETag 0"):
            await r2.put("k", CONTENT, part_size=10)


async def test_a_complete_with_an_etag_of_another_form_raises_no_false_alarm(tiny: None) -> None:
    class Own(R2Model):
        def _complete(self, call: Call) -> Answer:
            status, headers, body = super()._complete(call)
            return status, headers, body.replace(composed(CONTENT, 10).encode(), md5(CONTENT).encode())

    async with client(Own()) as r2:
        assert (await r2.put("k", CONTENT, part_size=10)).etag == md5(CONTENT)


async def test_a_complete_without_an_etag_has_the_one_that_its_parts_must_give(tiny: None) -> None:
    class Mute(R2Model):
        def _complete(self, call: Call) -> Answer:
            return *super()._complete(call)[:2], b"<CompleteMultipartUploadResult/>"

    async with client(Mute()) as r2:
        assert (await r2.put("k", CONTENT, part_size=10)).etag == composed(CONTENT, 10)


async def test_a_condition_that_fails_at_once_is_a_failure_whatever_is_there(tiny: None) -> None:
    """The same bytes too: somebody else put them."""
    model = R2Model()
    async with client(model) as r2:
        for part_size in (10, None):
            await r2.put("k", CONTENT, part_size=part_size)
            with pytest.raises(PreconditionFailed):
                await r2.put("k", CONTENT, part_size=part_size, if_none_match="*")
    assert model.uploads == {}


async def test_a_part_that_stands_with_other_bytes_does_not_pass_for_the_one_that_was_sent(
    tiny: None,
) -> None:
    class Garbling(R2Model):
        def _upload_part(self, call: Call) -> Answer:
            answer = super()._upload_part(call)
            if call.number == 2:
                self.uploads[call.query["uploadId"]].parts[2] = b"garbled"
            return answer

    model = Garbling(fault=lambda _n, call: "lose" if call.number == 2 else None)
    async with client(model) as r2:
        with pytest.raises(ConnectionFault):
            await r2.put("k", CONTENT, part_size=10, concurrency=1)
    assert (model.objects, model.uploads, model.count("complete")) == ({}, {}, 0)


@pytest.mark.parametrize("form", ["bytes", "path"])
async def test_a_condition_that_fails_upon_a_retry_for_what_others_wrote_is_a_failure(
    form: str, tmp_path: Path
) -> None:
    content = b"mine" * 500_000
    for objects in ({"k": Stored(b"theirs", md5(b"theirs"), {})}, dict[str, Stored]()):
        model = R2Model(objects=objects, fault=lambda n, _call: "refuse" if n == 0 else None)
        async with client(model) as r2:
            condition: dict[str, Any] = {"if_none_match": "*"} if objects else {"if_match": "e"}
            with pytest.raises(PreconditionFailed):
                await r2.put("k", body_of(form, content, [], tmp_path), **condition)
        assert (model.objects, model.count("put"), model.count("head")) == (objects, 2, 1)


async def test_another_refusal_of_complete_sends_nothing_again(tiny: None) -> None:
    class Picky(R2Model):
        def _complete(self, call: Call) -> Answer:
            return 400, {}, b"<Error><Code>EntityTooSmall</Code></Error>"

    model = Picky()
    async with client(model) as r2:
        with pytest.raises(InvalidRequest) as caught:
            await r2.put("k", CONTENT, part_size=10)
    assert (caught.value.code, model.count("upload_part"), model.count("list_parts")) == (
        "EntityTooSmall",
        6,
        0,
    )
    assert model.uploads == {}


async def test_a_part_that_is_refused_for_good_is_not_looked_for(tiny: None) -> None:
    class Refusing(R2Model):
        def _upload_part(self, call: Call) -> Answer:
            super()._upload_part(call)
            return 403, {}, b"<Error><Code>AccessDenied</Code></Error>"

    model = Refusing()
    async with client(model) as r2:
        with pytest.raises(AccessDenied):
            await r2.put("k", CONTENT, part_size=10, concurrency=1)
    assert (model.count("upload_part"), model.count("list_parts"), model.uploads) == (1, 0, {})


@pytest.mark.parametrize("part_size", [10, None])
async def test_what_was_written_is_what_is_given_back(part_size: int | None, tiny: None) -> None:
    model = R2Model()
    async with client(model) as r2:
        info = await r2.put("k", CONTENT, content_type="a/b", metadata={"M": "ü"}, part_size=part_size)
    stored = model.objects["k"]
    assert stored.headers == {"content-type": "a/b", "x-amz-meta-m": "=?utf-8?B?w7w=?="}
    assert info == ObjectInfo(
        key="k", size=len(CONTENT), etag=stored.etag, content_type="a/b", metadata={"m": "ü"}
    )
