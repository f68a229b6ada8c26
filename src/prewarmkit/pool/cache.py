"""Handles that this process looked up a moment ago: bounded, short-lived, dropped on change."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from prewarmkit.media import Handle
from prewarmkit.stores.base import MediaId

__all__ = ["HandleCache"]

_MOST = 10_000


@define(eq=False)
class HandleCache:
    """Good handles only: a miss is never remembered."""

    clock: Callable[[], float]
    ttl_seconds: float
    _entries: dict[MediaId, tuple[float, Handle]] = field(
        init=False, factory=dict[MediaId, tuple[float, Handle]]
    )

    def get(self, id_: MediaId) -> Handle | None:
        """The handle, if it was put within the last `ttl_seconds`."""
        entry = self._entries.get(id_)
        if entry is None:
            return None
        if self.clock() - entry[0] > self.ttl_seconds:
            del self._entries[id_]
            return None
        return entry[1]

    def put(self, id_: MediaId, handle: Handle) -> None:
        """Remember a good handle; the one put longest ago goes if there are too many."""
        if self.ttl_seconds <= 0 or handle.stale or handle.expires_at is not None:
            return  # a handle that ends may end while it is remembered
        self._entries.pop(id_, None)
        if len(self._entries) >= _MOST:
            del self._entries[next(iter(self._entries))]
        self._entries[id_] = (self.clock(), handle)

    def drop(self, id_: MediaId) -> None:
        """Forget one."""
        self._entries.pop(id_, None)
