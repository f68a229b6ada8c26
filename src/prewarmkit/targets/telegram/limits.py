"""How often a bot may send, as sliding windows.

Owns the numbers and the names that they are spent under; knows nothing of who counts.
"""

from __future__ import annotations

import math

from attrs import Attribute, field, frozen

from prewarmkit.budget import Window
from prewarmkit.errors import ConfigurationError

__all__ = ["BOT", "RateLimits", "chat_name", "second_name"]

_SECOND = 1.03

BOT = "bot"
"""The name that all of a bot's messages are spent under."""


def chat_name(chat_id: int | str) -> str:
    """The name that one chat's messages are spent under, by the minute."""
    return f"chat:{chat_id}"


def second_name(chat_id: int | str) -> str:
    """The name that one chat's messages are spent under, by the second."""
    return f"chat:{chat_id}/1s"


def _a_second(count: int) -> Window:
    """A second as we keep it: a message is counted where it arrives, and the later of two may be the faster one."""
    return Window(count, _SECOND)


def _count(_instance: object, attribute: Attribute[int], value: object) -> None:
    least = 0 if attribute.name == "reserve_per_second" else 1
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(
            f"RateLimits.{attribute.name} must be a whole number, {least} or more, not {value!r}."
        )


@frozen(kw_only=True)
class RateLimits:
    """What Telegram lets a bot send, by default as its FAQ words it.

    The exact limits are the service's own and change without notice; a 429 is obeyed whatever
    stands here.

    Attributes:
        group_per_minute: Messages into one group or channel in any `window_seconds`.
        private_per_minute: Messages into one private chat in any `window_seconds`.
        chat_per_second: Messages into any one chat in any second.
        bot_per_second: Messages of the whole bot in any second, deliveries to users included.
        reserve_per_second: How many of these warming leaves to deliveries.
        window_seconds: The length of the "minute" above.
    """

    group_per_minute: int = field(default=20, validator=_count)
    private_per_minute: int = field(default=60, validator=_count)
    chat_per_second: int = field(default=1, validator=_count)
    bot_per_second: int = field(default=30, validator=_count)
    reserve_per_second: int = field(default=5, validator=_count)
    window_seconds: float = field(default=60.0)

    def __attrs_post_init__(self) -> None:
        if not 0 < self.window_seconds < math.inf:
            raise ConfigurationError(
                f"RateLimits.window_seconds must be more than 0 and finite, not {self.window_seconds!r}."
            )
        if self.reserve_per_second >= self.bot_per_second:
            raise ConfigurationError(
                f"RateLimits.reserve_per_second ({self.reserve_per_second}) must be less than "
                f"bot_per_second ({self.bot_per_second}): nothing would be left to warm with."
            )

    def chat_windows(self, chat_id: int | str) -> tuple[Window, ...]:
        """The windows of one chat: a positive id is a private chat, all else a group or channel."""
        is_private = isinstance(chat_id, int) and chat_id > 0
        per_minute = self.private_per_minute if is_private else self.group_per_minute
        return _a_second(self.chat_per_second), Window(per_minute, self.window_seconds)

    def album_windows(self, chat_id: int | str, items: int) -> tuple[Window, ...]:
        """The windows of one chat for an album, each item of which counts: nothing else in the second it is sent in."""
        per_second, per_minute = self.chat_windows(chat_id)
        return Window(max(items, per_second.limit), per_second.seconds), per_minute

    def album_items(self) -> int:
        """The most items of an album that every window has room for."""
        per_second = self.bot_per_second - self.reserve_per_second
        return min(self.group_per_minute, self.private_per_minute, per_second)

    def warm_windows(self) -> tuple[Window, ...]:
        """The bot's windows for warming, which leaves the reserve alone."""
        return (_a_second(self.bot_per_second - self.reserve_per_second),)

    def send_windows(self) -> tuple[Window, ...]:
        """The bot's windows for deliveries, reserve included."""
        return (_a_second(self.bot_per_second),)
