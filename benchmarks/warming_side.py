"""What both sides of the end-to-end benchmark share: the media, their orders, how they are measured.

A side is a process that gets a `Task` as a line of JSON on its standard input, and then a line for each
round. Standard library only: what a side imports beyond it is its own affair and its own memory.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib
import json
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KIB = 1024
CHAT_ID = -1001
BUCKET = "media"
LARGE, SMALL = "large", "small"
"""Folders: media of 64 to 256 KiB, and of 1 to 4."""

_SIZES = {LARGE: (64 * KIB, 256 * KIB), SMALL: (1 * KIB, 4 * KIB)}
_EXTENSIONS = ("jpg", "mp4", "pdf")
_STRIDE = 2_654_435_761  # spreads the sizes
_NOISE = random.Random(1).randbytes(max(high for _, high in _SIZES.values()))
_SLICE = 1000
_LONGEST_SECONDS = 300  # a side that hangs must not hang the benchmark


def key_of(folder: str, number: int) -> str:
    """The key of a medium; a third each are photos, videos and documents."""
    return f"{folder}/{folder}-{number:06}.{_EXTENSIONS[number % 3]}"


def content_of(key: str) -> bytes:
    """The bytes of a medium, no two of which are the same."""
    folder, _, name = key.partition("/")
    low, high = _SIZES[folder]
    size = low + int(name.partition(".")[0].rpartition("-")[2]) * _STRIDE % (high - low)
    return key.encode() + _NOISE[: size - len(key)]


@dataclass(frozen=True)
class Task:
    """Where a side finds everything."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    api_base: str
    token: str
    dsn: str
    concurrency: int
    profile: str = ""  # a file for cProfile's figures of all rounds but the first


@dataclass(frozen=True)
class Order:
    """What to warm in a round."""

    folder: str
    first: int
    count: int

    def slices(self) -> Iterator[list[str]]:
        """The keys, as many at a time as one puts into a queue at once."""
        end = self.first + self.count
        for first in range(self.first, end, _SLICE):
            yield [key_of(self.folder, number) for number in range(first, min(first + _SLICE, end))]


@dataclass(frozen=True)
class Took:
    """What a round took: seconds, CPU seconds of this process, and its peak memory so far."""

    seconds: float
    cpu: float
    peak_kib: int


Deliver = Callable[[Order], Awaitable[None]]


def task() -> Task:
    """The first line of standard input."""
    return Task(**json.loads(sys.stdin.readline()))


def run(main: Coroutine[Any, Any, None], loop: str = "asyncio") -> None:
    """Run a side, on asyncio's own event loop or on uvloop."""
    factory: Any = asyncio.new_event_loop
    if loop == "uvloop":
        factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


async def rounds(deliver: Deliver, *, profile: str = "") -> None:
    """Say that all is open; then deliver what each line asks for, and tell what it took."""
    loop = asyncio.get_running_loop()
    profiler = cProfile.Profile()
    print("ready", flush=True)
    number = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if profile and number:
            profiler.enable()
        took = await _measured(deliver, Order(**json.loads(line)))
        profiler.disable()
        print(json.dumps(asdict(took)), flush=True)
        number += 1
    if profile:
        profiler.dump_stats(profile)


async def _measured(deliver: Deliver, order: Order) -> Took:
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    async with asyncio.timeout(_LONGEST_SECONDS):
        await deliver(order)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Took(seconds, cpu, _peak_kib(after))


def _peak_kib(usage: resource.struct_rusage) -> int:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with that of the process that started this one
        return int(status.read_text().partition("VmHWM:")[2].split()[0])
    return usage.ru_maxrss
