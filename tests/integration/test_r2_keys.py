"""Any key is one key to everybody: R2Client, boto3, obstore and a bare HTTP client, on SeaweedFS.

What SeaweedFS itself cannot keep, and what is so left out of the fuzzing:

- a segment (between two slashes) of ``.`` or ``..``, or of over 255 bytes, and NUL: refused;
- a backslash: it becomes a slash;
- an empty segment: ``a//b`` is ``a/b``, and a slash at the beginning is dropped (tested by themselves below);
- a slash at the end: a directory, which is no object;
- an upload in parts to ``a`` where there is an ``a/b``: 500 at its end (put whole, or copied, it is fine).

R2 has none of these limits. obstore refuses control characters, and its listings replace what XML cannot carry, so that
keys with these are fuzzed by themselves, with boto3 alone.
"""

from __future__ import annotations

import importlib
import itertools
import random
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, quote, urlsplit

import anyio
import anyio.to_thread
import httpx
import obstore
import pytest
from obstore.store import S3Store

from prewarmkit import Credentials, R2Client
from prewarmkit.errors import InvalidRequest
from prewarmkit.testing.s3 import SeaweedServer
from prewarmkit.transports import Request, Response

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef
    from obstore import ObjectMeta

pytestmark = pytest.mark.anyio

MAX_KEY_BYTES, MAX_SEGMENT_BYTES = 1024, 255
AT_ONCE = 8
MIB = 1024 * 1024
PART_BYTES, IN_PARTS = 5 * MIB, 3
BUCKETS = (f"keys-{number}" for number in itertools.count())

TEXT = r"""
plain MiXeD + a+b %2F %2f %20 % %% 100% %zz %C3%A9 ? ?? q?x=1&y=2 # frag#ment & &amp; &#x41; = ; : , @ $ ! * ( ) [ ] { }
| ^ ~ ` ' " < > <Key> ]]> <!-- .a ..a a. a.. ... - _ é ß İ Ω 日本語 😀 עברית null None 0 -1 uploads uploadId=1 list-type=2
X-Amz-Signature=0 index.html con. COM1 $(id) ${x} %s {0}
"""
WORDS = [
    *TEXT.split(),
    *(
        "e\u0301",
        "\u212b",
        "👩\u200d👩\u200d👧",
        "\u202eabc",
        "\ufeff",
        "\ufffd",
        "\ud7ff",
        "\ue000",
        "\U0010ffff",
    ),
    *(" ", "  ", " a", "a ", "a  b", "\u00a0", "\u0085", "\u2028"),
]
CONTROLS = [chr(code) for code in (*range(1, 32), 127, 0xFFFE, 0xFFFF)]


def cut(text: str, size: int) -> str:
    """The beginning of ``text`` that has up to ``size`` bytes."""
    return text.encode()[:size].decode(errors="ignore")


def segment(dice: random.Random, words: list[str]) -> str:
    text = "".join(dice.choices(words, k=dice.choice((1, 1, 2, 3, 8))))
    if dice.random() < 0.1:
        text = cut(text * MAX_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
    return "x" + text if text in {".", ".."} else cut(text, MAX_SEGMENT_BYTES)


def fuzzed(count: int, *, with_controls: bool) -> list[str]:
    """So many different keys, the same ones each time; one in twenty has the longest length there is."""
    dice = random.Random(f"{count} {with_controls}")
    words = [*WORDS, *CONTROLS] if with_controls else WORDS
    keys: dict[str, None] = {}
    while len(keys) < count:
        key = "/".join(segment(dice, words) for _ in range(dice.choice((1, 1, 2, 3))))
        if with_controls and not set(key) & set(CONTROLS):
            continue
        while len(keys) % 20 == 0 and (left := MAX_KEY_BYTES - len(key.encode())) > 1:
            size = min(left - 1, MAX_SEGMENT_BYTES)
            key += "/" + "y" * (size - 1 if left - size == 2 else size)  # no room of 1 is left over
        if len(key.encode()) <= MAX_KEY_BYTES:
            keys[key] = None
    return list(keys)


# ── those who read and write ─────────────────────────────────────────────────


class Witness(Protocol):
    """Another client of the same bucket."""

    name: str

    def get(self, key: str) -> bytes: ...

    def put(self, key: str, content: bytes) -> None: ...

    def list(self) -> list[str]: ...


class Boto3:
    name = "boto3"

    def __init__(self, server: SeaweedServer, bucket: str) -> None:
        self.bucket = bucket
        self.client: S3Client = importlib.import_module("boto3").client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=server.credentials.access_key_id,
            aws_secret_access_key=server.credentials.secret_access_key,
        )

    def get(self, key: str, bucket: str | None = None) -> bytes:
        return self.client.get_object(Bucket=bucket or self.bucket, Key=key)["Body"].read()

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def put_parts(self, key: str, parts: Sequence[bytes], bucket: str) -> None:
        upload = self.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        done: list[CompletedPartTypeDef] = []
        for number, part in enumerate(parts, start=1):
            answer = self.client.upload_part(
                Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part
            )
            done.append({"PartNumber": number, "ETag": answer["ETag"]})
        self.client.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done}
        )

    def list(self, bucket: str | None = None) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket or self.bucket)
        return [item.get("Key", "") for page in pages for item in page.get("Contents", [])]


class Obstore:
    name = "obstore"

    def __init__(self, server: SeaweedServer, bucket: str) -> None:
        self.store = S3Store(
            bucket,
            endpoint=server.endpoint,
            region="us-east-1",
            access_key_id=server.credentials.access_key_id,
            secret_access_key=server.credentials.secret_access_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def get(self, key: str) -> bytes:
        return bytes(obstore.get(self.store, key).bytes())

    def put(self, key: str, content: bytes) -> None:
        obstore.put(self.store, key, content)

    def list(self) -> list[str]:
        pages: Iterable[Sequence[ObjectMeta]] = self.store.list()  # pyright: ignore[reportUnknownMemberType] - theirs
        return [item["path"] for page in pages for item in page]


@pytest.fixture
async def r2(s3_server: SeaweedServer) -> AsyncGenerator[R2Client, None]:
    """A client of an empty bucket of its own."""
    async with R2Client(
        endpoint=s3_server.endpoint, bucket=next(BUCKETS), credentials=s3_server.credentials
    ) as client:
        await client.create_bucket()
        yield client


@pytest.fixture
def boto3(s3_server: SeaweedServer, r2: R2Client) -> Iterator[Boto3]:
    witness = Boto3(s3_server, r2.bucket)
    yield witness
    witness.client.close()


@pytest.fixture
def obs(s3_server: SeaweedServer, r2: R2Client) -> Obstore:
    return Obstore(s3_server, r2.bucket)


async def each(keys: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """The work for each key, a few at once; the first that fails names its key."""
    left = iter(keys)

    async def run() -> None:
        for key in left:
            try:
                await work(key)
            except Exception as error:
                error.add_note(f"the key: {key!r}")
                raise

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(run)


async def listed(r2: R2Client) -> list[str]:
    """All keys, put in order: from page to page SeaweedFS orders by segments, so that ``a/b`` comes before ``a!``."""
    return sorted([info.key async for info in r2.list()], key=str.encode)


async def hold_to_each_other(r2: R2Client, keys: list[str], boto3: Boto3, *more: Witness) -> None:
    """Everybody reads what everybody else wrote, and all see the same keys."""
    witnesses: list[Witness] = [boto3, *more]
    in_order = sorted(keys, key=str.encode)

    async def written_by_us(key: str) -> None:
        content = key.encode()
        assert (await r2.put(key, content)).key == key
        for witness in witnesses:
            assert await anyio.to_thread.run_sync(witness.get, key) == content, witness.name

    await each(keys, written_by_us)
    assert await listed(r2) == in_order
    for witness in witnesses:
        assert sorted(await anyio.to_thread.run_sync(witness.list)) == sorted(keys), witness.name

    async with httpx.AsyncClient(verify=False, timeout=60) as anybody:

        async def written_by_them(key: str) -> None:
            content = b""
            for witness in witnesses:
                content = f"{witness.name} {key}".encode()
                await anyio.to_thread.run_sync(witness.put, key, content)
                assert await r2.get(key) == content
            info = await r2.head(key)
            assert (info.key, info.size) == (key, len(content))
            answer = await anybody.get(r2.presign("GET", key))
            assert (answer.status_code, answer.content) == (200, content)
            async with r2.open(key) as obj:
                assert await obj.read() == content

        await each(keys, written_by_them)
    assert await listed(r2) == in_order  # nobody has spelled a key his own way

    await hold_copies_and_parts(r2, keys, boto3)
    results = await r2.delete_many(keys[::2])
    assert [result.key for result in results if result.ok] == keys[::2]
    assert await listed(r2) == sorted(keys[1::2], key=str.encode)
    await each(keys[1::2], r2.delete)
    assert [info async for info in r2.list()] == []


def split(key: str) -> list[str]:
    return key.split("/")


async def hold_copies_and_parts(r2: R2Client, keys: list[str], boto3: Boto3) -> None:
    """A copy has its source's key in a header; an upload in parts has its key in four kinds of requests."""
    other = r2.with_bucket(next(BUCKETS))
    await other.create_bucket()
    contents: dict[str, bytes] = {}

    async def copied(key: str) -> None:
        contents[key] = await r2.get(key)
        info = await other.copy(key, key, source_bucket=r2.bucket)
        assert (info.key, info.size) == (key, len(contents[key]))
        assert await anyio.to_thread.run_sync(boto3.get, key, other.bucket) == contents[key]

    await each(keys, copied)
    assert await listed(other) == sorted(keys, key=str.encode)
    folders = {
        "/".join(segments[:depth]) for segments in map(split, keys) for depth in range(1, len(segments))
    }
    files = [key for key in keys if key not in folders]
    odd = sorted(files, key=lambda key: zlib.crc32(key.encode()))[:IN_PARTS]
    for key in [max(files, key=lambda key: len(key.encode())), *odd]:
        content = contents[key] * (PART_BYTES // len(contents[key]) + 1)
        await other.put(
            key, (content[at : at + MIB] for at in range(0, len(content), MIB)), part_size=PART_BYTES
        )
        assert ((await other.head(key)).etag or "").endswith("-2")
        assert await anyio.to_thread.run_sync(boto3.get, key, other.bucket) == content
        await anyio.to_thread.run_sync(boto3.put_parts, key, [content[:PART_BYTES], b"end"], other.bucket)
        assert await other.get(key) == content[:PART_BYTES] + b"end"
    assert await listed(other) == sorted(keys, key=str.encode)
    results = await other.put_many([(key, b"again") for key in keys])
    assert [result.key for result in results if result.ok] == keys
    assert await anyio.to_thread.run_sync(boto3.get, keys[-1], other.bucket) == b"again"
    assert all(result.ok for result in await other.delete_many(keys))
    assert await anyio.to_thread.run_sync(boto3.list, other.bucket) == []


# ── the keys ─────────────────────────────────────────────────────────────────


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", [150, pytest.param(9_000, marks=pytest.mark.slow)])
async def test_fuzzed_keys_are_the_same_to_r2client_boto3_and_obstore(
    r2: R2Client, boto3: Boto3, obs: Obstore, count: int
) -> None:
    keys = fuzzed(count, with_controls=False)
    assert max(len(key.encode()) for key in keys) == MAX_KEY_BYTES
    await hold_to_each_other(r2, keys, boto3, obs)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [50, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_fuzzed_keys_with_control_characters_are_the_same_to_boto3(
    r2: R2Client, boto3: Boto3, count: int
) -> None:
    """XML cannot carry most of these: a listing has them encoded, and a batch of deletions sends them one by one."""
    await hold_to_each_other(r2, fuzzed(count, with_controls=True), boto3)


async def test_keys_with_empty_segments_keep_their_slashes(r2: R2Client, boto3: Boto3) -> None:
    """On the wire they do; SeaweedFS alone folds them, and so lists them."""
    for key, listed in {"a//b": "a/b", "c///d e": "c/d e", "/lead": "lead", "//x//y": "x/y"}.items():
        await r2.put(key, key.encode())
        assert await anyio.to_thread.run_sync(boto3.get, key) == key.encode()
        await anyio.to_thread.run_sync(boto3.put, key, b"boto3")
        assert await r2.get(key) == b"boto3"
        async with httpx.AsyncClient(verify=False) as anybody:
            assert (await anybody.get(r2.presign("GET", key))).content == b"boto3"
        assert [info.key async for info in r2.list()] == [listed]
        await r2.delete(key)


@pytest.mark.parametrize("key", [".", "..", "a/../b", "a/./b", "../../etc/passwd", "\x00", "x" * 256])
async def test_what_seaweedfs_refuses_is_refused_and_goes_nowhere_else(r2: R2Client, key: str) -> None:
    """Dot segments in particular arrive as they are: nothing on our side resolves them."""
    await r2.put("b", b"still here")
    with pytest.raises(InvalidRequest):
        await r2.put(key, b"x")
    assert [info.key async for info in r2.list()] == ["b"]
    assert await r2.get("b") == b"still here"


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513, "\ud800"])
async def test_what_no_service_takes_is_refused_at_the_call(r2: R2Client, key: str) -> None:
    for call in (r2.get, r2.head, r2.delete):
        with pytest.raises(ValueError, match="key"):
            await call(key)
    with pytest.raises(ValueError, match="key"):
        await r2.put(key, b"x")
    with pytest.raises(ValueError, match="key"):
        r2.open(key)
    with pytest.raises(ValueError, match="key"):
        r2.presign("GET", key)


# ── many keys ────────────────────────────────────────────────────────────────


class Pages:
    """A transport of a bucket of so many keys, whose pages are made as they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked = 0

    def key(self, number: int) -> str:
        return f"{number:07}/é %+&<>{'x' * 60}"

    def page(self, first: int) -> bytes:
        last = min(first + 1000, self.count)
        entries = "".join(
            f"<Contents><Key>{quote(self.key(number))}</Key><Size>{number}</Size><ETag>&quot;{number:032x}&quot;</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(first, last)
        )
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
        return (
            f"<ListBucketResult><EncodingType>url</EncodingType>{entries}{more if last < self.count else ''}"
            "</ListBucketResult>"
        ).encode()

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response, None]:
        query = parse_qs(urlsplit(request.url).query)
        page = self.page(int(query.get("continuation-token", ["0"])[0]))
        self.asked += 1

        async def body() -> AsyncGenerator[bytes, None]:
            yield page

        async with aclosing(body()) as chunks:
            yield Response(200, (("content-length", str(len(page))),), chunks)


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_many_keys_are_listed_in_the_memory_of_a_few_pages(count: int) -> None:
    pages, peaks = Pages(count), list[int]()
    credentials = Credentials("AKID", "secret")
    async with R2Client(
        endpoint="http://r2.test", bucket="media", credentials=credentials, transport=pages
    ) as r2:
        tracemalloc.start()
        try:
            number = 0
            async for info in r2.list():
                if (info.key, info.size) != (pages.key(number), number):
                    raise AssertionError((number, info))
                number += 1
                if number in {5_000, count}:
                    peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (number, pages.asked) == (count, count // 1000)
    few, all_of_them = peaks
    assert all_of_them < few * 1.1  # the last page takes no more than the first ones
    assert all_of_them < 6 * MIB
