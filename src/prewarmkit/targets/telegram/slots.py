"""Waiting for the right to send one message, and what refusals do to that right.

Owns the meeting of the chat pool with the budget. Knows nothing of HTTP, media or handles.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
from attrs import define, field

from prewarmkit.budget import Budget, MemoryBudget, Window
from prewarmkit.errors import RateLimited, StoreError, TargetDown
from prewarmkit.targets.telegram.chats import ChatPool
from prewarmkit.targets.telegram.limits import BOT, RateLimits, chat_name, second_name

__all__ = ["PATIENCE_SECONDS", "Slots"]

_logger = logging.getLogger("prewarmkit.targets")
_NOTE_SECONDS = 5.0

PATIENCE_SECONDS = 5.0
"""How long a slot is waited for before the job is given back."""


@define(eq=False)
class Slots:
    """The right to send, one message at a time.

    Without limits of ours only holds count, and those stay in this process.
    """

    limits: RateLimits | None
    chats: ChatPool
    budget: Budget = field(init=False)
    _clock: Callable[[], float] = field(default=anyio.current_time, alias="clock")

    def __attrs_post_init__(self) -> None:
        self.budget = self.own_budget()

    def own_budget(self) -> Budget:
        """A budget that nobody shares, by the event loop's clock."""
        return MemoryBudget(clock=self._clock)

    def use(self, budget: Budget) -> None:
        """Spend from ``budget`` from now on, if there are limits to spend under."""
        if self.limits is not None:
            self.budget = budget

    def check(self) -> None:
        """Raise what `take` would raise for certain, before anything was opened for nothing.

        Raises:
            TargetDown: No chat is left.
            RateLimited: No chat is near enough to wait for.
        """
        if self._soonest() > PATIENCE_SECONDS:
            raise self._full(self._soonest())

    async def take(self, *, items: int = 1) -> tuple[int, float]:
        """Spend a message of some warmup chat and of the bot; return the chat, and when that was by the budget's clock.

        Args:
            items: Of an album: each counts.

        Raises:
            TargetDown: No chat is left.
            RateLimited: Every chat is closed for longer than is waited here.
        """
        give_up_at = self._clock() + PATIENCE_SECONDS
        while True:
            for chat in self.chats.free(self._clock()):
                wait, at = await self.budget.take_at(self._limits(chat, items), cost=items)
                if wait <= 0:
                    self.chats.note_used(chat)
                    return chat, at
                self.chats.note_full(chat, self._clock() + wait)
            wait = self._soonest()
            if self._clock() + wait > give_up_at:
                raise self._full(wait)
            await anyio.sleep(wait)

    @asynccontextmanager
    async def sending(self, *, items: int = 1) -> AsyncGenerator[int]:
        """`take` for what is sent inside, into this chat: by the minute it counts from its end, when it surely has arrived."""
        chat, at = await self.take(items=items)
        try:
            yield chat
        finally:
            if self.limits is not None:
                with anyio.move_on_after(_NOTE_SECONDS, shield=True):
                    await self._note_arrival(chat, at, items)

    async def _note_arrival(self, chat: int, at: float, items: int) -> None:
        try:
            await self.budget.arrived(chat_name(chat), at, cost=items)
        except StoreError as error:
            # It counts from when it was sent: that is no reason to lose what Telegram answered.
            _logger.warning("The arrival in chat %s was not noted (%s).", chat, error)

    async def take_in(self, chat_id: int | str) -> None:
        """Spend one delivery into that chat, from the reserve if need be.

        Raises:
            RateLimited: It is closed for longer than is waited here.
        """
        give_up_at = self._clock() + PATIENCE_SECONDS
        limits = self._limits(chat_id)
        if self.limits is not None:
            limits = {**limits, BOT: self.limits.send_windows()}
        while wait := await self.budget.take(limits):
            if self._clock() + wait > give_up_at:
                raise RateLimited(
                    f"Chat {chat_id} takes nothing for {wait:.3g} s: deliver after that.", wait, "chat"
                )
            await anyio.sleep(wait)

    async def limited(self, chat_id: int | str, seconds: float) -> tuple[float, bool]:
        """Note a 429.

        Returns:
            Seconds until some chat may have room again, and whether the whole bot waits: a second
            chat refused while the first is closed speaks for that.
        """
        now = self._clock()
        await self.budget.hold(chat_name(chat_id), seconds)
        if not isinstance(chat_id, int) or chat_id not in self.chats.ids:
            return seconds, False
        if self.chats.note_held(chat_id, now + seconds, now):
            await self.budget.hold(BOT, seconds)
            return seconds, True
        wait = self.chats.wait(now)
        return (seconds if wait is None else wait), False

    def dead(self, chat_id: int) -> int:
        """Note that the chat refused the bot; return how many are left."""
        now = self._clock()
        self.chats.note_dead(chat_id, now)
        return self.chats.alive(now)

    def _limits(self, chat: int | str, items: int = 1) -> Mapping[str, Sequence[Window]]:
        """For warming. By the second and by the minute under names of their own: the latter count from the arrival."""
        if self.limits is None:
            return {chat_name(chat): (), BOT: ()}
        windows = self.limits.album_windows(chat, items) if items > 1 else self.limits.chat_windows(chat)
        a_second, a_minute = windows
        return {
            chat_name(chat): (a_minute,),
            second_name(chat): (a_second,),
            BOT: self.limits.warm_windows(),
        }

    def _soonest(self) -> float:
        now = self._clock()
        wait = self.chats.wait(now)
        if wait is None:
            raise TargetDown(
                "No warmup chat is left that takes messages from the bot: "
                "add the bot to them again, with the right to post.",
                self.chats.revival(now),
            )
        return wait

    def _full(self, wait: float) -> RateLimited:
        return RateLimited(
            f"All {self.chats.alive(self._clock())} warmup chats are full for {wait:.3g} s: "
            "more chats warm more media a minute.",
            wait,
            "target",
        )
