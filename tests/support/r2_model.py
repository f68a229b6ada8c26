"""One bucket of R2 by its rules, without a wire, and bodies of every form: what the tests of writing share."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree as ET

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field, frozen

from prewarmkit import Credentials, R2Client, RetryPolicy
from prewarmkit.errors import (
    TransportError,
)
from prewarmkit.testing.wire import Wire
from prewarmkit.transports import Request, Response

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("AKIDEXAMPLE", "s3cr3t-k3y")
MIB = 1024 * 1024
NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
BACKENDS = ["asyncio", "trio"]


def md5(content: bytes | bytearray) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def composed(content: bytes, part_size: int) -> str:
    digests = [bytes.fromhex(md5(content[at : at + part_size])) for at in range(0, len(content), part_size)]
    return f"{md5(b''.join(digests))}-{len(digests)}"


# ── R2, by its rules ─────────────────────────────────────────────────────────


@frozen
class Stored:
    content: bytes
    etag: str
    headers: Mapping[str, str]


@define
class Upload:
    key: str
    headers: Mapping[str, str]
    parts: dict[int, bytes] = field(factory=dict[int, bytes])


@frozen
class Call:
    """One request, as the model sees it."""

    operation: str
    key: str | None
    number: int
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]
Fault = Literal["refuse", "drop", "lose", "late"]


@define
class R2Model:
    """One bucket, held to what Cloudflare's docs say of R2 (r2/objects/multipart-objects, r2/api/s3/api).

    All parts but the last are of one size, the last is no longer: checked by Complete. A part that is sent
    again replaces the old one, and if that fails the old one is lost. A conditional Complete whose condition
    fails destroys the upload.

    Attributes:
        fault: What goes wrong with the n-th request, from 0: "refuse" (503), "drop" (the connection breaks before
            it is carried out), "lose" (after), "late" (200 with an error inside, not carried out).
        before: Is told of each request before it is carried out.
    """

    objects: dict[str, Stored] = field(factory=dict[str, Stored])
    uploads: dict[str, Upload] = field(factory=dict[str, Upload])
    calls: list[Call] = field(factory=list[Call])
    fault: Callable[[int, Call], Fault | None] = lambda _n, _call: None
    before: Callable[[Call], None] = lambda _call: None
    page: int = 2
    denied: frozenset[str] = frozenset()
    _ids: Iterator[int] = field(factory=itertools.count)

    def count(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.calls)

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """The answer; ``None``: the connection breaks."""
        parts = urlsplit(target)
        bucket, _, key = unquote(parts.path, errors="surrogateescape")[1:].partition("/")
        assert bucket == "media"
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        lowered = {name.lower(): value for name, value in headers.items()}
        call = Call(self._operation(method, query, lowered), key or None, int(query.get("partNumber", 0)), query,
                    lowered, body)  # fmt: skip
        number = len(self.calls)
        self.calls.append(call)
        self.before(call)
        fault = self.fault(number, call)
        if fault in {"refuse", "drop", "late"}:
            if call.operation in {"upload_part", "upload_part_copy"} and query["uploadId"] in self.uploads:
                self.uploads[query["uploadId"]].parts.pop(call.number, None)
            if fault == "late":
                return 200, {}, b"<Error><Code>InternalError</Code></Error>"
            return _error(503, "ServiceUnavailable") if fault == "refuse" else None
        if "content-md5" in lowered:
            assert base64.b64decode(lowered["content-md5"]).hex() == md5(body)
        upload_id = query.get("uploadId")
        if upload_id is not None and upload_id not in self.uploads:
            answer = _error(404, "NoSuchUpload")
        else:
            answer = getattr(self, f"_{call.operation}")(call)
        return None if fault == "lose" else answer

    @staticmethod
    def _operation(method: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
        is_copy = "x-amz-copy-source" in headers
        if "uploadId" in query:
            part = "upload_part_copy" if is_copy else "upload_part"
            return {"PUT": part, "GET": "list_parts", "POST": "complete", "DELETE": "abort"}[method]
        if method == "POST":
            return "begin" if "uploads" in query else "delete_objects"
        return {"PUT": "copy_object" if is_copy else "put", "HEAD": "head", "DELETE": "delete"}[method]

    def _refuses(self, call: Call, key: str, prefix: str = "") -> bool:
        etag = self.objects[key].etag if key in self.objects else None
        match, none_match = (
            call.headers.get(f"{prefix}{name}", "").strip('"') for name in ("if-match", "if-none-match")
        )
        return bool((match and etag != match) or (none_match and etag and none_match in {"*", etag}))

    def _store(self, key: str, content: bytes, etag: str, headers: Mapping[str, str]) -> None:
        kept = {
            name: value
            for name, value in headers.items()
            if name == "content-type" or name.startswith("x-amz-meta-")
        }
        self.objects[key] = Stored(content, etag, kept)

    def _put(self, call: Call) -> Answer:
        assert call.key is not None
        if self._refuses(call, call.key):
            return _error(412, "PreconditionFailed")
        self._store(call.key, call.body, md5(call.body), call.headers)
        return 200, {"etag": f'"{md5(call.body)}"'}, b""

    def _head(self, call: Call) -> Answer:
        if call.key is None:
            return 200, {}, b""
        if call.key not in self.objects:
            return 404, {}, b""
        if self._refuses(call, call.key):
            return 412, {}, b""
        found = self.objects[call.key]
        length = {"content-length": str(len(found.content)), "etag": f'"{found.etag}"'}
        return 200, {**found.headers, **length}, b""

    def _delete(self, call: Call) -> Answer:
        assert call.key is not None
        if call.key in self.denied:
            return _error(403, "AccessDenied")
        self.objects.pop(call.key, None)
        return 204, {}, b""

    def _begin(self, call: Call) -> Answer:
        assert call.key is not None
        upload_id = f"u/{next(self._ids)}"
        self.uploads[upload_id] = Upload(call.key, call.headers)
        return 200, {}, f"<InitiateMultipartUploadResult {NS}><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>".encode()  # fmt: skip

    def _upload_part(self, call: Call) -> Answer:
        self.uploads[call.query["uploadId"]].parts[call.number] = call.body
        return 200, {"etag": f'"{md5(call.body)}"'}, b""

    def _list_parts(self, call: Call) -> Answer:
        parts = self.uploads[call.query["uploadId"]].parts
        left = sorted(number for number in parts if number > int(call.query["part-number-marker"]))
        root = ET.Element("ListPartsResult")
        for number in left[: self.page]:
            part = ET.SubElement(root, "Part")
            ET.SubElement(part, "PartNumber").text = str(number)
            ET.SubElement(part, "ETag").text = f'"{md5(parts[number])}"'
            ET.SubElement(part, "Size").text = str(len(parts[number]))
        if left[self.page :]:
            ET.SubElement(root, "IsTruncated").text = "true"
            ET.SubElement(root, "NextPartNumberMarker").text = str(left[self.page - 1])
        return 200, {}, ET.tostring(root)

    def _complete(self, call: Call) -> Answer:
        upload_id = call.query["uploadId"]
        upload = self.uploads[upload_id]
        if self._refuses(call, upload.key):
            del self.uploads[upload_id]
            return _error(412, "PreconditionFailed")
        listed = [
            (int(part.findtext("{*}PartNumber") or 0), (part.findtext("{*}ETag") or "").strip('"'))
            for part in ET.fromstring(call.body)
        ]
        parts = [upload.parts.get(number, b"") for number, _ in listed]
        sizes = [len(part) for part in parts]
        stand = all(number in upload.parts and md5(upload.parts[number]) == etag for number, etag in listed)
        if not stand or len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
            return _error(400, "InvalidPart")
        del self.uploads[upload_id]
        content = b"".join(parts)
        etag = f"{md5(b''.join(bytes.fromhex(md5(part)) for part in parts))}-{len(parts)}"
        self._store(upload.key, content, etag, upload.headers)
        return 200, {}, f'<CompleteMultipartUploadResult {NS}><ETag>"{etag}"</ETag></CompleteMultipartUploadResult>'.encode()  # fmt: skip

    def _abort(self, call: Call) -> Answer:
        del self.uploads[call.query["uploadId"]]
        return 204, {}, b""

    def _delete_objects(self, call: Call) -> Answer:
        assert "content-md5" in call.headers
        keys = [node.text or "" for node in ET.fromstring(call.body).findall("{*}Object/{*}Key")]
        assert 0 < len(keys) <= 1000
        root = ET.Element("DeleteResult", {"xmlns": "http://s3.amazonaws.com/doc/2006-03-01/"})
        for key in reversed(keys):  # in no promised order
            node = ET.SubElement(root, "Error" if key in self.denied else "Deleted")
            ET.SubElement(node, "Key").text = key
            if key in self.denied:
                ET.SubElement(node, "Code").text = "AccessDenied"
            else:
                self.objects.pop(key, None)
        return 200, {}, ET.tostring(root, "utf-8")

    def _source(self, call: Call) -> Stored:
        bucket, _, key = unquote(call.headers["x-amz-copy-source"]).partition("/")
        assert bucket == "media"
        return self.objects[key]

    def _copy_object(self, call: Call) -> Answer:
        assert call.key is not None
        found = self._source(call)
        wanted = call.headers.get("x-amz-copy-source-if-match", f'"{found.etag}"')
        if wanted != f'"{found.etag}"' or self._refuses(call, call.key, "cf-copy-destination-"):
            return _error(412, "PreconditionFailed")
        self.objects[call.key] = found
        return 200, {}, f'<CopyObjectResult {NS}><ETag>"{found.etag}"</ETag><LastModified>2026-01-02T03:04:05.000Z</LastModified></CopyObjectResult>'.encode()  # fmt: skip

    def _upload_part_copy(self, call: Call) -> Answer:
        assert not any("if-" in name for name in call.headers)  # R2 knows no conditions here
        first, last = map(int, call.headers["x-amz-copy-source-range"].removeprefix("bytes=").split("-"))
        part = self._source(call).content[first : last + 1]
        assert len(part) == last - first + 1
        self.uploads[call.query["uploadId"]].parts[call.number] = part
        return 200, {}, f'<CopyPartResult {NS}><ETag>"{md5(part)}"</ETag></CopyPartResult>'.encode()


def _error(status: int, code: str) -> Answer:
    return status, {}, f"<Error><Code>{code}</Code></Error>".encode()


@define
class ModelTransport:
    """The model without a wire; tells of every point where a request may be cancelled."""

    model: R2Model
    step: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response, None]:
        await self._point()
        body = request.body or b""
        if not isinstance(body, bytes):
            assert isinstance(body, AsyncGenerator)
            async with aclosing(cast("AsyncGenerator[bytes, None]", body)) as chunks:
                body = b"".join([chunk async for chunk in chunks])
        assert len(body) == (request.content_length or 0)
        await self._point()
        target = "/" + request.url.split("/", 3)[3]
        answer = self.model.handle(request.method, target, dict(request.headers), body)
        await self._point()
        if answer is None:
            raise TransportError("The connection broke.")
        status, headers, content = answer

        async def give() -> AsyncGenerator[bytes, None]:
            await self._point()
            yield content

        async with aclosing(give()) as given_body:
            yield Response(status, ({"content-length": str(len(content))} | headers).items(), given_body)  # type: ignore[arg-type]

    async def _point(self) -> None:
        self.step()
        await anyio.lowlevel.checkpoint()


def client(
    model: R2Model, *, attempts: int = 3, step: Callable[[], None] = lambda: None, **options: Any
) -> R2Client:
    if "account_id" not in options:
        options.setdefault("endpoint", "https://r2.example.com")
    return R2Client(
        bucket="media",
        credentials=CREDENTIALS,
        transport=ModelTransport(model, step),
        retry=RetryPolicy(attempts=attempts, base=0),
        **options,
    )


@contextmanager
def small_parts() -> Generator[None]:
    """Parts of a few bytes, and blocks in memory to match: every path that a large body takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prewarmkit.r2.multipart._MIN_PART_BYTES", 1)
        patch.setattr("prewarmkit.r2.bodies._SMALL_BYTES", 8)
        patch.setattr("prewarmkit.r2.bodies._CHUNK_BYTES", 5)
        yield


def loses(operation: str, times: int = 1) -> Callable[[int, Call], Fault | None]:
    left = itertools.count(1)

    def fault(_number: int, call: Call) -> Fault | None:
        return "lose" if call.operation == operation and next(left) <= times else None

    return fault


def on_r2(model: R2Model, **options: Any) -> R2Client:
    """A client that takes the model for R2 itself."""
    return client(model, account_id="0abc", **options)


SOURCE = Stored(b"content", md5(b"content"), {"content-type": "a/b", "x-amz-meta-m": "=?utf-8?B?w7w=?="})


class TrickleFile(io.BytesIO):
    """A seekable file that gives three bytes at most."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, size) if size is not None and size >= 0 else 3)


class Pipe:
    """A file that cannot be read again."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def read(self, size: int = -1, /) -> bytes:
        return self._inner.read(min(size, 7))


def body_of(form: str, content: bytes, cuts: list[int], directory: Path) -> Any:
    """``content`` as a body of some form; ``cuts`` are the sizes of a stream's chunks, empty ones too."""

    def chunks() -> Iterator[bytes]:
        at = 0
        for cut in itertools.cycle([*cuts, 1]):
            yield content[at : at + cut]
            at += cut
            if at >= len(content):
                return

    async def stream() -> AsyncGenerator[bytes, None]:
        for chunk in chunks():
            await anyio.lowlevel.checkpoint()
            yield chunk

    if form == "path":
        (directory / "body").write_bytes(content)
        return directory / "body"
    if form in {"file", "trickle"}:
        file = (io.BytesIO if form == "file" else TrickleFile)(b"before" + content)
        file.seek(6)
        return file
    makers: dict[str, Callable[[], Any]] = {
        "bytes": lambda: content,
        "bytearray": lambda: bytearray(content),
        "memoryview": lambda: memoryview(content),
        "pipe": lambda: Pipe(content),
        "iterable": chunks,
        "views": lambda: (memoryview(chunk) for chunk in chunks()),
        "stream": stream,
    }
    return makers[form]()


FORMS = ["bytes", "bytearray", "memoryview", "path", "file", "trickle", "pipe", "iterable", "views", "stream"]
AGAIN = ["bytes", "path", "file", "trickle"]
CONTENT = bytes(range(55))


@define
class Gauge:
    now: int = 0
    most: int = 0


def answering(model: R2Model, gauge: Gauge | None = None) -> Callable[[Wire], Any]:
    """The model behind a real wire; the gauge counts the parts under way."""
    count = gauge or Gauge()

    async def handler(wire: Wire) -> None:
        while True:
            request = await wire.request()
            is_part = "partNumber" in request.target
            count.now += is_part
            count.most = max(count.most, count.now)
            await anyio.sleep(0.01 * is_part)
            count.now -= is_part
            answer = model.handle(request.method, request.target, dict(request.headers), request.body)
            if answer is None:
                await wire.reset()
                return
            status, headers, body = answer
            length = headers.pop("content-length", None)
            await wire.answer(status, headers.items(), body, length=None if length is None else int(length))

    return handler


def on_wire(url: str) -> R2Client:
    return R2Client(
        endpoint=url, bucket="media", credentials=CREDENTIALS, retry=RetryPolicy(attempts=3, base=0.001)
    )
