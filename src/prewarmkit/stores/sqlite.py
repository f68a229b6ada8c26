"""The table in a SQLite file: survives restarts, for the processes of one machine.

The same guarantees as every store: outcomes are fenced by a token, a call is one
transaction, and what it said is done is on disk (`prewarmkit.stores.sqlite_db`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self

from prewarmkit.budget import Budget, MemoryBudget
from prewarmkit.errors import QueueFull
from prewarmkit.media import MediaKind
from prewarmkit.stores.base import (
    Counts,
    Enqueued,
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
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.rules import states_of
from prewarmkit.stores.sqlite_db import Database
from prewarmkit.stores.sqlite_rows import as_looked, as_row, id_columns, id_of, json_list
from prewarmkit.stores.sqlite_work import SQL, Work
from prewarmkit.stores.wakeups import Wakeups

__all__ = ["SqliteStore"]


class SqliteStore:
    """``media_cache`` in a SQLite file.

    Entering opens the file (made with mode 0600) and migrates it. Several processes of one
    machine may share it; a network file system may not hold it (SQLite's own rule for WAL).

    Args:
        path: The file.
        max_bytes: Most bytes that the file may grow to; over it calls raise `StoreFull`.
        clock: POSIX seconds, for tests that move time.
    """

    is_durable: bool = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be 1 or more, not {max_bytes!r}.")
        if str(path) == ":memory:":
            raise ValueError("SqliteStore keeps a file, and ':memory:' is none: use MemoryStore.")
        self._db = Database(Path(path), max_bytes)
        self._clock = clock
        self._wakeups = Wakeups()
        self._budgets: dict[str, MemoryBudget] = {}
        self._pending = _PendingCount()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._db.path)!r})"

    async def __aenter__(self) -> Self:
        await self._db.open()
        try:
            await self._db.migrate()
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
            before = work.pending() if limit is not None else 0
            answers = [work.enqueue(job) for job in jobs]
            # Raised inside the transaction, so none of it stays.
            if limit is not None and (after := work.pending()) > max(limit, before):
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
            lost = [outcome for outcome in settle if not work.settle(outcome)]
            work.expire()
            is_any = targets is None or len(targets) > 0
            leased = work.lease(lease, targets, lease_seconds) if lease > 0 and is_any else []
            pending = self._pending.of(json_list(targets), lambda: work.pending(targets))
            return Turn(leased=leased, lost=lost, pending=pending, next_due=work.next_due())

        return await self._db.write(take_a_turn)

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
            now = self._clock()
            rows = (connection.execute(SQL["find"], id_columns(id_)).fetchone() for id_ in ids)
            return {id_of(row): as_looked(row, now) for row in rows if row is not None}

        return await self._db.read(look)

    async def counts(self, targets: Collection[str] | None = None) -> Counts:
        """See `MediaStore.counts`."""
        rows = await self._select("counts", targets=json_list(targets))
        return {(row["target"], MediaKind(row["kind"]), State(row["state"])): row["n"] for row in rows}

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
        rows = await self._select(
            "list",
            after=0 if after is None else int(after),
            states=json_list(states_of(state)),
            targets=json_list(targets),
            most=limit,
        )
        now = self._clock()
        return [as_row(row, now) for row in rows]

    # ── change by hand ───────────────────────────────────────────────────────

    async def invalidate(self, id: MediaId, value: str | None = None, *, rewarm: bool = True) -> bool:  # noqa: A002
        """See `MediaStore.invalidate`."""

        def refuse(connection: sqlite3.Connection) -> bool:
            work = Work(connection, self._clock())
            if not rewarm and work.change("drop", **id_columns(id), value=value):
                return True
            return work.change("refuse", **id_columns(id), value=value) > 0

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
        """See `MediaStore.requeue`."""
        filters = {"target": target, "kind": kind, "reason": reason, "keys": json_list(keys)}
        most = -1 if limit is None else limit
        requeued = await self._change("requeue", **filters, most=most)
        if requeued:
            self._wakeups.notify()
        return requeued

    async def purge(self, *, older_than: float, state: State | None = None) -> int:
        """See `MediaStore.purge`."""
        return await self._change("purge", state=state, before=self._clock() - older_than)

    # ── services ─────────────────────────────────────────────────────────────

    def wakeups(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """See `MediaStore.wakeups`; changes by other processes are found by polling."""
        return self._wakeups.listen()

    def budget(self, name: str) -> Budget:
        """See `MediaStore.budget`; shared by what uses this store object, one process."""
        return self._budgets.setdefault(name, MemoryBudget())

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


_CHEAP_COUNT_SECONDS = 0.001


class _PendingCount:
    """How many rows wait, counted anew each turn until counting takes a while.

    Counting walks an index: free for hundreds of rows, milliseconds for a million. It may
    take a twentieth of the time at most; between, a figure is up to some seconds old.
    """

    def __init__(self) -> None:
        self._known: tuple[str | None, int] = (None, 0)
        self._fresh_until = 0.0

    def of(self, targets: str | None, count: Callable[[], int]) -> int:
        began = time.monotonic()
        if began >= self._fresh_until or self._known[0] != targets:
            self._known = (targets, count())
            took = time.monotonic() - began
            self._fresh_until = 0.0 if took < _CHEAP_COUNT_SECONDS else began + 20 * took
        return self._known[1]
