"""What people change by hand: refuse a handle, requeue what failed, purge what is old.

Many rows are changed some thousands at a time, each time in a transaction of its own, so that
workers wait for none of it. Rows that somebody has locked are left as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from attrs import frozen
from psycopg.rows import TupleRow

from prewarmkit.media import MediaKind
from prewarmkit.stores.base import MediaId
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.postgres.hints import payloads_of
from prewarmkit.stores.postgres.link import Link, Session
from prewarmkit.stores.postgres.rows import id_arrays, text_array

__all__ = ["LOCK_SECONDS", "Refusal", "purge", "refuse", "requeue"]

LOCK_SECONDS = 5.0
"""Most that a change waits for a row that somebody has locked, before it says so."""

_WINDOW = 5_000
_BEFORE_ALL = ("", "", "")


@frozen
class Refusal:
    """What a refusal did.

    Attributes:
        did: Whether the row had the handle.
        is_due: Whether rows are due again.
        changed: The rows that had it: that one, and others of its content.
    """

    did: bool
    is_due: bool
    changed: Collection[MediaId]


async def refuse(
    link: Link,
    id: MediaId,  # noqa: A002
    value: str | None,
    *,
    rewarm: bool,
    channel: str | None,
) -> Refusal:
    """Take a handle back, and tell those on the channel at the commit."""
    place = (id.target, id.key, id.kind.value, value)

    async def refuse(session: Session) -> Refusal:
        async with session.transaction(lock_seconds=LOCK_SECONDS):
            # Whoever waits for somebody's change in here finds the row as it was left, and nothing comes between.
            await session.rows("lock", *id_arrays([id]), "{NULL}")
            dropped = [] if rewarm else await session.rows("drop", *place)
            rows = dropped or await session.rows("refuse", *place)
            changed = [MediaId(target, key, MediaKind(kind)) for _, target, key, kind in rows]
            if changed and channel is not None:
                await session.rows("notify_all", channel, text_array(payloads_of(changed)))
            return Refusal(any(row[0] for row in rows), bool(rows) and not dropped, changed)

    return await link.call(refuse)


async def requeue(
    link: Link,
    *,
    target: str | None,
    kind: MediaKind | None,
    reason: str | None,
    keys: Collection[str] | None,
    limit: int | None,
) -> int:
    """Make failed rows due again; how many."""
    filters = (
        target,
        None if kind is None else kind.value,
        reason,
        None if keys is None else text_array(keys),
    )
    place: Sequence[str] = _BEFORE_ALL
    requeued = 0
    while limit is None or requeued < limit:
        most = _WINDOW if limit is None else min(_WINDOW, limit - requeued)
        changed, *last = await _window(link, "requeue", *filters, *place, most)
        requeued += int(changed)
        if changed < most:
            break
        place = last
    return requeued


async def purge(link: Link, *, older_than: float, state: State | None) -> int:
    """Remove rows that ended so many seconds ago; how many."""
    place: Sequence[str] = _BEFORE_ALL
    purged = 0
    asked = None if state is None else state.value
    while True:
        removed, looked_at, *last = await _window(link, "purge", older_than, asked, *place, _WINDOW)
        purged += int(removed)
        if looked_at < _WINDOW:
            return purged
        place = last


async def _window(link: Link, query: str, *values: Any) -> TupleRow:
    """The one row that a change tells."""
    [row] = await link.call(lambda session: session.rows(query, *values))
    return row
