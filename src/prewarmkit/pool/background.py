"""A task that lives beside the block that started it, on asyncio and on trio.

On asyncio it is a task of its own, so that a host may enter in one task and leave in
another. Trio has no such thing, by design: there it lives in a nursery that must be
left where it was entered, and leaving elsewhere is a clear error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

__all__ = ["Background"]


def _on_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no asyncio loop runs in this thread
        return False


@define(eq=False)
class Background:
    """Runs one coroutine function at a time; whatever it raises stays in `failure`."""

    failure: BaseException | None = field(init=False, default=None)
    _group: TaskGroup | None = field(init=False, default=None)
    _entered_by: int | None = field(init=False, default=None)
    _task: asyncio.Task[None] | None = field(init=False, default=None)
    _done: anyio.Event | None = field(init=False, default=None)

    async def open(self) -> None:
        """Make a place for the task."""
        if not _on_asyncio():
            self._entered_by = anyio.get_current_task().id
            self._group = await anyio.create_task_group().__aenter__()

    async def close(self) -> None:
        """Leave the place; the task must have ended."""
        if self._group is not None:
            if anyio.get_current_task().id != self._entered_by:
                raise RuntimeError("On trio a pool must be left in the task that entered it.")
            group, self._group = self._group, None
            await group.__aexit__(None, None, None)

    @property
    def is_running(self) -> bool:
        """Whether the task has been started and has not ended."""
        return self._done is not None and not self._done.is_set()

    def start(self, main: Callable[[], Awaitable[None]]) -> None:
        """Start the task."""
        self.failure, self._done = None, anyio.Event()
        if self._group is not None:
            self._group.start_soon(self._run, main, self._done)
        else:
            # Kept in a field: the loop itself holds its tasks only weakly.
            self._task = asyncio.get_running_loop().create_task(self._run(main, self._done))

    async def wait(self) -> None:
        """Wait until the task that runs now has ended; not for one that is started after it."""
        done, task = self._done, self._task
        if done is not None:
            await done.wait()
        if task is not None:
            await asyncio.wait(
                {task}
            )  # which, unlike awaiting it, neither cancels it nor swallows a cancellation

    async def _run(self, main: Callable[[], Awaitable[None]], done: anyio.Event) -> None:
        try:
            await main()
        except Exception as error:  # noqa: BLE001 - kept for whoever leaves the pool, never lost
            self.failure = error
        finally:
            done.set()
