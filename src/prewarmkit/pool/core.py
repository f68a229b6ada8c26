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
from prewarmkit.pool.log import log_event
from prewarmkit.pool.settings import PoolSettings
from prewarmkit.pool.stats import Recorder
from prewarmkit.sources.base import MediaSource
from prewarmkit.stores.base import MediaStore

__all__ = ["Bell", "Core", "EventSink", "OnEvent", "Tide"]

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
class Tide:
    """Wakes everybody who waits for the next one."""

    _event: anyio.Event = field(init=False, factory=anyio.Event)

    def turn(self) -> None:
        """It turns now."""
        self._event.set()
        self._event = anyio.Event()

    def next(self) -> anyio.Event:
        """Set when it turns next; ask before looking at what it changes."""
        return self._event


@define(eq=False)
class EventSink:
    """Hands events to the host's callback; what that does can neither stop nor stall the pool.

    A plain function is called at once and should be quick. A coroutine function gets the
    events one after another from a bounded buffer; what does not fit is counted as dropped.
    """

    callback: OnEvent | None
    recorder: Recorder
    pool: str
    _waiting: deque[tuple[Any, Awaitable[None] | None]] = field(
        init=False, factory=deque[tuple[Any, Awaitable[None] | None]]
    )
    _is_closing: bool = field(init=False, default=False)
    _bell: Bell = field(init=False, factory=Bell)
    _is_async: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        call = getattr(self.callback, "__call__", None)  # noqa: B004 - an object with an async __call__
        self._is_async = inspect.iscoroutinefunction(self.callback) or inspect.iscoroutinefunction(call)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: else what happens to every medium need not even be made an event."""
        return self.callback is not None or logger.isEnabledFor(logging.DEBUG)

    def emit(self, event: PoolEvent | Any) -> None:
        """Hand over one event."""
        log_event(self.pool, event)
        if self.callback is None:
            return
        if self._is_async:
            self._put_off(event, None)
        elif (answer := self._call(event)) is not None:
            self._put_off(event, answer)  # a plain function that gives a coroutine: a partial, a lambda

    def _put_off(self, event: Any, answer: Awaitable[None] | None) -> None:
        if len(self._waiting) < _MOST_EVENTS_WAITING:
            self._waiting.append((event, answer))
            self._bell.ring()
        else:
            self.recorder.count("dropped_events")
            _drop(answer)

    def _call(self, event: Any) -> Awaitable[None] | None:
        try:
            answer = self.callback(event) if self.callback is not None else None
        # A function cannot be cancelled; one that raises that of a task of its own must not end the pool's.
        except (Exception, anyio.get_cancelled_exc_class()):
            logger.exception("on_event failed for %s", type(event).__name__)
            return None
        return answer if inspect.isawaitable(answer) else None

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
            event, answer = self._waiting.popleft()
            answer = self._call(event) if answer is None else answer
            try:
                if answer is not None:
                    await answer
            except Exception:
                logger.exception("on_event failed for %s", type(event).__name__)
            except anyio.get_cancelled_exc_class():
                if anyio.current_effective_deadline() == -math.inf:
                    raise
                logger.exception("on_event was cancelled from within for %s", type(event).__name__)

    def discard(self) -> None:
        """Count what nobody will take any more."""
        if self._waiting:
            self.recorder.count("dropped_events", len(self._waiting))
        while self._waiting:
            _drop(self._waiting.popleft()[1])


def _drop(answer: Awaitable[None] | None) -> None:
    """Let a coroutine go that will not be run."""
    if inspect.iscoroutine(answer):
        answer.close()


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
