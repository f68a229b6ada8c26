"""The table in PostgreSQL: for many processes on many machines.

The same guarantees as every store: outcomes are fenced by a token, a call is one
transaction, all times are the database's. psycopg is asyncio only, and so is this store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, overload

import anyio
import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure

from prewarmkit.budget import Budget
from prewarmkit.errors import ConfigurationError
from prewarmkit.media import Media, MediaKind
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
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.postgres import by_hand
from prewarmkit.stores.postgres.budget import PostgresBudget, Sweep
from prewarmkit.stores.postgres.count import Backlog, Waiting
from prewarmkit.stores.postgres.enqueue import enqueue_steps
from prewarmkit.stores.postgres.hints import SETTLED, channel_of
from prewarmkit.stores.postgres.host import AnyConnection, HostEnqueue
from prewarmkit.stores.postgres.link import CALL_SECONDS, Connection, HostPool, Link, Session, parsed
from prewarmkit.stores.postgres.listen import Listener, Notifier
from prewarmkit.stores.postgres.queries import queries_for
from prewarmkit.stores.postgres.rows import as_looked, as_row, place_after, text_array
from prewarmkit.stores.postgres.schema import Schema
from prewarmkit.stores.postgres.work import Carried, heartbeat, look_up, whole_turn
from prewarmkit.stores.rules import is_awaited, states_of
from prewarmkit.stores.wakeups import Wakeups

__all__ = ["PostgresStore"]


class PostgresStore:
    """``media_cache`` in PostgreSQL 14 or newer.

    Entering connects; the tables are made by ``python -m prewarmkit migrate DSN`` or `migrate`.

    Args:
        source: A connection string, or a ``psycopg_pool.AsyncConnectionPool`` of the host, which the
            host opens and closes. With a connection string the store keeps a few connections of its own.
        schema: Where the tables are.
        notify: Whether to tell other processes of new work (NOTIFY), and to listen for it.
        listen_dsn: Where to listen, if not at ``source``: with a host's pool, or where ``source`` is a
            pooler that shares connections (pgbouncer in transaction mode). Without it a store on a
            host's pool polls.
        auto_migrate: Whether entering migrates.
        prepare: Whether statements may be prepared; with a host's pool its connections' ``prepare_threshold``
            decides further. ``False`` behind a pooler that shares connections spares the attempt.
    """

    is_durable: bool = True

    def __init__(
        self,
        source: str | HostPool,
        *,
        schema: str = "public",
        notify: bool = True,
        listen_dsn: str | None = None,
        auto_migrate: bool = False,
        prepare: bool = True,
    ) -> None:
        if not schema or "\0" in schema:
            raise ValueError(f"schema must be the name of a schema, not {schema!r}.")
        for dsn in (source, listen_dsn):
            if isinstance(dsn, str):
                parsed(dsn)
        if not isinstance(source, str) and not hasattr(source, "connection"):
            raise TypeError(
                f"PostgresStore takes a connection string or a psycopg_pool.AsyncConnectionPool, not {type(source).__name__}."
            )
        self._queries = queries_for(schema)
        self._link = Link(source, self._queries, schema, self._check, prepare=prepare)
        self._schema = schema
        self._auto_migrate = auto_migrate
        self._wakeups = Wakeups()
        self._waiting = Waiting(lambda: self._link.read("waiting"))
        self._backlog = Backlog()
        self._carried = Carried()
        self._sweep = Sweep()
        dsn = listen_dsn or (source if isinstance(source, str) else None)
        self._channel = channel_of(schema) if notify else None
        self._listener = Listener(dsn, self._channel, self._wakeups) if self._channel and dsn else None
        self._notifier = Notifier(self._send_hint) if notify else None
        self._host = HostEnqueue(self._queries, schema, self._channel, None if prepare else False)

    def __repr__(self) -> str:
        return f"PostgresStore({self._link.where!r}, schema={self._schema!r})"

    async def __aenter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "PostgresStore runs on asyncio only, because psycopg does: use SqliteStore under trio, or run the host on asyncio."
            ) from None
        await self._link.open()
        if self._auto_migrate:
            try:
                await self.migrate()
            except BaseException:
                await self._link.close()
                raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):  # each of them is bounded
            if self._notifier is not None:
                await self._notifier.close()
            if self._listener is not None:
                await self._listener.close()
            await self._waiting.close()
            await self._link.close()

    # ── schema ───────────────────────────────────────────────────────────────

    async def migrate(self, *, dry_run: bool = False) -> list[str]:
        """Bring the schema to this version; idempotent. Gives the names of what was missing.

        Args:
            dry_run: Only say what would be applied.
        """

        async def migrate(session: Session) -> list[str]:
            return await self._schema_by(session.connection).migrate(dry_run=dry_run)

        return await self._link.call(migrate, is_schema=True, seconds=math.inf)

    async def check_schema(self) -> None:
        """See `MediaStore.check_schema`."""
        self._link.is_checked = False
        await self._link.call(self._check, is_read=True)
        self._link.is_checked = True

    async def _check(self, session: Session) -> None:
        await self._schema_by(session.connection).check()

    async def verify(self) -> list[str]:
        """How the tables differ from what this version makes, a line each; empty: in nothing."""

        async def verify(session: Session) -> list[str]:
            return await self._schema_by(session.connection).verify()

        return await self._link.call(verify, is_read=True)

    def _schema_by(self, connection: Connection) -> Schema:
        return Schema(connection, self._schema, self._link.where)

    # ── the queue ────────────────────────────────────────────────────────────

    async def enqueue(self, jobs: Sequence[Job], *, limit: int | None = None) -> list[Enqueued]:
        """See `MediaStore.enqueue`. Of processes that give a ``limit`` at once none passes it; they wait for each other where they come near."""
        if not jobs:
            return []

        more = len(jobs) / 1000  # beside somebody who puts in as many

        async def put_in(session: Session) -> list[Enqueued]:
            async with session.transaction(lock_seconds=by_hand.LOCK_SECONDS + more):
                return await HostEnqueue(self._queries, prepare=session.prepare).run(
                    session.connection, enqueue_steps(jobs, limit, self._backlog, channel=self._channel)
                )

        async def put_in_or_again(session: Session) -> list[Enqueued]:
            try:
                return await put_in(session)
            except (DeadlockDetected, SerializationFailure):
                return await put_in(session)  # it stood in somebody's way, and nothing of it was done

        answers = await self._link.call(put_in_or_again, seconds=CALL_SECONDS + more)
        self._tell()
        return answers

    @overload
    async def enqueue_in(
        self, connection: AnyConnection, media: Media | str, *, target: Any, **how: Any
    ) -> Enqueued: ...

    @overload
    async def enqueue_in(
        self, connection: AnyConnection, media: Iterable[Media | str], *, target: Any, **how: Any
    ) -> list[Enqueued]: ...
    async def enqueue_in(
        self,
        connection: AnyConnection,
        media: Media | str | Iterable[Media | str],
        *,
        target: Any,
        **how: Any,
    ) -> Enqueued | list[Enqueued]:
        """Enqueue inside the host's own transaction: it is queued if and when the host commits.

        Args:
            connection: An open psycopg connection, async or sync (a sync one is used in a worker thread).
                What fails leaves its transaction failed, as any statement does.
            media: One medium or many.
            target: The target's id, or the target.
            how: ``kind=``, ``priority=``, ``delay=``, ``retry_failed=``, as in `PrewarmPool.enqueue`.

        Returns:
            One answer, or a list of them for many.

        Raises:
            SchemaTooNew: The tables are of a newer version than this one, or `SchemaTooOld`, `SchemaMissing`.
        """
        answers = await self._host.enqueue(connection, media, target=target, **how)
        return answers[0] if isinstance(media, str | Media) else answers

    def enqueue_in_sync(
        self,
        connection: psycopg.Connection[Any],
        media: Media | str | Iterable[Media | str],
        *,
        target: Any,
        **how: Any,
    ) -> Enqueued | list[Enqueued]:
        """As `enqueue_in`, for code without an event loop; the store need not be entered."""
        answers = self._host.enqueue_sync(connection, media, target=target, **how)
        return answers[0] if isinstance(media, str | Media) else answers

    async def turn(
        self,
        settle: Sequence[Outcome] = (),
        lease: int = 0,
        targets: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> Turn:
        """See `MediaStore.turn`."""

        async def take(session: Session) -> Turn:
            try:
                return await whole_turn(
                    session, self._waiting, self._carried, settle, lease, targets, lease_seconds
                )
            except psycopg.Error:
                self._carried.add(settle)  # some may have been committed, and the call be made again
                raise

        try:
            turn = await self._link.call(take, is_urgent=True, seconds=(len(settle) + lease) / 1000)
        except BaseException:
            self._carried.add(settle)  # it may have been committed all the same
            raise
        if self._notifier is not None and any(is_awaited(outcome) for outcome in settle):
            self._notifier.notify(SETTLED)  # whoever asked may be another process
        return turn

    async def heartbeat(self, leases: Sequence[Lease], lease_seconds: float = 60.0) -> list[Lease]:
        """See `MediaStore.heartbeat`."""
        if not leases:
            return []
        return await self._link.call(
            lambda session: heartbeat(session, leases, lease_seconds),
            is_urgent=True,
            seconds=len(leases) / 1000,
        )

    async def release(self, leases: Sequence[Lease]) -> list[Lease]:
        """See `MediaStore.release`."""
        turn = await self.turn([Released(lease) for lease in leases])
        self._tell()
        return [outcome.lease for outcome in turn.lost]

    # ── read ─────────────────────────────────────────────────────────────────

    async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
        """See `MediaStore.lookup_many`."""
        if len(ids) == 1:
            [id_] = ids
            found = await self._link.read("find", id_.target, id_.key, id_.kind.value)
            return {id_: as_looked(id_, found[0])} if found else {}
        return await self._link.call(lambda session: look_up(session, ids), is_read=True) if ids else {}

    async def counts(self, targets: Collection[str] | None = None) -> Counts:
        """See `MediaStore.counts`."""
        rows = await self._rows("counts", _names(targets))
        return {(row[0], MediaKind(row[1]), State(row[2])): row[3] for row in rows}

    async def has_work(self, targets: Collection[str] | None = None) -> bool:
        """See `MediaStore.has_work`."""
        return bool((await self._rows("has_work", _names(targets)))[0][0])

    async def list(
        self,
        state: State | Collection[State] | None = None,
        *,
        after: str | None = None,
        limit: int = 100,
        targets: Collection[str] | None = None,
    ) -> list[Row]:
        """See `MediaStore.list`."""
        states = states_of(state)
        query = "list_failed" if states is not None and set(states) == {State.FAILED} else "list"
        rows = await self._rows(query, _names(states), _names(targets), *place_after(after), limit)
        return [as_row(row) for row in rows]

    # ── change by hand ───────────────────────────────────────────────────────

    async def invalidate(self, id: MediaId, value: str | None = None, *, rewarm: bool = True) -> bool:  # noqa: A002
        """See `MediaStore.invalidate`."""
        refusal = await by_hand.refuse(self._link, id, value, rewarm=rewarm, channel=self._channel)
        if refusal.changed:
            self._wakeups.notify(Hint(is_due=False, changed=refusal.changed))
        if refusal.is_due:
            self._tell()
        return refusal.did

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
        filters: dict[str, Any] = {"target": target, "kind": kind, "reason": reason, "keys": keys}
        requeued = await by_hand.requeue(self._link, **filters, limit=limit)
        if requeued:
            self._tell()
        return requeued

    async def purge(self, *, older_than: float, state: State | None = None) -> int:
        """See `MediaStore.purge`; a row that somebody has locked stays."""
        return await by_hand.purge(self._link, older_than=older_than, state=state)

    # ── services ─────────────────────────────────────────────────────────────

    def wakeups(self) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """See `MediaStore.wakeups`; other processes' changes are heard by LISTEN, or found by polling."""
        return self._wakeups.listen() if self._listener is None else self._listener.listen()

    def budget(self, name: str) -> Budget:
        """See `MediaStore.budget`."""
        return PostgresBudget(self._link, name, self._sweep)

    def state(self, name: str) -> KeyValue:
        """See `MediaStore.state`."""
        return _PostgresKeyValue(self._link, name)

    def _tell(self) -> None:
        """Rows may have become due: tell this process now, others soon."""
        self._wakeups.notify()
        if self._notifier is not None:
            self._notifier.notify()

    async def _send_hint(self, payload: str) -> None:
        await self._rows("notify_all", self._channel, text_array([payload]))

    async def _rows(self, query: str, *values: Any) -> Sequence[Any]:
        return await self._link.read(query, *values)


class _PostgresKeyValue:
    """A `KeyValue` under one name."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name

    async def get(self, key: str) -> str | None:
        """See `KeyValue.get`."""
        rows = await self._link.call(lambda session: session.rows("state_get", self._name, key), is_read=True)
        return rows[0][0] if rows else None

    async def put(self, key: str, value: str | None) -> None:
        """See `KeyValue.put`."""
        change = ("state_forget", self._name, key) if value is None else ("state_put", self._name, key, value)
        await self._link.call(lambda session: session.change(*change))


def _names(values: Collection[str] | None) -> str | None:
    return None if values is None else text_array(values)
