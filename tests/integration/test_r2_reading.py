"""Reading and downloading against SeaweedFS, which honours ranges and conditions, and rclone, which does not."""

from __future__ import annotations

import importlib
import itertools
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from prewarmkit import R2Client, RetryPolicy
from prewarmkit.errors import BodyFault, NotFound
from prewarmkit.r2.retry import AttemptEvent
from prewarmkit.testing.s3 import RcloneServer, S3Server, SeaweedServer
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports import DirectTransport

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
BUCKETS = (f"reading-{number}" for number in itertools.count())
CONTENT = random.Random(5).randbytes(6 * MIB + 12_345)
PART = MIB // 2

DOWNLOADER = '''
"""Downloads one object, with a line for each part that came; killed and started again by the test."""
import os, sys, time
import anyio
from prewarmkit import Credentials, R2Client
from prewarmkit.r2.partial import PartialFile

endpoint, bucket, path, part = *sys.argv[1:4], int(sys.argv[4])
mark = PartialFile.mark

def slow_mark(self, index, crc):
    mark(self, index, crc)
    os.write(1, f"{index}\\n".encode())  # at once: two threads' prints would run into one another
    time.sleep(0.02)

PartialFile.mark = slow_mark

async def main():
    credentials = Credentials(os.environ["KEY"], os.environ["SECRET"])
    async with R2Client(endpoint=endpoint, bucket=bucket, credentials=credentials) as r2:
        await r2.download("k", path, part_size=part, concurrency=2)

anyio.run(main)
'''


@asynccontextmanager
async def client(
    server: S3Server, endpoint: str | None = None, **options: object
) -> AsyncGenerator[R2Client, None]:
    """A client of an empty bucket of its own."""
    async with R2Client(
        endpoint=endpoint or server.endpoint,
        bucket=next(BUCKETS),
        credentials=server.credentials,
        **options,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ) as made:
        await made.create_bucket()
        yield made


class Cutter:
    """Passes bytes to a server, and cuts the way back after so many of them, time and again."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._dice = random.Random(seed)
        self.cuts = 0
        self.left = 10**9

    async def __call__(self, wire: Wire) -> None:
        async with (
            await anyio.connect_tcp("127.0.0.1", self._port) as server,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._forth, wire, server, tasks.cancel_scope)
            while self.left > 0:
                try:
                    piece = await server.receive(32 * 1024)
                    await wire.stream.send(piece)
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    break
                self.left -= len(piece)
            else:
                self.cuts += 1
                self.left = self._dice.randrange(1000, 400_000)
                await (wire.reset() if self._dice.random() < 0.5 else wire.close())
            tasks.cancel_scope.cancel()

    @staticmethod
    async def _forth(wire: Wire, server: anyio.abc.SocketStream, scope: anyio.CancelScope) -> None:
        try:
            while True:
                await server.send(await wire.stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            scope.cancel()


def left_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


async def test_through_a_network_that_breaks_all_the_time_the_bytes_are_right(
    s3_server: SeaweedServer, tmp_path: Path
) -> None:
    port = int(s3_server.endpoint.rpartition(":")[2])
    cutter = Cutter(port, seed=1)
    async with serve(cutter) as between, client(s3_server, between.url, retry=RetryPolicy(base=0.01)) as r2:
        await r2.put("k", CONTENT)
        cutter.left = 100_000
        async with r2.open("k") as obj:
            assert await obj.read() == CONTENT
            assert 5 < obj.resumed <= cutter.cuts
        async with r2.open("k", range=(1_000_000, None)) as obj:
            assert await obj.read() == CONTENT[1_000_000:]
        info = await r2.download("k", tmp_path / "f", part_size=PART)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert info.size == len(CONTENT)
    assert cutter.cuts > 30


async def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(s3_server: SeaweedServer) -> None:
    """The signature does not cover where the connection leads, so a proxy may cut it; SeaweedFS then answers 412."""
    cutter = Cutter(int(s3_server.endpoint.rpartition(":")[2]), seed=2)
    async with (
        serve(cutter) as between,
        client(s3_server, between.url, retry=RetryPolicy(base=0.01)) as r2,
        r2.with_bucket(r2.bucket) as other,
    ):
        await r2.put("k", CONTENT)
        cutter.left = 300_000
        got = bytearray()

        async def read() -> None:
            async with r2.open("k") as obj:
                async for chunk in obj:
                    if not got:
                        await other.put("k", b"another" * MIB)
                    got.extend(chunk)

        with pytest.raises(BodyFault, match="changed while it was read"):
            await read()
        assert CONTENT.startswith(got)


async def test_downloads_of_all_sizes(s3_server: SeaweedServer, tmp_path: Path) -> None:
    async with client(s3_server) as r2:
        for size in (0, 1, PART - 1, PART, PART + 1, 3 * PART, len(CONTENT)):
            await r2.put(f"{size}", CONTENT[:size])
            info = await r2.download(f"{size}", tmp_path / f"{size}", part_size=PART)
            assert (tmp_path / f"{size}").read_bytes() == CONTENT[:size]
            assert (info, info.size) == (await r2.head(f"{size}"), size)
        await r2.put("parts", CONTENT, part_size=5 * MIB)
        info = await r2.download("parts", tmp_path / "parts")
        assert (info.etag or "").endswith("-2")
        assert (tmp_path / "parts").read_bytes() == CONTENT
        with pytest.raises(NotFound):
            await r2.download("missing", tmp_path / "missing")
    assert not [name for name in left_in(tmp_path) if name.startswith((".", "missing"))]


async def test_rclone_gives_the_right_bytes_or_a_typed_error(
    rclone_server: RcloneServer, tmp_path: Path
) -> None:
    """It answers ranges with 200 and takes no notice of If-Match."""
    async with client(rclone_server) as r2:
        for size in (0, 1, len(CONTENT)):
            await r2.put("k", CONTENT[:size])
            await r2.download("k", tmp_path / "f", part_size=PART)
            assert (tmp_path / "f").read_bytes() == CONTENT[:size]


@pytest.mark.parametrize("kind", ["SeaweedFS", "rclone"])
async def test_the_etags_of_real_services_raise_no_false_alarm(
    s3_server: SeaweedServer, rclone_server: RcloneServer, kind: str, tmp_path: Path
) -> None:
    """Whole reads are held to an ETag that is an MD5: of what was put whole, in parts, in one part, copied, replaced."""
    server = s3_server if kind == "SeaweedFS" else rclone_server
    large = random.Random(9).randbytes(17 * MIB + 1)  # SeaweedFS cuts objects into chunks of several MiB
    async with client(server) as r2:
        wanted = {f"{size}": large[:size] for size in (0, 1, 65_536, 4 * MIB, 8 * MIB + 1, len(large))}
        for key, content in wanted.items():
            await r2.put(key, content)
        (tmp_path / "source").write_bytes(large)
        await r2.put("path", tmp_path / "source")
        await r2.put("pieces", iter([large[:10], large[10:100]]))
        await r2.put("parts", large, part_size=5 * MIB)
        await r2.put("replaced", large[:100])
        await r2.put("replaced", large[1:101])
        wanted |= {"path": large, "pieces": large[:100], "parts": large, "replaced": large[1:101]}
        for size in (10, 9 * MIB):
            await anyio.to_thread.run_sync(put_in_one_part, server, r2.bucket, f"one-{size}", large[:size])
            wanted[f"one-{size}"] = large[:size]
        for key in ("0", "65536", f"{len(large)}", "parts"):
            await r2.copy(key, f"copy-{key}")
            wanted[f"copy-{key}"] = wanted[key]
        for key, content in wanted.items():
            assert await r2.get(key) == content, key
            async with r2.open(key) as obj:
                assert await obj.read() == content, key
            await r2.download(key, tmp_path / "f")
            assert (tmp_path / "f").read_bytes() == content, key


def put_in_one_part(server: S3Server, bucket: str, key: str, content: bytes) -> None:
    """By boto3: an upload in parts that has one part."""
    s3: S3Client = importlib.import_module("boto3").client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
    )
    with closing(s3):
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        etag = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=content)["ETag"]
        parts: list[CompletedPartTypeDef] = [{"PartNumber": 1, "ETag": etag}]
        s3.complete_multipart_upload(
            Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )


async def test_a_download_that_is_killed_goes_on_where_it_was(
    s3_server: SeaweedServer, tmp_path: Path
) -> None:
    """By kill -9, several times; what was whole then is not fetched again, and no half target is ever seen."""
    script, path = tmp_path / "downloader.py", tmp_path / "out" / "f"
    script.write_text(DOWNLOADER)
    path.parent.mkdir()
    hidden = path.with_name(".f.prewarmkit-part")
    events: list[AttemptEvent] = []
    keys = s3_server.credentials
    environ = {**os.environ, "KEY": keys.access_key_id, "SECRET": keys.secret_access_key}
    done: list[int] = []
    async with client(s3_server, on_attempt=events.append) as r2:
        await r2.put("k", CONTENT)
        command = [sys.executable, str(script), s3_server.endpoint, r2.bucket, str(path), str(PART)]
        for parts in (2, 3, 1):
            async with await anyio.open_process(command, env=environ, stdout=PIPE, stderr=None) as process:
                assert process.stdout is not None
                text = b""
                while text.count(b"\n") < parts:
                    text += await process.stdout.receive()
                process.send_signal(signal.SIGKILL)
                await process.wait()
            done += [int(line) for line in text.split()]
            assert hidden.exists()
            assert not path.exists()
        assert len(set(done)) == len(done) >= 6  # none twice
        events.clear()
        await r2.download("k", path, part_size=PART)
        count = -(-len(CONTENT) // PART)
        gets = [event for event in events if event.method == "GET"]
        # What was noted between the last line that was seen and the kill is not fetched either.
        assert 0 < len(gets) <= count - len(done)
        assert path.read_bytes() == CONTENT
        assert left_in(path.parent) == {path.name}


async def test_a_killed_download_of_an_object_that_was_replaced_starts_anew(
    s3_server: SeaweedServer, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    async with client(s3_server) as r2:
        await r2.put("k", CONTENT)
        with anyio.move_on_after(5) as limit:
            async with anyio.create_task_group() as tasks:

                async def stop_half_way() -> None:
                    while not any(b"part" in tail for tail in tails(path)):  # noqa: ASYNC110 - it is in a file
                        await anyio.sleep(0.001)
                    limit.cancel()

                tasks.start_soon(stop_half_way)
                await r2.download("k", path, part_size=PART // 8, concurrency=1)
        assert not path.exists()
        await r2.put("k", CONTENT[::-1])
        await r2.download("k", path, part_size=PART // 8)
        assert path.read_bytes() == CONTENT[::-1]
    assert left_in(tmp_path) == {path.name}


def tails(path: Path) -> list[bytes]:
    """What a hidden file has behind the object's bytes and the seal."""
    hidden = path.with_name(f".{path.name}.prewarmkit-part")
    return [hidden.read_bytes()[len(CONTENT) + 48 :]] if hidden.exists() else []


async def test_cancelled_anywhere_no_connection_stays_in_use(
    s3_server: SeaweedServer, tmp_path: Path
) -> None:
    dice = random.Random(11)
    async with (
        DirectTransport(max_connections=5) as transport,
        client(s3_server, transport=transport) as r2,
    ):
        await r2.put("k", CONTENT)
        for turn in range(40):
            with anyio.move_on_after(dice.uniform(0, 0.06)):
                if turn % 2:
                    await r2.download("k", tmp_path / "f", part_size=PART)
                else:
                    async with r2.open("k") as obj:
                        await obj.read()
            statistics = transport.statistics()
            assert (statistics.busy, statistics.waiting) == (0, 0)
        await r2.download("k", tmp_path / "f", part_size=PART)
    assert (tmp_path / "f").read_bytes() == CONTENT
