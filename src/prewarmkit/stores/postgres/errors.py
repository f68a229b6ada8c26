"""What PostgreSQL's errors mean for a host, without anything secret in them."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from prewarmkit.errors import ConfigurationError, SchemaMissing, SchemaTooOld, StoreError, StoreFull

__all__ = ["describe", "is_lost", "translated"]

_SECRET = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)|(://[^\s/@:]*:)([^\s@]*)@", re.IGNORECASE)
_ATTEMPT = re.compile(r"^connection failed: (?:connection to server .*? failed: )?(?:FATAL:\s+)?")
# A refused login has no SQLSTATE in psycopg; the server's own words are all there is.
_REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry|(?:role|database) \"[^\"]*\" does not exist"
)


def describe(dsn: str) -> str:
    """Where a connection string leads: host, port, database."""
    try:
        known = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "an address that is no connection string"
    host = known.get("host") or known.get("hostaddr") or "the local socket"
    port = f":{known['port']}" if known.get("port") else ""
    return f"{host}{port}/{known.get('dbname') or ''}".rstrip("/")


def is_lost(error: psycopg.Error) -> bool:
    """Whether it took the connection along, or shows that it leads to a server that takes no writes any more."""
    state = error.sqlstate
    if state is None:  # psycopg's own words: nothing came from the server
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state.startswith(("08", "57P")) or isinstance(error, pg.ReadOnlySqlTransaction)


def translated(error: psycopg.Error, where: str, schema: str) -> Exception:
    """The error to raise for one of psycopg's."""
    what = _text(error)
    match error:
        case pg.DiskFull():
            return StoreFull(
                f"No room for the database at {where}: free space on its disk. Nothing that it held is lost."
            )
        case pg.LockNotAvailable():
            return StoreError(
                f"At {where} a transaction that is still open, as of an enqueue_in, has a row that this call needs: nothing was "
                "changed. Commit that transaction sooner, and try again."
            )
        case pg.UndefinedTable() | pg.InvalidSchemaName():
            return SchemaMissing(
                f"The schema {schema!r} at {where} has no prewarmkit tables: run `python -m prewarmkit migrate DSN` once, "
                "or name the schema= that has them."
            )
        case pg.UndefinedColumn() | pg.UndefinedFunction():
            return SchemaTooOld(
                f"The tables in schema {schema!r} at {where} are not this version's ({what}): run `python -m prewarmkit migrate DSN`."
            )
        case _ if isinstance(error, pg.InsufficientPrivilege) or _REFUSED.search(what):
            return ConfigurationError(
                f"The database at {where} refuses: {what}. Check user, password, database, and what the role may do."
            )
        case _:
            return StoreError(f"The database at {where} failed: {what}.")


def _text(error: psycopg.Error) -> str:
    """The first line of the message, without what looks like a password."""
    lines = (error.diag.message_primary or str(error)).strip().splitlines()
    text = _ATTEMPT.sub("", lines[0] if lines else type(error).__name__)
    return _SECRET.sub(r"\1\3…", text).rstrip(".")
