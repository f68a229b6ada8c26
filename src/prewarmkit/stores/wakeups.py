"""Hints that rows may have become due, for the pools that share a store object."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from attrs import define, field

__all__ = ["Wakeups"]


@define(eq=False)
class Wakeups:
    """One hint for any number of changes: a listener that has one waiting gets no second."""

    _listeners: list[MemoryObjectSendStream[None]] = field(
        init=False, factory=list[MemoryObjectSendStream[None]]
    )

    def notify(self) -> None:
        """Wake every listener; never waits."""
        for listener in self._listeners:
            try:
                listener.send_nowait(None)
            except anyio.WouldBlock:
                continue  # it has a hint waiting, and one is as good as two

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncIterator[None]]:
        """A stream of hints."""
        send, receive = anyio.create_memory_object_stream[None](1)
        self._listeners.append(send)
        try:
            yield receive
        finally:
            self._listeners.remove(send)
            send.close()
            receive.close()
