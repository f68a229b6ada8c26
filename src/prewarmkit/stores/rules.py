"""What every store decides alike, as pure functions over values.

When a row is due again, what a second enqueue changes, whose turn it is, and how a handle is
made. This module knows no database and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from attrs import evolve

from prewarmkit.media import Handle, Media, MediaKind, Warmed
from prewarmkit.stores.base import Failed, Lease, MediaId, Outcome, Succeeded
from prewarmkit.stores.lifecycle import LIVE_IN_A_ROW, LIVE_PRIORITY, State

__all__ = [
    "background_share",
    "handle_of",
    "in_turns",
    "is_awaited",
    "is_new_version",
    "live_in_a_row",
    "merged",
    "moment",
    "priority_of",
    "states_of",
    "tell_all",
]

T = TypeVar("T")

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


# ── outcomes ─────────────────────────────────────────────────────────────────


def tell_all(outcomes: Sequence[Outcome], tell: Callable[[Outcome], bool]) -> list[Outcome]:
    """Tell the outcomes of a turn; return those that did not apply, as they were given.

    Successes come last, so that rows that go back to waiting in this turn take over a handle
    of the same content.
    """
    ordered = sorted(range(len(outcomes)), key=lambda place: _telling_order(outcomes[place]))
    lost = [place for place in ordered if not tell(outcomes[place])]
    return [outcomes[place] for place in sorted(lost)]


def _telling_order(outcome: Outcome) -> int:
    return 2 if isinstance(outcome, Succeeded) else 1 if isinstance(outcome, Failed) else 0


# ── live and background ──────────────────────────────────────────────────────


def in_turns(live: Sequence[T], background: Sequence[T], in_a_row: int) -> list[T]:
    """Live rows, but after `LIVE_IN_A_ROW` of them the best background row, if there is one.

    Args:
        live: The live rows, best first.
        background: The others.
        in_a_row: How many live rows came since the last background row.
    """
    first = max(0, LIVE_IN_A_ROW - in_a_row)
    ordered = list(live[:first])
    for n, row in enumerate(background):
        place = first + n * LIVE_IN_A_ROW
        ordered += [row, *live[place : place + LIVE_IN_A_ROW]]
    return ordered + list(live[first + len(background) * LIVE_IN_A_ROW :])


def is_awaited(outcome: Outcome) -> bool:
    """Whether an outcome ends a row that somebody waits for, in whichever process."""
    return outcome.lease.priority == LIVE_PRIORITY and isinstance(outcome, Succeeded | Failed)


def background_share(most: int, in_a_row: int) -> int:
    """How many of the next ``most`` rows are background rows if there is no end of live ones."""
    first = max(0, LIVE_IN_A_ROW - in_a_row)
    return max(0, (most - first + LIVE_IN_A_ROW) // (LIVE_IN_A_ROW + 1))


def live_in_a_row(leases: Iterable[Lease], before: int) -> int:
    """How many live rows came since the last background row, after these; more than enough is not counted."""
    for lease in leases:
        before = min(before + 1, LIVE_IN_A_ROW) if lease.priority == LIVE_PRIORITY else 0
    return before


# ── handles ──────────────────────────────────────────────────────────────────


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
