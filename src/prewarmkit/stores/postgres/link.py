"""Connections to PostgreSQL for `PostgresStore`: a few of our own, or the host's pool.

Of our own, a few are kept for turns and heartbeats, and a small stack, last used first, is for all else. A call that
fails for the connection's sake closes it and says `StoreError`; the next call makes another.
Every call is bounded in time, so that a server that fell silent is not waited for.
This file knows psycopg's connections and errors; it must never know what a row means.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar, cast

import psycopg
from attrs import define, field
from psycopg import errors as pg
from psycopg.rows import TupleRow

from prewarmkit.errors import ConfigurationError, PrewarmKitError, StoreError
from prewarmkit.stores.postgres.errors import describe, is_lost, translated
from prewarmkit.stores.postgres.session import (
    Connection,
    Session,
    close,
    connect,
    is_idle,
    name_apart,
    parsed,
)

__all__ = ["CALL_SECONDS", "Connection", "HostPool", "Link", "Session", "parsed"]

logger = logging.getLogger("prewarmkit.stores")

T = TypeVar("T")

CALL_SECONDS = 30.0
URGENT_SECONDS = 5.0
_WATCH_SECONDS = 2.0
_MOST_IDLE = 4
_MOST_OPEN = 8
_RESERVED = 4
_PLAIN = {"prepare_threshold": None}


class HostPool(Protocol):
    """What we use of a ``psycopg_pool.AsyncConnectionPool``."""

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """Lend a connection."""
        ...


@define(eq=False)
class Watch:
    """Ends reads that take too long, by one timer for all: a timer each costs more than all else here."""

    _began: dict[asyncio.Task[Any] | None, float] = field(init=False, factory=dict[Any, float])
    _ended: set[asyncio.Task[Any] | None] = field(init=False, factory=set[Any])
    _timer: asyncio.TimerHandle | None = field(init=False, default=None)

    def enter(self, task: asyncio.Task[Any] | None) -> None:
        """A read begins."""
        self._began[task] = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._look)

    def leave(self, task: asyncio.Task[Any] | None) -> None:
        """It ended."""
        self._began.pop(task, None)
        self._ended.discard(task)

    def has_ended(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether it was we who cancelled it; the cancellation is taken back then."""
        if task not in self._ended or task is None:
            return False
        return task.uncancel() == 0

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        late = time.monotonic() - CALL_SECONDS
        for task in [task for task, began in self._began.items() if began < late and task is not None]:
            del self._began[task]
            self._ended.add(task)
            task.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_WATCH_SECONDS, self._look) if self._began else None


@define(eq=False)
class Link:
    """The connections of one store.

    Attributes:
        source: A connection string, or the host's pool.
        queries: The named queries, ready to be sent.
        schema: For messages.
        check: Raises where the tables are not this version's; asked before the first change, and before
            the first after the server was away.
        prepare: Whether to prepare statements, until it shows that they get lost.
        is_checked: Whether `check` need not be asked.
    """

    source: str | HostPool = field(repr=False)
    queries: Mapping[str, bytes] = field(repr=False)
    schema: str
    check: Callable[[Session], Awaitable[None]] = field(repr=False)
    _is_prepared: bool = field(default=True, alias="prepare", kw_only=True)
    is_checked: bool = field(init=False, default=False)
    _is_pinned: bool = field(init=False, default=False)
    is_open: bool = field(init=False, default=False)
    _idle: list[Session] = field(init=False, factory=list[Session], repr=False)
    _urgent: list[Session] = field(init=False, factory=list[Session], repr=False)
    _urgent_seconds: float = field(init=False, default=URGENT_SECONDS)
    _watch: Watch = field(init=False, factory=Watch, repr=False)
    _room: asyncio.Semaphore | None = field(init=False, default=None, repr=False)
    _reserved: asyncio.Semaphore | None = field(init=False, default=None, repr=False)

    @property
    def where(self) -> str:
        """Host, port and database, for messages; never the password."""
        return describe(self.source) if isinstance(self.source, str) else "the pool that was handed in"

    async def open(self) -> None:
        """Connect once, so that a wrong address shows at once."""
        if self.is_open:
            raise RuntimeError(f"The store on {self.where} is entered already: share it, or make another.")
        self.is_open, self._room, self._reserved = (
            True,
            asyncio.Semaphore(_MOST_OPEN),
            asyncio.Semaphore(_RESERVED),
        )
        self._urgent_seconds = URGENT_SECONDS
        try:
            isolation = await self.call(_isolation, is_read=True)
        except BaseException:
            await self.close()
            raise
        self._is_pinned = isolation != "read committed"

    async def close(self) -> None:
        """Close what is ours."""
        self.is_open = False
        self._watch.close()
        await self._drop_idle()

    async def call(
        self,
        work: Callable[[Session], Awaitable[T]],
        *,
        is_read: bool = False,
        is_urgent: bool = False,
        is_schema: bool = False,
        seconds: float | None = None,
    ) -> T:
        """Run ``work`` on a connection.

        Args:
            work: What to do; one that reads may be run twice.
            is_read: Whether to try again on a fresh connection where the first one broke.
            is_urgent: Whether to use the connections that are kept for turns and heartbeats, which wait for no other call.
            is_schema: Whether it makes or looks at the tables, whatever version they have.
            seconds: Most that it may take; of what is urgent: beyond the usual.

        Raises:
            StoreError: The database could not do it.
        """
        tries = 2 if is_read else 1
        while True:
            session: Session | None = None
            bound, began = self._bound(seconds, is_urgent=is_urgent), time.monotonic()
            try:
                async with (
                    asyncio.timeout(bound),
                    self._session(self._urgent if is_urgent else self._idle) as session,
                ):
                    if not (self.is_checked or is_read or is_schema):
                        await self.check(session)
                        self.is_checked = True
                    done = await work(session)
            except PrewarmKitError:
                raise
            except psycopg.Error as error:
                if self._learns(session, error):
                    continue
                if is_lost(error):
                    await self._forget()
                    tries -= 1
                    if tries:
                        continue
                raise translated(error, self.where, self.schema) from None
            except TimeoutError:
                await self._forget()
                self._take_longer(2 * self._urgent_seconds, is_urgent=is_urgent)
                raise self._silent(bound) from None
            self._take_longer(2 * (time.monotonic() - began), is_urgent=is_urgent)
            return done

    def _bound(self, seconds: float | None, *, is_urgent: bool) -> float:
        if is_urgent:
            return self._urgent_seconds + (seconds or 0.0)
        return CALL_SECONDS if seconds is None else seconds

    def _take_longer(self, seconds: float, *, is_urgent: bool) -> None:
        """Give a slow server the time that it needs; one that fell silent costs little the first time."""
        if is_urgent:
            wanted = max(URGENT_SECONDS, seconds, 0.9 * self._urgent_seconds)
            self._urgent_seconds = min(wanted, CALL_SECONDS)

    def _silent(self, seconds: float) -> StoreError:
        return StoreError(f"The database at {self.where} did not answer within {seconds:.3g} s.")

    async def read(self, query: str, *values: Any) -> list[TupleRow]:
        """The rows of one named query that only reads: `call` on its shortest way."""
        idle = self._idle
        if idle and self.is_open:
            session, task = idle.pop(), asyncio.current_task()
            self._watch.enter(task)
            try:
                cursor = session.cursor
                await cursor.execute(self.queries[query], values, prepare=session.prepare)
                rows = await cursor.fetchall()
            except psycopg.Error as error:
                await close(session.connection)  # whatever it was, `call` meets it again and says it
                self._learns(session, error)
            except BaseException:
                await close(session.connection)
                if self._watch.has_ended(task):
                    raise self._silent(CALL_SECONDS) from None
                raise
            else:
                if self.is_open:
                    idle.append(session)
                else:
                    await close(session.connection)
                return rows
            finally:
                self._watch.leave(task)
        return await self.call(lambda session: session.rows(query, *values), is_read=True)

    # ── connections ──────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _session(self, stack: list[Session]) -> AsyncGenerator[Session]:
        room = self._reserved if stack is self._urgent else self._room
        if not self.is_open or room is None:
            raise ConfigurationError(
                f"The store on {self.where} is not open: enter it first with `async with PostgresStore(...)`."
            )
        if not isinstance(self.source, str):
            async with self._lent(self.source) as connection:
                # Whether its statements are prepared is the host's to say; how they are named is not.
                if self._is_prepared:
                    name_apart(connection)
                prepare = None if self._is_prepared else False
                session = Session(connection, self.queries, prepare, self._is_pinned)
                yield session
                self._learn(session)
            return
        async with room:
            session = self._pop(stack) or await self._new(self.source)
            session.is_pinned = self._is_pinned
            is_cut_off = True  # a late word of its cancellation would hit the next query
            try:
                yield session
                is_cut_off = False
                self._learn(session)
            except Exception:
                is_cut_off = False
                raise
            finally:
                if (
                    not is_cut_off
                    and self.is_open
                    and len(stack) < _MOST_IDLE
                    and is_idle(session.connection)
                ):
                    stack.append(session)
                else:
                    await close(session.connection)

    async def _new(self, dsn: str) -> Session:
        connection = await connect(dsn, **({} if self._is_prepared else _PLAIN))
        return Session(connection, self.queries, self._is_prepared)

    @staticmethod
    @asynccontextmanager
    async def _lent(pool: HostPool) -> AsyncGenerator[Connection]:
        async with pool.connection() as lent:
            connection = cast("Connection", lent)
            was = connection.autocommit
            if not was:
                await connection.set_autocommit(True)
            try:
                yield connection
            except asyncio.CancelledError:
                await close(connection)  # as above; the pool makes another
                raise
            finally:
                if not was and is_idle(connection):
                    await connection.set_autocommit(False)

    def _pop(self, stack: list[Session]) -> Session | None:
        """The one used last that the server has not hung up on."""
        while stack:
            session = stack.pop()
            # An idle connection has nothing to read but its end, or its last words.
            if is_idle(session.connection) and not _has_news(session.connection):
                return session
            session.connection.pgconn.finish()
            self.is_checked = False
        return None

    def _learns(self, session: Session | None, error: psycopg.Error) -> bool:
        """Whether a call can be made again, since what undid it will not come again."""
        if session is None:
            return False
        if session.loses(error):
            session.prepare = False
            self._learn(session)
            return True
        if isinstance(error, pg.SerializationFailure) and not session.is_pinned:
            self._is_pinned = True  # what we found at the start does not hold on every connection
            return True
        return False

    def _learn(self, session: Session) -> None:
        """Go unprepared as a session did: a pooler between us hands each statement to another connection of the server."""
        if session.prepare is False and self._is_prepared:
            logger.info("%s: prepared statements get lost on the way; going on without", self.where)
            self._is_prepared = False
            for each in (*self._idle, *self._urgent):
                each.prepare = False

    async def _forget(self) -> None:
        """The server went, or fell silent: what is there when it comes back is to be seen."""
        self.is_checked = False
        await self._drop_idle()

    async def _drop_idle(self) -> None:
        for stack in (self._urgent, self._idle):
            while stack:
                await close(stack.pop().connection)


async def _isolation(session: Session) -> str:
    asked = "SELECT current_setting('default_transaction_isolation')"
    row = await (await session.connection.execute(asked, prepare=False)).fetchone()
    return "" if row is None else str(row[0])


def _has_news(connection: Connection) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
