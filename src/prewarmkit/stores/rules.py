"""What every store decides alike, as pure functions over values.

When a row is due again, what a second enqueue changes, and how a handle is made.
This module knows no database and no clock.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from attrs import evolve

from prewarmkit.media import Handle, Media, MediaKind, Warmed
from prewarmkit.stores.base import MediaId
from prewarmkit.stores.lifecycle import State

__all__ = ["handle_of", "is_new_version", "merged", "moment", "priority_of", "states_of"]

_SMALLEST_CLASS_BITS = 15  # below 32 KiB there is nothing to gain
_MIDDLE, _LAST = 5, 9


def priority_of(media: Media) -> int:
    """The priority of a medium that was given none: small ones first, photos ahead of their size.

    Under 32 KiB 2, and one more each time the size is four times that: 128 KiB 3, 512 KiB 4, 2 MiB 5, 8 MiB 6,
    32 MiB 7, 128 MiB 8, above 9. A photo one better; unknown size 5. Age counts in the store: a minute of
    waiting is worth one step, so what is fresh and small goes before what is large, and nothing starves.
    """
    if media.size is None:
        rank = _MIDDLE
    else:
        rank = min(_LAST, 2 + ((media.size >> _SMALLEST_CLASS_BITS).bit_length() + 1) // 2)
    return rank - 1 if media.kind is MediaKind.PHOTO else rank


def is_new_version(known: Media, asked: Media) -> bool:
    """Whether ``asked`` names a version of the content other than ``known``; a ``None`` says nothing."""
    return _differs(known.etag, asked.etag) or _differs(known.sha256, asked.sha256)


def _differs(known: str | None, asked: str | None) -> bool:
    return known is not None and asked is not None and known != asked


def merged(known: Media, asked: Media) -> Media:
    """``known`` with every fact that ``asked`` has.

    A new version forgets the old one's other facts: a new ETag with the old SHA-256
    beside it would be taken for content that was warmed already.
    """
    base = evolve(known, etag=None, sha256=None, size=None) if is_new_version(known, asked) else known
    return evolve(
        base,
        size=base.size if asked.size is None else asked.size,
        etag=asked.etag or base.etag,
        sha256=asked.sha256 or base.sha256,
        content_type=asked.content_type or base.content_type,
        filename=asked.filename or base.filename,
    )


def handle_of(id: MediaId, warmed: Warmed, *, now: float) -> Handle:  # noqa: A002
    """The handle that a host gets for what a target returned."""
    return Handle(
        warmed.handle,
        warmed.kind or id.kind,
        id.target,
        id.key,
        unique_id=warmed.unique_id,
        weak=warmed.weak,
        warmed_at=moment(now),
        expires_at=warmed.expires_at,
        details=dict(warmed.details),
    )


def moment(seconds: float) -> datetime:
    """An aware datetime of a POSIX time."""
    return datetime.fromtimestamp(seconds, UTC)


def states_of(state: State | Collection[State] | None) -> Collection[State] | None:
    """One state, several, or ``None`` for any, as a collection."""
    return (state,) if isinstance(state, State) else state
