"""A spool whose processes are killed, share a directory, and are given what is larger than their memory."""

# ruff: noqa: ASYNC240 - a test looks at a few small local files
from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from memory_source import MemorySource

from prewarmkit.sources import SpooledSource

pytestmark = pytest.mark.anyio

Start = Callable[..., subprocess.Popen[str]]

KEYS = tuple(f"k{number}" for number in range(6))


def content_of(key: str) -> bytes:
    """The same in every process."""
    return random.Random(key).randbytes(1_000_000)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start(place: Path, anyio_backend: str) -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def start_one(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(place), *map(str, arguments), anyio_backend],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(Path(__file__).parent)])),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.communicate(timeout=10)


async def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return await anyio.to_thread.run_sync(process.stdout.readline)


async def read(source: SpooledSource, key: str) -> bytes:
    async with source.open(key) as medium:
        return await medium.read()


HALF = """
import anyio, sys
from memory_source import MemorySource
from prewarmkit.sources import SpooledSource
from test_spool_kill import content_of

async def main():
    wrapped = MemorySource({key: content_of(key) for key in ("k0", "k1")}, gates={"k1": anyio.Event()})
    async with SpooledSource(wrapped, sys.argv[1]) as source:
        async with source.open("k0") as medium:
            await medium.read()
        async with source.open("k1") as medium:
            await anext(aiter(medium))
            print("half", flush=True)
            await medium.read()

anyio.run(main, backend=sys.argv.pop())
"""


async def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_served(
    place: Path, start: Start
) -> None:
    """Its half of a medium is swept when the next one enters, and its whole one is used."""
    process = start(HALF)
    assert await line_of(process) == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert [path.stat().st_size for path in place.glob("*.part")] == [1_000_000]
    wrapped = MemorySource({key: content_of(key) for key in KEYS})
    async with SpooledSource(wrapped, place) as source:
        assert not list(place.glob("*.part"))
        assert source.stats().bytes_held == 1_000_000
        for key in ("k0", "k1"):
            assert await read(source, key) == content_of(key)
    assert wrapped.opens == {"k1": 1}


BUSY = """
import anyio, random, sys
from memory_source import MemorySource
from prewarmkit.sources import SpooledSource
from test_spool_kill import KEYS, content_of

async def main():
    place, seed, opens = sys.argv[1], *map(int, sys.argv[2:])
    dice = random.Random(seed)
    wrapped = MemorySource({key: content_of(key) for key in KEYS})
    async with SpooledSource(wrapped, place, max_bytes=4_500_000) as source:
        print("ready", flush=True)

        async def some():
            for _ in range(opens):
                key = dice.choice(KEYS)
                async with source.open(key) as medium:
                    assert await medium.read() == content_of(key), key

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(some)
        print(source.stats().hits + source.stats().joined, source.stats().passed, flush=True)

anyio.run(main, backend=sys.argv.pop())
"""


def size_of(place: Path) -> int:
    """All that is in it at one moment, as the disk counts it: no name changes while the lock is held."""
    try:
        lock = (place / "lock").open("rb")
    except FileNotFoundError:
        return 0
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in place.iterdir())


async def test_processes_that_share_a_directory_read_right_bytes_and_keep_its_bound_together(
    place: Path, start: Start
) -> None:
    """And use one another's files."""
    processes = [start(BUSY, seed, 30) for seed in range(3)]
    most = 0
    while any(process.poll() is None for process in processes):
        most = max(most, await anyio.to_thread.run_sync(size_of, place))
        await anyio.sleep(0.02)
    outs = [process.communicate(timeout=10)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert all(out.startswith("ready\n") for out in outs)
    assert sum(int(out.split()[1]) for out in outs) > 90
    assert 3_000_000 < most < 4_600_000  # and what stands behind the bytes
    assert {path.suffix for path in place.iterdir()} <= {"", ".medium", ".old"}


async def test_processes_that_are_killed_at_any_moment_cost_the_others_nothing(
    place: Path, start: Start
) -> None:
    """Whatever they held is free, and is counted right again."""
    dice = random.Random(3)
    wrapped = MemorySource({key: content_of(key) for key in KEYS})
    async with SpooledSource(wrapped, place, max_bytes=4_500_000) as source:
        for kill in range(4):
            process = start(BUSY, kill, 10_000)
            assert await line_of(process) == "ready\n"
            with anyio.move_on_after(dice.uniform(0.01, 0.2)):
                while True:
                    key = dice.choice(KEYS)
                    assert await read(source, key) == content_of(key)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        for key in KEYS:
            assert await read(source, key) == content_of(key)
    async with SpooledSource(wrapped, place, max_bytes=4_500_000) as source:
        assert not list(place.glob("*.part"))
        files = list(place.glob("*.medium"))
        assert source.stats().bytes_held == len(files) * 1_000_000
        await read(source, KEYS[-1])
        assert source.stats().hits == 1


LARGE = """
import anyio, hashlib, pathlib, sys
from prewarmkit.sources import DirectorySource, SpooledSource

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

async def main():
    place, root = sys.argv[1:]
    async with SpooledSource(DirectorySource(root), place, max_bytes=int(1e8)) as source:
        digests = []

        async def one(key):
            digest = hashlib.sha256()
            async with source.open(key) as medium:
                async for chunk in medium:
                    digest.update(chunk)
            digests.append((key, digest.hexdigest()))

        await one("small")
        before = peak()
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(one, "large")
        stats = source.stats()
        print(len(set(digests)), digests[-1][1], peak() - before, stats.misses, stats.bytes_read)

anyio.run(main, backend=sys.argv.pop())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells the peak of a process's memory")
async def test_ten_readers_of_45_megabytes_take_a_few_chunks_of_memory(
    place: Path, tmp_path: Path, start: Start
) -> None:
    """From the source and from the disk, in one read of the source."""
    root = tmp_path / "media"
    root.mkdir()
    large = random.Random(1).randbytes(45_000_000)
    (root / "large").write_bytes(large)
    (root / "small").write_bytes(b"small")
    process = start(LARGE, root)
    out, _ = process.communicate(timeout=60)
    kinds, digest, grown, misses, read_bytes = out.split()
    assert (kinds, digest) == ("2", hashlib.sha256(large).hexdigest())
    assert (misses, read_bytes) == ("2", str(45_000_005))
    assert int(grown) < 24_000  # KiB: threads, and a chunk for each reader
