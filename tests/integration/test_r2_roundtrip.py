"""R2Client against SeaweedFS, which checks every signature, with boto3 as the witness."""

from __future__ import annotations

import importlib
import itertools
import urllib.request
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest

from prewarmkit import Credentials, R2Client
from prewarmkit.errors import AccessDenied, InvalidRequest, NotFound, PreconditionFailed
from prewarmkit.r2.responses import CommonPrefix
from prewarmkit.sources import MediaSource, SpooledSource
from prewarmkit.testing.contracts.source import SourceContract
from prewarmkit.testing.s3 import RcloneServer, S3Server, SeaweedServer
from prewarmkit.transports import HttpxTransport

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
BUCKETS = (f"bucket-{number}" for number in itertools.count())
# No backslash among them: SeaweedFS takes it for a slash.
NASTY = [
    "plain",
    "a b",
    " leading and trailing ",
    "a+b",
    "a%2Fb",
    "a%20b",
    "100%",
    "q?x=1&y=2",
    "frag#ment",
    "semi;colon,comma",
    "quote'\"`",
    "<xml>&amp;</xml>",
    "ü",
    "Ünïcode/日本語/😀",
    "e\u0301",  # not NFC
    "tab\tinside",
    "star*bang!paren()",
    "at@dollar$equals=",
    "colon:pipe|caret^tilde~",
    "[brackets]{braces}",
    ".hidden",
    "..dots",
    "trailing.",
    "x" * 200,
    "y" * 250,
]


def boto3_client(server: S3Server) -> S3Client:
    client: S3Client = importlib.import_module("boto3").client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
    )
    return client


async def seen_by(witness: S3Client, bucket: str, key: str) -> GetObjectOutputTypeDef:
    """An object as boto3 gets it."""
    get = partial(witness.get_object, Bucket=bucket, Key=key)
    return await anyio.to_thread.run_sync(get)


@pytest.fixture
def witness(s3_server: SeaweedServer) -> Iterator[S3Client]:
    client = boto3_client(s3_server)
    yield client
    client.close()


@pytest.fixture
async def r2(s3_server: SeaweedServer) -> AsyncGenerator[R2Client, None]:
    """A client of an empty bucket of its own."""
    async with R2Client(
        endpoint=s3_server.endpoint, bucket=next(BUCKETS), credentials=s3_server.credentials
    ) as client:
        await client.create_bucket()
        yield client


class TestR2ClientIsASource(SourceContract):
    @pytest.fixture(autouse=True)
    def _server(self, s3_server: SeaweedServer) -> None:
        self.server = s3_server

    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        async with R2Client(
            endpoint=self.server.endpoint, bucket=next(BUCKETS), credentials=self.server.credentials
        ) as client:
            await client.create_bucket()
            for key, content in objects.items():
                await client.put(key, content)
            yield client


class TestASpoolOverR2ClientIsASource(TestR2ClientIsASource):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.spools = (tmp_path / f"spool-{number}" for number in itertools.count())

    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        async with super().source(objects) as r2, SpooledSource(r2, next(self.spools)) as source:
            yield source


async def test_what_it_writes_boto3_reads(r2: R2Client, witness: S3Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(range(256)) * 8192)

    async def gen() -> AsyncGenerator[bytes, None]:
        for _ in range(6):
            yield b"ab" * MIB

    bodies: dict[str, object] = {"bytes": b"hello", "path": path, "empty": b"", "stream": gen()}
    sizes = {"bytes": 5, "path": 2 * MIB, "empty": 0, "stream": 12 * MIB}
    with path.open("rb") as file:
        bodies["file"], sizes["file"] = file, 2 * MIB
        for key, body in bodies.items():
            info = await r2.put(
                key,
                body,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - of every kind
                content_type="image/png",
                metadata={"Camera": "x1", "title": "größe"},
                part_size=5 * MIB,
            )
            assert info.size == sizes[key]
            found = await seen_by(witness, r2.bucket, key)
            content = await anyio.to_thread.run_sync(found["Body"].read)
            assert len(content) == sizes[key]
            assert content == await r2.get(key)
            assert (found["ETag"].strip('"'), found["ContentType"]) == (info.etag, "image/png")
            assert found["Metadata"]["camera"] == "x1"
            assert (await r2.head(key)).metadata == {"camera": "x1", "title": "größe"}


async def test_what_boto3_writes_it_reads(r2: R2Client, witness: S3Client) -> None:
    await anyio.to_thread.run_sync(
        lambda: witness.put_object(
            Bucket=r2.bucket, Key="k", Body=b"from boto3", ContentType="text/x", Metadata={"a": "b"}
        )
    )
    async with r2.open("k") as obj:
        assert await obj.read() == b"from boto3"
    assert (obj.info.content_type, dict(obj.info.metadata)) == ("text/x", {"a": "b"})
    assert obj.info.last_modified is not None
    assert abs(obj.info.last_modified - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_hundred_nasty_keys(r2: R2Client, witness: S3Client) -> None:
    """Unicode, spaces, plus, escaped slashes, question marks: written, listed, read, presigned, deleted."""
    keys = [
        *NASTY,
        *(f"{a}/{b}" for a, b in itertools.islice(itertools.product(NASTY[:10], NASTY), 0, 225, 3)),
    ]
    assert len(keys) == 100
    for key in keys:
        await r2.put(key, key.encode())
    listed = [info.key async for info in r2.list()]
    assert listed == sorted(keys, key=str.encode)
    assert [item.key async for item in r2.list("Ünï")] == [key for key in listed if key.startswith("Ünï")]
    for key in keys:
        assert await r2.get(key) == key.encode()
        found = await seen_by(witness, r2.bucket, key)
        assert await anyio.to_thread.run_sync(found["Body"].read) == key.encode()
        assert (await r2.head(key)).size == len(key.encode())
        url = r2.presign("GET", key)
        assert await anyio.to_thread.run_sync(_read, url) == key.encode()
        await r2.delete(key)
    assert [info async for info in r2.list()] == []


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        content: bytes = answer.read()
        return content


async def test_listing_folds_folders_and_pages(r2: R2Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prewarmkit.r2.client._PAGE_KEYS", 3)
    for key in ("a/1", "a/2", "b", "c/x y/1", "d", "e", "f", "g+h/1"):
        await r2.put(key, b"x")
    entries = [entry async for entry in r2.list(delimiter="/")]
    assert [entry.key for entry in entries] == ["a/", "b", "c/", "d", "e", "f", "g+h/"]
    assert [type(entry) is CommonPrefix for entry in entries] == [
        True,
        False,
        True,
        False,
        False,
        False,
        True,
    ]
    assert [info.key async for info in r2.list("a/", delimiter="/")] == ["a/1", "a/2"]
    assert [info.key async for info in r2.list(start_after="d")] == ["e", "f", "g+h/1"]
    assert len([info async for info in r2.list()]) == 8


async def test_ranges(r2: R2Client) -> None:
    await r2.put("k", b"0123456789")
    for byte_range, expected in (
        ((2, 4), b"234"),
        ((7, None), b"789"),
        ((None, 2), b"89"),
        ((0, 0), b"0"),
        ((8, 100), b"89"),
        ((0, None), b"0123456789"),
    ):
        assert await r2.get("k", range=byte_range) == expected
    async with r2.open("k", range=(3, 5)) as obj:
        assert (obj.info.size, obj.length, await obj.read()) == (10, 3, b"345")
    with pytest.raises(InvalidRequest) as caught:
        await r2.get("k", range=(50, None))
    assert caught.value.code == "InvalidRange"


async def test_conditions(r2: R2Client) -> None:
    first = await r2.put("k", b"one", if_none_match="*")
    assert first.etag is not None
    with pytest.raises(PreconditionFailed):
        await r2.put("k", b"two", if_none_match="*")
    assert await r2.get("k", if_match=first.etag) == b"one"
    with pytest.raises(PreconditionFailed) as same:
        await r2.get("k", if_none_match=first.etag)
    assert same.value.status == 304
    await r2.put("k", b"two", if_match=first.etag)
    with pytest.raises(PreconditionFailed):
        await r2.get("k", if_match=first.etag)
    assert await r2.get("k", if_none_match=first.etag) == b"two"


async def test_presigned_urls_do_one_thing_until_they_expire(r2: R2Client) -> None:
    await r2.put("k", b"x")
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.put(r2.presign("PUT", "new"), content=b"by url")).status_code == 200
        assert await r2.get("new") == b"by url"
        assert (await anybody.head(r2.presign("HEAD", "k"))).status_code == 200
        assert (await anybody.delete(r2.presign("GET", "k"))).status_code == 403
        assert (
            await anybody.get(r2.presign("GET", "k", expires=1).replace("/k?", "/new?"))
        ).status_code == 403
        assert (await anybody.delete(r2.presign("DELETE", "k"))).status_code == 204
    with pytest.raises(NotFound):
        await r2.head("k")


async def test_a_wrong_secret_is_named_with_its_remedy(s3_server: SeaweedServer, r2: R2Client) -> None:
    wrong = Credentials(s3_server.credentials.access_key_id, "not-the-secret")
    async with R2Client(endpoint=s3_server.endpoint, bucket=r2.bucket, credentials=wrong) as other:
        with pytest.raises(AccessDenied, match="check the secret access key") as caught:
            await other.get("k")
        assert (caught.value.code, caught.value.status) == ("SignatureDoesNotMatch", 403)
        assert caught.value.request_id
        with pytest.raises(AccessDenied, match="check the secret access key"):
            await other.head("k")
        with pytest.raises(AccessDenied):
            await other.bucket_exists()


async def test_a_missing_bucket_is_told_from_a_missing_key(r2: R2Client) -> None:
    nowhere = r2.with_bucket("there-is-no-such-bucket")
    assert not await nowhere.bucket_exists()
    # No put: SeaweedFS makes the bucket then.
    for call in (nowhere.get, nowhere.head):
        with pytest.raises(NotFound, match="there-is-no-such-bucket") as caught:
            await call("k")
        assert caught.value.code == "NoSuchBucket"
    with pytest.raises(NotFound, match="there-is-no-such-bucket"):
        await anext(nowhere.list())
    for call in (r2.get, r2.head):
        with pytest.raises(NotFound) as caught:
            await call("k")
        assert caught.value.code == "NoSuchKey"


async def test_buckets_are_created_once(r2: R2Client) -> None:
    await r2.create_bucket()
    assert await r2.bucket_exists()
    await r2.put("k", b"x")
    await r2.delete("k")
    await r2.delete("k")


async def test_a_failed_upload_leaves_no_parts(r2: R2Client, witness: S3Client) -> None:
    async def gen() -> AsyncGenerator[bytes, None]:
        yield b"x" * 6 * MIB
        raise KeyError("the source broke")

    with pytest.raises(KeyError):
        await r2.put("k", gen(), part_size=5 * MIB)
    found = await anyio.to_thread.run_sync(lambda: witness.list_multipart_uploads(Bucket=r2.bucket))
    assert found.get("Uploads", []) == []
    with pytest.raises(NotFound):
        await r2.head("k")


async def test_a_hosts_httpx_client_carries_it_too(s3_server: SeaweedServer, r2: R2Client) -> None:
    """Keys with dot segments included, which httpx alone would rewrite."""
    async with (
        httpx.AsyncClient() as host,
        R2Client(
            endpoint=s3_server.endpoint,
            bucket=r2.bucket,
            credentials=s3_server.credentials,
            transport=HttpxTransport(host),
        ) as other,
    ):
        for key in ("k", "a b/ü+%2F?#", "x" * 200):
            await other.put(key, key.encode())
            assert await r2.get(key) == await other.get(key) == key.encode()
        assert len([info async for info in other.list()]) == 3


async def test_rclone_serves_it_too(rclone_server: RcloneServer) -> None:
    """A second server that checks signatures; it ignores conditions and answers ranges with 200."""
    async with R2Client(
        endpoint=rclone_server.endpoint, bucket=next(BUCKETS), credentials=rclone_server.credentials
    ) as client:
        await client.create_bucket()
        await client.create_bucket()
        for key in ("k", "a b/ü+%2F?#"):
            await client.put(key, key.encode(), metadata={"a": "ü"})
            assert await client.get(key) == key.encode()
            assert (await client.head(key)).metadata == {"a": "ü"}
        assert await client.get("k", range=(0, 0)) == b"k"
        info = await client.put("big", iter([b"x" * MIB] * 7), part_size=5 * MIB)
        assert info.size == len(await client.get("big")) == 7 * MIB
        assert [entry.key async for entry in client.list(delimiter="/")] == ["a b/", "big", "k"]
        await client.delete("k")
        with pytest.raises(NotFound):
            await client.get("k")


async def test_no_connection_is_left_in_use_when_cancelled_anywhere(r2: R2Client) -> None:
    await r2.put("k", b"x" * 4 * MIB)
    for step in range(60):
        with anyio.move_on_after(step * 0.0007):
            async with r2.open("k") as obj:
                async for _chunk in obj:
                    await anyio.sleep(0)  # noqa: ASYNC115 - as a reader would
            await r2.put("other", b"y" * MIB)
    with anyio.fail_after(5):
        assert len(await r2.get("k")) == 4 * MIB
