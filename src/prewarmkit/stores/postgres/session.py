"""One connection to PostgreSQL, in autocommit: how ours are made, and how queries go over any.

A prepared statement has a name that no other connection gives. Where a pooler lets clients
share the server's connections, one may therefore be missing, which is noticed and costs
nothing; it is never another client's.
This file knows psycopg's connections; it must never know what a row means.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from attrs import define, field
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from prewarmkit.errors import ConfigurationError

__all__ = ["Connection", "Session", "close", "connect", "is_idle", "name_apart", "parsed"]

Connection = psycopg.AsyncConnection[Any]

_CONNECT_SECONDS = 10
_FIRST_NAME = 1 << 40
_UNPREPARED = (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement, pg.ProtocolViolation)


@define(eq=False)
class Session:
    """One connection for one call, in autocommit, with the named queries at hand.

    Attributes:
        connection: Whose.
        queries: The named queries, ready to be sent.
        prepare: Whether to prepare statements; ``None`` leaves it to the connection's own threshold.
    """

    connection: Connection
    queries: Mapping[str, bytes]
    prepare: bool | None
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
    async def transaction(self, *, lock_seconds: float) -> AsyncGenerator[None]:
        """A transaction of several statements.

        Args:
            lock_seconds: Most that a statement waits for a row that somebody has locked.
        """
        # Both in one message; what is set ends with the transaction.
        begin = f"BEGIN; SET LOCAL lock_timeout = {max(1, round(lock_seconds * 1000))}"
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

    async def _run(self, query: str, values: tuple[Any, ...]) -> psycopg.AsyncRawCursor[TupleRow]:
        try:
            return await self.cursor.execute(self.queries[query], values, prepare=self.prepare)
        except psycopg.Error as error:
            # On its own it can be said again at once, whatever the call has committed before it.
            if not self.loses(error) or not is_idle(self.connection):
                raise
        self.prepare = False
        return await self.cursor.execute(self.queries[query], values, prepare=False)


async def connect(dsn: str, **options: Any) -> Connection:
    """A connection of our own, in autocommit."""
    known = parsed(dsn)
    options.setdefault("connect_timeout", known.get("connect_timeout", _CONNECT_SECONDS))
    options.setdefault("application_name", known.get("application_name", "prewarmkit"))
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, **options)
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
