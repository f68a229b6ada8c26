"""The main job on real parts: a bucket that checks signatures, a table on disk, a Bot API over HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from attrs import evolve

from prewarmkit import (
    ConfigurationError,
    Credentials,
    Media,
    MediaKind,
    MediaNotReady,
    PoolSettings,
    PrewarmPool,
    R2Client,
    SchemaTooNew,
    StoreFull,
    TargetDown,
    WarmFailed,
)
from prewarmkit.pool.events import StoreTrouble
from prewarmkit.sources import DirectorySource
from prewarmkit.stores import Job, MemoryStore, SqliteStore, State
from prewarmkit.targets import BadHandle, TelegramTarget
from prewarmkit.testing.botapi import BotApiServer, Fault
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.media import SampleMedia, media_set
from prewarmkit.testing.s3 import SeaweedServer
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

SETTINGS = PoolSettings(poll_interval_seconds=0.2, down_seconds=0.5)
SECRET = "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"


@pytest.fixture
def bot_api() -> Iterator[BotApiServer]:
    with BotApiServer(token=f"123456:{SECRET}") as server:
        yield server


@pytest.fixture
async def bot(bot_api: BotApiServer) -> AsyncIterator[TelegramTarget]:
    async with TelegramTarget(
        bot_api.token, warmup_chats=[1, 2, 3], api_base=bot_api.url, budget=None
    ) as target:
        yield target


@pytest.fixture
def samples() -> list[SampleMedia]:
    return list(media_set(count=18, seed=7, smallest=20_000, largest=400_000))


@pytest.fixture
async def r2(s3_server: SeaweedServer, samples: list[SampleMedia]) -> AsyncIterator[R2Client]:
    async with R2Client(
        bucket=f"media-{os.urandom(4).hex()}", endpoint=s3_server.endpoint, credentials=s3_server.credentials
    ) as client:
        await client.create_bucket()
        async with anyio.create_task_group() as group:
            for sample in samples:
                group.start_soon(client.put, sample.key, sample.maker())
        yield client


async def test_media_in_a_bucket_become_handles_that_deliver(
    r2: R2Client, bot: TelegramTarget, bot_api: BotApiServer, samples: list[SampleMedia], tmp_path: Path
) -> None:
    """Every medium ready, every byte as in the source, one signing key, delivery without bytes."""
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(r2, bot, store, settings=SETTINGS) as pool,
    ):
        await pool.enqueue_many([Media(sample.key, sample.kind, size=sample.size) for sample in samples])
        await pool.join(timeout=30)
        digests = {hashlib.sha256(sample.maker()).hexdigest() for sample in samples}
        assert {upload.sha256 for upload in bot_api.received} == digests
        assert len(bot_api.received) == len(samples)
        for sample in samples:
            handle = await pool.require(sample.key, kind=sample.kind, enqueue=False)
            assert handle.kind is sample.kind
            assert not handle.weak
        stats = pool.stats()
        assert (stats.succeeded, stats.failed, stats.success_rate) == (len(samples), 0, 1.0)
        info = r2.signer.cache_info()
        assert info.misses <= 2  # the day's key, and once more at midnight
        handle = await pool.require(samples[0].key, kind=samples[0].kind)
        sent = await bot.send(chat_id=42, handle=handle)
        assert sent.message_id
        assert [send.chat_id for send in bot_api.sends] == [42]
        assert len(bot_api.received) == len(samples)
    # The next process finds everything warm.
    async with (
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(r2, bot, store, settings=SETTINGS) as pool,
    ):
        assert set(await pool.enqueue_many([sample.key for sample in samples])) == {"ready"}
    assert {upload.transfer_encoding for upload in bot_api.received} == {None}
    assert all(upload.content_length for upload in bot_api.received)


async def test_the_screen_of_the_readme_works_with_a_directory(
    bot: TelegramTarget, bot_api: BotApiServer, tmp_path: Path
) -> None:
    """enqueue, warm, send, join, require, stats: without S3 and without a file for the table."""
    (tmp_path / "videos").mkdir()
    for sample in media_set(count=12, seed=3, smallest=20_000, largest=40_000):
        if sample.kind is MediaKind.VIDEO:
            (tmp_path / "videos" / "intro.mp4").write_bytes(sample.maker())
            (tmp_path / "videos" / "outro.mp4").write_bytes(sample.maker())
    source = DirectorySource(tmp_path)
    async with PrewarmPool(source, bot, settings=PoolSettings(concurrency=5, max_queue=500)) as pool:
        await pool.enqueue("videos/intro.mp4", kind="video")
        handle = await pool.warm("videos/outro.mp4", kind="video", timeout=30)
        await bot.send(chat_id=42, handle=handle)
        await pool.join()
        assert (await pool.require("videos/intro.mp4", kind="video")).value
        with pytest.raises(MediaNotReady) as cold:
            await pool.require("videos/none.mp4", kind="video")
        assert cold.value.state is None
        with pytest.raises(WarmFailed, match="source_missing"):
            await pool.warm("videos/none.mp4", kind="video", timeout=30)
    assert Counter(upload.kind for upload in bot_api.received) == {"video": 2}


async def test_a_refused_delivery_is_warmed_anew(
    bot: TelegramTarget, bot_api: BotApiServer, tmp_path: Path
) -> None:
    """BadHandle goes to invalidate, and the next delivery works."""
    (tmp_path / "a.bin").write_bytes(os.urandom(1000))
    async with PrewarmPool(DirectorySource(tmp_path), bot) as pool:
        handle = await pool.warm("a.bin", timeout=10)
        bot_api.fail(Fault(status=400, description="Bad Request: wrong file identifier/HTTP URL specified"))
        with pytest.raises(BadHandle) as refused:
            await bot.send(chat_id=42, handle=handle)
        assert isinstance(refused.value.handle, type(handle))
        assert await pool.invalidate(refused.value.handle)
        await bot.send(chat_id=42, handle=await pool.warm("a.bin", timeout=10))
    assert len(bot_api.received) == 2


# ── what goes wrong outside ──────────────────────────────────────────────────


async def test_a_wrong_secret_holds_the_work_and_says_what_to_change(
    r2: R2Client,
    s3_server: SeaweedServer,
    bot: TelegramTarget,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """TargetDown at once for who waits, rows pending without a spent attempt, no secret anywhere."""
    wrong = Credentials(s3_server.credentials.access_key_id, "not-the-secret-0123456789")
    async with (
        R2Client(bucket=r2.bucket, endpoint=s3_server.endpoint, credentials=wrong) as blind,
        SqliteStore(tmp_path / "p.db") as store,
    ):
        with caplog.at_level(logging.DEBUG):
            async with PrewarmPool(blind, bot, store, settings=SETTINGS) as pool:
                with pytest.raises(TargetDown, match="secret") as down:
                    await pool.warm("a.png", timeout=10)
                rows = await store.list()
        assert [(row.state, row.attempts) for row in await store.list()] == [(State.PENDING, 0)]
    said = str(down.value) + caplog.text + repr(rows)
    assert "not-the-secret" not in said
    assert SECRET not in said


async def test_a_missing_bucket_holds_the_work_and_names_it(
    s3_server: SeaweedServer, bot: TelegramTarget, tmp_path: Path
) -> None:
    """A slip in a setting must not fail a catalogue."""
    async with (
        R2Client(bucket="nowhere", endpoint=s3_server.endpoint, credentials=s3_server.credentials) as lost,
        SqliteStore(tmp_path / "p.db") as store,
        PrewarmPool(lost, bot, store, settings=SETTINGS) as pool,
    ):
        await pool.enqueue_many(["a.png", "b.png"])
        with pytest.raises(TargetDown, match="nowhere"):
            await pool.warm("a.png", timeout=10)
        assert {row.state for row in await store.list()} <= {State.PENDING, State.WARMING}
        assert pool.stats().failed == 0


async def test_a_revoked_token_holds_the_work_and_hides_itself(
    bot: TelegramTarget, bot_api: BotApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """401 stops the target within one round; the message names the remedy, never the token."""
    (tmp_path / "a.png").write_bytes(b"x" * 1000)
    bot_api.revoke(bot_api.token)
    with caplog.at_level(logging.DEBUG):
        async with (
            SqliteStore(tmp_path / "p.db") as store,
            PrewarmPool(
                DirectorySource(tmp_path), bot, store, settings=evolve(SETTINGS, concurrency=1)
            ) as pool,
        ):
            await pool.enqueue_many(["a.png", "b.png", "c.png"])
            with pytest.raises(TargetDown, match="token") as down:
                await pool.warm("a.png", timeout=10)
            rows = await store.list()
            assert {(row.state, row.attempts) for row in rows} <= {(State.PENDING, 0), (State.WARMING, 1)}
    assert SECRET not in str(down.value) + caplog.text + repr(rows) + repr(bot)
    assert bot_api.received == []


async def test_a_full_database_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """SQLITE_FULL, really raised: enqueue says so, what was queued stays, the pool lives on."""
    path = tmp_path / "p.db"
    async with SqliteStore(path, max_bytes=120_000) as store:
        queued = 0

        async def fill() -> None:
            nonlocal queued
            while True:
                await store.enqueue([_job(f"{queued}-{'k' * 200}")])
                queued += 1

        with pytest.raises(StoreFull, match="free space"):
            await fill()
        assert queued > 20
        assert sum((await store.counts()).values()) == queued
    async with SqliteStore(path) as store, PrewarmPool(UnreadSource(), ScriptedTarget(), store) as pool:
        await pool.join(timeout=20)
        assert pool.stats().succeeded == queued


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root to mount a file system of its own"
)
async def test_a_really_full_disk_is_survived(tmp_path: Path) -> None:
    """A tmpfs of 2 MiB that somebody else fills: outcomes wait in memory until there is room again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "prewarmkit-test", str(disk)]
    if (await anyio.run_process(mount, check=False)).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        events: list[Any] = []
        target = ScriptedTarget(seconds=0.02)
        async with (
            SqliteStore(disk / "p.db") as store,
            PrewarmPool(UnreadSource(), target, store, settings=SETTINGS, on_event=events.append) as pool,
        ):
            pool.pause()
            await pool.enqueue_many(map(str, range(200)))
            with contextlib.suppress(OSError):
                (disk / "hog").write_bytes(b"x" * 2**21)
            pool.resume()
            with anyio.fail_after(10):
                while not any(isinstance(event, StoreTrouble) and event.is_full for event in events):  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            (disk / "hog").unlink()
            await pool.join(timeout=20)
            assert pool.stats().succeeded == 200
            assert sorted(set(target.calls)) == sorted(map(str, range(200)))
    finally:
        await anyio.to_thread.run_sync(lambda: subprocess.run(["umount", str(disk)], check=True))


async def test_the_database_is_private_and_its_faults_are_clear(tmp_path: Path) -> None:
    """Mode 0600; a file that is no database, a foreign table and a newer schema say what to do."""
    path = tmp_path / "p.db"
    async with SqliteStore(path) as store:
        await store.enqueue([_job("a")])
        for ending in ("", "-wal", "-shm"):
            assert (await anyio.Path(f"{path}{ending}").stat()).st_mode & 0o777 == 0o600
    (tmp_path / "text").write_text("hello " * 500)
    with pytest.raises(ConfigurationError, match="no SQLite database"):
        await SqliteStore(tmp_path / "text").__aenter__()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await SqliteStore(tmp_path / "none" / "p.db").__aenter__()
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as foreign:
        foreign.execute("CREATE TABLE media_cache (bot_slug TEXT)")
    with pytest.raises(ConfigurationError, match="not prewarmkit's"):
        await SqliteStore(tmp_path / "foreign.db").__aenter__()
    with contextlib.closing(sqlite3.connect(path)) as newer, newer:
        newer.execute("INSERT INTO prewarm_migrations VALUES (99, 0)")
    with pytest.raises(SchemaTooNew, match="upgrade"):
        await SqliteStore(path).__aenter__()
    with pytest.raises(ConfigurationError, match="enter it first"):
        await SqliteStore(path).counts()


async def test_memory_and_sqlite_behave_alike_in_a_pool(tmp_path: Path) -> None:
    """The same story on both: what is cold, what is warm, what failed."""
    for store in (MemoryStore(), SqliteStore(tmp_path / "p.db")):
        async with store, PrewarmPool(UnreadSource(), ScriptedTarget(), store) as pool:
            await pool.enqueue_many(map(str, range(50)), priority=3)
            await pool.join(timeout=10)
            assert (await pool.counts())["bot", MediaKind.DOCUMENT, State.READY] == 50


def _job(key: str) -> Job:
    return job(key)
