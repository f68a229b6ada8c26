"""The table in a SQLite file: survives restarts, for the processes of one machine.

The same guarantees as every store: outcomes are fenced by a token, a call is one
transaction, and what it said is done is on disk (`prewarmkit.stores.sqlite_db`).
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Self

from prewarmkit.budget import Budget
from prewarmkit.errors import QueueFull
from prewarmkit.media import MediaKind
from prewarmkit.stores.base import (
    Counts,
    Enqueued,
    Hint,
    Job,
    KeyValue,
    Lease,
    Looked,
    MediaId,
    Outcome,
    Released,
    Row,
    Turn,
)
from prewarmkit.stores.clock import StoreClock, boot_id, boot_seconds
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.rules import live_in_a_row, states_of, tell_all
from prewarmkit.stores.sqlite_budget import SqliteBudget
from prewarmkit.stores.sqlite_db import Database
from prewarmkit.stores.sqlite_listing import page
from prewarmkit.stores.sqlite_rows import as_looked, as_row, id_columns, id_of, json_list
from prewarmkit.stores.sqlite_work import SQL, Work
from prewarmkit.stores.wakeups import Wakeups

__all__ = ["SqliteStore"]

_WINDOW = 1000


class SqliteStore:
    """``media_cache`` in a SQLite file.

    Entering opens the file (made with mode 0600) and migrates it. Several processes of one
    machine may share it; a network file system may not hold it (SQLite's own rule for WAL).

    Args:
        path: The file.
        max_bytes: Most bytes that the file may grow to; over it calls raise `StoreFull`.
        clock: POSIX seconds, for tests that move time; ``None``: the machine's, see `prewarmkit.stores.clock`.
    """

    is_durable: bool = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be 1 or more, not {max_bytes!r}.")
        if str(path) == ":memory:":
            raise ValueError("SqliteStore keeps a file, and ':memory:' is none: use MemoryStore.")
        self._db = Database(Path(path), max_bytes)
        self._clock = StoreClock(clock)
        self._wakeups = Wakeups()
        self._suspect: tuple[int, int] | None = None
        self._in_a_row = 0

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._db.path)!r})"

    async def __aenter__(self) -> Self:
        await self._db.open()
        try:
            await self._db.migrate()
            if self._clock.given is None:
                self._clock.offset = await self._db.write(_anchored)
        except BaseException:
            await self._db.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._db.close()

    async def migrate(self) -> None:
        """See `MediaStore.migrate`; entering has done it."""
        await self._db.migrate()

    async def check_schema(self) -> None:
        """See `MediaStore.check_schema`."""
        await self._db.check_schema()

    # ── the queue ────────────────────────────────────────────────────────────

    async def enqueue(self, jobs: Sequence[Job], *, limit: int | None = None) -> list[Enqueued]:
        """See `MediaStore.enqueue`."""

        def put_in(connection: sqlite3.Connection) -> list[Enqueued]:
            work = Work(connection, self._clock())
            before = 0 if limit is None else sum(work.waiting().values())
            answers = [work.enqueue(job) for job in jobs]
            # Raised inside the transaction, so none of it stays.
            if limit is not None and (after := sum(work.waiting().values())) > max(limit, before):
                raise QueueFull(f"{after} media would be pending and {limit} is the bound: try again later.")
            return answers

        answers = await self._db.write(put_in)
        self._wakeups.notify()
        return answers

    async def turn(
        self,
        settle: Sequence[Outcome] = (),
        lease: int = 0,
        targets: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> Turn:
        """See `MediaStore.turn`."""

        def take_a_turn(connection: sqlite3.Connection) -> Turn:
            work = Work(connection, self._clock())
            lost = tell_all(settle, work.settle)
            work.sweep()
            waiting = work.waiting()
            ours = [target for target in waiting if targets is None or target in targets]
            leased = self._lease(work, lease, ours, lease_seconds) if lease > 0 and ours else []
            for each in leased:
                waiting[each.id.target] -= 1
            pending = sum(waiting[target] for target in ours)
            return Turn(leased=leased, lost=lost, pending=pending, waiting=waiting, next_due=work.next_due())

        turn = await self._db.write(take_a_turn)
        self._in_a_row = live_in_a_row(turn.leased, self._in_a_row)
        return turn

    def _lease(self, work: Work, most: int, targets: Sequence[str], lease_seconds: float) -> list[Lease]:
        """Lease; of the rows whose last lease ran out only one is in this process's hands at a time.

        One of them may be what killed its process: it shall not take others of them with it again.
        """
        may_suspect = self._suspect is None or not work.is_held(*self._suspect)
        leased, suspect = work.lease(
            most, targets, lease_seconds, may_suspect=may_suspect, in_a_row=self._in_a_row
        )
        self._suspect = suspect if may_suspect else self._suspect
        return leased

    async def heartbeat(self, leases: Sequence[Lease], lease_seconds: float = 60.0) -> list[Lease]:
        """See `MediaStore.heartbeat`."""

        def beat(connection: sqlite3.Connection) -> list[Lease]:
            work = Work(connection, self._clock())
            return [lease for lease in leases if not work.heartbeat(lease, lease_seconds)]

        return await self._db.write(beat)

    async def release(self, leases: Sequence[Lease]) -> list[Lease]:
        """See `MediaStore.release`."""
        turn = await self.turn([Released(lease) for lease in leases])
        self._wakeups.notify()
        return [outcome.lease for outcome in turn.lost]

    # ── read ─────────────────────────────────────────────────────────────────

    async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
        """See `MediaStore.lookup_many`."""

        def look(connection: sqlite3.Connection) -> dict[MediaId, Looked]:
            at = self._clock()
            rows = (connection.execute(SQL["find"], id_columns(id_)).fetchone() for id_ in ids)
            return {id_of(row): as_looked(row, at) for row in rows if row is not None}

        return await self._db.read(look)

    async def counts(self, targets: Collection[str] | None = None) -> Counts:
        """See `MediaStore.counts`."""
        rows = await self._select("counts", targets=json_list(targets))
        return {
            (row["target"], MediaKind(row["kind"]), state): row[state]
            for row in rows
            for state in State
            if row[state]
        }

    async def has_work(self, targets: Collection[str] | None = None) -> bool:
        """See `MediaStore.has_work`."""
        return bool((await self._select("has_work", targets=json_list(targets)))[0][0])

    async def list(
        self,
        state: State | Collection[State] | None = None,
        *,
        after: str | None = None,
        limit: int = 100,
        targets: Collection[str] | None = None,
    ) -> list[Row]:
        """See `MediaStore.list`."""

        def look(connection: sqlite3.Connection) -> list[Row]:
            number, at = 0 if after is None else int(after), self._clock()
            rows = page(connection, states_of(state), after=number, most=limit, targets=targets)
            return [as_row(row, at) for row in rows]

        return await self._db.read(look)

    # ── change by hand ───────────────────────────────────────────────────────

    async def invalidate(self, id: MediaId, value: str | None = None, *, rewarm: bool = True) -> bool:  # noqa: A002
        """See `MediaStore.invalidate`."""

        def refuse(connection: sqlite3.Connection) -> bool:
            work, named = Work(connection, self._clock()), {**id_columns(id), "value": value}
            if not rewarm:
                work.change("drop_same", **named)
                if work.change("drop", **named):
                    return True
            work.change("refuse_same", **named)
            return work.change("refuse", **named) > 0

        did = await self._db.write(refuse)
        if did:
            self._wakeups.notify()
        return did

    async def requeue(
        self,
        *,
        target: str | None = None,
        kind: MediaKind | None = None,
        reason: str | None = None,
        keys: Collection[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """See `MediaStore.requeue`; a thousand rows a transaction, so that nobody waits for all of them."""
        filters = {"target": target, "kind": kind, "reason": reason, "keys": json_list(keys)}
        place, requeued = (-math.inf, 0), 0
        while limit is None or requeued < limit:
            left = _WINDOW if limit is None else min(_WINDOW, limit - requeued)
            changed, last = await self._db.write(partial(self._requeue_some, filters, place, left))
            requeued += changed
            if last is None:
                break
            place = last
        if requeued:
            self._wakeups.notify()
        return requeued

    def _requeue_some(
        self, filters: dict[str, Any], after: tuple[float, int], most: int, connection: sqlite3.Connection
    ) -> tuple[int, tuple[float, int] | None]:
        """Requeue what is meant among the next failed rows; how many, and where to go on."""
        window = {**filters, "after": after[0], "after_id": after[1], "window": _WINDOW}
        rows = connection.execute(SQL["failed"], window).fetchall()
        meant = [row["id"] for row in rows if row["is_meant"]][:most]
        changed = Work(connection, self._clock()).change("requeue", ids=json.dumps(meant))
        return changed, (rows[-1]["updated_at"], rows[-1]["id"]) if len(rows) == _WINDOW else None

    async def purge(self, *, older_than: float, state: State | None = None) -> int:
        """See `MediaStore.purge`; a thousand rows a transaction, so that nobody waits for all of them."""
        before, purged = self._clock().now - older_than, 0
        for each in (State.READY, State.FAILED) if state is None else (state,):
            removed = _WINDOW
            while removed == _WINDOW:
                removed = await self._change("purge", state=each, before=before, window=_WINDOW)
                purged += removed
        return purged

    # ── services ─────────────────────────────────────────────────────────────

    def wakeups(self) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """See `MediaStore.wakeups`; changes by other processes are found by polling."""
        return self._wakeups.listen()

    def budget(self, name: str) -> Budget:
        """See `MediaStore.budget`; shared by all processes on the file."""
        return SqliteBudget(self._db, self._clock, name)

    def state(self, name: str) -> KeyValue:
        """See `MediaStore.state`."""
        return _SqliteKeyValue(self._db, name)

    async def _select(self, query: str, **values: Any) -> Sequence[sqlite3.Row]:
        return await self._db.read(lambda connection: connection.execute(SQL[query], values).fetchall())

    async def _change(self, query: str, **values: Any) -> int:
        return await self._db.write(
            lambda connection: Work(connection, self._clock()).change(query, **values)
        )


class _SqliteKeyValue:
    """A `KeyValue` under one name."""

    def __init__(self, db: Database, name: str) -> None:
        self._db = db
        self._name = name

    async def get(self, key: str) -> str | None:
        """See `KeyValue.get`."""
        fact = {"name": self._name, "key": key}
        row = await self._db.read(lambda connection: connection.execute(SQL["state_get"], fact).fetchone())
        return None if row is None else str(row["value"])

    async def put(self, key: str, value: str | None) -> None:
        """See `KeyValue.put`."""
        query = SQL["state_forget" if value is None else "state_put"]
        fact = {"name": self._name, "key": key, "value": value}
        await self._db.write(lambda connection: connection.execute(query, fact))


_KEPT_SECONDS = 90 * 86_400.0


def _anchored(connection: sqlite3.Connection) -> float | None:
    """What to add to the boot's clock for the store's time; the first process of a boot decides.

    It is the calendar's time then, or the latest that the file has seen if the calendar is
    behind it: the store's time never goes back. ``None`` where the machine names no boot.
    """
    boot, since_boot = boot_id(), boot_seconds()
    if boot is None:
        return None
    known = {row["boot"]: row["offset"] for row in connection.execute(SQL["anchors"])}
    if (offset := known.get(boot)) is None:
        latest = connection.execute(SQL["latest"]).fetchone()[0]
        offset = max(time.time(), -math.inf if latest is None else latest) - since_boot
    seen = since_boot + offset
    connection.execute(SQL["anchor"], {"boot": boot, "offset": offset, "seen": seen})
    connection.execute(SQL["forget_anchors"], {"before": seen - _KEPT_SECONDS, "boot": boot})
    return float(offset)
