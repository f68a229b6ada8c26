"""A worker from inside: the host's pool, entered, until it is told to stop.

Owns the process: what its signals do, what is logged, what its exit code says. Started by
`process`; `prewarmkit.cli.worker.supervisor` has what follows from its end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
from typing import cast

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from prewarmkit import ConfigurationError, PoolClosed, PrewarmKitError, PrewarmPool
from prewarmkit.cli.worker.arguments import Options, Post
from prewarmkit.cli.worker.exits import CONFIGURATION, DONE, FAILED, TEMPORARY
from prewarmkit.cli.worker.factory import Factory, FactoryError, load, open_pool
from prewarmkit.cli.worker.logs import log_to_stderr
from prewarmkit.cli.worker.orders import Line, Orders

__all__ = ["run_worker"]

logger = logging.getLogger("prewarmkit.worker")

_LOOK_SECONDS = 1.0
_BACKEND = "asyncio"  # PostgresStore runs on no other


def run_worker(options: Options, post: Post) -> int:
    """Work until told to stop; the exit code."""
    os.set_inheritable(post.line, False)  # noqa: FBT003 - nobody whom the host starts shall hold the line
    # Ctrl-C and a closed terminal reach every process there; the supervisor says what follows from it.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    orders = Orders()
    line = Line(socket.socket(fileno=post.line), orders, options.grace_seconds + options.kill_after_seconds)
    with contextlib.closing(line):
        line.listen()
        return _run(options, post.number, line, orders)


def _run(options: Options, number: int, line: Line, orders: Orders) -> int:
    factory: Factory | FactoryError
    try:
        factory = load(options.module, options.factory)
    except FactoryError as error:
        factory = error
    # Not sooner: where the module sets up logging, that stands.
    log_to_stderr(f"worker {number}", options.log_level)
    if isinstance(factory, FactoryError):
        return _tell(factory)
    # Until here SIGTERM ends the process, which has begun nothing.
    signal.signal(signal.SIGTERM, lambda _number, _frame: orders.ask_to_drain())
    try:
        return anyio.run(_Worker(options, number, line, orders).run, factory, backend=_BACKEND)
    finally:
        # A second SIGTERM that comes late must not make an end in good order look like another.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@define(eq=False)
class _Worker:
    _options: Options
    _number: int
    _line: Line
    _orders: Orders
    _is_ready: bool = field(init=False, default=False)
    _watchers: TaskGroup = field(init=False)

    async def run(self, factory: Factory) -> int:
        """The pool's whole life, and what watches over it."""
        self._orders.attach()
        code = DONE
        async with anyio.create_task_group() as self._watchers:
            with anyio.CancelScope() as life:
                self._watchers.start_soon(self._end_early, life)
                code = await self._live(factory)
            self._watchers.cancel_scope.cancel()
        self._line.close()
        return code

    async def _end_early(self, life: anyio.CancelScope) -> None:
        """Told to stop before there is a pool: whatever it waits for is in vain."""
        await self._orders.drain.wait()
        if not self._is_ready:
            logger.info("told to stop before the pool was ready")
            life.cancel()

    async def _live(self, factory: Factory) -> int:
        try:
            async with open_pool(self._options.place, factory) as pool:
                return await self._work(pool)
        except SystemExit as error:
            logger.error("%s ended the process: sys.exit(%r)", self._options.place, error.code)  # noqa: TRY400 - it says who
            return error.code if isinstance(error.code, int) and error.code else FAILED
        except Exception as error:  # noqa: BLE001 - told, and an exit code
            return _tell(error)
        return FAILED  # the host's block swallowed what went wrong

    async def _work(self, pool: PrewarmPool) -> int:
        try:
            await pool.start()
        except PoolClosed as error:
            raise FactoryError(f"{self._options.place} yields a pool that is not entered: {error}") from error
        self._is_ready = True
        self._watchers.start_soon(self._cut_off_when_told, pool)
        logger.info("worker %d (pid %d) is ready: %r", self._number, os.getpid(), pool)
        self._line.say_ready()
        while not self._orders.drain.is_set():
            with anyio.move_on_after(_LOOK_SECONDS):
                await self._orders.drain.wait()
            if pool.failure is not None:
                self._line.say_leaving()
                raise PoolClosed("The pool was stopped by a bug.", cause=pool.failure) from pool.failure
        return await self._drain(pool)

    async def _drain(self, pool: PrewarmPool) -> int:
        self._line.say_leaving()
        logger.info("worker %d drains, for %g s at most", self._number, self._options.grace_seconds)
        report = await pool.stop(drain=True, grace=self._options.grace_seconds)
        is_whole = not report.cancelled and not report.unsettled
        logger.log(
            logging.INFO if is_whole else logging.WARNING, "worker %d has stopped: %r", self._number, report
        )
        return DONE if is_whole else FAILED

    async def _cut_off_when_told(self, pool: PrewarmPool) -> None:
        await self._orders.cut_off.wait()
        await pool.stop(drain=False)


def _tell(error: Exception) -> int:
    """Say what went wrong, in a line where that is enough; the exit code."""
    leaves = _leaves(error)
    if all(isinstance(each, PrewarmKitError) and not isinstance(each, PoolClosed) for each in leaves):
        for each in leaves:
            print(f"worker: {each}", file=sys.stderr)
        logger.debug("in full", exc_info=error)
    else:
        logger.error("the worker failed", exc_info=error)
    if all(isinstance(each, ConfigurationError) for each in leaves):
        return CONFIGURATION
    return TEMPORARY if all(getattr(each, "is_retryable", False) for each in leaves) else FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    """What a group of errors is made of; an error by itself otherwise."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return [leaf for each in inner for leaf in _leaves(each)]
