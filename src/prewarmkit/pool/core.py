"""What the rooms of one pool share: its settings, targets, store, figures and events."""

from __future__ import annotations

import inspect
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from attrs import define, field

from prewarmkit.pool.book import TargetBook
from prewarmkit.pool.cache import HandleCache
from prewarmkit.pool.events import PoolEvent
from prewarmkit.pool.flights import Flights
from prewarmkit.pool.settings import PoolSettings
from prewarmkit.pool.stats import Recorder
from prewarmkit.sources.base import MediaSource
from prewarmkit.stores.base import MediaStore

__all__ = ["Bell", "Core", "EventSink", "OnEvent"]

logger = logging.getLogger("prewarmkit.pool")

OnEvent = Callable[[Any], Awaitable[None] | None]
_MOST_EVENTS_WAITING = 1024


@define(eq=False)
class Bell:
    """Wakes one waiter; rung before it waits, it does not wait at all."""

    is_rung: bool = field(init=False, default=False)
    _event: anyio.Event | None = field(init=False, default=None)

    def ring(self) -> None:
        """Wake the waiter."""
        if not self.is_rung:
            self.is_rung = True
            if self._event is not None:
                self._event.set()  # a later waiter makes another

    async def wait(self, timeout: float) -> bool:
        """Wait until rung, or for ``timeout`` seconds; whether it was rung."""
        if not self.is_rung:
            event = self._event = self._event or anyio.Event()
            with anyio.move_on_after(timeout):
                await event.wait()
            if event.is_set():
                self._event = None
        was_rung, self.is_rung = self.is_rung, False
        return was_rung


@define(eq=False)
class EventSink:
    """Hands events to the host's callback; what that does can neither stop nor stall the pool.

    A plain function is called at once and should be quick. A coroutine function gets the
    events one after another from a bounded buffer; what does not fit is counted as dropped.
    """

    callback: OnEvent | None
    recorder: Recorder
    _waiting: deque[Any] = field(init=False, factory=deque[Any])
    _is_closing: bool = field(init=False, default=False)
    _bell: Bell = field(init=False, factory=Bell)
    _is_async: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        call = getattr(self.callback, "__call__", None)  # noqa: B004 - an object with an async __call__
        self._is_async = inspect.iscoroutinefunction(self.callback) or inspect.iscoroutinefunction(call)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: else an event need not even be made."""
        return self.callback is not None

    def emit(self, event: PoolEvent | Any) -> None:
        """Hand over one event."""
        if self.callback is None:
            return
        if not self._is_async:
            self._call(event)
        elif len(self._waiting) < _MOST_EVENTS_WAITING:
            self._waiting.append(event)
            self._bell.ring()
        else:
            self.recorder.count("dropped_events")

    def _call(self, event: Any) -> Any:
        try:
            return self.callback(event) if self.callback is not None else None
        except Exception:
            logger.exception("on_event failed for %s", type(event).__name__)
            return None

    def open(self) -> None:
        """Make ready for `serve`."""
        self._is_closing, self._bell = False, Bell()

    def close(self) -> None:
        """Let `serve` hand over what waits, and end."""
        self._is_closing = True
        self._bell.ring()

    async def serve(self) -> None:
        """Feed a coroutine callback until closed."""
        while not self._is_closing:
            await self._drain()
            await self._bell.wait(math.inf)
        await self._drain()

    async def _drain(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            try:
                await self._call(event)
            except Exception:
                logger.exception("on_event failed for %s", type(event).__name__)


@define(eq=False)
class Core:
    """One pool's shared parts."""

    name: str
    source: MediaSource
    store: MediaStore
    settings: PoolSettings
    clock: Callable[[], float]
    book: TargetBook
    recorder: Recorder
    events: EventSink
    cache: HandleCache
    flights: Flights = field(init=False, factory=Flights)
