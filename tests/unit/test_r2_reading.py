"""Reading through faults: the right bytes or a typed error, and a file that is there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import stat
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from attrs import define, field

from prewarmkit import Credentials, R2Client, RetryPolicy, Timeouts
from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    ConnectionFault,
    NotFound,
    PreconditionFailed,
    R2Error,
    ServiceFault,
)
from prewarmkit.r2 import partial
from prewarmkit.r2.facts import strong_etag
from prewarmkit.r2.partial import PartialFile
from prewarmkit.r2.reader import ObjectReader
from prewarmkit.r2.resume import Patience
from prewarmkit.r2.retry import AttemptEvent
from prewarmkit.sources import MediaReader
from prewarmkit.testing.wire import RecordedRequest, ScriptedServer, Wire, serve
from prewarmkit.transports import DirectTransport, HttpxTransport, Request, Response, Transport

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("AKIDEXAMPLE", "s3cr3t-k3y")
KIB = 1024
CONTENT = random.Random(1).randbytes(64 * KIB)
OTHER = random.Random(2).randbytes(64 * KIB)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def client(server: ScriptedServer, **options: Any) -> R2Client:
    options = {"retry": RetryPolicy(attempts=4, base=0.0), **options}
    return R2Client(endpoint=server.url, bucket="media", credentials=CREDENTIALS, **options)


# ── a service that holds one object, and fails as it is told ─────────────────

Fault = Callable[["Service", Wire, RecordedRequest], Any]


@define
class Service:
    """One object by any key; the n-th request meets the n-th fault.

    Attributes:
        etag: As the header says it; ``None``: the content's MD5; empty: none.
        faults: Those that are left; ``None``: no fault.
    """

    content: bytes = CONTENT
    etag: str | None = None
    faults: list[Fault | None] = field(factory=list["Fault | None"])
    obeys_if_match: bool = True
    obeys_range: bool = True
    is_range_200: bool = False
    shift: int = 0
    total_shift: int = 0

    @property
    def tag(self) -> str:
        return f'"{md5(self.content)}"' if self.etag is None else self.etag

    async def __call__(self, wire: Wire) -> None:
        while True:
            request = await wire.request()
            fault = self.faults.pop(0) if self.faults else None
            if fault is not None:
                await fault(self, wire, request)
            else:
                await self.answer(wire, request)

    async def answer(self, wire: Wire, request: RecordedRequest, *, upto: int | None = None) -> None:
        """A good answer, or its head and the first ``upto`` bytes."""
        status, headers, body = self.good(request)
        length = len(body)
        body = b"" if request.method == "HEAD" else body[:upto]
        await wire.answer(status, headers, body, length=length)

    def good(self, request: RecordedRequest) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = [("ETag", self.tag)] if self.tag else []
        wanted = request.header("if-match")
        if self.obeys_if_match and wanted not in {None, "*", self.tag}:
            return 412, headers, b"<Error><Code>PreconditionFailed</Code></Error>"
        if request.header("if-none-match") == self.tag:
            return 304, headers, b""
        text = request.header("range")
        if text is None or not self.obeys_range or request.method == "HEAD":
            return 200, headers, self.content
        start, _, end = text.removeprefix("bytes=").partition("-")
        size = len(self.content)
        first, last = (int(start), int(end or size)) if start else (max(0, size - int(end)), size)
        last = min(last, size - 1)
        if first >= size:
            return 416, [], b"<Error><Code>InvalidRange</Code></Error>"
        shown = f"bytes {first + self.shift}-{last + self.shift}/{size + self.total_shift}"
        headers.append(("Content-Range", shown))
        return (200 if self.is_range_200 else 206), headers, self.content[first : last + 1]


def cuts(after: int, how: str = "close") -> Fault:
    """The head and some bytes, then an end, a reset, or silence."""

    async def fault(service: Service, wire: Wire, request: RecordedRequest) -> None:
        await service.answer(wire, request, upto=after)
        if how == "stall":
            await anyio.sleep_forever()
        await anyio.sleep(0.005)  # so that what was sent is not overtaken by the reset
        await (wire.close() if how == "close" else wire.reset())
        raise anyio.EndOfStream

    return fault


def refuses(status: int, code: str) -> Fault:
    async def fault(service: Service, wire: Wire, request: RecordedRequest) -> None:
        body = f"<Error><Code>{code}</Code></Error>".encode()
        await wire.answer(status, body=b"" if request.method == "HEAD" else body, length=len(body))

    return fault


def with_changes(then: Fault | None = None, **changes: Any) -> Fault:
    """The service is another one from this request on."""

    async def fault(service: Service, wire: Wire, request: RecordedRequest) -> None:
        for name, value in changes.items():
            setattr(service, name, value)
        await (service.answer(wire, request) if then is None else then(service, wire, request))

    return fault


async def hangs_up(service: Service, wire: Wire, request: RecordedRequest) -> None:
    await wire.reset()
    raise anyio.EndOfStream


async def drain(reader: ObjectReader, into: bytearray) -> None:
    async for chunk in reader:
        into += chunk


def ranges(server: ScriptedServer) -> list[str | None]:
    return [request.header("range") for request in server.requests]


# ── going on ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["close", "reset", "stall"])
async def test_a_body_that_breaks_goes_on_from_where_it_was(how: str) -> None:
    """With Range and If-Match, as often as it takes while bytes come; the reader counts it."""
    service = Service(faults=[cuts(1000, how), cuts(500, how), cuts(1, how)])
    timeouts = Timeouts(stall=0.3)
    async with (
        serve(service) as server,
        client(server, timeouts=timeouts, retry=RetryPolicy(attempts=2, base=0)) as r2,
        r2.open("k") as obj,
    ):
        reader: MediaReader = obj
        assert await reader.read() == CONTENT
        assert obj.resumed == 3
        assert (obj.info.size, obj.length) == (len(CONTENT), len(CONTENT))
    last = len(CONTENT) - 1
    assert ranges(server) == [None, f"bytes=1000-{last}", f"bytes=1500-{last}", f"bytes=1501-{last}"]
    assert [request.header("if-match") for request in server.requests] == [None, *[service.tag] * 3]


async def test_a_cut_at_any_byte_is_mended() -> None:
    content = bytes(range(64))
    for at in range(len(content)):
        service = Service(content, faults=[cuts(at), None])
        async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
            assert await obj.read() == content
            assert obj.resumed == 1


@pytest.mark.parametrize(
    ("asked", "first", "then"),
    [
        ((100, 299), "bytes=100-299", "bytes=110-299"),
        ((100, None), "bytes=100-", f"bytes=110-{64 * KIB - 1}"),
        ((None, 50), "bytes=-50", f"bytes={64 * KIB - 40}-{64 * KIB - 1}"),
        ((64 * KIB - 50, 10**9), f"bytes={64 * KIB - 50}-{10**9}", f"bytes={64 * KIB - 40}-{64 * KIB - 1}"),
        ((0, None), "bytes=0-", f"bytes=10-{64 * KIB - 1}"),
    ],
)
@pytest.mark.parametrize("is_range_200", [False, True])
async def test_a_range_goes_on_inside_of_itself(
    asked: tuple[int | None, int | None], first: str, then: str, is_range_200: bool
) -> None:
    service = Service(faults=[cuts(10)], is_range_200=is_range_200)
    async with serve(service) as server, client(server) as r2, r2.open("k", range=asked) as obj:
        begin, end = (
            (-asked[1], None) if asked[0] is None and asked[1] else (asked[0], (asked[1] or 10**9) + 1)
        )
        assert await obj.read() == CONTENT[begin:end]
    assert ranges(server) == [first, then]


async def test_a_conditional_read_goes_on_by_the_etag_it_got() -> None:
    service = Service(etag='"now"', faults=[cuts(10), None] * 3)
    async with serve(service) as server, client(server) as r2:
        conditions: list[dict[str, Any]] = [{"if_match": "now"}, {"if_match": "*"}, {"if_none_match": "old"}]
        for condition in conditions:
            async with r2.open("k", **condition) as obj:
                assert await obj.read() == CONTENT
        with pytest.raises(PreconditionFailed):
            async with r2.open("k", if_match="old"):
                pass
    for request in server.requests[1:6:2]:
        assert (request.header("if-match"), request.header("if-none-match")) == ('"now"', None)


async def test_what_is_in_the_way_of_going_on_is_tried_again_and_reported() -> None:
    """The sender's own attempts; each has its event. The first of two hang-ups is the transport's affair."""
    events: list[AttemptEvent] = []
    service = Service(
        faults=[cuts(1000), refuses(503, "SlowDown"), hangs_up, hangs_up, refuses(500, "InternalError")]
    )
    async with serve(service) as server, client(server, on_attempt=events.append) as r2, r2.open("k") as obj:
        assert await obj.read() == CONTENT
    assert [(event.attempt, event.status) for event in events] == [
        (1, 200), (1, 503), (2, None), (3, 500), (4, 206),
    ]  # fmt: skip


async def test_the_waits_between_are_the_policys_with_full_jitter() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await anyio.lowlevel.checkpoint()

    policy = RetryPolicy(attempts=4, base=1.0, sleep=sleep, random=lambda: 0.5)
    service = Service(faults=[cuts(10), cuts(0), cuts(0), cuts(7), None])
    async with serve(service) as server, client(server, retry=policy) as r2, r2.open("k") as obj:
        assert await obj.read() == CONTENT
    assert slept == [0.5, 1.0, 2.0, 0.5]  # anew after progress


async def test_it_gives_up_when_the_attempts_bring_nothing() -> None:
    service = Service(faults=[cuts(10), *[cuts(0)] * 9])
    async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
        with pytest.raises(BodyFault, match="broke after 10 of 65536 bytes") as caught:
            await obj.read()
        assert (caught.value.is_retryable, caught.value.attempts) == (True, 4)
        with pytest.raises(BodyFault, match="after 10 of"):  # and stays so: the next read is no empty end
            await obj.read()
    assert len(server.requests) == 4


async def test_one_attempt_means_one() -> None:
    service = Service(faults=[cuts(10)])
    async with serve(service) as server, client(server, retry=RetryPolicy(attempts=1)) as r2:
        with pytest.raises(BodyFault, match="after 10 of"):
            async with r2.open("k") as obj:
                await obj.read()
    assert len(server.requests) == 1


def test_progress_byte_by_byte_has_an_end() -> None:
    """Overall a hundred breaks, and one more for every 8 MiB."""
    for length, breaks in ((1000, 100), (1024 * KIB * KIB, 228)):
        patience = Patience(RetryPolicy(base=0), length)
        delays = [patience.delay_seconds(given) for given in range(1, 300)]
        assert (delays.index(None), set(delays[:breaks])) == (breaks, {0.0})


@pytest.mark.parametrize("etag", ["", 'W/"weak"', '"line"break"', '""'])
async def test_without_a_strong_etag_there_is_no_going_on(etag: str) -> None:
    """Two halves under a weak ETag may be of two objects."""
    service = Service(etag=etag, faults=[cuts(10)])
    async with serve(service) as server, client(server) as r2:
        with pytest.raises(BodyFault, match=r"after 10 of 65536 bytes.*no strong ETag") as caught:
            async with r2.open("k") as obj:
                await obj.read()
        assert caught.value.is_retryable
    assert len(server.requests) == 1


def test_strong_etags() -> None:
    assert strong_etag({"etag": ' "a-2" '}) == '"a-2"'
    assert strong_etag({"etag": "bare"}) == '"bare"'  # no HTTP, and sent by some
    for weak in ("", 'W/"a"', "w/a", '"a', 'a"b', '"a b"', "é", '"a", "b"'):
        assert strong_etag({"etag": weak}) in ({None, '"w/a"'} if weak == "w/a" else {None})


# ── at once ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asked", [None, (100, 60_000), (None, 500)])
async def test_bytes_in_memory_go_on_where_they_broke_over_the_one_connection(
    asked: tuple[int | None, int | None] | None,
) -> None:
    service = Service(faults=[cuts(100), cuts(30), cuts(0, "reset")])
    transport = DirectTransport(max_connections=1)
    async with serve(service) as server, transport, client(server, transport=transport) as r2:
        with anyio.fail_after(5):
            got = await r2.get("k", range=asked)
        assert (transport.statistics().busy, transport.statistics().waiting) == (0, 0)
    first, size = (0, len(CONTENT)) if asked is None else (100, 59_901)
    if asked == (None, 500):
        first, size = len(CONTENT) - 500, 500
    assert got == CONTENT[first : first + size]
    last = first + size - 1
    assert ranges(server)[1:] == [f"bytes={first + at}-{last}" for at in (100, 130, 130)]
    assert [request.header("if-match") for request in server.requests] == [None, *[service.tag] * 3]


@pytest.mark.parametrize("how", ["changed", "ignored", "weak", "none", "shorter"])
async def test_where_going_on_cannot_be_bytes_in_memory_are_read_from_the_start(how: str) -> None:
    """Nobody has seen the first half, so that the object as it is now is as good as any."""
    changes: dict[str, dict[str, Any]] = {
        "changed": {"content": OTHER},
        "ignored": {"content": OTHER, "obeys_if_match": False},
        "shorter": {"content": OTHER[:KIB], "obeys_if_match": False},
    }
    service = Service(etag={"weak": 'W/"e"', "none": ""}.get(how), faults=[cuts(2000)])
    if how in changes:
        service.faults.append(with_changes(**changes[how]))
    async with serve(service) as server, client(server) as r2:
        assert await r2.get("k") == service.content
    assert len(server.requests) == 2 + (how in changes)
    assert ranges(server)[-1] is None


async def test_reading_from_the_start_has_the_policys_end_and_waits() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await anyio.lowlevel.checkpoint()

    policy = RetryPolicy(attempts=3, base=1.0, sleep=sleep, random=lambda: 0.5)
    service = Service(etag="", faults=[cuts(10)] * 9)
    async with serve(service) as server, client(server, retry=policy) as r2:
        with pytest.raises(BodyFault, match="no strong ETag") as caught:
            await r2.get("k")
    assert (len(server.requests), caught.value.attempts, slept) == (3, 3, [0.5, 1.0])


async def test_what_starting_anew_does_not_mend_is_not_started_anew() -> None:
    service = Service(faults=[cuts(10), *[cuts(0)] * 9])
    async with serve(service) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="after 10 of") as caught:
            await r2.get("k")
        assert caught.value.attempts == len(server.requests) == 4
        service.faults = [cuts(10), with_changes(shift=1)]
        with pytest.raises(BodyFault, match="does not keep to ranges"):
            await r2.get("k")
        assert len(server.requests) == 6
        service.faults = [cuts(10), refuses(404, "NoSuchKey"), refuses(404, "NoSuchKey")]
        with pytest.raises(NotFound):  # gone meanwhile: as for whoever comes now
            await r2.get("k")


async def test_bytes_in_memory_are_bounded_in_time_with_bodies_waits_and_all() -> None:
    scripts: list[list[Fault]] = [
        [cuts(10, "stall")],
        [cuts(10), refuses(503, "SlowDown"), cuts(10, "stall")],
    ]
    for faults in scripts:
        attempts = len(faults)
        service = Service(faults=[*faults])
        async with serve(service) as server, client(server, timeouts=Timeouts(operation=0.3)) as r2:
            with anyio.fail_after(3), pytest.raises(ConnectionFault, match=r"operation = 0\.3") as caught:
                await r2.get("k")
            assert caught.value.attempts == attempts
            assert ("SlowDown" in str(caught.value)) == (attempts > 1)
            assert await r2.get("k") == CONTENT  # and the connection is not left behind


async def test_a_body_that_breaks_spends_the_retry_budget_and_good_answers_earn_it() -> None:
    """Else a service that cuts every body would be asked for ever more by a client of many readers."""
    service = Service(faults=[cuts(1000)] * 99)
    policy = RetryPolicy(attempts=5, base=0, budget=3)
    async with serve(service) as server, client(server, retry=policy) as r2:
        async with r2.open("k") as obj:
            with pytest.raises(BodyFault, match="broke after 4000 of"):
                await obj.read()
        with pytest.raises(BodyFault, match="broke after 1000 of"):
            await r2.get("k")
        assert len(server.requests) == 4 + 1
        service.faults, service.etag = [cuts(10)] * 9, ""
        with pytest.raises(BodyFault, match="broke after 10 of"):
            await r2.get("k")
        assert len(server.requests) == 6
        service.faults = []
        for _ in range(5):
            assert await r2.get("k") == CONTENT  # the answers until now earned the half of one
        service.faults = [cuts(10)] * 2
        with pytest.raises(BodyFault, match="broke after 10 of"):
            await r2.get("k")
        assert len(server.requests) == 6 + 5 + 2


async def test_an_object_that_looks_like_a_refusal_is_an_object() -> None:
    document = b"<Error><Code>InternalError</Code></Error>"
    async with serve(Service(document)) as server, client(server) as r2:
        assert await r2.get("k") == document
    assert len(server.requests) == 1


# ── held to its MD5 ──────────────────────────────────────────────────────────


def lies(*, by: int = 0, **headers: str) -> Fault:
    """A whole good answer but for what its head says."""

    async def fault(service: Service, wire: Wire, request: RecordedRequest) -> None:
        status, pairs, body = service.good(request)
        await wire.answer(status, [*pairs, *headers.items()], body, length=len(body) + by)
        if by:
            await wire.close()
            raise anyio.EndOfStream

    return fault


@pytest.mark.parametrize("by", [-1, -7, -len(CONTENT)])
async def test_a_body_that_a_wrong_length_cuts_short_is_not_taken_for_whole(by: int) -> None:
    """The connection is fine and so is the count: only the ETag knows better. Once is mended in memory."""
    service = Service(faults=[lies(by=by)] * 2)
    async with serve(service) as server, client(server) as r2:
        got = bytearray()
        async with r2.open("k") as obj:
            with pytest.raises(BodyFault, match=r"MD5.*ETag says") as caught:
                await drain(obj, got)
            with pytest.raises(BodyFault, match="MD5"):  # and stays so
                await obj.read()
        assert got == CONTENT[:by]
        assert (caught.value.is_retryable, caught.value.status, caught.value.attempts) == (True, 200, 1)
        assert await r2.get("k") == CONTENT
        assert len(server.requests) == 3
        service.faults = [lies(by=by)] * 9
        with pytest.raises(BodyFault, match="MD5") as caught:
            await r2.get("k")
        assert caught.value.attempts == 4
        service.faults = [lies(by=by)] * 2
        assert await r2.get("k", verify=False) == CONTENT[:by]
        async with r2.open("k", verify=False) as obj:
            assert await obj.read() == CONTENT[:by]


async def test_bytes_that_were_changed_on_the_way_are_a_fault_also_where_they_went_on() -> None:
    """One flipped bit; the second half comes from another answer under the same ETag."""
    flipped = CONTENT[:30_000] + bytes([CONTENT[30_000] ^ 1]) + CONTENT[30_001:]
    for etag in (md5(CONTENT), md5(CONTENT).upper()):
        service = Service(flipped, etag=f'"{etag}"', faults=[cuts(10_000), cuts(10_000)])
        async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
            with pytest.raises(BodyFault, match="MD5"):
                await obj.read()
            assert obj.resumed == 2
    service = Service(flipped, etag=f'"{md5(CONTENT)}"')
    async with serve(service) as server, client(server) as r2, r2.open("k", range=(0, None)) as obj:
        with pytest.raises(BodyFault, match="MD5"):  # a range that is the whole is as good
            await obj.read()


@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        (f'"{md5(OTHER)}-2"', {}),
        (f'W/"{md5(OTHER)}"', {}),
        ("", {}),
        ('"0123456789abcdef"', {}),
        (f'"{md5(OTHER)}"', {"x-amz-server-side-encryption": "aws:kms"}),
        (f'"{md5(OTHER)}"', {"x-amz-server-side-encryption-customer-algorithm": "AES256"}),
        (f'"{md5(OTHER)}"', {"Content-Encoding": "gzip"}),
    ],
    ids=["parts", "weak", "none", "no MD5", "KMS", "SSE-C", "coded"],
)
async def test_an_etag_that_is_no_md5_raises_no_alarm(
    etag: str, headers: dict[str, Any], tmp_path: Path
) -> None:
    service = Service(etag=etag, faults=[lies(**headers)] * 4)
    async with serve(service) as server, client(server) as r2:
        assert await r2.get("k") == CONTENT
        async with r2.open("k") as obj:
            assert await obj.read() == CONTENT
        await r2.download("k", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


async def test_a_part_of_an_object_is_not_held_to_the_md5_of_all() -> None:
    async with serve(Service()) as server, client(server) as r2:
        assert await r2.get("k", range=(1, None)) == CONTENT[1:]
        assert await r2.get("k", range=(0, len(CONTENT) - 2)) == CONTENT[:-1]
        assert await r2.get("k", range=(None, 1)) == CONTENT[-1:]


async def test_a_range_whose_length_is_not_its_content_ranges_is_mended() -> None:
    """Content-Range says what must come, whatever Content-Length says."""
    service = Service(faults=[lies(by=-7)])
    async with serve(service) as server, client(server) as r2:
        assert await r2.get("k", range=(100, 299)) == CONTENT[100:300]
        assert ranges(server) == ["bytes=100-299", "bytes=293-299"]


async def test_an_object_that_ends_before_its_announced_length_is_said_to() -> None:
    """Whether it changed, or the announcement was wrong, cannot be told; both are said."""
    service = Service(faults=[lies(by=+7)])
    async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
        with pytest.raises(
            BodyFault, match=r"not as long as announced: .*changed.* rewrites lengths"
        ) as caught:
            await obj.read()
    assert (caught.value.status, caught.value.is_retryable) == (416, True)


# ── listings that are refused late ───────────────────────────────────────────


@pytest.mark.parametrize(
    "shape",
    [
        '<?xml version="1.0" encoding="UTF-8"?>\n{}',
        "\n \r\n{}",
        "\ufeff{}",
        '<?xml version="1.0"?>{}',
        "{}",
    ],
)
async def test_a_listing_that_is_an_error_after_all_is_that_error(shape: str) -> None:
    """200 and an <Error>: it is what its code says, and is tried again if that may help."""
    page = b"<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>"

    def says(code: str) -> bytes:
        error = f"<Error xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Code>{code}</Code></Error>"
        return shape.format(error).encode()

    bodies = [
        says("InternalError"),
        says("SlowDown"),
        page,
        says("AccessDenied"),
        *[says("InternalError")] * 4,
    ]

    async def service(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(200, body=bodies.pop(0))

    async with serve(service) as server, client(server) as r2:
        assert [info.key async for info in r2.list()] == ["a"]
        with pytest.raises(AccessDenied) as denied:
            await anext(r2.list())
        assert (denied.value.code, denied.value.status, len(server.requests)) == ("AccessDenied", 200, 4)
        with pytest.raises(ServiceFault) as failed:
            await anext(r2.list())
        assert (failed.value.attempts, bodies) == (4, [])


# ── and never mixing ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "change",
    [
        with_changes(content=OTHER),
        with_changes(content=OTHER, obeys_if_match=False),
        with_changes(content=OTHER[:KIB], obeys_if_match=False),
        with_changes(content=CONTENT + b"more", etag=f'"{md5(CONTENT)}"', obeys_if_match=False),
        with_changes(etag='"new"', obeys_if_match=False),
        with_changes(etag=f'W/"{md5(CONTENT)}"', obeys_if_match=False),
        with_changes(etag="", obeys_if_match=False),
        refuses(404, "NoSuchKey"),
    ],
    ids=["412", "ignored", "shorter", "longer", "etag", "weak", "no etag", "deleted"],
)
async def test_an_object_that_changed_is_a_fault_and_never_mixed(change: Fault) -> None:
    """Whether the service obeys If-Match or takes no notice of it; rclone does not."""
    service = Service(faults=[cuts(2000), change])
    async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
        got = bytearray()
        with pytest.raises(BodyFault, match=r"object .*changed while it was read") as caught:
            await drain(obj, got)
        assert got == CONTENT[:2000]
        assert caught.value.is_retryable  # from the start
        with pytest.raises(BodyFault, match="changed"):  # and stays so: nothing more is asked for
            await obj.read()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "change",
    [
        with_changes(obeys_range=False),
        with_changes(shift=1),
        with_changes(shift=-1),
        with_changes(total_shift=9),
    ],
)
async def test_an_answer_that_is_not_the_rest_is_a_fault(change: Fault) -> None:
    """The whole object, other bytes, another size: by If-Match alone each would pass."""
    service = Service(faults=[cuts(2000), change])
    async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
        got = bytearray()
        with pytest.raises(BodyFault, match=r"range|changed"):
            await drain(obj, got)
        assert got == CONTENT[:2000]


async def test_credentials_that_cease_to_be_good_are_called_so() -> None:
    service = Service(faults=[cuts(10), refuses(401, "Unauthorized")])
    async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
        with pytest.raises(AccessDenied):
            await obj.read()


async def test_a_service_that_stays_down_is_a_fault_of_the_body() -> None:
    service = Service(faults=[cuts(10), *[refuses(500, "InternalError")] * 9])
    async with serve(service) as server, client(server) as r2, r2.open("k") as obj:
        with pytest.raises(BodyFault, match=r"after 10 of .*InternalError") as caught:
            await obj.read()
        assert isinstance(caught.value.__cause__, ServiceFault)
        assert (caught.value.is_retryable, caught.value.status, caught.value.attempts) == (True, 500, 5)


def some_fault(dice: random.Random) -> Fault | None:
    """One of all kinds, cuts most of all."""
    cut = cuts(dice.choice([0, 1, dice.randrange(70 * KIB), 64 * KIB - 1]), dice.choice(["close", "reset"]))
    other = random.Random(dice.random()).randbytes(dice.choice([64 * KIB, 30 * KIB]))
    return dice.choices(
        [
            cut,
            None,
            refuses(503, "SlowDown"),
            hangs_up,
            cuts(dice.randrange(64 * KIB), "stall"),
            with_changes(content=other),
            with_changes(content=other, obeys_if_match=False),
            with_changes(cut, content=other, obeys_if_match=False),
            with_changes(obeys_range=False),
            with_changes(shift=dice.choice([-1, 1])),
            with_changes(cut, etag=""),
            with_changes(is_range_200=True),
        ],
        weights=[12, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1],
    )[0]


async def test_any_sequence_of_faults_gives_the_right_bytes_or_a_typed_error(tmp_path: Path) -> None:
    """A hundred scripts; what is right is what the first answer's ETag stands for."""
    ends = {"right": 0, "error": 0}
    transport = DirectTransport(max_connections=4, stall_timeout=0.15)
    for seed in range(100):
        dice = random.Random(seed)
        faults = [some_fault(dice) for _ in range(8)]
        seen: dict[str, bytes] = {}
        service = Service(faults=[noting(seen, fault) for fault in faults])
        async with (
            serve(noted(service, seen)) as server,
            transport,
            client(server, transport=transport) as r2,
        ):
            info, content = None, b""
            try:
                if seed % 3 == 0:
                    async with r2.open("k", range=dice.choice([None, (0, None)])) as obj:
                        info, content = obj.info, await obj.read()
                elif seed % 3 == 1:
                    content = await r2.get("k", range=dice.choice([None, (0, None)]))
                else:
                    info = await r2.download("k", tmp_path / str(seed), part_size=dice.choice([7000, 20_000]))
                    content = (tmp_path / str(seed)).read_bytes()
            except R2Error:
                ends["error"] += 1
                assert not (tmp_path / str(seed)).exists()
            else:
                ends["right"] += 1
                if info is None:
                    assert content in [service.content, *seen.values()], seed
                else:
                    assert content == (seen[info.etag] if info.etag else service.content), seed
            assert transport.statistics().busy == 0
    assert min(ends.values()) >= 15, ends


def noting(seen: dict[str, bytes], fault: Fault | None) -> Fault:
    """The fault, and which content an ETag stood for when it came."""

    async def noted_fault(service: Service, wire: Wire, request: RecordedRequest) -> None:
        try:
            await (service.answer(wire, request) if fault is None else fault(service, wire, request))
        finally:
            noted(service, seen)

    return noted_fault


def noted(service: Service, seen: dict[str, bytes]) -> Service:
    seen[service.tag.strip('"')] = seen[md5(service.content)] = service.content
    return service


# ── where it is read, and how it is left ─────────────────────────────────────


@pytest.fixture(params=["direct", "httpx"])
async def transport(request: pytest.FixtureRequest) -> AsyncGenerator[Transport, None]:
    if request.param == "direct":
        async with DirectTransport(max_connections=1, stall_timeout=5) as direct:
            yield direct
    else:
        import httpx

        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(limits=limits, timeout=5, trust_env=False) as inner:
            yield HttpxTransport(inner)


async def test_a_body_goes_on_inside_of_a_time_limit_and_in_another_task(transport: Transport) -> None:
    """On the one connection that there is: the broken one is given back first."""
    service = Service(faults=[cuts(10), cuts(10), cuts(10)])
    async with serve(service) as server, client(server, transport=transport) as r2:
        async with r2.open("k") as obj:
            with anyio.fail_after(5):
                got = [await anext(obj), await anext(obj)]
            async with anyio.create_task_group() as tasks:

                async def read() -> None:
                    with anyio.fail_after(5):
                        got.append(await obj.read())

                tasks.start_soon(read)
            assert b"".join(got) == CONTENT
            assert obj.resumed == 3
        assert await r2.get("k") == CONTENT


async def test_while_it_waits_to_go_on_it_holds_no_connection() -> None:
    busy: list[int] = []

    async def sleep(seconds: float) -> None:
        await anyio.sleep(0.02)
        busy.append(direct.statistics().busy)

    policy = RetryPolicy(sleep=sleep)
    service = Service(faults=[cuts(10)])
    async with (
        DirectTransport() as direct,
        serve(service) as server,
        client(server, transport=direct, retry=policy) as r2,
        r2.open("k") as obj,
    ):
        assert await obj.read() == CONTENT
    assert busy == [0]


async def test_going_on_that_is_given_up_is_begun_anew(transport: Transport) -> None:
    """Without waiting for the request that was given up; and leaving the block does not wait for it either."""

    async def is_silent(service: Service, wire: Wire, request: RecordedRequest) -> None:
        await anyio.sleep_forever()

    service = Service(faults=[cuts(10), is_silent, cuts(10), is_silent])
    async with serve(service) as server, client(server, transport=transport) as r2:
        with anyio.fail_after(3):
            async with r2.open("k") as obj:
                got = await anext(obj)
                for _ in range(2):
                    with anyio.move_on_after(0.1):
                        got += await anext(obj)
            assert got == CONTENT[:20]
            assert len(server.requests) == 3
        service.faults = [cuts(10), is_silent]
        with anyio.fail_after(3):
            async with r2.open("k") as obj:
                await anext(obj)
                with anyio.move_on_after(0.1):
                    await anext(obj)
        assert await r2.get("k") == CONTENT


async def test_opening_and_going_on_are_bounded_in_time_and_reading_is_not() -> None:
    async def is_silent(service: Service, wire: Wire, request: RecordedRequest) -> None:
        await anyio.sleep_forever()

    async def dawdles(service: Service, wire: Wire, request: RecordedRequest) -> None:
        await service.answer(wire, request, upto=10)
        await anyio.sleep(0.4)
        await wire.stream.send(CONTENT[10:])

    service = Service(faults=[is_silent, cuts(10), is_silent, dawdles])
    async with serve(service) as server, client(server, timeouts=Timeouts(operation=0.2)) as r2:
        with anyio.fail_after(3), pytest.raises(ConnectionFault, match=r"operation = 0\.2") as caught:
            async with r2.open("k"):
                pass
        assert caught.value.attempts == 1
        async with r2.open("k") as obj:
            with anyio.fail_after(3), pytest.raises(BodyFault, match=r"after 10 of .*operation = 0\.2"):
                await obj.read()
        async with r2.open("k") as obj:
            assert await obj.read() == CONTENT


async def test_a_read_that_is_given_up_loses_no_byte(transport: Transport) -> None:
    service = Service(faults=[cuts(1000, "stall"), cuts(1000, "stall")])
    async with serve(service) as server, client(server, transport=transport) as r2, r2.open("k") as obj:
        got: list[bytes] = []
        for _ in range(2):
            got.append(await anext(obj))
            with anyio.move_on_after(0.05) as limit:
                got.append(await anext(obj))
            assert limit.cancelled_caught
        assert b"".join(got) + await obj.read() == CONTENT


async def test_errors_of_the_block_come_out_bare(transport: Transport) -> None:
    async with serve(Service()) as server, client(server, transport=transport) as r2:

        async def fails() -> None:
            async with r2.open("k") as obj:
                await anext(obj)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await fails()
        with anyio.move_on_after(0.05) as limit:
            async with r2.open("k"):
                await anyio.sleep_forever()
                raise AssertionError("a cancelled block went on")
        assert limit.cancelled_caught
        with anyio.CancelScope() as scope:
            async with r2.open("k"):
                scope.cancel()
                await anyio.sleep_forever()
            raise AssertionError("what follows a cancelled block was reached")
        assert await r2.get("k") == CONTENT


async def test_a_body_read_to_its_end_gives_its_connection_back_inside_the_block() -> None:
    async with (
        serve(Service()) as server,
        DirectTransport(max_connections=1) as transport,
        client(server, transport=transport) as r2,
        r2.open("k") as obj,
    ):
        assert await obj.read() == CONTENT
        with anyio.fail_after(5):
            assert await r2.get("k") == CONTENT
            assert await obj.read() == b""
        assert transport.statistics().opened == 1


async def test_cancelled_anywhere_no_connection_stays_in_use(tmp_path: Path) -> None:
    """Reads and downloads are cancelled after a random while, with faults on their way."""
    dice = random.Random(7)
    service = Service(content=random.Random(3).randbytes(300 * KIB))
    async with (
        DirectTransport(max_connections=6, stall_timeout=5) as transport,
        serve(service) as server,
        client(server, transport=transport, retry=RetryPolicy(base=0.01)) as r2,
    ):
        for turn in range(40):
            service.faults = [
                cuts(dice.randrange(100 * KIB)) if dice.random() < 0.5 else None for _ in range(6)
            ]
            with anyio.move_on_after(dice.uniform(0, 0.03)):
                if turn % 2:
                    await r2.download("k", tmp_path / "f", part_size=50 * KIB)
                else:
                    async with r2.open("k") as obj:
                        await obj.read()
            assert transport.statistics().busy == transport.statistics().waiting == 0
        service.faults.clear()
        await r2.download("k", tmp_path / "f", part_size=50 * KIB)
        assert (tmp_path / "f").read_bytes() == service.content
        assert left_in(tmp_path) == {"f"}


class ShortTransport:
    """A transport of a host's that counts nothing: bodies just end, or run over."""

    def __init__(self, bodies: Sequence[Iterable[bytes]]) -> None:
        self.bodies = list(bodies)
        self.ranges: list[str | None] = []

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response, None]:
        wanted = dict(request.headers).get("range")
        self.ranges.append(wanted)
        pieces = self.bodies.pop(0)

        async def chunks() -> AsyncGenerator[bytes, None]:
            for piece in pieces:
                yield piece

        headers = [("etag", '"e"'), ("content-length", "10")]
        if wanted is not None:
            headers.append(("content-range", f"bytes {wanted.removeprefix('bytes=')}/10"))
        async with aclosing(chunks()) as body:
            yield Response(200 if wanted is None else 206, tuple(headers), body)


async def test_a_body_that_just_ends_or_runs_over_is_counted() -> None:
    short = ShortTransport(
        [[b"01", b"", b"23"], [b"45", b"", b"6"], [b"789"], [b"0123456789a"], [b"0"], [b"123456789a"]]
    )
    async with R2Client(
        endpoint="http://127.0.0.1:1",
        bucket="media",
        credentials=CREDENTIALS,
        transport=short,
        retry=RetryPolicy(base=0),
    ) as r2:
        async with r2.open("k") as obj:
            assert [chunk async for chunk in obj] == [b"01", b"23", b"45", b"6", b"789"]
        assert short.ranges == [None, "bytes=4-9", "bytes=7-9"]
        for _ in range(2):
            with pytest.raises(BodyFault, match="more came than was announced"):
                async with r2.open("k") as obj:
                    await obj.read()


# ── downloads ────────────────────────────────────────────────────────────────


def left_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.prewarmkit-part")


async def test_a_small_object_takes_one_request(tmp_path: Path) -> None:
    async with serve(Service()) as server, client(server) as r2:
        info = await r2.download("k", tmp_path / "f")
    assert (info.key, info.size, info.etag) == ("k", len(CONTENT), md5(CONTENT))
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == [f"bytes=0-{8 * KIB * KIB - 1}"]
    assert left_in(tmp_path) == {"f"}


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("part_size", [64 * KIB - 1, 64 * KIB, 10_000, 1 << 12])
async def test_parts_are_read_under_one_etag(tmp_path: Path, part_size: int, concurrency: int) -> None:
    service = Service()
    async with serve(service) as server, client(server) as r2:
        await r2.download("k", str(tmp_path / "f"), concurrency=concurrency, part_size=part_size)
        assert server.connections <= concurrency
    assert (tmp_path / "f").read_bytes() == CONTENT
    starts = range(0, len(CONTENT), part_size)
    expected = {f"bytes={at}-{min(at + part_size, len(CONTENT)) - 1}" for at in starts[1:]}
    assert sorted(map(str, ranges(server))) == sorted({f"bytes=0-{part_size - 1}", *expected})
    assert {request.header("if-match") for request in server.requests[1:]} <= {service.tag}
    assert left_in(tmp_path) == {"f"}


@pytest.mark.parametrize("obeys_range", [True, False])
async def test_an_empty_object_is_an_empty_file(tmp_path: Path, obeys_range: bool) -> None:
    async with serve(Service(b"", obeys_range=obeys_range)) as server, client(server) as r2:
        assert (await r2.download("k", tmp_path / "f")).size == 0
    assert (tmp_path / "f").read_bytes() == b""
    assert left_in(tmp_path) == {"f"}


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
async def test_without_a_strong_etag_it_is_read_in_one_piece(tmp_path: Path, etag: str) -> None:
    async with serve(Service(etag=etag)) as server, client(server) as r2:
        await r2.download("k", tmp_path / "f", part_size=10_000)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=0-9999", None]
    async with serve(Service(etag=etag, faults=[None, cuts(100)])) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="no strong ETag"):
            await r2.download("k", tmp_path / "g", part_size=10_000)
    assert left_in(tmp_path) == {"f"}


async def test_a_service_without_ranges_is_a_fault_or_one_request(tmp_path: Path) -> None:
    async with serve(Service(obeys_range=False)) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="ranges"):
            await r2.download("k", tmp_path / "f", part_size=10_000)
        await r2.download("k", tmp_path / "g")  # it all fits in the one range that is asked for
    assert (tmp_path / "g").read_bytes() == CONTENT
    assert left_in(tmp_path) == {"g"}


@pytest.mark.parametrize("obeys_if_match", [True, False])
@pytest.mark.parametrize("content", [OTHER, OTHER[:KIB]])
async def test_an_object_that_changes_between_its_parts_is_a_fault(
    tmp_path: Path, obeys_if_match: bool, content: bytes
) -> None:
    (tmp_path / "f").write_bytes(b"before")
    change = with_changes(content=content, obeys_if_match=obeys_if_match)
    service = Service(faults=[None, None, change])
    async with serve(service) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="changed while it was read"):
            await r2.download("k", tmp_path / "f", part_size=10_000)
        assert (tmp_path / "f").read_bytes() == b"before"
        service.obeys_if_match = True
        await r2.download("k", tmp_path / "f", part_size=10_000)
    assert (tmp_path / "f").read_bytes() == content
    assert left_in(tmp_path) == {"f"}


async def test_what_does_not_have_the_md5_of_its_etag_is_a_fault(tmp_path: Path) -> None:
    service = Service(etag=f'"{md5(OTHER)}"')
    async with serve(service) as server, client(server) as r2:
        for part_size in (10_000, 10**6):
            with pytest.raises(BodyFault, match="MD5"):
                await r2.download("k", tmp_path / "f", part_size=part_size)
            assert left_in(tmp_path) == set()
        service.etag = f'"{md5(OTHER)}-2"'  # that of an upload in parts is none
        await r2.download("k", tmp_path / "f")


async def interrupt(r2: R2Client, service: Service, path: Path, *, good: int = 4) -> None:
    """Let a download have ``good`` parts of 10,000 bytes, and fail."""
    service.faults = [*[None] * good, *[refuses(403, "AccessDenied")] * 4]
    with pytest.raises(AccessDenied):
        await r2.download("k", path, part_size=10_000, concurrency=1)
    service.faults = []
    assert path.name not in left_in(path.parent)


async def test_the_same_call_again_fetches_only_what_is_missing(tmp_path: Path) -> None:
    service, path = Service(), tmp_path / "f"
    async with serve(service) as server, client(server) as r2:
        await interrupt(r2, service, path)
        assert left_in(tmp_path) == {hidden(path).name}
        del server.requests[:]
        info = await r2.download("k", path, part_size=10_000)
        assert (info.size, info.etag) == (len(CONTENT), md5(CONTENT))
        assert server.requests[0].method == "HEAD"
        assert sorted(map(str, ranges(server)[1:])) == [
            "bytes=40000-49999", "bytes=50000-59999", "bytes=60000-65535",
        ]  # fmt: skip
        assert path.read_bytes() == CONTENT
        assert left_in(tmp_path) == {"f"}


@pytest.mark.parametrize(
    "change",
    ["content", "etag", "key", "part size", "bytes", "tail", "cut", "no etag", "junk"],
)
async def test_what_is_not_of_the_same_object_or_not_whole_is_fetched_again(
    tmp_path: Path, change: str
) -> None:
    """A checksum for each part: also what was lost with the power, or written by somebody else, is noticed."""
    service, path = Service(), tmp_path / "f"
    key, part_size = "k", 10_000
    async with serve(service) as server, client(server) as r2:
        await interrupt(r2, service, path)
        match change:
            case "content":
                service.content = OTHER
            case "etag":
                service.etag = '"other"'
            case "no etag":
                service.etag = ""
            case "key":
                key = "other"
            case "part size":
                part_size = 20_000
            case "junk":
                hidden(path).write_bytes(b"x" * 100_000)
            case _:
                with hidden(path).open("r+b") as file:
                    if change == "cut":
                        file.truncate(35_000)
                    else:
                        file.seek(15_000 if change == "bytes" else len(CONTENT))
                        file.write(b"\0" * 8)
        del server.requests[:]
        await r2.download(key, path, part_size=part_size)
        assert path.read_bytes() == service.content
        assert left_in(tmp_path) == {"f"}
        asked = [text for text in ranges(server) if text is not None]
        assert "bytes=0-9999" in asked or change in {"bytes", "part size"}
        assert "bytes=10000-19999" in asked or change in {"part size", "no etag"}


async def test_a_first_request_that_fails_does_not_cost_what_is_there(tmp_path: Path) -> None:
    service, path = Service(), tmp_path / "f"
    async with serve(service) as server, client(server) as r2:
        await interrupt(r2, service, path)
        service.faults = [refuses(500, "InternalError")] * 4
        with pytest.raises(ServiceFault):
            await r2.download("k", path, part_size=10_000)
        assert left_in(tmp_path) == {hidden(path).name}


async def test_cancelled_it_leaves_what_can_go_on_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for resume in (True, False):
        service = Service(faults=[None, None, None, cuts(0, "stall"), None, None])
        async with serve(service) as server, client(server) as r2:
            with anyio.move_on_after(0.3) as limit:
                await r2.download("k", path, part_size=10_000, concurrency=1, resume=resume)
            assert limit.cancelled_caught
            assert left_in(tmp_path) == ({hidden(path).name} if resume else set())
            if resume:
                hidden(path).unlink()


async def test_cancelled_while_it_checks_what_is_there_it_keeps_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large file that takes a while; it does not have to be waited for."""
    service, path = Service(), tmp_path / "f"
    async with serve(service) as server, client(server) as r2:
        await interrupt(r2, service, path)
        before = hidden(path).read_bytes()
        real, scope, reads = os.pread, anyio.CancelScope(), list[int]()

        def pread(descriptor: int, count: int, offset: int) -> bytes:
            if offset == 10_000:
                anyio.from_thread.run_sync(scope.cancel)
            reads.append(offset)
            return real(descriptor, count, offset)

        monkeypatch.setattr(os, "pread", pread)
        with scope:
            await r2.download("k", path, part_size=10_000)
        assert scope.cancelled_caught
        assert 20_000 not in reads
        assert hidden(path).read_bytes() == before


async def test_without_resuming_an_earlier_try_is_neither_used_nor_harmed(tmp_path: Path) -> None:
    service, path = Service(), tmp_path / "f"
    async with serve(service) as server, client(server) as r2:
        await interrupt(r2, service, path)
        before = hidden(path).read_bytes()
        await r2.download("k", path, part_size=10_000, resume=False)
        assert path.read_bytes() == CONTENT
        assert hidden(path).read_bytes() == before


async def test_downloads_to_one_path_at_once_do_not_meet(tmp_path: Path) -> None:
    """Each has a file of its own; the last one stays, whole."""
    service, path = Service(), tmp_path / "f"
    async with serve(service) as server, client(server) as r2, anyio.create_task_group() as tasks:
        for number in range(6):
            service.faults.append(cuts(100 * number))

            async def run(key: str = f"k{number}") -> None:
                await r2.download(key, path, part_size=10_000)
                assert path.read_bytes() == CONTENT

            tasks.start_soon(run)
    assert left_in(tmp_path) == {"f"}


def test_a_lock_on_what_has_become_the_target_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening and our locking the other may have finished: its file is the target then."""
    import fcntl

    path = tmp_path / "f"
    other = PartialFile.open(path, resume=True)
    other.begin(None, size=3, part_size=3)
    other.write(b"abc", 0, 0)
    real = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        other.publish()
        other.close()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    mine = PartialFile.open(path, resume=True)
    mine.begin(b"s" * 48, size=8, part_size=4)
    assert path.read_bytes() == b"abc"
    assert not mine.is_begun
    mine.close()
    assert left_in(tmp_path) == {"f"}


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "hard link"])
async def test_a_hidden_name_that_somebody_else_took_is_not_written_to(tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "f"
    match kind:
        case "symlink":
            hidden(path).symlink_to(victim)
        case "fifo":
            os.mkfifo(hidden(path))
        case "directory":
            hidden(path).mkdir()
        case _:
            hidden(path).hardlink_to(victim)
    async with serve(Service()) as server, client(server) as r2:
        await r2.download("k", path, part_size=10_000)
    assert (path.read_bytes(), victim.read_bytes()) == (CONTENT, b"precious")
    assert left_in(tmp_path) == {"f", "victim", hidden(path).name}


async def test_permissions_are_those_of_any_file_or_of_the_one_replaced(tmp_path: Path) -> None:
    async with serve(Service()) as server, client(server) as r2:
        for name, mode in (("new", None), ("private", 0o600), ("open", 0o664), ("locked", 0o444)):
            path = tmp_path / name
            if mode is not None:
                path.touch()
                path.chmod(mode)
            old = os.umask(0o027)
            try:
                await r2.download("k", path)
            finally:
                os.umask(old)
            assert stat.S_IMODE(path.stat().st_mode) == (0o640 if mode is None else mode)


async def test_a_symbolic_link_is_followed_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "f")
    async with serve(Service()) as server, client(server) as r2:
        await r2.download("k", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "f").read_bytes() == CONTENT


async def test_a_path_that_cannot_be_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with serve(Service()) as server, client(server) as r2:
        with pytest.raises(FileNotFoundError, match=r"Create the directory.*missing"):
            await r2.download("k", tmp_path / "missing" / "f")
        with pytest.raises(IsADirectoryError, match="not to a directory"):
            await r2.download("k", tmp_path)
        with pytest.raises(NotADirectoryError, match="file"):
            await r2.download("k", tmp_path / "file" / "f")
        with pytest.raises(ValueError, match="concurrency"):
            await r2.download("k", tmp_path / "f", concurrency=0)
        with pytest.raises(ValueError, match="part_size"):
            await r2.download("k", tmp_path / "f", part_size=0)
        with pytest.raises(ValueError, match="key"):
            await r2.download("", tmp_path / "f")
        assert server.requests == []
        service_without = refuses(404, "NoSuchKey")
    async with serve(Service(faults=[service_without])) as server, client(server) as r2:
        with pytest.raises(NotFound):
            await r2.download("k", tmp_path / "f")
    assert left_in(tmp_path) == {"file"}


async def test_a_name_as_long_as_names_may_be_has_a_hidden_one_too(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    service = Service()
    async with serve(service) as server, client(server) as r2:
        await interrupt(r2, service, path)
        [name] = left_in(tmp_path)
        assert name.endswith(".prewarmkit-part")
        await r2.download("k", path, part_size=10_000)
    assert left_in(tmp_path) == {path.name}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_is_named_and_leaves_no_half_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """On a full disk nothing is kept for later; after another error what is whole is."""
    path = tmp_path / "f"
    path.write_bytes(b"before")
    real, lock, written = os.pwrite, threading.Lock(), [0]

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        with lock:
            written[0] += len(content[:1000])
        if written[0] > 45_000:
            raise OSError(number, os.strerror(number))
        return real(descriptor, content[:1000], offset)  # a write may be short, too

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with serve(Service()) as server, client(server) as r2:
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            await r2.download("k", path, part_size=10_000, concurrency=1)
        assert (caught.value.errno, caught.value.filename) == (number, str(path))
        assert path.read_bytes() == b"before"
        assert left_in(tmp_path) == ({"f"} if number == errno.ENOSPC else {"f", hidden(path).name})


async def test_a_target_that_cannot_take_the_name_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "no", source)

    monkeypatch.setattr(os, "replace", replace)
    async with serve(Service()) as server, client(server) as r2:
        with pytest.raises(PermissionError):
            await r2.download("k", tmp_path / "f", part_size=10_000)
    assert left_in(tmp_path) == set()


async def test_file_and_directory_are_on_the_disk_before_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "f", list[str]()
    sync, replace = os.fsync, os.replace

    def noted_sync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        steps.append("folder" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes")
        sync(descriptor)

    def noted_replace(source: str, target: str) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    async with serve(Service()) as server, client(server) as r2:
        await r2.download("k", path)
    assert steps == ["65536 bytes", "65536 bytes", "rename", "folder"]


async def test_without_locks_and_positioned_writes_it_works_and_does_not_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr(partial, "_IS_POSIX", False)
    path = tmp_path / "f"
    async with serve(Service()) as server, client(server) as r2:
        await r2.download("k", path, part_size=10_000)
        path.chmod(0o600)
        await r2.download("k", path, part_size=10_000)
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left_in(tmp_path) == {"f"}


async def test_a_reader_is_of_no_use_after_its_block() -> None:
    service = Service(faults=[cuts(10)])
    async with serve(service) as server, client(server) as r2, AsyncExitStack() as stack:
        obj: ObjectReader = await stack.enter_async_context(r2.open("k"))
        assert await anext(obj) == CONTENT[:10]
        await stack.aclose()
        with pytest.raises((R2Error, RuntimeError)):
            await obj.read()
