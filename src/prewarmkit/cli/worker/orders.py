"""What is asked of a worker: to drain, then perhaps to cut off. By SIGTERM, by the line, or by the line's end.

Signals and the line's thread come at any time, before the event loop and after it too; the loop
finds two events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time

import anyio
from attrs import define, field

from prewarmkit.cli.worker.exits import FAILED
from prewarmkit.cli.worker.process import CUT_OFF, LEAVING, READY

__all__ = ["Line", "Orders"]

logger = logging.getLogger("prewarmkit.worker")


@define(eq=False)
class Orders:
    """What was asked.

    Attributes:
        drain: Set when the worker shall begin nothing more.
        cut_off: Set when what runs shall end too.
    """

    drain: anyio.Event = field(init=False)
    cut_off: anyio.Event = field(init=False)
    _loop: asyncio.AbstractEventLoop | None = field(init=False, default=None)
    _wants_drain: bool = field(init=False, default=False)
    _wants_cut_off: bool = field(init=False, default=False)

    def attach(self) -> None:
        """Let the running loop have what was asked already, and what will be."""
        self.drain, self.cut_off = anyio.Event(), anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._deliver()

    def ask_to_drain(self) -> None:
        """For signal handlers and threads."""
        self._wants_drain = True
        self._pass_on()

    def ask_to_cut_off(self) -> None:
        """For signal handlers and threads."""
        self._wants_cut_off = True
        self._pass_on()

    def _pass_on(self) -> None:
        if self._loop is not None:
            # The loop is closed: the worker is on its way out.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        if self._wants_drain or self._wants_cut_off:
            self.drain.set()
        if self._wants_cut_off:
            self.cut_off.set()


@define(eq=False)
class Line:
    """The worker's end of the line. Without a supervisor at the other end, no worker stays for long."""

    _socket: socket.socket
    _orders: Orders
    _last_seconds: float
    _is_closed: bool = field(init=False, default=False)

    def listen(self) -> None:
        """Listen, in a thread: a module that hangs while it is imported is no way to stay either."""
        threading.Thread(target=self._listen, name="prewarmkit-line", daemon=True).start()

    def say_ready(self) -> None:
        """The pool works."""
        self._say(READY)

    def say_leaving(self) -> None:
        """The pool drains."""
        self._say(LEAVING)

    def close(self) -> None:
        """Hang up; the supervisor allows some seconds for the rest. Safe to call twice."""
        self._is_closed = True
        # Closing alone would not reach the other end while our thread reads.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens; `_listen` sees to that
            self._socket.send(word)

    def _listen(self) -> None:
        while self._heard() == CUT_OFF:
            self._orders.ask_to_cut_off()
        if not self._is_closed:
            logger.warning("the supervisor is gone: this worker drains, and ends")
            self._orders.ask_to_drain()
            time.sleep(self._last_seconds)
            os._exit(FAILED)  # nobody is left who would kill it

    def _heard(self) -> bytes:
        try:
            return self._socket.recv(1)
        except OSError:
            return b""
