"""Calls to a loop, at the moments that a running pool hardly ever meets: between two steps of it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from prewarmkit import PoolClosed
from prewarmkit.blocking.calls import Calls

begun: list[str] = []


async def work() -> None:
    begun.append("work")


def wait_until_handed_over(calls: Calls) -> None:
    """In the loop's own thread, which does nothing else meanwhile."""
    deadline = time.monotonic() + 5
    while not calls._under_way:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def calls() -> Calls:
    begun.clear()
    return Calls("cats")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Runs when it is told to, in the test's thread."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def test_a_call_that_comes_just_before_the_door_closes_is_refused_and_not_begun(
    calls: Calls, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor
) -> None:
    async def host() -> None:
        calls.attach()
        calls.open()
        waiting = threads.submit(calls.call, work)
        wait_until_handed_over(calls)
        await calls.close()
        with pytest.raises(PoolClosed, match="left during this call"):
            await asyncio.wrap_future(waiting)

    loop.run_until_complete(asyncio.wait_for(host(), 5))
    assert begun == []
    assert not calls._under_way


def test_a_call_that_comes_after_the_loops_last_step_does_not_wait_for_the_next(
    calls: Calls, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor
) -> None:
    """The loop is not closed yet, but nothing that is handed to it will ever be done."""

    async def host() -> None:
        calls.attach()
        calls.open()
        await calls.close()

    loop.run_until_complete(host())
    with pytest.raises(PoolClosed):
        threads.submit(calls.call, work).result(timeout=5)


def test_a_call_that_a_dying_loop_never_began_is_told_why(
    calls: Calls, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor
) -> None:
    async def host() -> None:
        calls.attach()
        calls.open()

    loop.run_until_complete(host())
    waiting = threads.submit(calls.call, work)
    wait_until_handed_over(calls)
    loop.close()
    with pytest.raises(PoolClosed):  # between the loop's end and the news of it
        calls.call(work)
    calls.finish(SystemExit(5))
    error = waiting.exception(timeout=5)
    assert isinstance(error, PoolClosed)
    assert repr(error.cause) == "SystemExit(5)"
    with pytest.raises(PoolClosed, match="SystemExit"):
        calls.call(work)


def test_a_call_given_up_before_it_begins_is_not_begun(
    calls: Calls, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor
) -> None:
    """Its caller was interrupted at once."""

    async def host() -> None:
        calls.attach()
        calls.open()
        threads.submit(calls.start, work).result()
        [call] = calls._under_way
        calls.post(call.give_up)
        with pytest.raises(PoolClosed):
            await asyncio.wrap_future(call.answer)
        await calls.close()

    loop.run_until_complete(asyncio.wait_for(host(), 5))
    assert begun == []
