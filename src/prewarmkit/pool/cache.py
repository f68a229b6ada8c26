"""Handles that this process looked up a moment ago: bounded, short-lived, dropped on change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager

from attrs import define, field

from prewarmkit.stores.base import Looked, MediaId

__all__ = ["HandleCache"]

_MOST = 10_000


@define(eq=False)
class HandleCache:
    """Good handles only: a miss is never remembered."""

    clock: Callable[[], float]
    ttl_seconds: float
    _entries: dict[MediaId, tuple[float, Looked]] = field(
        init=False, factory=dict[MediaId, tuple[float, Looked]]
    )
    _reads: dict[MediaId, object] = field(init=False, factory=dict[MediaId, object])

    def get(self, id_: MediaId) -> Looked | None:
        """What was found, if it was read within the last `ttl_seconds`."""
        entry = self._entries.get(id_)
        if entry is None:
            return None
        if self.clock() - entry[0] > self.ttl_seconds:
            del self._entries[id_]
            return None
        return entry[1]

    @contextmanager
    def reading(self, id_: MediaId) -> Generator[Callable[[Looked | None], None]]:
        """Remember what is read from the store inside, if it is good when the read ends.

        A row that changed meanwhile is not remembered: the read may have seen it before.
        """
        read = self._reads[id_] = object()
        began = self.clock()

        def keep(looked: Looked | None) -> None:
            if looked is not None and self._reads.get(id_) is read:
                self._put(id_, looked, began)

        try:
            yield keep
        finally:
            if self._reads.get(id_) is read:
                del self._reads[id_]

    def _put(self, id_: MediaId, looked: Looked, at: float) -> None:
        handle = looked.handle
        if self.ttl_seconds <= 0 or handle is None or handle.stale or handle.expires_at is not None:
            return  # a handle that ends may end while it is remembered
        self._entries.pop(id_, None)
        if len(self._entries) >= _MOST:
            del self._entries[next(iter(self._entries))]
        self._entries[id_] = (at, looked)

    def drop(self, id_: MediaId) -> None:
        """Forget one, and what is being read of it."""
        self._entries.pop(id_, None)
        self._reads.pop(id_, None)

    def heed(self, changed: Collection[MediaId] | None) -> None:
        """Forget what others changed; ``None``: that may be any."""
        if changed is None:
            self._entries.clear()
            self._reads.clear()
            return
        for id_ in changed:
            self.drop(id_)

    def refuse(self, id_: MediaId, value: str | None) -> None:
        """Forget a handle wherever it stands: other keys of the same content have it too. ``None``: whichever it is."""
        if value is None and (entry := self._entries.get(id_)) is not None:
            value = _value_of(entry[1])
        self.drop(id_)
        if value is not None:
            for other in [each for each, (_, looked) in self._entries.items() if _value_of(looked) == value]:
                del self._entries[other]
        self._reads.clear()  # what is being read of others may be the same


def _value_of(looked: Looked) -> str | None:
    return None if looked.handle is None else looked.handle.value
