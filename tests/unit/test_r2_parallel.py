"""Jobs side by side: the first failure is the one that counts, and it ends the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from prewarmkit.r2.parallel import parallel

pytestmark = pytest.mark.anyio


async def run(*jobs: Callable[[], Awaitable[None]], limit: int = 5, last: Exception | None = None) -> None:
    with anyio.fail_after(5):
        async with parallel(limit) as start:
            for job in jobs:
                await start(job)
            if last is not None:
                raise last


async def wait() -> None:
    await anyio.sleep(60)


async def fail() -> None:
    await anyio.lowlevel.checkpoint()
    raise KeyError


async def test_the_first_failure_is_raised_bare_and_ends_the_others() -> None:
    """What cleans up may fail as well; that is not why it ended."""
    ended: list[int] = []

    async def clean_up_badly(number: int) -> None:
        try:
            await wait()
        finally:
            ended.append(number)
            raise ValueError

    with pytest.raises(KeyError):
        await run(partial(clean_up_badly, 1), fail, partial(clean_up_badly, 2))
    assert sorted(ended) == [1, 2]


async def test_a_failure_of_the_block_ends_the_jobs() -> None:
    with pytest.raises(KeyError):
        await run(wait, wait, last=KeyError())


async def test_who_waits_for_a_place_waits_no_longer_than_for_a_failure() -> None:
    with pytest.raises(KeyError):
        await run(wait, fail, wait, wait, limit=2)


async def test_a_cancellation_from_outside_is_one() -> None:
    with anyio.move_on_after(0.01) as scope:
        await run(wait, wait, wait, limit=2)
    assert scope.cancelled_caught
