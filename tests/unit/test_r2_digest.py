"""The MD5 of a body as it comes: right in any pieces, off the loop where it is large, never far behind."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarmkit import Credentials, R2Client, RetryPolicy
from prewarmkit.errors import BodyFault
from prewarmkit.r2.digest import Hasher
from prewarmkit.testing.wire import Wire, serve

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
CONTENT = bytes(range(256)) * 4096 * 5  # 5 MiB


class SlowMd5:
    """Hashes when it may, and says where."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.taken = 0
        self.may = threading.Event()
        self._sum = hashlib.md5(usedforsecurity=False)

    def made(self, *, usedforsecurity: bool) -> SlowMd5:
        assert not usedforsecurity
        return self

    def update(self, chunk: bytes) -> None:
        self.may.wait(10)
        self.threads.add(threading.get_ident())
        self.taken += len(chunk)
        self._sum.update(chunk)

    def hexdigest(self) -> str:
        return self._sum.hexdigest()


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    made = Hasher()
    yield made
    made.close()


@given(sizes=st.lists(st.integers(1, 700_000), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_pieces_give_the_sum_of_the_whole(sizes: list[int]) -> None:
    async def run() -> None:
        hasher = Hasher()
        running = hasher.md5(len(CONTENT))
        at = 0
        while at < len(CONTENT):
            for size in sizes:
                await running.catch_up()
                running.add(CONTENT[at : at + size])
                at += size
        assert await running.hexdigest() == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
        hasher.close()

    anyio.run(run)


async def test_hashing_is_in_a_thread_and_never_far_behind(
    hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowMd5()
    monkeypatch.setattr("prewarmkit.r2.digest.hashlib", SimpleNamespace(md5=slow.made))
    running = hasher.md5(len(CONTENT))
    added = 0

    async def add() -> None:
        nonlocal added
        for at in range(0, len(CONTENT), 64 * 1024):
            await running.catch_up()
            running.add(CONTENT[at : at + 64 * 1024])
            added += 64 * 1024

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add)
        await anyio.sleep(0.05)
        assert (added, slow.taken) == (2 * MIB, 0)  # three batches behind, and one that waits
        slow.may.set()
    assert await running.hexdigest() == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert (slow.taken, len(slow.threads)) == (len(CONTENT), 1)
    assert threading.get_ident() not in slow.threads


async def test_a_small_body_is_hashed_where_it_is(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowMd5()
    slow.may.set()
    monkeypatch.setattr("prewarmkit.r2.digest.hashlib", SimpleNamespace(md5=slow.made))
    running = hasher.md5(MIB)
    running.add(bytes(MIB))
    assert slow.threads == {threading.get_ident()}
    assert await running.hexdigest() == hashlib.md5(bytes(MIB), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("of", [CONTENT, b"another"])
async def test_a_large_object_is_held_to_its_etag(of: bytes) -> None:
    etag = hashlib.md5(of, usedforsecurity=False).hexdigest()

    async def handler(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(200, [("etag", f'"{etag}"')], CONTENT)

    credentials = Credentials("AKIDEXAMPLE", "s3cr3t")
    retry = RetryPolicy(attempts=1)
    async with (
        serve(handler) as server,
        R2Client(endpoint=server.url, bucket="media", credentials=credentials, retry=retry) as r2,
    ):
        got = bytearray()
        with nullcontext() if of == CONTENT else pytest.raises(BodyFault, match="MD5"):
            async with r2.open("k") as obj:
                async for chunk in obj:
                    got += chunk
        assert got == CONTENT
        async with r2.open("k", verify=False) as obj:
            assert await obj.read() == CONTENT
        async with R2Client(
            endpoint=server.url, bucket="media", credentials=credentials, retry=retry, verify=False
        ) as unverified:
            for reader in (unverified, unverified.with_bucket("media")):
                assert await reader.get("k") == CONTENT
                async with reader.open("k") as obj:
                    assert await obj.read() == CONTENT
            with nullcontext() if of == CONTENT else pytest.raises(BodyFault, match="MD5"):
                async with unverified.open("k", verify=True) as obj:
                    await obj.read()
