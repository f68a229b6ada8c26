"""Tasks that wait in line, are called in the order they came, and lose nothing when they are cancelled.

A task that is called gets no item: it gets the right to one, which is its own until it
runs again. Nothing is in its hands in between, so a cancellation there has nothing to
put back; the right goes to whoever is next. Trio runs tasks that were woken together in
any order; who runs before those called earlier waits for them. Knows nothing of what is
waited for.
"""

from __future__ import annotations

from collections import OrderedDict

from anyio import Event

__all__ = ["Line", "Waiter"]


class Waiter:
    """One task's place in a `Line`."""

    __slots__ = ("dismissed", "event", "is_called")

    def __init__(self) -> None:
        self.event = Event()
        self.is_called = False
        self.dismissed = False


class Line:
    """Waiters in order: those called stand before those who wait."""

    __slots__ = ("_called", "_waiting")

    def __init__(self) -> None:
        # Ordered dicts, since any waiter may be cancelled and must leave from the middle in O(1).
        self._called: OrderedDict[Waiter, None] = OrderedDict()
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._called) + len(self._waiting)

    @property
    def called(self) -> int:
        """How many have been called and have not run yet."""
        return len(self._called)

    def join(self) -> Waiter:
        """Stand at the end of the line."""
        waiter = Waiter()
        self._waiting[waiter] = None
        return waiter

    async def wait(self, waiter: Waiter) -> None:
        """Return when called, with nobody called earlier still in line, or when dismissed."""
        while not (waiter.dismissed or self._first_called is waiter):
            if waiter.event.is_set():  # too early, or the call was taken back before the task ran
                waiter.event = Event()
            await waiter.event.wait()

    @property
    def _first_called(self) -> Waiter | None:
        return next(iter(self._called), None)

    def leave(self, waiter: Waiter) -> None:
        """Step out: served, cancelled or dismissed."""
        if waiter.is_called:
            self._called.pop(waiter)
            if (following := self._first_called) is not None:
                following.event.set()
        else:
            self._waiting.pop(waiter, None)  # the dismissed are in neither

    def call(self, count: int) -> None:
        """Have the first ``count`` called and no others; calls beyond that are taken back, the last one first."""
        while len(self._called) < count and self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            self._called[waiter] = None
            waiter.is_called = True
            waiter.event.set()
        while len(self._called) > count:
            waiter, _ = self._called.popitem()
            self._waiting[waiter] = None
            self._waiting.move_to_end(waiter, last=False)
            waiter.is_called = False

    def dismiss(self) -> None:
        """Wake everybody, to nothing."""
        self.call(0)
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            waiter.dismissed = True
            waiter.event.set()
