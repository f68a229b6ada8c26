"""The connections of a transport: who may have one, and which.

Owns the bound on connections, the callers that wait for one in their order, and the idle
ones: a stack for each origin, the last used on top. Everything but `acquire` happens at
once, so that no cancellation can come in between. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from typing import TYPE_CHECKING

from prewarmkit.transports.prepared import Origin

if TYPE_CHECKING:
    from prewarmkit.transports.loop.connection import LoopConnection

__all__ = ["LoopPool"]


class LoopPool:
    """Slots for exchanges, and the connections between two of them.

    Attributes:
        free: Slots that nobody has.
        idle: Connections that wait to be used again.
        is_open: Whether connections that come back are kept.
        opened: Connections opened so far.
        requests: Requests given an answer so far.
    """

    def __init__(self, max_connections: int, keepalive_seconds: float) -> None:
        self.free = self._max = max_connections
        self.idle = 0
        self.is_open = True
        self.opened = self.requests = 0
        self._keepalive = keepalive_seconds
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._stacks: OrderedDict[Origin, deque[LoopConnection]] = OrderedDict()

    @property
    def busy(self) -> int:
        """Slots that somebody has."""
        return self._max - self.free

    @property
    def waiting(self) -> int:
        """Callers that wait for a slot."""
        return len(self._waiters)

    async def acquire(self) -> None:
        """Get a slot, after all who asked before.

        Raises:
            RuntimeError: On another loop, or the pool was closed meanwhile.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("This transport was entered on another event loop: make one for each.")
        if self.free:  # then nobody waits: a slot that comes back goes to who waits, not to `free`
            self.free -= 1
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it was ours already
            else:
                with suppress(ValueError):
                    self._waiters.remove(waiter)
            raise
        if not self.is_open:
            self.release()
            raise RuntimeError("The transport was left while a request waited for a connection.")

    def release(self) -> None:
        """Give a slot back."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.free += 1

    def take(self, origin: Origin) -> LoopConnection | None:
        """The connection to ``origin`` used last, if one is alive and not too old."""
        while (stack := self._stacks.get(origin)) is not None:
            connection = stack.pop()
            self._removed(origin, stack)
            if connection.idle_since + self._keepalive >= self._loop.time() and connection.is_quiet():
                return connection
            connection.abort()
        return None

    def put(self, connection: LoopConnection) -> None:
        """Lay a connection on top; the one at the bottom goes if it grew too old."""
        now = connection.idle_since = self._loop.time()
        stack = self._stacks.get(connection.origin)
        if stack is None:
            stack = self._stacks[connection.origin] = deque()
        else:
            self._stacks.move_to_end(connection.origin)
        stack.append(connection)
        self.idle += 1
        if stack[0].idle_since + self._keepalive < now:
            self.idle -= 1
            stack.popleft().abort()

    def make_room(self) -> None:
        """Close what is idle beyond the bound, the longest unused first: somebody opens a connection."""
        while self.idle and self.idle + self.busy > self._max:
            origin, stack = next(iter(self._stacks.items()))
            connection = stack.popleft()
            self._removed(origin, stack)
            connection.abort()

    def forget(self, connection: LoopConnection) -> None:
        """A connection was lost, perhaps an idle one."""
        stack = self._stacks.get(connection.origin)
        if stack is not None:
            with suppress(ValueError):
                stack.remove(connection)
                self._removed(connection.origin, stack)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when its caller leaves."""
        self.is_open = False
        for stack in self._stacks.values():
            for connection in stack:
                connection.abort()
        self._stacks.clear()
        self.idle = 0

    def _removed(self, origin: Origin, stack: deque[LoopConnection]) -> None:
        self.idle -= 1
        if not stack:
            del self._stacks[origin]
