"""R2Client on the wire: what it sends, what it makes of answers, when it sends again."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anyio
import pytest

from prewarmkit import Credentials, R2Client, RetryPolicy, SigV4Signer, Timeouts
from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    ConfigurationError,
    ConnectionFault,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    ServiceFault,
    SlowDown,
)
from prewarmkit.r2.retry import AttemptEvent
from prewarmkit.sources import MediaSource
from prewarmkit.testing.wire import ScriptedServer, Wire, serve
from prewarmkit.transports import DirectTransport, Request, Response

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("AKIDEXAMPLE", "s3cr3t-k3y")
MIB = 1024 * 1024


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def client(server: ScriptedServer, **options: Any) -> R2Client:
    options = {"retry": RetryPolicy(attempts=3, base=0.001), **options}
    return R2Client(endpoint=server.url, bucket="media", credentials=CREDENTIALS, **options)


Script = Callable[[Wire], Awaitable[None]]


def answers(*scripts: Script) -> Script:
    """A handler whose n-th request, over all connections, is answered by the n-th script."""
    left: Iterator[Script] = iter(scripts)

    async def handler(wire: Wire) -> None:
        while True:
            await wire.request()
            await next(left)(wire)

    return handler


def says(status: int = 200, body: bytes = b"", **headers: str) -> Script:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]

    async def script(wire: Wire) -> None:
        await wire.answer(status, pairs, body)

    return script


def fails(status: int, code: str, **headers: str) -> Script:
    return says(status, f"<Error><Code>{code}</Code></Error>".encode(), **headers)


async def hangs_up(wire: Wire) -> None:
    await wire.reset()
    raise anyio.EndOfStream


# ── what is sent ─────────────────────────────────────────────────────────────


async def test_requests_keep_to_what_r2_understands() -> None:
    """No chunked signing, trailers, Expect, ACLs, tags or SDK checksums; lengths always; only an allow-list is signed.

    Cloudflare's docs, r2/api/s3/api and r2/api/s3/extensions; that Accept-Encoding is rewritten on the way and
    must not be signed: mhart/aws4fetch#39.
    """
    content = b"hello"

    async def gen() -> AsyncGenerator[bytes, None]:
        yield content

    ok = says(200, ETag=f'"{md5(content)}"')
    async with (
        serve(answers(ok, ok, says(200, content), says(200), says(204))) as server,
        client(server) as r2,
    ):
        await r2.put("k", content, content_type="text/plain", metadata={"a": "b"}, if_none_match="*")
        await r2.put("k", gen())
        await r2.get("k", range=(0, None), if_match="e")
        await r2.head("k")
        await r2.delete("k")
    for request in server.requests:
        names = {name.lower() for name, _ in request.headers}
        assert names.isdisjoint(
            {"transfer-encoding", "expect", "trailer", "te", "x-amz-trailer", "x-amz-acl", "x-amz-tagging",
             "x-amz-decoded-content-length", "x-amz-sdk-checksum-algorithm", "content-encoding"}
        )  # fmt: skip
        assert not any(name.startswith("x-amz-checksum") for name in names)
        authorization = request.header("authorization") or ""
        signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert set(signed) <= {
            "host", "content-type", "content-md5", "x-amz-content-sha256", "x-amz-date", "x-amz-meta-a",
        }  # fmt: skip
        assert {name for name in names if name.startswith("x-amz-")} <= set(signed)
        assert (request.header("x-amz-content-sha256") or "").partition("-")[0] != "STREAMING"
    first, second, third, *_ = server.requests
    for put in (first, second):
        assert put.header("content-length") == "5"
        assert put.header("content-md5") == base64.b64encode(bytes.fromhex(md5(content))).decode()
    assert (first.header("if-none-match"), first.header("content-type")) == ("*", "text/plain")
    assert (third.header("accept-encoding"), third.header("if-match")) == ("identity", '"e"')
    assert third.header("range") == "bytes=0-"


async def test_a_large_file_is_streamed_with_its_length(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192  # 2 MiB
    path = tmp_path / "f"
    path.write_bytes(content)
    file = io.BytesIO(b"skipped" + content)
    file.seek(7)
    ok = says(200, ETag=f'"{md5(content)}"')
    async with serve(answers(ok, ok, ok)) as server, client(server) as r2:
        for body in (path, str(path), file):
            info = await r2.put("k", body)
            assert (info.size, info.etag) == (len(content), md5(content))
    assert all(request.body == content for request in server.requests)
    assert all(request.header("x-amz-content-sha256") == "UNSIGNED-PAYLOAD" for request in server.requests)


async def test_each_attempt_is_signed_anew_and_the_file_read_again(tmp_path: Path) -> None:
    content = b"x" * 2 * MIB
    (tmp_path / "f").write_bytes(content)
    times = iter([1_700_000_000.0 + 60 * step for step in range(100)])
    events: list[AttemptEvent] = []
    script = answers(fails(500, "InternalError"), hangs_up, says(200, ETag=f'"{md5(content)}"'))
    async with (
        serve(script) as server,
        client(server, on_attempt=events.append, clock=lambda: next(times)) as r2,
    ):
        await r2.put("k", tmp_path / "f")
    assert [request.body for request in server.requests] == [content] * 3
    assert len({request.header("x-amz-date") for request in server.requests}) == 3
    assert [(event.attempt, event.status, type(event.error)) for event in events] == [
        (1, 500, ServiceFault),
        (2, None, ConnectionFault),
        (3, 200, type(None)),
    ]
    assert all(event.seconds >= 0 and event.key == "k" and event.method == "PUT" for event in events)


async def test_presigned_and_public_addresses() -> None:
    r2 = R2Client(
        account_id="0abc", bucket="media", credentials=CREDENTIALS, public_base_url="https://cdn.example.com/"
    )
    assert r2.public_url("a b/ü+.png", version="1&2") == "https://cdn.example.com/a%20b/%C3%BC%2B.png?v=1%262"
    assert r2.url("k") == "https://cdn.example.com/k"
    url = r2.presign("GET", "a b", expires=60)
    assert url.startswith("https://0abc.r2.cloudflarestorage.com/media/a%20b?")
    assert "X-Amz-Expires=60" in url
    with pytest.raises(ValueError, match="method"):
        r2.presign("POST", "k")
    with pytest.raises(ValueError, match="expires"):
        r2.presign("GET", "k", expires=8 * 24 * 3600)
    bare = r2.with_bucket("other")
    assert bare.url("k") is None
    with pytest.raises(ConfigurationError, match="public_base_url"):
        bare.public_url("k")


# ── what is made of answers ──────────────────────────────────────────────────


async def test_a_body_is_streamed_and_counted() -> None:
    body = bytes(range(256)) * 4096
    async with (
        serve(answers(says(200, body, ETag='"e"', Content_Encoding="gzip"))) as server,
        client(server) as r2,
        r2.open("k") as obj,
    ):
        assert (obj.info.size, obj.info.etag, obj.length) == (MIB, "e", MIB)
        assert b"".join([chunk async for chunk in obj]) == body


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_body_cut_short_is_a_fault_and_never_just_ends(how: str) -> None:
    async def cut(wire: Wire) -> None:
        await wire.answer(200, body=b"x" * 1000, length=5000)
        await anyio.sleep(0.02)
        await (wire.close() if how == "close" else wire.reset())
        raise anyio.EndOfStream

    async with serve(answers(*[cut] * 4)) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="1000 of 5000 bytes") as caught:
            async with r2.open("k") as obj:
                await obj.read()
        assert caught.value.is_retryable
        with pytest.raises(BodyFault) as other:  # get reads within its attempts
            await r2.get("k")
        assert other.value.attempts == 3


class LaxTransport:
    """A transport that takes no notice of lengths, as one of a host's may not."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response, None]:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield self._body

        async with aclosing(chunks()) as body:
            yield Response(200, (("content-length", "5"),), body)


@pytest.mark.parametrize("body", [b"1234", b"123456"])
async def test_a_transport_that_counts_nothing_is_counted_after(body: bytes) -> None:
    r2 = R2Client(
        endpoint="http://127.0.0.1:1", bucket="media", credentials=CREDENTIALS, transport=LaxTransport(body)
    )
    async with r2:
        with pytest.raises(BodyFault, match="bytes"):
            await r2.get("k")
        with pytest.raises(BodyFault, match="of 5 bytes"):
            async with r2.open("k") as obj:
                await obj.read()


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (206, {}),
        (206, {"Content_Range": "bytes 0-4/10"}),
        (206, {"Content_Range": "bytes 1-4/10"}),
        (206, {"Content_Range": "bytes 2-6/*"}),
    ],
)
async def test_another_range_than_asked_for_is_a_fault(status: int, headers: dict[str, str]) -> None:
    """Wrong bytes are worse than none."""
    async with serve(answers(says(status, b"01234", **headers))) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="range"):
            await r2.get("k", range=(2, 6))


async def test_a_range_is_what_content_range_says() -> None:
    """As rclone does, which answers ranges with 200 and a Content-Range."""
    script = answers(
        says(206, b"23456", Content_Range="bytes 2-6/10"),
        says(200, b"789", Content_Range="bytes 7-9/10"),
        says(206, b"789", Content_Range="bytes 7-9/10"),
        says(200, b"0123456789"),
        says(206, b"x", Content_Range="bytes 0-0/10"),
    )
    async with serve(script) as server, client(server) as r2:
        async with r2.open("k", range=(2, 6)) as obj:
            assert (obj.info.size, obj.length, await obj.read()) == (10, 5, b"23456")
        assert await r2.get("k", range=(None, 3)) == b"789"
        assert await r2.get("k", range=(7, 100)) == b"789"
        assert await r2.get("k", range=(0, None)) == b"0123456789"
        with pytest.raises(BodyFault, match="range"):
            await r2.get("k")
    assert [request.header("range") for request in server.requests] == [
        "bytes=2-6",
        "bytes=-3",
        "bytes=7-100",
        "bytes=0-",
        None,
    ]


async def test_an_answer_without_a_length_is_refused() -> None:
    async def endless(wire: Wire) -> None:
        await wire.stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwho knows")
        await wire.close()
        raise anyio.EndOfStream

    async with serve(answers(endless)) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="Content-Length"):
            async with r2.open("k"):
                pass


async def test_an_object_stored_with_another_md5_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"y" * 2 * MIB)
    wrong = says(200, ETag=f'"{md5(b"other")}"')
    async with serve(answers(wrong, wrong, says(200, ETag='"no-md5"'))) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="MD5"):
            await r2.put("k", b"mine")
        with pytest.raises(BodyFault, match="MD5"):
            await r2.put("k", tmp_path / "f")
        assert (await r2.put("k", b"mine")).etag == "no-md5"


async def test_a_redirect_is_an_error_and_not_followed() -> None:
    script = answers(says(307, Location="http://127.0.0.1:1/"))
    async with serve(script) as server, client(server) as r2:
        with pytest.raises(InvalidRequest, match="never followed"):
            await r2.get("k")
    assert len(server.requests) == 1


async def test_an_early_refusal_of_a_large_upload_is_read(tmp_path: Path) -> None:
    """EntityTooLarge comes before the body is read; a broken pipe would say nothing."""
    (tmp_path / "f").write_bytes(b"z" * 40 * MIB)

    async def handler(wire: Wire) -> None:
        await wire.head()
        await wire.answer(413, [("Connection", "close")], b"<Error><Code>EntityTooLarge</Code></Error>")
        await anyio.sleep(0.05)
        await wire.reset()

    async with serve(handler) as server, client(server) as r2:
        with pytest.raises(InvalidRequest) as caught:
            await r2.put("k", tmp_path / "f")
        assert (caught.value.code, caught.value.attempts) == ("EntityTooLarge", 1)


async def test_a_head_that_finds_nothing_asks_for_the_bucket_once() -> None:
    """HEAD gives no reason; a bucket that was seen is not asked for again."""
    script = answers(says(404), says(404), says(404), says(200), says(404), says(404), says(403))
    async with serve(script) as server:
        async with client(server) as r2:
            with pytest.raises(NotFound) as missing:
                await r2.head("k")
            assert missing.value.code == "NoSuchBucket"
            for _ in range(2):
                with pytest.raises(NotFound) as missing:
                    await r2.head("k")
                assert missing.value.code == "NoSuchKey"
        async with client(server) as r2:
            with pytest.raises(NotFound) as missing:
                await r2.head("k")
            assert missing.value.code == "NoSuchKey"
    assert [request.target for request in server.requests].count("/media") == 3


async def test_deleting_what_is_not_there_is_no_error_but_a_missing_bucket_is() -> None:
    script = answers(says(204), fails(404, "NoSuchKey"), fails(404, "NoSuchBucket"))
    async with serve(script) as server, client(server) as r2:
        await r2.delete("k")
        await r2.delete("k")
        with pytest.raises(NotFound) as caught:
            await r2.delete("k")
        assert caught.value.code == "NoSuchBucket"


async def test_a_listing_pages_until_its_end() -> None:
    def page(keys: str, more: str = "") -> Script:
        inner = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
        more = (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{more}</NextContinuationToken>"
            if more
            else ""
        )
        return says(200, f"<ListBucketResult>{more}{inner}</ListBucketResult>".encode())

    script = answers(page("ab", "t/1"), page("", "t2"), page("c"), page("a", "t"), page("b", "t"))
    async with serve(script) as server, client(server) as r2:
        assert [info.key async for info in r2.list("p/", start_after="s")] == ["a", "b", "c"]
        targets = [request.target for request in server.requests]
        assert ["continuation-token" in target for target in targets] == [False, True, True]
        assert "continuation-token=t%2F1" in targets[1]
        assert all("prefix=p%2F" in target and "start-after=s" in target for target in targets)
        with pytest.raises(BodyFault, match="again and again"):
            _ = [info async for info in r2.list()]


# ── when it is sent again ────────────────────────────────────────────────────


async def test_a_refusal_for_good_is_not_sent_again() -> None:
    async with serve(answers(fails(403, "AccessDenied"))) as server, client(server) as r2:
        with pytest.raises(AccessDenied) as caught:
            await r2.get("k")
        assert caught.value.attempts == 1
    assert len(server.requests) == 1


async def test_attempts_end_and_say_how_many_there_were() -> None:
    async with serve(answers(*[fails(503, "SlowDown")] * 3)) as server, client(server) as r2:
        with pytest.raises(SlowDown) as caught:
            await r2.get("k")
        assert caught.value.attempts == 3


async def test_retry_after_is_waited_for() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    policy = RetryPolicy(attempts=3, base=1, sleep=sleep, random=lambda: 0.25)
    script = answers(
        fails(429, "TooManyRequests", Retry_After="7"), fails(500, "InternalError"), says(200, b"x")
    )
    async with serve(script) as server, client(server, retry=policy) as r2:
        assert await r2.get("k") == b"x"
    assert waits == [7, 0.5]


async def test_a_service_that_wants_too_long_a_wait_is_not_waited_for() -> None:
    async with serve(answers(fails(503, "SlowDown", Retry_After="3600"))) as server, client(server) as r2:
        with pytest.raises(SlowDown):
            await r2.get("k")
    assert len(server.requests) == 1


async def test_an_operation_has_an_end(anyio_backend: str) -> None:
    async def silence(wire: Wire) -> None:
        await anyio.sleep(10)

    timeouts = Timeouts(operation=0.2)
    async with serve(answers(silence)) as server, client(server, timeouts=timeouts) as r2:
        with anyio.fail_after(3), pytest.raises(ConnectionFault, match=r"timeouts\.operation = 0\.2"):
            await r2.get("k")

    async def slow_body(wire: Wire) -> None:
        await wire.answer(200, body=b"a", length=2)
        await anyio.sleep(0.4)
        await wire.stream.send(b"b")

    async with (
        serve(answers(slow_body)) as server,
        client(server, timeouts=timeouts) as r2,
        r2.open("k") as obj,
    ):
        assert await obj.read() == b"ab"  # it bounds the way to the head; the reader has its own pace


async def test_a_conditional_put_whose_answer_was_lost_is_a_success() -> None:
    """The first attempt wrote the object, so the second finds the condition broken: by our own doing."""
    head = says(200, ETag=f'"{md5(b"mine")}"')
    script = answers(hangs_up, fails(412, "PreconditionFailed"), head)
    async with serve(script) as server, client(server) as r2:
        assert (await r2.put("k", b"mine", if_none_match="*")).etag == md5(b"mine")
    other = says(200, ETag=f'"{md5(b"theirs")}"')
    script = answers(hangs_up, fails(412, "PreconditionFailed"), other, fails(412, "PreconditionFailed"))
    async with serve(script) as server, client(server) as r2:
        for _ in range(2):  # theirs; and one that was not sent twice
            with pytest.raises(PreconditionFailed):
                await r2.put("k", b"mine", if_none_match="*")


async def test_a_refusal_for_the_clock_is_signed_again_by_the_services_clock() -> None:
    script = answers(
        fails(403, "RequestTimeTooSkewed", Date=formatdate(1_700_003_600, usegmt=True)),
        says(200, b"x"),
        fails(403, "RequestTimeTooSkewed"),
    )
    async with serve(script) as server, client(server, clock=lambda: 1_700_000_000.0) as r2:
        assert await r2.get("k") == b"x"
        assert [request.header("x-amz-date") for request in server.requests] == [
            "20231114T221320Z",
            "20231114T231320Z",
        ]
        with pytest.raises(AccessDenied, match="clock"):
            await r2.get("k")


# ── multipart ────────────────────────────────────────────────────────────────

STARTED = says(
    200, b"<InitiateMultipartUploadResult><UploadId>u/1</UploadId></InitiateMultipartUploadResult>"
)


def part_of(server_parts: list[bytes]) -> Script:
    async def script(wire: Wire) -> None:
        body = wire.requests[-1].body
        server_parts.append(body)
        await wire.answer(200, [("ETag", f'"{md5(body)}"')])

    return script


def completed(etag: str) -> Script:
    body = f'<CompleteMultipartUploadResult><ETag>"{etag}"</ETag></CompleteMultipartUploadResult>'
    return says(200, body.encode())


def composed(parts: list[bytes]) -> str:
    digests = b"".join(bytes.fromhex(md5(part)) for part in parts)
    return f"{md5(digests)}-{len(parts)}"


@pytest.mark.parametrize("chunk", [MIB, 3 * MIB, 11 * MIB])
async def test_parts_have_one_size_whatever_the_chunks(chunk: int) -> None:
    """R2 wants all parts but the last alike: Cloudflare's docs, r2/objects/multipart-objects."""
    content = bytes(range(251)) * (11 * MIB // 251 + 1)

    async def gen() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(content), chunk):
            yield content[start : start + chunk]

    expected = [content[start : start + 5 * MIB] for start in range(0, len(content), 5 * MIB)]
    got: list[bytes] = []
    script = answers(STARTED, *[part_of(got)] * 3, completed(composed(expected)))
    async with serve(script) as server, client(server) as r2:
        info = await r2.put("k", gen(), part_size=5 * MIB, content_type="a/b", metadata={"m": "1"})
    start, *parts, complete = server.requests
    parts.sort(key=lambda request: request.target)  # they go side by side, and come in any order
    assert [part.body for part in parts] == expected
    assert (info.size, info.etag) == (len(content), composed(expected))
    assert (start.method, start.target) == ("POST", "/media/k?uploads=")
    assert (start.header("content-type"), start.header("x-amz-meta-m")) == ("a/b", "1")
    assert [part.target for part in parts] == [f"/media/k?partNumber={n}&uploadId=u%2F1" for n in (1, 2, 3)]
    assert all(part.header("content-md5") for part in parts)
    assert complete.body.count(b"<Part>") == 3


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1])
async def test_a_short_stream_goes_in_one_request(size: int) -> None:
    def gen() -> Iterator[bytes]:
        yield b"x" * size

    ok = says(200, ETag=f'"{md5(b"x" * size)}"')
    async with serve(answers(ok)) as server, client(server) as r2:
        assert (await r2.put("k", gen(), part_size=5 * MIB)).size == size
    assert server.requests[0].body == b"x" * size


@pytest.mark.parametrize("how", ["source", "part", "complete", "wrong etag", "cancelled"])
async def test_an_upload_that_fails_is_aborted(how: str) -> None:
    async def gen() -> AsyncGenerator[bytes, None]:
        yield b"x" * 6 * MIB
        if how == "source":
            raise KeyError("the source broke")
        if how == "cancelled":
            await anyio.sleep(10)
        yield b"y"

    got: list[bytes] = []
    ok = part_of(got)
    middle: dict[str, list[Script]] = {
        "source": [ok],
        "cancelled": [ok],
        "part": [ok, fails(400, "InvalidArgument")],
        "complete": [ok, ok, fails(200, "InvalidPart")],
        "wrong etag": [ok, ok, completed("0" * 32 + "-2")],
    }
    errors: dict[str, type[Exception]] = {
        "source": KeyError,
        "part": InvalidRequest,
        "complete": InvalidRequest,
        "wrong etag": BodyFault,
    }
    async with serve(answers(STARTED, *middle[how], says(204))) as server, client(server) as r2:
        if how == "cancelled":
            with anyio.move_on_after(0.5) as scope:
                await r2.put("k", gen(), part_size=5 * MIB)
            assert scope.cancelled_caught
        else:
            with pytest.raises(errors[how]):
                await r2.put("k", gen(), part_size=5 * MIB)
    last = server.requests[-1]
    assert (last.method, last.target) == ("DELETE", "/media/k?uploadId=u%2F1")


async def test_a_complete_whose_answer_was_lost_is_a_success() -> None:
    """The second attempt finds the upload gone, because it is done: the object's ETag tells."""
    got: list[bytes] = []
    parts = [b"x" * 5 * MIB, b"y"]
    script = answers(
        STARTED,
        *[part_of(got)] * 2,
        hangs_up,
        fails(404, "NoSuchUpload"),
        says(200, ETag=f'"{composed(parts)}"'),
    )
    async with serve(script) as server, client(server) as r2:
        info = await r2.put("k", b"".join(parts), part_size=5 * MIB)
    assert info.etag == composed(parts)


async def test_a_file_that_shrinks_while_it_is_sent_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 30 * MIB)

    async def handler(wire: Wire) -> None:
        await wire.head()
        with path.open("r+b") as file:
            file.truncate(MIB)
        while True:
            await wire.stream.receive()

    async with serve(handler) as server, client(server) as r2:
        with pytest.raises(BodyFault, match="changed"):
            await r2.put("k", path)


# ── what it refuses ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"account_id": "a"}, "credentials"),
        ({"account_id": "a", "credentials": CREDENTIALS, "signer": SigV4Signer(CREDENTIALS)}, "signer"),
        ({"account_id": "a", "signer": SigV4Signer(CREDENTIALS), "region": "eu-west-1"}, "region"),
        ({"account_id": "a", "signer": SigV4Signer(CREDENTIALS), "clock": lambda: 0.0}, "clock"),
        ({"account_id": "a", "signer": SigV4Signer(CREDENTIALS, service="iam")}, "'iam'"),
        ({"credentials": CREDENTIALS}, "account_id"),
        ({"credentials": CREDENTIALS, "account_id": "a", "endpoint": "http://h"}, "endpoint"),
        ({"credentials": CREDENTIALS, "account_id": "a", "addressing": "dns"}, "addressing"),
        ({"credentials": CREDENTIALS, "account_id": "a", "bucket": "a/b"}, "bucket"),
        ({"credentials": CREDENTIALS, "account_id": "a", "public_base_url": "cdn"}, "public_base_url"),
        (
            {
                "credentials": CREDENTIALS,
                "account_id": "a",
                "transport": DirectTransport(),
                "max_connections": 3,
            },
            "max_connections",
        ),
        (
            {
                "credentials": CREDENTIALS,
                "account_id": "a",
                "transport": DirectTransport(),
                "timeouts": Timeouts(stall=1),
            },
            "stall",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused_by_name(options: dict[str, Any], names: str) -> None:
    arguments: dict[str, Any] = {"bucket": "media", **options}
    with pytest.raises(ConfigurationError, match=names) as caught:
        R2Client(**arguments)
    assert "s3cr3t" not in str(caught.value)


async def test_bad_input_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with serve(answers()) as server, client(server) as r2:
        for bad in ("", "x" * 1025, "\ud800"):
            with pytest.raises(ValueError, match="key"):
                await r2.put(bad, b"")
            with pytest.raises(ValueError, match="key"):
                r2.open(bad)
        with pytest.raises(TypeError, match="body"):
            await r2.put("k", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="bytes"):
            await r2.put("k", ["text"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="binary"):
            await r2.put("k", io.StringIO("text"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="part_size"):
            await r2.put("k", b"", part_size=1)
        with pytest.raises(FileNotFoundError):
            await r2.put("k", tmp_path / "missing")
        with pytest.raises(ValueError, match="range"):
            r2.open("k", range=(5, 4))
        with pytest.raises(ValueError, match="content_type"):
            await r2.put("k", b"", content_type="a\r\nb: c")
    assert server.requests == []


async def test_it_must_be_entered_and_then_only_once() -> None:
    r2 = R2Client(endpoint="http://127.0.0.1:1", bucket="media", credentials=CREDENTIALS)
    with pytest.raises(RuntimeError, match="Enter the R2Client first"):
        await r2.get("k")
    async with r2:
        with pytest.raises(RuntimeError, match="entered already"):
            await r2.__aenter__()
    async with r2:  # and again afterwards
        assert isinstance(r2, MediaSource)


async def test_a_hosts_transport_serves_many_and_is_never_closed() -> None:
    async with serve(answers(*[says(200, b"x")] * 4)) as server, DirectTransport() as transport:
        async with client(server, transport=transport) as one:
            assert await one.get("k") == b"x"
            async with one.with_bucket("second") as other:
                assert await other.get("k") == b"x"
            assert await one.get("k") == b"x"
        assert await client(server, transport=transport).get("k") == b"x"
        assert server.connections == 1
    assert server.requests[1].target == "/second/k"


async def test_nothing_shows_a_secret() -> None:
    async with serve(answers(fails(403, "SignatureDoesNotMatch"))) as server, client(server) as r2:
        with pytest.raises(AccessDenied) as caught:
            await r2.get("k")
        assert "s3cr3t" not in repr(caught.value) + repr(r2) + repr(vars(r2))
        assert "Signature=" not in str(caught.value)
    r2 = R2Client(endpoint=server.url, bucket="media", credentials=CREDENTIALS, retry=RetryPolicy(attempts=1))
    async with r2:
        with pytest.raises(ConnectionFault) as broken:
            await r2.get("k")
        assert not broken.value.request_sent
        assert "?" not in str(broken.value)


async def test_a_connection_that_breaks_inside_an_answer_names_the_request() -> None:
    """The id of the request is what a support ticket needs, and the head of the answer had it."""

    async def cut(wire: Wire) -> None:
        await wire.answer(200, [("cf-ray", "RAY-1")], b"half", length=100)
        raise anyio.EndOfStream

    async with serve(answers(cut)) as server, client(server, retry=RetryPolicy(attempts=1)) as r2:
        with pytest.raises(BodyFault) as caught:
            await r2.get("k")
    assert (caught.value.status, caught.value.request_id) == (200, "RAY-1")


async def test_what_cannot_be_asked_for_is_refused_when_open_is_called() -> None:
    r2 = R2Client(endpoint="http://127.0.0.1:1", bucket="media", credentials=CREDENTIALS)
    with pytest.raises(ValueError, match="if_match"):
        r2.open("k", if_match="line\nbreak")


class TrickleFile(io.RawIOBase):
    """A file that gives less than it is asked for, as a raw one may."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._inner.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._inner.seek(offset, whence)

    def read(self, size: int = -1, /) -> bytes:
        return self._inner.read(min(size, 10))


class IdlePipe:
    """A non-blocking pipe between two writes: ``None`` means "nothing yet", not the end."""

    def __init__(self) -> None:
        self._left: list[bytes | None] = [b"a", None, b"b", b""]

    def read(self, _size: int = -1, /) -> bytes | None:
        return self._left.pop(0)


async def test_a_file_that_gives_little_at_a_time_goes_whole() -> None:
    content = bytes(range(256)) * 4
    async with serve(answers(says(200, ETag=f'"{md5(content)}"'))) as server, client(server) as r2:
        assert (await r2.put("k", TrickleFile(content))).size == 1024
    assert server.requests[0].body == content


@pytest.mark.parametrize("make", [lambda: [b"a", None, b"b"], IdlePipe])
async def test_none_in_a_body_is_refused_and_not_taken_for_its_end(make: Callable[[], Any]) -> None:
    async with serve(answers()) as server, client(server) as r2:
        with pytest.raises(TypeError, match="NoneType"):
            await r2.put("k", make())
    assert not server.requests
