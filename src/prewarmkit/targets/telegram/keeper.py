"""`ChatKeeper`: which warmup chats there are, and what answers do to them.

Owns the resolver's cache, moved chats and their memory in the store, and the events of chats.
It spends nothing and sends nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import cast

import anyio
from attrs import define, field

from prewarmkit.errors import ChatDead, ConfigurationError, Moved, RateLimited, TargetDown, TargetFailure
from prewarmkit.targets.base import Services
from prewarmkit.targets.telegram.chats import DEAD_CHAT_REST_SECONDS
from prewarmkit.targets.telegram.events import ChatHeld, ChatLeft, ChatMoved
from prewarmkit.targets.telegram.slots import Slots

__all__ = ["RESOLVED_SECONDS", "UNRESOLVED_SECONDS", "ChatKeeper", "ChatResolver", "checked_chats"]

ChatResolver = Callable[[], Awaitable[Iterable[int]]]
"""Gives the warmup chats as they are now."""

RESOLVED_SECONDS = 300.0
"""How long a resolver's answer holds."""

UNRESOLVED_SECONDS = 30.0
"""How long a resolver that failed, or gave none, is left alone."""

_logger = logging.getLogger("prewarmkit.targets")
_MOST_MOVES = 16


def checked_chats(warmup_chats: Iterable[int]) -> tuple[int, ...]:
    """The chats, each once.

    Raises:
        ConfigurationError: There are none, or something is no chat's id.
    """
    if isinstance(warmup_chats, str | bytes) or not isinstance(cast("object", warmup_chats), Iterable):
        raise ConfigurationError(
            f"warmup_chats must be a list of chat ids, or an async function of one, not {warmup_chats!r}."
        )
    chats = tuple(dict.fromkeys(warmup_chats))
    if not chats:
        raise ConfigurationError("warmup_chats is empty: name at least one chat that the bot may post to.")
    for chat in cast("tuple[object, ...]", chats):
        if not isinstance(chat, int) or isinstance(chat, bool) or chat == 0:
            raise ConfigurationError(f"warmup_chats must hold chat ids (whole numbers), not {chat!r}.")
    return chats


@define(eq=False)
class ChatKeeper:
    """The warmup chats of one bot, kept right.

    Attributes:
        target: The bot's id, for events.
        slots: Whose chats they are.
        resolver: Where they come from; ``None``: they were listed.
        clock: What the resolver's cache goes by.
    """

    target: str
    slots: Slots
    resolver: ChatResolver | None = None
    clock: Callable[[], float] = anyio.current_time
    _services: Services | None = field(init=False, default=None)
    _moves: dict[int, int] = field(init=False, factory=dict[int, int])
    _moves_are_read: bool = field(init=False, default=False)
    _resolve_at: float = field(init=False, default=-math.inf)
    _lock: anyio.Lock = field(init=False, factory=anyio.Lock)

    def begin(self) -> None:
        """A new life, perhaps on another loop, whose clock is another one."""
        self._resolve_at, self._lock = -math.inf, anyio.Lock()

    def bind(self, services: Services) -> None:
        """Remember moved chats in a pool's store, and tell its events."""
        self._services, self._moves_are_read = services, False

    async def refresh(self) -> None:
        """Have the chats that there are now.

        Raises:
            TargetDown: The resolver gave none, and none are known from before.
        """
        # With chats from before nobody waits for a slow resolver but whoever asks it.
        if self._is_due() and not (len(self.slots.chats) and self._lock.locked()):
            async with self._lock:
                if self._is_due():
                    await self._resolve()
        if not self._moves_are_read and self._services is not None:
            await self._read_moves(self._services)

    async def note(self, failure: TargetFailure, chat_id: int) -> TargetFailure:
        """Do to the chat what ``failure`` says of it; return what to raise."""
        if isinstance(failure, RateLimited):
            return await self._limited(failure, chat_id)
        if isinstance(failure, Moved):
            await self._moved(chat_id, int(failure.new_id))
        elif isinstance(failure, ChatDead):
            left = self.slots.dead(chat_id)
            self._emit(ChatLeft(target=self.target, chat_id=chat_id, left=left))
            if not left:
                return TargetDown(f"{failure} It was the last warmup chat.", DEAD_CHAT_REST_SECONDS)
        return failure

    def _is_due(self) -> bool:
        return self.resolver is not None and self.clock() >= self._resolve_at

    async def _resolve(self) -> None:
        assert self.resolver is not None
        try:
            chats = checked_chats(await self.resolver())
        except Exception as error:
            # It may be back soon; until then the chats from before are better than none.
            self._resolve_at = self.clock() + UNRESOLVED_SECONDS
            if not len(self.slots.chats):
                raise TargetDown(
                    f"warmup_chats gave no chat to warm in ({type(error).__name__}): mend that function.",
                    UNRESOLVED_SECONDS,
                ) from error
            _logger.warning(
                "warmup_chats of target %s failed (%s): going on with the chats from before.",
                self.target,
                type(error).__name__,
            )
            return
        self._resolve_at = self.clock() + RESOLVED_SECONDS
        self.slots.chats.replace(map(self._followed, chats))
        self._moves_are_read = False

    def _followed(self, chat: int) -> int:
        for _ in range(_MOST_MOVES):
            if chat not in self._moves:
                break
            chat = self._moves[chat]
        return chat

    async def _limited(self, failure: RateLimited, chat_id: int) -> RateLimited:
        seconds = failure.retry_after
        wait, whole_bot = await self.slots.limited(chat_id, seconds)
        self._emit(ChatHeld(target=self.target, chat_id=chat_id, seconds=seconds, whole_bot=whole_bot))
        # With another chat open the job goes there at once, and the target goes on.
        return RateLimited(str(failure), wait, "target" if whole_bot or wait > 0 else "chat")

    async def _moved(self, old: int, new: int) -> None:
        self._moves[old] = new
        if self.slots.chats.move(old, new):
            self._emit(ChatMoved(target=self.target, old_id=old, new_id=new))
        if self._services is not None:
            await self._services.state.put(_moved_key(old), str(new))

    async def _read_moves(self, services: Services) -> None:
        # A migration that any process met holds for all, and after a restart too.
        for first in self.slots.chats.ids:
            chat_id = first
            for _ in range(_MOST_MOVES):
                moved = await services.state.get(_moved_key(chat_id))
                if moved is None:
                    break
                self._moves[chat_id] = int(moved)
                self.slots.chats.move(chat_id, int(moved))
                chat_id = int(moved)
        self._moves_are_read = True

    def _emit(self, event: object) -> None:
        if self._services is not None:
            self._services.emit(event)


def _moved_key(chat_id: int) -> str:
    return f"moved:{chat_id}"
