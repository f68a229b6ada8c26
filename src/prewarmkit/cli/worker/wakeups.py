"""What wakes the supervisor: signals, words on its lines, the time. Owns the process's signal handlers meanwhile."""

from __future__ import annotations

import math
import selectors
import signal
import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from attrs import define, field

__all__ = ["Wakeups"]

_HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_MANY = 4096


def _heed(_number: int, _frame: object) -> None:
    """Nothing: that there is a handler makes Python write the number to the wake-up socket."""


@define(eq=False)
class Wakeups:
    """Waits for whatever comes first. For the main thread, in ``with``."""

    _selector: selectors.BaseSelector = field(init=False, factory=selectors.DefaultSelector)
    _bell: socket.socket = field(init=False)
    _stack: ExitStack = field(init=False, factory=ExitStack)

    def __enter__(self) -> Self:
        stack = self._stack
        stack.callback(self._selector.close)
        self._bell, rope = socket.socketpair()
        for end in (self._bell, rope):
            stack.callback(end.close)
            end.settimeout(0)
        self._selector.register(self._bell, selectors.EVENT_READ)
        before = signal.set_wakeup_fd(rope.fileno(), warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, before)
        for number in _HEEDED:
            stack.callback(signal.signal, number, signal.signal(number, _heed) or signal.SIG_DFL)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def watch(self, line: socket.socket, owner: object) -> None:
        """Tell of ``owner`` whenever its line has something to read."""
        self._selector.register(line, selectors.EVENT_READ, owner)

    def forget(self, line: socket.socket) -> None:
        """Tell no more of this line."""
        self._selector.unregister(line)

    def wait(self, seconds: float) -> tuple[list[int], list[Any]]:
        """The signals that came, in their order, and the owners whose lines can be read."""
        ready = self._selector.select(None if math.isinf(seconds) else max(0.0, seconds))
        owners = [key.data for key, _ in ready if key.fileobj is not self._bell]
        has_rung = len(owners) < len(ready)
        return list(self._bell.recv(_MANY)) if has_rung else [], owners
