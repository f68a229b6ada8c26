"""Readers of one medium share one read of its source, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import math
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest
import trio
from anyio import wait_all_tasks_blocked
from anyio.abc import TaskGroup, TaskStatus
from memory_source import MemoryReader, MemorySource
from waiting import eventually

from prewarmkit.errors import BodyFault, NotFound, ServiceFault
from prewarmkit.sources import SpooledSource
from prewarmkit.sources.spool import flight as flights
from prewarmkit.sources.spool.files import Part
from prewarmkit.sources.spool.reader import SpooledReader

pytestmark = pytest.mark.anyio

MEDIUM = os.urandom(400_000)


@pytest.fixture
def wrapped() -> MemorySource:
    return MemorySource({"k": MEDIUM})


@pytest.fixture
async def source(wrapped: MemorySource, tmp_path: Path) -> AsyncGenerator[SpooledSource, None]:
    async with SpooledSource(wrapped, tmp_path / "spool") as source:
        yield source
        with anyio.fail_after(5):
            await eventually(lambda: not wrapped.reading)


async def read(source: SpooledSource, results: list[bytes | Exception]) -> None:
    try:
        async with source.open("k") as medium:
            results.append(await medium.read())
    except Exception as error:  # noqa: BLE001 - compared
        results.append(error)


async def hold(source: SpooledSource, *, task_status: TaskStatus[SpooledReader]) -> None:
    """A reader that took a chunk and then is slow."""
    async with source.open("k") as medium:
        await anext(aiter(medium))
        task_status.started(medium)
        await anyio.sleep_forever()


async def test_twenty_readers_at_once_make_one_read(wrapped: MemorySource, source: SpooledSource) -> None:
    results: list[bytes | Exception] = []
    wrapped.gates["k"] = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(read, source, results)
        await eventually(lambda: wrapped.given > 0)
        await wait_all_tasks_blocked()
        assert not results
        wrapped.gates["k"].set()
    assert results == [MEDIUM] * 20
    assert wrapped.opens == {"k": 1}
    stats = source.stats()
    assert (stats.misses, stats.joined, stats.bytes_read) == (1, 19, len(MEDIUM))
    assert stats.bytes_given == 20 * len(MEDIUM)


async def test_a_reader_gets_bytes_before_the_medium_is_whole(
    wrapped: MemorySource, source: SpooledSource
) -> None:
    """The file is followed as it grows, and not served by its name before it is whole."""
    wrapped.gates["k"] = anyio.Event()
    async with source.open("k") as first, source.open("k") as second:
        for medium in (first, second):
            assert await anext(aiter(medium)) == MEDIUM[: wrapped.chunk_bytes]
        wrapped.gates["k"].set()
        assert await first.read() == await second.read() == MEDIUM[wrapped.chunk_bytes :]


async def test_a_slow_first_reader_keeps_nobody_waiting(wrapped: MemorySource, source: SpooledSource) -> None:
    results: list[bytes | Exception] = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(hold, source)
        await read(source, results)
        assert results == [MEDIUM]
        tasks.cancel_scope.cancel()
    assert wrapped.opens == {"k": 1}


async def test_a_cancelled_first_reader_cancels_nobody_else(
    wrapped: MemorySource, source: SpooledSource
) -> None:
    """Neither while the source is being opened, nor in the middle."""
    results: list[bytes | Exception] = []
    wrapped.gates["k"] = anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as doomed:
            doomed.start_soon(read, source, results)
            tasks.start_soon(read, source, results)
            doomed.cancel_scope.cancel()
        async with anyio.create_task_group() as doomed:
            await doomed.start(hold, source)
            doomed.cancel_scope.cancel()
        wrapped.gates["k"].set()
    assert results == [MEDIUM]
    assert wrapped.opens == {"k": 1}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_that_asyncio_itself_cancels_cancels_nobody_else(
    wrapped: MemorySource, source: SpooledSource
) -> None:
    """`Task.cancel`, as frameworks and ``asyncio.timeout`` do, at every place where it may strike."""
    for steps in range(40):
        results: list[bytes | Exception] = []
        tasks = [asyncio.ensure_future(read(source, results)) for _ in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        assert results[-2:] == [MEDIUM] * 2
        wrapped.versions["k"] = str(steps)  # the next round reads it anew
        await source.head("k")


async def test_a_failing_reader_breaks_nobody_else(wrapped: MemorySource, source: SpooledSource) -> None:
    results: list[bytes | Exception] = []
    wrapped.gates["k"] = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def fail() -> None:
            async with source.open("k") as medium:
                await anext(aiter(medium))
                tasks.start_soon(read, source, results)
                await wait_all_tasks_blocked()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        wrapped.gates["k"].set()
    assert results == [MEDIUM]


async def test_a_failing_source_fails_all_who_share_the_read_and_nobody_after(
    wrapped: MemorySource, source: SpooledSource
) -> None:
    """Each gets the source's own error; what had come until then is served to none who asks later."""
    error = ServiceFault("no", code="InternalError", status=500)
    wrapped.failures["k"] = (3, error)
    wrapped.gates["k"] = anyio.Event()
    results: list[bytes | Exception] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(read, source, results)
        await eventually(lambda: wrapped.given > 0)
        wrapped.gates["k"].set()
    assert results == [error] * 5
    assert wrapped.opens == {"k": 1}
    del wrapped.failures["k"]
    await read(source, results)
    assert results[-1] == MEDIUM
    assert source.stats().bytes_held == len(MEDIUM)


async def test_an_error_that_many_raise_does_not_grow(wrapped: MemorySource, source: SpooledSource) -> None:
    """Its trace is that of the source each time, and not of everybody who met it."""
    error = NotFound("no", code="NoSuchKey")
    wrapped.failures["k"] = (-1, error)
    lengths = set[int]()

    async def one() -> None:
        with pytest.raises(NotFound):
            async with source.open("k"):
                pass
        trace, length = error.__traceback__, 0
        while trace is not None:
            trace, length = trace.tb_next, length + 1
        lengths.add(length)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(one)
    assert max(lengths) < 20


async def test_a_read_that_somebody_left_half_way_is_finished_for_who_tries_again(
    wrapped: MemorySource, source: SpooledSource
) -> None:
    """An upload that broke, say: its next attempt reads no byte of the source twice."""
    wrapped.gates["k"] = anyio.Event()
    async with source.open("k") as medium:
        await anext(aiter(medium))
    flight = source._flights["k"]  # pyright: ignore[reportPrivateUsage] - its limit shows nowhere else
    assert flight._scope.deadline < math.inf  # pyright: ignore[reportPrivateUsage] - as above
    async with source.open("k"):
        assert flight._scope.deadline == math.inf  # pyright: ignore[reportPrivateUsage] - as above
        wrapped.gates["k"].set()
        await eventually(lambda: not wrapped.reading)
    results: list[bytes | Exception] = []
    await read(source, results)
    assert results == [MEDIUM]
    assert wrapped.opens == {"k": 1}


async def test_a_medium_that_nobody_wants_a_byte_of_is_not_read(
    wrapped: MemorySource, source: SpooledSource
) -> None:
    """A target that looks at the size and refuses it costs no bytes, and no room."""
    async with source.open("k") as medium:
        assert medium.info.size == len(MEDIUM)
        await wait_all_tasks_blocked()
    assert (wrapped.given, wrapped.reading, source.stats().bytes_held) == (0, 0, 0)


async def test_a_read_that_gets_no_bytes_is_given_up_when_its_last_reader_leaves(
    wrapped: MemorySource, source: SpooledSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that hangs does not hold the next attempt, which asks it anew."""
    monkeypatch.setattr(flights, "_IDLE_SECONDS", 0.0)
    wrapped.gates["k"] = anyio.Event()
    async with source.open("k") as medium:
        await anext(aiter(medium))
    await eventually(lambda: not wrapped.reading)
    wrapped.gates.clear()
    results: list[bytes | Exception] = []
    await read(source, results)
    assert results == [MEDIUM]
    assert wrapped.opens == {"k": 2}


async def test_a_read_that_takes_longer_than_the_ttl_is_not_joined_any_more(
    wrapped: MemorySource, tmp_path: Path
) -> None:
    """And what is younger than it keeps the name."""
    now = 0.0
    wrapped.gates["k"] = anyio.Event()
    async with (
        SpooledSource(wrapped, tmp_path / "spool", clock=lambda: now) as source,
        source.open("k") as old,
    ):
        first = await anext(aiter(old))
        now += 301
        wrapped.objects = {"k": MEDIUM[::-1]}
        results: list[bytes | Exception] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, source, results)
            await eventually(lambda: wrapped.opens["k"] == 2)
            wrapped.gates["k"].set()
        assert first + await old.read() == MEDIUM
        await read(source, results)
    assert results == [MEDIUM[::-1]] * 2
    assert wrapped.opens["k"] == 2


async def test_leaving_the_spool_ends_reads_with_an_error_that_says_so(
    wrapped: MemorySource, tmp_path: Path
) -> None:
    """A reader that waits, one that has not begun and one that has bytes left to take."""
    wrapped.gates["k"] = anyio.Event()
    results: list[bytes | Exception] = []
    source = SpooledSource(wrapped, tmp_path / "spool")
    async with anyio.create_task_group() as tasks:
        async with source:
            tasks.start_soon(read, source, results)
            late = source.open("k")
            medium = await late.__aenter__()
            await eventually(lambda: wrapped.given > 0)
        with pytest.raises(BodyFault, match="was left"):
            await medium.read()
        await late.__aexit__(None, None, None)
    [error] = results
    assert isinstance(error, BodyFault)
    assert not error.is_retryable
    assert not wrapped.reading


async def test_a_cancelled_read_loses_no_byte(wrapped: MemorySource, source: SpooledSource) -> None:
    """The next one goes on where it was."""
    wrapped.gates["k"] = anyio.Event()
    async with source.open("k") as medium:
        got = await anext(aiter(medium))
        with anyio.move_on_after(0.01):
            await anext(aiter(medium))
        wrapped.gates["k"].set()
        assert got + await medium.read() == MEDIUM


async def test_leaving_waits_until_the_source_is_closed(wrapped: MemorySource, tmp_path: Path) -> None:
    """The source may be closed right after."""
    wrapped.gates["k"] = anyio.Event()
    async with SpooledSource(wrapped, tmp_path / "spool") as source:
        async with source.open("k") as medium:
            await anext(aiter(medium))
        assert wrapped.reading == 1
    assert wrapped.reading == 0
    assert not list((tmp_path / "spool").glob("*.part"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_on_asyncio_it_may_be_left_in_another_task(wrapped: MemorySource, tmp_path: Path) -> None:
    source = SpooledSource(wrapped, tmp_path / "spool")
    await asyncio.create_task(source.__aenter__())
    results: list[bytes | Exception] = []
    await read(source, results)
    assert results == [MEDIUM]
    await asyncio.create_task(source.__aexit__(None, None, None))


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_leaving_in_another_task_is_a_clear_error(
    wrapped: MemorySource, tmp_path: Path
) -> None:
    source = SpooledSource(wrapped, tmp_path / "spool")

    async def leave() -> None:
        with pytest.raises(RuntimeError, match="task that entered it"):
            await source.__aexit__(None, None, None)

    async with source:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
        results: list[bytes | Exception] = []
        await read(source, results)
        assert results == [MEDIUM]


class ClosingBadly(MemorySource):
    """Finds out only when it is closed that the bytes were wrong."""

    def open(self, key: str) -> AbstractAsyncContextManager[MemoryReader]:
        @asynccontextmanager
        async def opened() -> AsyncGenerator[MemoryReader, None]:
            async with MemorySource.open(self, key) as medium:
                yield medium
                raise BodyFault("wrong checksum")

        return opened()


async def test_a_source_that_fails_as_it_is_closed_has_failed(tmp_path: Path) -> None:
    """Nobody is told that the bytes were whole, and they are not kept."""
    async with SpooledSource(ClosingBadly({"k": MEDIUM}), tmp_path / "spool") as source:
        results: list[bytes | Exception] = []
        await read(source, results)
        [error] = results
        assert str(error) == "wrong checksum"
        assert source.stats().bytes_held == 0


def spawn(tasks: TaskGroup, source: SpooledSource, count: int, results: list[bytes | Exception]) -> None:
    for _ in range(count):
        tasks.start_soon(read, source, results)


async def test_readers_of_a_file_share_its_checksum_and_its_place(
    wrapped: MemorySource, source: SpooledSource
) -> None:
    """Whoever comes while it is open joins; the first opens it."""
    results: list[bytes | Exception] = []
    await read(source, results)
    async with source.open("k"), anyio.create_task_group() as tasks:
        spawn(tasks, source, 5, results)
    assert results == [MEDIUM] * 6
    stats = source.stats()
    assert (stats.misses, stats.hits, stats.joined) == (1, 1, 5)


class Generating(MemorySource):
    """Its readers are written as generators, which ought to be closed before their object is."""

    left_open: int = 0

    def open(self, key: str) -> AbstractAsyncContextManager[MemoryReader]:
        @asynccontextmanager
        async def opened() -> AsyncGenerator[MemoryReader, None]:
            async with MemorySource.open(self, key) as medium:
                reader = GeneratingReader(medium.info, self, self.objects[key])
                yield reader
            Generating.left_open += reader.is_suspended

        return opened()


class GeneratingReader(MemoryReader):
    is_suspended = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        self.is_suspended = True
        try:
            while chunk := await anext(self, b""):
                yield chunk
        finally:
            self.is_suspended = False


async def test_a_source_whose_readers_are_generators_is_closed_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that is left early does not close itself: here the disk fails after two chunks."""
    real = Part.write

    def write(part: Part, content: bytes) -> None:
        if part.written:
            raise OSError(errno.ENOSPC, "full")
        real(part, content)

    monkeypatch.setattr(Part, "write", write)
    wrapped = Generating({"k": MEDIUM})
    async with SpooledSource(wrapped, tmp_path / "spool") as source:
        results: list[bytes | Exception] = []
        await read(source, results)
        assert results == [MEDIUM]
    assert not Generating.left_open
