"""One connection to PostgreSQL, in autocommit: how ours are made, and how queries go over any.

A prepared statement has a name that no other connection gives. Where a pooler lets clients
share the server's connections, one may therefore be missing, which is noticed and costs
nothing; it is never another client's. Nothing is left in a session, whoever has it next.
This file knows psycopg's connections; it must never know what a row means.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

import psycopg
from attrs import define, field
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from prewarmkit.errors import ConfigurationError

__all__ = ["Connection", "Session", "close", "connect", "is_idle", "name_apart", "parsed"]

Connection = psycopg.AsyncConnection[Any]
T = TypeVar("T")

_CONNECT_SECONDS = 10
# A peer that vanished shows by what it does not acknowledge; where nothing is under way, by probes.
_VIGILANCE = {
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_CANCEL_SECONDS = 1.0
_LAST_WORDS_SECONDS = 0.25
_FIRST_NAME = 1 << 40
_UNPREPARED = (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement, pg.ProtocolViolation)


@define(eq=False)
class Session:
    """One connection for one call, in autocommit, with the named queries at hand.

    Attributes:
        connection: Whose.
        queries: The named queries, ready to be sent.
        prepare: Whether to prepare statements; ``None`` leaves it to the connection's own threshold.
        is_pinned: Whether a transaction must ask for the isolation that we need, since another is the default.
    """

    connection: Connection
    queries: Mapping[str, bytes]
    prepare: bool | None
    is_pinned: bool = False
    cursor: psycopg.AsyncRawCursor[TupleRow] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.cursor = self._new_cursor()

    def loses(self, error: psycopg.Error) -> bool:
        """Whether it failed because the server did not know a statement as we had prepared it."""
        return (
            isinstance(error, _UNPREPARED)
            # pgbouncer gives its own last words this code too, as when it loses the server.
            and (error.diag.severity_nonlocalized or error.diag.severity) != "FATAL"
            and self.prepare is not False
            and self.connection.prepare_threshold is not None
        )

    def together(self) -> AbstractAsyncContextManager[Any]:
        """A pipeline: what is sent in it goes out at once, and is one transaction of the server."""
        return self._pinned() if self.is_pinned else self.connection.pipeline()

    @asynccontextmanager
    async def _pinned(self) -> AsyncGenerator[None]:
        async with self.connection.pipeline():
            # Ends with this transaction. Rows that others change are to be met as they are, not to undo us.
            await self.connection.execute("SET transaction_isolation = 'read committed'", prepare=False)
            yield

    async def send(self, query: str, *values: Any) -> psycopg.AsyncRawCursor[TupleRow]:
        """Run a named query; inside a pipeline its rows can be fetched once that has ended."""
        return await self._new_cursor().execute(self.queries[query], values, prepare=self.prepare)

    def _new_cursor(self) -> psycopg.AsyncRawCursor[TupleRow]:
        cursor = psycopg.AsyncRawCursor(self.connection, row_factory=tuple_row)
        cursor.format = psycopg.pq.Format.BINARY
        return cursor

    async def rows(self, query: str, *values: Any) -> list[TupleRow]:
        """The rows of a named query; outside of a pipeline."""
        return await (await self._run(query, values)).fetchall()

    async def change(self, query: str, *values: Any) -> int:
        """How many rows a named query changed; outside of a pipeline."""
        return (await self._run(query, values)).rowcount

    @asynccontextmanager
    async def transaction(self, *, lock_seconds: float | None = None) -> AsyncGenerator[None]:
        """A transaction of several statements.

        Args:
            lock_seconds: Most that a statement waits for a row that somebody has locked.
        """
        begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
        if lock_seconds is not None:  # in the same message; ends with the transaction
            begin += f"; SET LOCAL lock_timeout = {max(1, round(lock_seconds * 1000))}"
        await self.connection.execute(begin.encode(), prepare=False)
        try:
            yield
        except Exception:
            with suppress(
                psycopg.Error
            ):  # a connection that is lost rolls back too, and what lost it says more
                await self.connection.rollback()
            raise
        await self.connection.commit()

    async def again_unprepared(self, run: Callable[[], Awaitable[T]]) -> T:
        """Do something, and once more without prepared statements if one of them got lost."""
        try:
            return await run()
        except psycopg.Error as error:
            # On its own it can be said again at once, whatever the call has committed before it.
            if not self.loses(error) or not is_idle(self.connection):
                raise
        self.prepare = False
        return await run()

    async def _run(self, query: str, values: tuple[Any, ...]) -> psycopg.AsyncRawCursor[TupleRow]:
        return await self.again_unprepared(lambda: self._say(query, values))

    async def _say(self, query: str, values: tuple[Any, ...]) -> psycopg.AsyncRawCursor[TupleRow]:
        if not self.is_pinned or not is_idle(self.connection):
            return await self.cursor.execute(self.queries[query], values, prepare=self.prepare)
        async with self.together():
            return await self.cursor.execute(self.queries[query], values, prepare=self.prepare)


class _OwnConnection(psycopg.AsyncConnection[Any]):
    """One that ends soon when its call is cut off, also where nothing comes back any more."""

    async def _try_cancel(self, *, timeout: float = _CANCEL_SECONDS) -> None:
        """Ask the server to stop; psycopg calls this when a task is cancelled that waits for an answer.

        It would then wait for some seconds for the server's last word. We close such a connection in
        any case: hang up soon, which ends that wait.
        """
        await super()._try_cancel(timeout=min(timeout, _CANCEL_SECONDS))
        asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, _hang_up, self)


def _hang_up(connection: Connection) -> None:
    if connection.closed:
        return
    # A second handle on the socket: the first one's number is psycopg's to close.
    with suppress(OSError), socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
        line.shutdown(socket.SHUT_RDWR)


async def connect(dsn: str, **options: Any) -> Connection:
    """A connection of our own, in autocommit."""
    defaults = {"connect_timeout": _CONNECT_SECONDS, "application_name": "prewarmkit", **_VIGILANCE}
    wanted = {**defaults, **parsed(dsn), **options}
    given: dict[str, Any] = {name: wanted[name] for name in (*defaults, *options)}
    connection = await _OwnConnection.connect(dsn, autocommit=True, **given)
    name_apart(connection)
    return connection


def name_apart(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """Have a connection's prepared statements named as no other connection's are.

    Psycopg counts them from 0 on each connection. Where a pooler lets two clients share one
    of the server's, the name that one means would be the other's statement, which would run.
    """
    names = getattr(connection, "_prepared", None)
    counted = getattr(names, "_prepared_idx", None)
    if not isinstance(counted, int):
        connection.prepare_threshold = None  # another psycopg: better slow than wrong
    elif counted < _FIRST_NAME:
        setattr(names, "_prepared_idx", _FIRST_NAME + secrets.randbits(62))  # noqa: B010 - no public way


def parsed(dsn: str) -> dict[str, Any]:
    """The parts of a connection string.

    Raises:
        ConfigurationError: It is none; the message repeats nothing of it.
    """
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "dsn must be a connection string: postgresql://user@host/database, or host=… dbname=…."
        ) from None  # the parser's message repeats parts of it


def is_idle(connection: Connection) -> bool:
    """Whether it is open, and in no transaction."""
    return not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE


async def close(connection: Connection) -> None:
    """Close it, whatever state it is in."""
    with suppress(psycopg.Error, OSError):
        await connection.close()
