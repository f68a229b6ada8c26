"""Jobs side by side, so many at most. Knows nothing of what they do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

__all__ = ["Start", "check_concurrency", "parallel"]

Start = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Starts a job, once there is a place for it."""


def check_concurrency(concurrency: int) -> int:
    """A number of jobs that makes sense.

    Raises:
        ValueError: It does not.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency!r}.")
    return concurrency


@asynccontextmanager
async def parallel(limit: int) -> AsyncGenerator[Start, None]:
    """Run jobs until the block is left; leaving it waits for all of them.

    The first error, of a job or of the block, cancels everything else and is raised bare, not in a group.

    Args:
        limit: Jobs at a time; who starts one more waits.
    """
    failure: Exception | None = None
    places = anyio.Semaphore(limit)
    async with anyio.create_task_group() as tasks:

        def fail(error: Exception) -> None:
            nonlocal failure
            failure = failure or error
            tasks.cancel_scope.cancel()

        async def run(job: Callable[[], Awaitable[None]]) -> None:
            try:
                await job()
            except Exception as error:  # noqa: BLE001 - raised below
                fail(error)
            finally:
                places.release()

        async def start(job: Callable[[], Awaitable[None]]) -> None:
            await places.acquire()
            tasks.start_soon(run, job)

        try:
            yield start
        except Exception as error:  # noqa: BLE001 - raised below
            fail(error)
    if failure is not None:
        raise failure
