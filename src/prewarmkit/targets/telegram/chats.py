"""Which warmup chat goes next.

Pure: it remembers what it was told of each chat and ranks them; times are handed in.
It neither spends a budget nor talks to anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import define, field, setters

__all__ = ["DEAD_CHAT_REST_SECONDS", "ChatPool"]

DEAD_CHAT_REST_SECONDS = 300.0
"""How long a chat that refused the bot rests, before one medium tries it again."""


@define
class _Seat:
    free_at: float = -math.inf  # when the budget is worth asking again; a guess, the budget decides
    last_used: int = 0
    held_until: float = -math.inf  # as a 429 said
    dead_until: float = -math.inf


def _seated(ids: Iterable[int]) -> dict[int, _Seat]:
    return {chat: _Seat() for chat in ids}


@define(eq=False)
class ChatPool:
    """The warmup chats of one bot, in the order to try them."""

    # The converter makes fresh seats, which is right once only.
    _seats: dict[int, _Seat] = field(converter=_seated, on_setattr=setters.NO_OP)
    _uses: int = field(init=False, default=0)

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def ids(self) -> tuple[int, ...]:
        """All chats, dead ones too."""
        return tuple(self._seats)

    def alive(self, now: float) -> int:
        """How many chats work, as far as is known."""
        return sum(1 for seat in self._seats.values() if seat.dead_until <= now)

    def free(self, now: float) -> list[int]:
        """Chats that may have room now, the one that was used longest ago first."""
        free = [
            (seat.last_used, place, chat)
            for place, (chat, seat) in enumerate(self._seats.items())
            if seat.free_at <= now and seat.dead_until <= now
        ]
        return [chat for _, _, chat in sorted(free)]

    def wait(self, now: float) -> float | None:
        """Seconds until some living chat may have room; ``None``: none lives."""
        times = [seat.free_at for seat in self._seats.values() if seat.dead_until <= now]
        return max(0.0, min(times) - now) if times else None

    def revival(self, now: float) -> float:
        """Seconds until the first dead chat may be tried again."""
        return max(0.0, min((seat.dead_until for seat in self._seats.values()), default=now) - now)

    def note_used(self, chat: int) -> None:
        """A message goes there."""
        self._uses += 1
        if chat in self._seats:
            self._seats[chat].last_used = self._uses

    def note_full(self, chat: int, until: float) -> None:
        """The budget has no room for it before then."""
        if chat in self._seats:
            seat = self._seats[chat]
            seat.free_at = max(seat.free_at, until)

    def note_held(self, chat: int, until: float, now: float) -> bool:
        """A 429 closed it until then; return whether another chat is closed by one as well."""
        others = any(seat.held_until > now for other, seat in self._seats.items() if other != chat)
        if chat in self._seats:
            seat = self._seats[chat]
            seat.held_until = max(seat.held_until, until)
            self.note_full(chat, until)
        return others

    def note_dead(self, chat: int, now: float) -> None:
        """It refused the bot: it rests."""
        if chat in self._seats:
            self._seats[chat].dead_until = now + DEAD_CHAT_REST_SECONDS

    def replace(self, ids: Iterable[int]) -> None:
        """Have these chats and no others; what is known of one that stays is kept."""
        self._seats = {chat: self._seats.get(chat) or _Seat() for chat in dict.fromkeys(ids)}

    def move(self, old: int, new: int) -> bool:
        """Put ``new`` in the place of ``old``; return whether ``old`` was there."""
        if old not in self._seats:
            return False
        fresh: Iterable[int] = dict.fromkeys(new if chat == old else chat for chat in self._seats)
        self._seats = {chat: self._seats.get(chat) or _Seat() for chat in fresh}
        return True
