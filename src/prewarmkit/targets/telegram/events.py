"""What happens to warmup chats, as frozen values for a pool's event stream."""

from __future__ import annotations

from attrs import frozen

__all__ = ["ChatHeld", "ChatLeft", "ChatMoved"]


@frozen(kw_only=True)
class ChatHeld:
    """A 429: the chat gets nothing for a while.

    Attributes:
        target: The bot's id.
        chat_id: The chat.
        seconds: For how long.
        whole_bot: Whether it was the second chat in a row, so that the bot as a whole waits.
    """

    target: str
    chat_id: int
    seconds: float
    whole_bot: bool


@frozen(kw_only=True)
class ChatMoved:
    """A chat has a new id, and was noted under it.

    Attributes:
        target: The bot's id.
        old_id: The id that no longer works.
        new_id: The one that does.
    """

    target: str
    old_id: int
    new_id: int


@frozen(kw_only=True)
class ChatLeft:
    """A chat takes nothing from the bot any more, and rests before it is tried again.

    Attributes:
        target: The bot's id.
        chat_id: The chat.
        left: How many warmup chats still work.
    """

    target: str
    chat_id: int
    left: int
