"""A task group that lives beside the block that opened it, on asyncio and on trio.

On asyncio it lives in a task of its own, so that a host may enter in one task and leave in another. Trio has no such
thing, by design: there it must be left where it was entered, and leaving elsewhere is a clear error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from prewarmkit._loops import is_on_asyncio

__all__ = ["Home"]


@define(eq=False)
class Home:
    """Where tasks go that outlive the call that started them."""

    _group: TaskGroup | None = field(init=False, default=None)
    _entered_by: int | None = field(init=False, default=None)
    _task: asyncio.Task[None] | None = field(init=False, default=None)

    async def open(self) -> None:
        """Make the place."""
        if not is_on_asyncio():
            self._entered_by = anyio.get_current_task().id
            self._group = await anyio.create_task_group().__aenter__()
            return
        is_ready = anyio.Event()
        self._task = asyncio.get_running_loop().create_task(self._live(is_ready))
        try:
            await is_ready.wait()
        except BaseException:
            self._task.cancel()
            raise

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task; it is cancelled when the place is left."""
        if self._group is None:
            raise RuntimeError("The place is not open.")
        self._group.start_soon(work)

    async def close(self) -> None:
        """Cancel every task and wait until they have ended."""
        group, self._group = self._group, None
        if group is None:
            return
        if self._task is None and anyio.get_current_task().id != self._entered_by:
            self._group = group
            raise RuntimeError("On trio a SpooledSource must be left in the task that entered it.")
        group.cancel_scope.cancel()
        task, self._task = self._task, None
        if task is None:
            await group.__aexit__(None, None, None)
            return
        with anyio.CancelScope(shield=True):
            await asyncio.wait(
                {task}
            )  # which, unlike awaiting it, neither cancels it nor takes its cancellation
        if not task.cancelled():
            task.result()

    async def _live(self, is_ready: anyio.Event) -> None:
        async with anyio.create_task_group() as self._group:
            is_ready.set()
            await anyio.sleep_forever()
