"""How many messages Telegram lets through: sliding windows per chat and per bot. Pure.

The clock is handed in; nothing sleeps here. Windows are closed: two sends exactly a window apart count together.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Literal

from attrs import Attribute, define, field, frozen

__all__ = ["FloodLimits", "FloodWait", "Floods", "most_in_window"]

_SECOND = 1.0
_AFTER = 1e-6


class FloodWait(Exception):
    """Too much was sent; ``seconds`` is what the answer says, in whole ones, and ``wait`` is enough."""

    def __init__(self, seconds: float) -> None:
        self.wait = seconds
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(f"Too Many Requests: retry after {self.seconds}")


def _count(_instance: object, attribute: Attribute[int], value: int) -> None:
    if value < 1:
        raise ValueError(f"FloodLimits.{attribute.name} must be 1 or more, not {value!r}.")


@frozen(kw_only=True)
class FloodLimits:
    """How much a server takes, by default as Telegram's FAQ for bots words it.

    Attributes:
        group_per_minute: Messages of one bot into one group or channel in any `window_seconds`.
        private_per_minute: Messages of one bot into one private chat in any `window_seconds`.
        chat_per_second: Messages of one bot into any one chat in any second.
        bot_per_second: Messages of one bot in any second.
        window_seconds: The length of the "minute" above.
        told_in: Where a 429 says how long to wait, see `Fault`'s ``retry_after_in``.
        patience_seconds: Waits of up to so long in total are sat out, and the request then goes through. The hosted server sits
            out 8 s; 0, the default here, hides nothing from a test.
        album_is_one: Whether an album counts as one message; users report that it does not.
    """

    group_per_minute: int = field(default=20, validator=_count)
    private_per_minute: int = field(default=60, validator=_count)
    chat_per_second: int = field(default=1, validator=_count)
    bot_per_second: int = field(default=30, validator=_count)
    window_seconds: float = 60.0
    told_in: Literal["body", "header", "text"] = "body"
    patience_seconds: float = 0.0
    album_is_one: bool = False

    def __attrs_post_init__(self) -> None:
        if not 0 < self.window_seconds < math.inf:
            raise ValueError(
                f"FloodLimits.window_seconds must be more than 0 and finite, not {self.window_seconds!r}."
            )

    def windows(self, chat_id: int) -> tuple[tuple[int, float], ...]:
        """A chat's windows: how many, in how many seconds; a positive id is a private chat."""
        per_minute = self.private_per_minute if chat_id > 0 else self.group_per_minute
        return (self.chat_per_second, _SECOND), (per_minute, self.window_seconds)


@define(kw_only=True)
class Floods:
    """The sends that count against the limits, in logs per bot and per bot and chat.

    Attributes:
        limits: What is let through; ``None``: everything.
        clock: Seconds, from whatever start.
    """

    limits: FloodLimits | None
    clock: Callable[[], float] = field(repr=False)
    _logs: dict[tuple[int, int | None], list[float]] = field(
        init=False, factory=dict[tuple[int, "int | None"], list[float]], repr=False
    )

    def take(self, bot_id: int, chat_id: int, *, messages: int = 1) -> None:
        """Count messages, all or none.

        An album is more than a chat takes in a second, and is let through where nothing else was sent in that second:
        the per-second limit is one that "short bursts" may pass (docs).

        Raises:
            FloodWait: They are too many now.
        """
        if self.limits is None:
            return
        cost = 1 if self.limits.album_is_one else messages
        now = self.clock()
        checks = [
            ((bot_id, chat_id), self.limits.windows(chat_id)),
            ((bot_id, None), ((self.limits.bot_per_second, _SECOND),)),
        ]
        wait = max(
            _seconds_until(self._logs.get(key, []), limit, seconds, cost, now)
            for key, windows in checks
            for limit, seconds in windows
        )
        if wait > 0:
            raise FloodWait(wait)
        for key, windows in checks:
            log = self._logs.setdefault(key, [])
            log.extend([now] * cost)
            longest = max(seconds for _limit, seconds in windows)
            del log[: sum(1 for at in log if now - at > longest)]


def _seconds_until(log: list[float], limit: int, seconds: float, cost: int, now: float) -> float:
    """How long until so many more fit; 0: now."""
    inside = [at for at in log if now - at <= seconds]
    room = max(limit, cost)  # more than ever fits goes alone
    excess = len(inside) + cost - room
    if excess <= 0:
        return 0.0
    # The far end of a closed window still counts, so it has to be left behind.
    return inside[excess - 1] + seconds - now + _AFTER


def most_in_window(times: Iterable[float], seconds: float) -> int:
    """The most of these moments that lie in any one closed window of so many seconds."""
    ordered = sorted(times)
    return max((bisect_right(ordered, at + seconds) - index for index, at in enumerate(ordered)), default=0)
