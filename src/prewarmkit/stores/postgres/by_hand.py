"""What people change by hand: refuse a handle, requeue what failed, purge what is old.

Many rows are changed some thousands at a time, each time in a transaction of its own, so that
workers wait for none of it. Rows that somebody has locked are left as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from psycopg.rows import TupleRow

from prewarmkit.media import MediaKind
from prewarmkit.stores.base import MediaId
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.postgres.link import Link, Session
from prewarmkit.stores.postgres.rows import id_arrays, text_array

__all__ = ["LOCK_SECONDS", "purge", "refuse", "requeue"]

LOCK_SECONDS = 5.0
"""Most that a change waits for a row that somebody has locked, before it says so."""

_WINDOW = 5_000
_BEFORE_ALL = ("", "", "")


async def refuse(link: Link, id: MediaId, value: str | None, *, rewarm: bool) -> tuple[bool, bool]:  # noqa: A002
    """Take a handle back: whether the row is gone, or due again."""
    place = (id.target, id.key, id.kind.value, value)

    async def refuse(session: Session) -> tuple[int, int]:
        async with session.transaction(lock_seconds=LOCK_SECONDS):
            # Whoever waits for somebody's change in here finds the row as it was left, and nothing comes between.
            await session.rows("lock", *id_arrays([id]), "{NULL}")
            dropped = 0 if rewarm else await session.change("drop", *place)
            return dropped, 0 if dropped else await session.change("refuse", *place)

    dropped, refused = await link.call(refuse)
    return bool(dropped), bool(refused)


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
