"""What warm targets must do, requirement by requirement: bytes, and what goes in their place (7 and 8).

From a real S3 server, from files or from another bot's message, into a Bot API server over real HTTP.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from attrs import evolve
from waiting import eventually

from prewarmkit import BadHandle, Handle, Media, PoolSettings, PrewarmPool, R2Client, RetryPolicy, WarmFailed
from prewarmkit.sources import DirectorySource
from prewarmkit.stores import MemoryStore, SqliteStore, State
from prewarmkit.targets import TelegramTarget
from prewarmkit.testing import Fault as WireFault
from prewarmkit.testing import FaultProxy
from prewarmkit.testing.botapi import BotApiServer, Fault
from prewarmkit.testing.edge import EdgeServer
from prewarmkit.testing.media import make_media
from prewarmkit.testing.s3 import SeaweedServer

GROUP, OWN_CHAT, USER = -1001, -1002, 42
MIB = 1024 * 1024
SECOND_BOT = "220201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
QUICK = PoolSettings(poll_interval_seconds=0.05, down_seconds=0.2, retry_base_seconds=0.05)


@pytest.fixture
def server() -> Iterator[BotApiServer]:
    with BotApiServer() as server:
        yield server


def bot_of(server: BotApiServer, **options: Any) -> TelegramTarget:
    given: dict[str, Any] = {"warmup_chats": [GROUP], "budget": None, "api_base": server.url, **options}
    return TelegramTarget(given.pop("token", server.token), **given)


@asynccontextmanager
async def bucket_of(s3: SeaweedServer, name: str, **options: Any) -> AsyncGenerator[R2Client]:
    given: dict[str, Any] = {"endpoint": s3.endpoint, "credentials": s3.credentials, **options}
    async with R2Client(bucket=name, **given) as r2:
        if not await r2.bucket_exists():
            await r2.create_bucket()
        yield r2


# ── 8: constant memory ───────────────────────────────────────────────────────

UPLOADER = """
'''Warms all that a bucket has, all of it at once; prints how far the most memory that it ever had lies above what it had before.'''
import json, os, sys
from pathlib import Path
import anyio
from prewarmkit import Credentials, Media, PoolSettings, PrewarmPool, R2Client
from prewarmkit.targets import TelegramTarget

told = json.loads(sys.argv[1])

def most_bytes():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

async def main():
    async with (
        R2Client(endpoint=told["endpoint"], bucket=told["bucket"], credentials=Credentials(*told["keys"])) as r2,
        TelegramTarget(told["token"], warmup_chats=[-1001], api_base=told["url"], budget=None) as bot,
        PrewarmPool(r2, bot, settings=PoolSettings(concurrency=len(told["warmed"]))) as pool,
    ):
        await pool.warm(told["first"], timeout=60)  # what is made once: connections, code
        before = most_bytes()
        await pool.enqueue_many([Media(key) for key in told["warmed"]])
        await pool.join(timeout=100)
        print(json.dumps({"grew": most_bytes() - before, "succeeded": pool.stats().succeeded}))

anyio.run(main)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the most memory of a process")
@pytest.mark.parametrize(
    ("mib", "most_mib"), [(5, 32), pytest.param(45, 64, marks=pytest.mark.slow)], ids=["5 MB", "45 MB"]
)
def test_requirement_08_constant_memory(
    server: BotApiServer, s3_server: SeaweedServer, mib: int, most_mib: int
) -> None:
    """Ten at once from S3: memory grows by less than a few chunks each; length and SHA-256 are those of the source.

    In the short form all ten together are 50 MB, and less than two thirds of it are allowed.
    """
    bucket = f"memory-{mib}"
    sizes = {f"{n}.pdf": mib * MIB - 1000 * n for n in range(10)}
    digests: dict[str, str] = {}

    async def fill() -> None:
        async with bucket_of(s3_server, bucket) as r2:
            await r2.put("first.pdf", make_media("pdf", MIB))
            for key, size in sizes.items():
                content = make_media("pdf", size, key)
                digests[hashlib.sha256(content).hexdigest()] = key
                await r2.put(key, content)

    anyio.run(fill)
    keys = s3_server.credentials
    told = {
        "endpoint": s3_server.endpoint,
        "keys": [keys.access_key_id, keys.secret_access_key],
        "bucket": bucket,
        "token": server.token,
        "url": server.url,
        "first": "first.pdf",
        "warmed": list(sizes),
    }
    ended = subprocess.run(
        [sys.executable, "-c", UPLOADER, json.dumps(told)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["succeeded"] == len(sizes) + 1
    print(f"10 x {mib} MB: {figures['grew'] / MIB:.1f} MiB more")  # noqa: T201 - `pytest -s` shows it
    assert figures["grew"] < most_mib * MIB
    _first, *uploads = server.received
    assert {upload.sha256 for upload in uploads} == set(digests)
    for upload in uploads:
        assert upload.size == sizes[digests[upload.sha256]]
        assert upload.transfer_encoding is None
        # The server reads so many bytes and no more: one too few or too many, and there were no upload.
        assert 0 < (upload.content_length or 0) - upload.size < 2000


@pytest.mark.anyio
async def test_requirement_08_an_early_end_is_never_warm(
    server: BotApiServer, s3_server: SeaweedServer
) -> None:
    """S3 breaks off in the middle, each time: the upload is left incomplete, and the row never ready."""
    async with bucket_of(s3_server, "early") as r2:
        await r2.put("a.pdf", make_media("pdf", 2 * MIB))
    store, settings = MemoryStore(), PoolSettings(max_attempts=2, retry_base_seconds=0.05)
    retry = RetryPolicy(attempts=2, base=0)
    async with FaultProxy.before(s3_server.endpoint) as proxy:
        # The rest is asked for as a range: of that there is nothing.
        proxy.always(WireFault.close("answer body"), when=lambda request: "range" in dict(request.headers))
        proxy.always(WireFault.close("answer body", 300_000), when=lambda request: request.method == "GET")
        async with (
            bucket_of(s3_server, "early", endpoint=proxy.url, retry=retry) as r2,
            bot_of(server) as bot,
            PrewarmPool(r2, bot, store, settings=settings) as pool,
        ):
            with pytest.raises(WarmFailed), anyio.fail_after(20):
                await pool.warm("a.pdf", timeout=15)
            assert await pool.lookup("a.pdf") is None
            await eventually(lambda: server.aborted == 2)
            assert server.received == []
            proxy.clear()
            assert await pool.requeue_failed() == 1
            await pool.join()
    [row] = await store.list()
    assert row.state is State.READY
    [upload] = server.received
    assert upload.size == 2 * MIB


# ── 7: instead of bytes ──────────────────────────────────────────────────────


def everything_in(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir())


@pytest.mark.anyio
@pytest.mark.parametrize("outcome", ["fetched", "failed", "echoed", "kept"])
async def test_requirement_07_route_ladder_by_presigned_addresses(
    server: BotApiServer,
    s3_server: SeaweedServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    outcome: str,
) -> None:
    """The server fetches from S3 itself; the signature is in no row, log, event or handle, whatever comes of it."""
    caplog.set_level(logging.DEBUG)
    faults = {
        "failed": Fault(status=400, description="Bad Request: failed to get HTTP URL content"),
        "echoed": Fault(file_id_is_url=True, drop_unique_id=True),
        "kept": Fault(file_id_is_url=True),
    }
    if outcome in faults:
        server.fail(faults[outcome])
    heard: list[Any] = []
    settings = evolve(QUICK, weak="store", retry_weak_id=0) if outcome == "kept" else QUICK
    async with bucket_of(s3_server, "signed") as r2:
        content = make_media("pdf", 30_000)
        await r2.put("Ein Brief.pdf", content, content_type="application/pdf")
        async with (
            SqliteStore(tmp_path / "p.db") as store,
            bot_of(server, route="presigned") as bot,
            PrewarmPool(r2, bot, store, settings=settings, on_event=heard.append) as pool,
        ):
            await pool.enqueue("Ein Brief.pdf")
            await pool.join(timeout=20)
            handle = await pool.lookup("Ein Brief.pdf")
            rows = await store.list()
    assert server.received[-1].sha256 == hashlib.sha256(content).hexdigest()
    if outcome == "kept":  # a handle that may not be kept is none
        assert (handle, rows[0].reason) == (None, "weak:url_handle")
    else:
        assert handle is not None
        assert handle.weak == ()
    expected = {"fetched": ["url"], "failed": ["multipart"], "echoed": ["url", "multipart"], "kept": ["url"]}
    assert [message.route for message in server.messages] == expected[outcome]
    urls = {urlsplit(fetch.url).query for fetch in server.fetches}
    if outcome != "failed":  # there the server refused before it looked
        assert [len(parse_qs(query)["X-Amz-Signature"][0]) for query in urls] == [64]
    shown = f"{handle!r} {rows!r} {heard!r} {caplog.text} {bot!r}".encode()
    shown += everything_in(tmp_path)
    assert b"X-Amz-Signature" not in shown
    for query in urls:
        assert parse_qs(query)["X-Amz-Signature"][0].encode() not in shown


@pytest.mark.anyio
async def test_requirement_07_route_ladder_shows_no_signature_in_errors(
    server: BotApiServer, s3_server: SeaweedServer
) -> None:
    """Neither where the address fails nor where the bytes after it do."""
    text = "Bad Request: failed to get HTTP URL content"
    server.fail(Fault(status=400, description=text), Fault(status=500, times=9))
    async with (
        bucket_of(s3_server, "signed") as r2,
        bot_of(server, route="presigned") as bot,
        PrewarmPool(r2, bot, settings=PoolSettings(max_attempts=1)) as pool,
    ):
        await r2.put("a.pdf", make_media("pdf", 30_000), content_type="application/pdf")
        with pytest.raises(WarmFailed, match="transient") as caught:
            await pool.warm("a.pdf", timeout=20)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "X-Amz-Signature" not in shown
    assert server.token.partition(":")[2] not in shown


@pytest.mark.anyio
@pytest.mark.parametrize(
    "key", ["film.mp4", "Ordner mit Leerzeichen/Füchse & Bären, 100 %.mp4", "日本/a#b?c.mp4"]
)
async def test_requirement_07_route_ladder_by_local_files(tmp_path: Path, key: str) -> None:
    """A server of one's own reads the file by its path: nothing goes over HTTP, whatever the key is written in."""
    content = make_media("mp4", 300_000)
    path = tmp_path / "media" / key
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with BotApiServer(local=True) as server:
        async with (
            DirectorySource(tmp_path / "media") as source,
            bot_of(server, local=True) as bot,
            PrewarmPool(source, bot, settings=QUICK) as pool,
        ):
            handle = await pool.warm(key, timeout=20)
            await bot.send(USER, handle)
        [upload] = server.received
        assert (upload.route, upload.sha256) == ("local_path", hashlib.sha256(content).hexdigest())
        assert upload.source == path.as_uri()
        assert (upload.content_length or 0) < 1000
        assert [call.status for call in server.calls] == [200, 200]


@pytest.mark.anyio
async def test_requirement_07_route_ladder_by_another_bots_message(server: BotApiServer) -> None:
    """One upload for two bots: the second forwards it, gets a file_id of its own, and delivers by that and no other."""
    server.add_bot(SECOND_BOT)
    source = EdgeServer().source()  # one whose objects have ETags
    source.origin.put("a.pdf", make_media("pdf", 30_000))

    async def lend(media: Media) -> Handle | None:
        return await pool.lookup(media, target=first)

    async with (
        bot_of(server) as first,
        bot_of(server, token=SECOND_BOT, warmup_chats=[OWN_CHAT], forward_from=lend) as second,
        PrewarmPool(source, [first, second], settings=QUICK) as pool,
    ):
        one = await pool.warm("a.pdf", target=first, timeout=20)
        other = await pool.warm("a.pdf", target=second, timeout=20)
        assert [message.route for message in server.messages] == ["multipart", "forward"]
        assert (other.details["route"], other.weak, other.unique_id) == ("forward", (), one.unique_id)
        assert other.value != one.value
        await second.send(USER, other)
        with pytest.raises(BadHandle):
            await second.send(USER, Handle(one.value, one.kind, second.id, one.key))
    assert [message.sha256 for message in server.messages] == [server.received[0].sha256] * 3
