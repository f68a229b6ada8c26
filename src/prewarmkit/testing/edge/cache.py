"""What each data centre holds, and what it answers. Pure: no socket, no clock of its own, no lock.

A look-up is one plain call; who calls from several threads holds a lock around it.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen

from prewarmkit.testing.edge.origin import Origin, OriginObject
from prewarmkit.testing.edge.rules import Rules, directives_of

__all__ = ["Cache", "Reply"]

_UPPER_TIER = "upper tier"


@frozen
class Reply:
    """What the cache found.

    Attributes:
        status: HTTP's: 200, 404, or 521 without a reachable origin.
        cache_status: What ``cf-cache-status`` says; ``None``: nothing.
        stored: The object; ``None`` for an error.
        age: Seconds in the cache; ``None``: the answer has no ``age``.
    """

    status: int
    cache_status: str | None
    stored: OriginObject | None = None
    age: int | None = None


@define
class _Entry:
    stored: OriginObject | None
    kept_at: float
    seconds: float

    def is_fresh(self, now: float) -> bool:
        return now < self.kept_at + self.seconds


@define(eq=False)
class Cache:
    """The caches of a zone, one a data centre.

    Attributes:
        origin: Where objects come from.
        rules: How the zone is set up.
        clock: POSIX seconds.
        is_tiered: Whether there is an upper tier that all data centres ask before the origin.
    """

    origin: Origin
    rules: Rules
    clock: Callable[[], float]
    is_tiered: bool = False
    _entries: dict[tuple[str, str], _Entry] = field(init=False, factory=dict[tuple[str, str], _Entry])

    def purge(self, url: str | None = None) -> None:
        """Forget a URL, or all, everywhere."""
        for colo, kept in list(self._entries):
            if url is None or kept == url:
                del self._entries[colo, kept]

    def evict(self, colo: str, url: str) -> None:
        """One data centre drops a URL."""
        self._entries.pop((colo, url), None)

    def holds(self, colo: str, url: str) -> bool:
        """Whether it is there and fresh."""
        entry = self._entries.get((colo, url))
        return entry is not None and entry.is_fresh(self.clock())

    def ask(self, colo: str, url: str, key: str) -> Reply:
        """Answer for ``key`` under ``url`` (host, path and query: the cache's own key), and keep what may be kept."""
        if not self.rules.is_eligible(key):
            return self._unkept(key, "DYNAMIC")
        entry = self._entries.get((colo, url))
        if entry is None:
            return self._missed(colo, url, key)
        if entry.is_fresh(self.clock()):
            return self._hit(entry)
        return self._expired(colo, url, key, entry)

    def _hit(self, entry: _Entry) -> Reply:
        # A 404 that is kept is a hit like any other.
        status = 404 if entry.stored is None else 200
        return Reply(status, "HIT", entry.stored, int(self.clock() - entry.kept_at))

    def _unkept(self, key: str, cache_status: str) -> Reply:
        if not self.origin.is_reachable:
            return Reply(521, cache_status)
        stored = self.origin.fetch(key)
        return Reply(404 if stored is None else 200, cache_status, stored)

    def _missed(self, colo: str, url: str, key: str) -> Reply:
        if self.is_tiered and colo != _UPPER_TIER:
            above = self.ask(_UPPER_TIER, url, key)
            upper = self._entries.get((_UPPER_TIER, url))
            if above.cache_status == "HIT" and upper is not None:
                self._entries[colo, url] = _Entry(upper.stored, upper.kept_at, upper.seconds)
                return Reply(above.status, "HIT", above.stored)  # the first one has no age
            if upper is not None:
                self._entries[colo, url] = _Entry(upper.stored, upper.kept_at, upper.seconds)
            return above
        if not self.origin.is_reachable:
            return Reply(521, "MISS")
        return self._kept(colo, url, self.origin.fetch(key), "MISS")

    def _kept(self, colo: str, url: str, stored: OriginObject | None, cache_status: str) -> Reply:
        """What was just fetched, kept where it may be."""
        if stored is None:
            self._entries[colo, url] = _Entry(None, self.clock(), self.rules.missing_ttl_seconds)
            return Reply(404, cache_status)
        keeping = self.rules.keeping(stored)
        if keeping == "eligible":
            seconds = self.rules.seconds(stored, now=self.clock())
            self._entries[colo, url] = _Entry(stored, self.clock(), seconds)
        else:
            self._entries.pop((colo, url), None)
        return Reply(200, "BYPASS" if keeping == "bypass" else cache_status, stored)

    def _expired(self, colo: str, url: str, key: str, entry: _Entry) -> Reply:
        age = int(self.clock() - entry.kept_at)
        if not self.origin.is_reachable:
            return Reply(200, "STALE", entry.stored, age) if entry.stored else Reply(521, "EXPIRED")
        if entry.stored is not None and self._may_be_stale(entry.stored, age - entry.seconds):
            # Answered from what there is, and renewed behind the answer: the next one is a hit.
            old = entry.stored
            self._kept(colo, url, self.origin.fetch(key, if_none_match=old.etag), "UPDATING")
            return Reply(200, "UPDATING", old, age)
        known = None if entry.stored is None else entry.stored.etag
        stored = self.origin.fetch(key, if_none_match=known)
        is_unchanged = stored is not None and stored.etag == known
        return self._kept(colo, url, stored, "REVALIDATED" if is_unchanged else "EXPIRED")

    @staticmethod
    def _may_be_stale(stored: OriginObject, seconds_over: float) -> bool:
        allowed = directives_of(stored).get("stale-while-revalidate", "")
        return allowed.isdecimal() and seconds_over <= float(allowed)
