"""Whether it all came true: every medium looked up, every byte compared, one medium delivered.

Works as a host would that has just started: through a pool that has warmed nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from attrs import frozen

from prewarmkit import Handle, Media, PrewarmKitError, PrewarmPool
from prewarmkit.cli.demo.figures import Spans
from prewarmkit.cli.demo.place import Stored
from prewarmkit.stores import MediaStore, State
from prewarmkit.targets import TelegramTarget
from prewarmkit.testing.botapi import Upload

__all__ = [
    "Delivery",
    "SecondPass",
    "check_delivery",
    "deliver",
    "look_up_all",
    "media_of",
    "wrong",
    "wrong_of",
]

_PAGE = 500
_USERS_CHAT = 42


@frozen(kw_only=True)
class SecondPass:
    """Every medium, looked up once.

    Attributes:
        handles: What was found, by key.
        lookup: How long each took.
        hits: How many were cache hits, by the pool's own count.
    """

    handles: Mapping[str, Handle]
    lookup: Spans
    hits: int


@frozen(kw_only=True)
class Delivery:
    """A medium that a user got by its handle.

    Attributes:
        key: Which one.
        chat_id: Who.
        message_id: The message.
    """

    key: str
    chat_id: int | str
    message_id: int


def media_of(stored: Sequence[Stored]) -> list[Media]:
    """What to queue, and to look up."""
    return [Media(each.key, size=each.size, sha256=each.sha256) for each in stored]


async def look_up_all(pool: PrewarmPool, media: Sequence[Media]) -> SecondPass:
    """Look each medium up, one after another; nothing is queued by it."""
    handles: dict[str, Handle] = {}
    spans: list[float] = []
    hits_before = pool.stats().cache_hits
    for medium in media:
        began = time.perf_counter()
        handle = await pool.lookup(medium, allow_stale=False)
        spans.append(time.perf_counter() - began)
        if handle is not None:
            handles[medium.key] = handle
    return SecondPass(handles=handles, lookup=Spans.of(spans), hits=pool.stats().cache_hits - hits_before)


async def deliver(bot: TelegramTarget, handle: Handle) -> Delivery:
    """Send a medium to a user's chat by its handle alone."""
    sent = await bot.send(_USERS_CHAT, handle)
    return Delivery(key=handle.key, chat_id=sent.chat_id, message_id=sent.message_id)


def wrong(
    stored: Sequence[Stored], handles: Mapping[str, Handle], uploads: Sequence[Upload]
) -> dict[str, str]:
    """What is wrong with each medium, by key; nothing for those that are as they must be.

    A medium is right if its handle stands for an upload whose bytes, as the Bot API server hashed
    them, are the bytes of the source, as they were hashed before they were stored.
    """
    arrived: dict[str, Upload] = {upload.file_id: upload for upload in uploads}
    found: dict[str, str] = {}
    for each in stored:
        handle = handles.get(each.key)
        upload = None if handle is None else arrived.get(handle.value)
        if handle is None:
            found[each.key] = "is not ready"
        elif upload is None:
            found[each.key] = "has a handle of which the Bot API server knows nothing"
        elif upload.sha256 != each.sha256:
            found[each.key] = (
                f"arrived with other bytes: SHA-256 {upload.sha256}, and the source's is {each.sha256}"
            )
    return found


async def wrong_of(store: MediaStore) -> dict[str, str]:
    """Why media are not ready, as their rows say, by key."""
    reasons: dict[str, str] = {}
    after: str | None = None
    while rows := await store.list((State.PENDING, State.WARMING, State.FAILED), after=after, limit=_PAGE):
        for row in rows:
            state = "failed" if row.state is State.FAILED else f"is {row.state}"
            reasons[row.id.key] = state + (f": {row.reason}" if row.reason else "")
        after = rows[-1].cursor
    return reasons


def check_delivery(before: Sequence[Upload], after: Sequence[Upload]) -> None:
    """Raise if a delivery by handle made the Bot API server receive a file.

    Raises:
        PrewarmKitError: It did.
    """
    if len(after) != len(before):
        raise PrewarmKitError("The delivery by file_id uploaded a file, which it must not.")
