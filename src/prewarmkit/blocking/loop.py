"""An event loop in a thread of its own: what it enters, how it is left, and what ends it otherwise.

One task of the loop enters everything and leaves it, in the order of an ``async with``, so
components may hold task groups and cancel scopes open.

The thread is a daemon, and so are the worker threads that anyio starts from it: a script
that never leaves its pool ends all the same. What is open then is closed by `atexit`,
within bounds. After a fork the thread exists in the parent only.

Knows no pool: it enters context managers.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import anyio
from attrs import define, field

from prewarmkit.blocking.calls import Calls

__all__ = ["LoopThread"]

logger = logging.getLogger("prewarmkit.blocking")

T = TypeVar("T")
R = TypeVar("R")
ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

# The ladder of a stop that does not drain takes about as long where nothing is as it should be.
_LAST_SECONDS = 25.0


@define(eq=False)
class LoopThread(Generic[T]):
    """One loop, one thread, entered and left once.

    Attributes:
        components: Entered in their order, left in the other one; each outlives the calls.
        make: Makes what the calls are about; entered last, and left while calls are still taken.
        hasten: Cuts its leaving short.
        name: For the thread and for messages.
        backend_options: For `anyio.run` on asyncio.
    """

    components: Sequence[AbstractAsyncContextManager[Any]]
    make: Callable[[], AbstractAsyncContextManager[T]]
    hasten: Callable[[T], Awaitable[object]]
    name: str
    backend_options: dict[str, Any] | None = None
    _calls: Calls = field(init=False)
    _thread: threading.Thread = field(init=False)
    _process_id: int = field(init=False, factory=os.getpid)
    _entered: Future[T] = field(init=False, factory=Future[Any])
    _left: Future[bool | None] = field(init=False, factory=Future[Any])
    _task: asyncio.Task[Any] | None = field(init=False, default=None)
    _leave_asked: anyio.Event | None = field(init=False, default=None)
    _exc_info: ExcInfo | None = field(init=False, default=None)
    _is_called_off: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._calls = Calls(self.name)
        # A context of its own: the pool's tasks belong to no request, and to no loop of the host's.
        self._thread = threading.Thread(
            target=Context().run, args=(self._run,), name=f"prewarmkit {self.name}", daemon=True
        )

    # ── in any other thread ──────────────────────────────────────────────────

    def start(self) -> None:
        """Start the thread and wait until everything is entered; if that fails, nothing is left of it."""
        _all_open.add(self)
        try:
            self._thread.start()
            self._entered.result()
        except BaseException:
            self._call_off()
            if self._thread.ident is not None:
                self._thread.join()
            raise

    def leave(self, exc_info: ExcInfo) -> bool | None:
        """Close everything, end the thread; gives what ``__exit__`` gives.

        A wait that is interrupted (Ctrl-C) cuts the leaving short, and everything is closed all the same.
        """
        try:
            self._ask_to_leave(exc_info)
            return self._left.result()
        except BaseException:
            if not self._left.done():
                self._ask_to_leave(exc_info)  # again: it may have come in the middle of it
                self._hurry()
                wait([self._left])
            raise
        finally:
            if self._left.done():
                self._thread.join()

    def end(self, timeout: float) -> None:
        """Close everything as by an exception, now; in vain where a component does not end."""
        if self.is_elsewhere or not self._thread.is_alive():
            return
        if not self._entered.done():
            self._call_off()
        self._ask_to_leave((SystemExit, SystemExit("The interpreter ends."), None))
        self._hurry()
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning(
                "pool %s did not end within %g s, and is cut off: leave its `with` block before the interpreter ends",
                self.name,
                timeout,
            )

    def call(self, work: Callable[[T], Awaitable[R]]) -> R:
        """Run ``work`` on the loop and wait for it; see `Calls.call`.

        Raises:
            RuntimeError: This is another process, or the loop's own thread.
        """
        self.check_process()
        self.check_thread()
        return self._calls.call(lambda: work(self.value))

    @property
    def value(self) -> T:
        """What was made; it is entered.

        Raises:
            PoolClosed: Not yet, or it failed.
        """
        if not self._entered.done() or self._entered.exception() is not None:
            raise self._calls.closed()
        return self._entered.result()

    @property
    def is_current(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.current_thread() is self._thread

    @property
    def is_elsewhere(self) -> bool:
        """Whether the thread is another process's, from which this one was forked."""
        return os.getpid() != self._process_id

    @property
    def has_ended(self) -> bool:
        """Whether everything is closed."""
        return not self._thread.is_alive()

    def check_process(self) -> None:
        """Refuse to be used after a fork.

        Raises:
            RuntimeError: This is another process.
        """
        if self.is_elsewhere:
            raise RuntimeError(
                f"The pool {self.name!r} was entered in process {self._process_id}, and its thread did not come along "
                f"into process {os.getpid()}: make a pool, and what you give it, in each worker process, after the "
                "fork (in gunicorn's post_fork, in uWSGI's @postfork)."
            )

    def check_thread(self) -> None:
        """Refuse to wait in the loop's own thread.

        Raises:
            RuntimeError: This is it.
        """
        if self.is_current:
            raise RuntimeError(
                f"This is the event loop's own thread of the pool {self.name!r}, and waiting here would stop it for "
                "ever: call from another thread, such as one of anyio.to_thread.run_sync."
            )

    def _ask_to_leave(self, exc_info: ExcInfo) -> None:
        if self._exc_info is None:
            self._exc_info = exc_info
        if self._leave_asked is not None:
            self._calls.post(self._leave_asked.set)

    def _hurry(self) -> None:
        """Have its leaving cut short, and wait for nothing."""
        self._calls.start(lambda: self.hasten(self.value))

    def _call_off(self) -> None:
        self._is_called_off = True  # first: either we find the task, or it finds this
        if self._task is not None:
            # Once, as asyncio does at a Ctrl-C: what was entered can close in peace.
            self._calls.post(self._task.cancel)

    # ── in the thread ────────────────────────────────────────────────────────

    def _run(self) -> None:
        answer: Future[Any] = self._entered
        try:
            is_swallowed = anyio.run(self._main, backend="asyncio", backend_options=self.backend_options)
        except BaseException as error:  # noqa: BLE001 - raised again where somebody enters or leaves
            self._calls.finish(error)
            answer = self._left if self._entered.done() else self._entered
            # SystemExit and the like were not meant for that thread.
            answer.set_exception(error if isinstance(error, Exception) else self._calls.closed())
        else:
            self._calls.finish(None)
            self._left.set_result(is_swallowed)

    async def _main(self) -> bool | None:
        self._leave_asked = anyio.Event()
        self._calls.attach()
        self._task = asyncio.current_task()
        if self._is_called_off:
            raise asyncio.CancelledError
        async with AsyncExitStack() as stack:
            for component in self.components:
                await stack.enter_async_context(component)
            self._calls.open()
            stack.push_async_callback(self._calls.close)
            self._entered.set_result(await stack.enter_async_context(self.make()))
            await self._leave_asked.wait()
            entered = stack.pop_all()
            return await entered.__aexit__(*(self._exc_info or (None, None, None)))
        raise RuntimeError("One component's failure to enter was swallowed by another one.")


_all_open: WeakSet[LoopThread[Any]] = WeakSet()


def _end_all() -> None:
    for loop in list(_all_open):
        loop.end(_LAST_SECONDS)


# At import and not later: what a host registers itself, to end its pools in its own way, then comes first.
atexit.register(_end_all)
