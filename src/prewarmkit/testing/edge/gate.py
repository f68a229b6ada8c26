"""A gate in the server's way: requests stop at it until a test has looked."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["Gate"]


class Gate:
    """Requests wait before they are answered, from its making to its opening.

    Example::

        with server.gate() as gate:
            ...  # start a request
            gate.wait_for(1)
            ...  # it has arrived, and has no answer
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._arrived = 0
        self._is_open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def arrived(self) -> int:
        """How many requests have come to it."""
        with self._condition:
            return self._arrived

    def wait_for(self, requests: int, timeout_seconds: float = 10.0) -> None:
        """Block until so many have arrived.

        Raises:
            TimeoutError: They did not.
        """
        with self._condition:
            if not self._condition.wait_for(lambda: self._arrived >= requests, timeout_seconds):
                raise TimeoutError(f"{self._arrived} of {requests} requests arrived at the gate.")

    def open(self) -> None:
        """Let everybody pass, now and later."""
        with self._condition:
            self._is_open = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    async def pass_through(self) -> None:
        """What a request does at the gate; the server's own."""
        event = asyncio.Event()
        with self._condition:
            self._arrived += 1
            self._condition.notify_all()
            if self._is_open:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()
