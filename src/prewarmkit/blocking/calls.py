"""Calls from any thread to functions that run on one event loop, and the end of them all.

anyio's `BlockingPortal` does the same, but waits for the loop twice a call; a Ctrl-C in the
first of these waits leaves the call running, and a call that meets the end of the loop may
wait for ever. Here a caller waits once, and everybody who waits gets an answer.

Knows no pool, and not where the loop comes from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from threading import RLock
from typing import Any, TypeVar, cast

import anyio
from attrs import define, field

from prewarmkit.errors import PoolClosed

__all__ = ["Calls"]

T = TypeVar("T")


@define(eq=False)
class _Call:
    """One call, from the thread that waits for it to the task that makes it."""

    work: Callable[[], Awaitable[Any]]
    answer: Future[Any] = field(init=False, factory=Future[Any])
    is_given_up: bool = field(init=False, default=False)
    scope: anyio.CancelScope | None = field(init=False, default=None)

    def give_up(self) -> None:
        """On the loop: nobody waits any more."""
        self.is_given_up = True
        if self.scope is not None:
            self.scope.cancel()

    def refuse(self, error: Exception) -> None:
        """Answer whoever waits, if nobody has."""
        if not self.answer.done():
            self.answer.set_exception(error)


@define(eq=False)
class Calls:
    """The calls under way on one loop; `call` is for any thread, the rest is for the loop's own.

    The lock is held for some steps, in which nothing is waited for; but a signal handler may run in the
    middle of them and make a call. So it lets its holder in again, and the loop takes it to open and to close only.
    """

    name: str
    _door: RLock = field(init=False, factory=RLock)
    _under_way: set[_Call] = field(init=False, factory=set[_Call])
    _is_closed: bool = field(init=False, default=True)
    _cause: BaseException | None = field(init=False, default=None)
    _loop: asyncio.AbstractEventLoop | None = field(init=False, default=None)
    _context: Context = field(init=False, factory=Context)
    _tasks: set[asyncio.Task[None]] = field(init=False, factory=set[Any])

    # ── in any thread ────────────────────────────────────────────────────────

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work`` on the loop, wait for it, and return or raise what it does.

        A wait that is interrupted (Ctrl-C) cancels the work, and nothing else.

        Raises:
            PoolClosed: The loop takes no calls, or ended before this one did.
        """
        call = _Call(work)
        try:
            self._hand_over(call)
            return cast("T", call.answer.result())
        except BaseException:
            if not call.answer.done():
                self.post(call.give_up)
            raise
        finally:
            del call  # its error's traceback holds this frame: no circle

    def start(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run ``work`` on the loop if it takes calls, and wait for nothing, what it raises included."""
        with suppress(PoolClosed):
            self._hand_over(_Call(work))

    def post(self, act: Callable[[], object]) -> None:
        """Have ``act`` done on the loop soon, and do not wait for it."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: there is nothing left that it could be done to
                self._loop.call_soon_threadsafe(act)

    def _hand_over(self, call: _Call) -> None:
        context = self._context_for_caller()
        with self._door:
            if self._is_closed or self._loop is None:
                raise self.closed()
            self._under_way.add(call)
            try:
                self._loop.call_soon_threadsafe(self._begin, call, context=context)
            except RuntimeError as error:  # it has just died, and `finish` is on its way
                raise self.closed() from error

    def _context_for_caller(self) -> Context:
        """The caller's variables, for its traces and settings; but what the loop itself has set stays.

        That is which library runs here: the caller may be a task of trio's.
        """
        context = self._context.copy()
        for variable, value in copy_context().items():
            if variable not in self._context:
                context.run(variable.set, value)
        return context

    def closed(self) -> PoolClosed:
        """The error for whoever comes too early or too late."""
        if self._cause is None:
            return PoolClosed(f"The pool {self.name!r} is not entered: use `with` around it.")
        return PoolClosed(f"The loop of the pool {self.name!r} has ended: {self._cause!r}", cause=self._cause)

    def _left(self) -> PoolClosed:
        return (
            self.closed() if self._cause else PoolClosed(f"The pool {self.name!r} was left during this call.")
        )

    # ── on the loop ──────────────────────────────────────────────────────────

    def attach(self) -> None:
        """Belong to the loop that runs here; from now on `post` reaches it."""
        self._context = copy_context()
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        """Take calls."""
        with self._door:
            self._is_closed = False

    async def close(self) -> None:
        """Take no more, cut off what is under way, and return when it has ended."""
        self._close_door()
        for call in list(self._under_way):
            if call.scope is not None:
                call.scope.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def finish(self, cause: BaseException | None) -> None:
        """The loop is gone, and this its thread: whoever still waits is told why."""
        self._cause = cause
        self._close_door()
        for call in list(self._under_way):
            call.refuse(self._left())

    def _close_door(self) -> None:
        with self._door:
            self._is_closed = True

    def _begin(self, call: _Call) -> None:
        # A task of asyncio's own: one call that goes wrong is nobody else's business, as it would be in a group.
        task = asyncio.get_running_loop().create_task(self._serve(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: _Call) -> None:
        try:
            with anyio.CancelScope() as call.scope:
                if not (self._is_closed or call.is_given_up):
                    call.answer.set_result(await call.work())
            call.refuse(self._left())  # unless it has its answer
        except anyio.get_cancelled_exc_class():
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop is dying, and `finish` says why
            call.answer.cancel()  # what it awaited was cancelled, and not this task
        except BaseException as error:  # noqa: BLE001 - all of it is the caller's; SystemExit must not end the loop
            call.answer.set_exception(error)
        finally:
            if call.answer.done():
                self._under_way.discard(call)  # one step, and no lock: the loop waits for no thread
            del call  # its error's traceback holds this frame: no circle
