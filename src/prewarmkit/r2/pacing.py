"""What keeps retries from making things worse: a budget for all of a client, a pace for each key.

Both are told the time; neither waits by itself. Knows no request.
"""

from __future__ import annotations

import heapq

from attrs import define, field

__all__ = ["KeyPacer", "RetryBudget"]

_EARNED_BY_A_SUCCESS = 0.1
_KEPT_KEYS = 1000


@define
class RetryBudget:
    """Retries that a client may still send: one each, and a tenth earned by every success.

    While a service is down, this is what keeps a client of a thousand callers from asking it
    five thousand times; while it is well, it never runs out.

    Attributes:
        capacity: What it starts with, and never exceeds.
    """

    capacity: float
    _left: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.capacity

    @property
    def left(self) -> float:
        """Retries that may be sent now."""
        return self._left

    def spend(self) -> bool:
        """Take one retry out; ``False``: there is none."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self) -> None:
        """An answer was good."""
        self._left = min(self.capacity, self._left + _EARNED_BY_A_SUCCESS)


@define
class KeyPacer:
    """Writes to one key a second apart, from the first refusal on.

    R2 takes one write a second to a key and answers further ones with 429 (Cloudflare, R2
    platform limits). Who is refused waits for its turn, and so does whoever writes that key
    next; keys that were never refused wait for nothing.

    Attributes:
        seconds: Between two writes to a key.
    """

    seconds: float = 1.0
    _next: dict[str, float] = field(factory=dict[str, float], init=False)
    _free: dict[str, list[float]] = field(factory=dict[str, "list[float]"], init=False)

    def refused(self, key: str, now: float) -> None:
        """A write to ``key`` came too soon."""
        self._forget(now)
        self._next[key] = max(self._next.get(key, 0.0), now + self.seconds)

    def wait_seconds(self, key: str, now: float) -> float:
        """How long a write to ``key`` must wait; its turn is taken."""
        turn = self._next.get(key)
        if turn is None:
            return 0.0
        free = self._free.get(key, [])
        while free:
            if (given_back := heapq.heappop(free)) >= now:
                return given_back - now
        if turn + self.seconds < now:  # nobody wrote for a while: it is a key as any
            del self._next[key]
            self._free.pop(key, None)
            return 0.0
        turn = max(turn, now)
        self._next[key] = turn + self.seconds
        return turn - now

    def give_back(self, key: str, turn: float) -> None:
        """Whoever was to write ``key`` at that time will not: the turn is the next one's who asks."""
        if key in self._next:
            heapq.heappush(self._free.setdefault(key, []), turn)

    def _forget(self, now: float) -> None:
        if len(self._next) >= _KEPT_KEYS:
            self._next = {key: turn for key, turn in self._next.items() if turn + self.seconds >= now}
            self._free = {key: turns for key, turns in self._free.items() if key in self._next}
