"""``migrate``, ``verify`` and ``sql``: the tables of `PostgresStore`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from prewarmkit.errors import PrewarmKitError

__all__ = ["add_migrate", "add_sql", "add_verify"]

_DSN = "postgresql://user@host/database; a password is better left to PGPASSWORD or ~/.pgpass. Connect directly, not through a pooler"


def add_migrate(parser: argparse.ArgumentParser) -> None:
    """Teach a parser what ``migrate`` may be told, and what to run."""
    parser.description = (
        "Make the tables, or bring them up to this version. Running it again changes nothing."
    )
    _add_place(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be applied")
    parser.set_defaults(run=_migrate)


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Teach a parser what ``verify`` may be told, and what to run."""
    parser.description = (
        "Compare the tables with what this version makes: columns, indexes, constraints, settings."
    )
    parser.epilog = "Ends with 0 if they are the same, with 1 if not; - is missing, + is not expected."
    _add_place(parser)
    parser.set_defaults(run=_verify)


def add_sql(parser: argparse.ArgumentParser) -> None:
    """Teach a parser what ``sql`` may be told, and what to run."""
    parser.description = "Print the SQL that migrate would run on an empty database; needs no connection."
    _add_schema(parser)
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="print the script that takes the original system's rows over instead",
    )
    parser.set_defaults(run=_sql)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dsn", metavar="DSN", help=_DSN)
    _add_schema(parser)


def _add_schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schema", default="public", help="the schema of the tables (default %(default)s)")


def _migrate(parsed: argparse.Namespace) -> int:
    names = _with_store(parsed, lambda store: store.migrate(dry_run=parsed.dry_run))
    if names is None:
        return 1
    for name in names:
        print(f"{'would apply' if parsed.dry_run else 'applied'} {name}")
    if not names:
        print("up to date")
    return 0


def _verify(parsed: argparse.Namespace) -> int:
    lines = _with_store(parsed, lambda store: store.verify())
    if lines is None:
        return 1
    print("\n".join(lines) if lines else "the tables are as this version makes them")
    return 1 if lines else 0


def _sql(parsed: argparse.Namespace) -> int:
    from prewarmkit.stores.postgres.queries import adoption_sql
    from prewarmkit.stores.postgres.schema import schema_sql

    print(adoption_sql(parsed.schema) if parsed.adopt else schema_sql(parsed.schema), end="")
    return 0


def _with_store(parsed: argparse.Namespace, work: Callable[[Any], Awaitable[list[str]]]) -> list[str] | None:
    """What ``work`` answers; ``None``: it failed, and said why."""
    # Imported when it is needed: --help must not load the library.
    from prewarmkit.stores import PostgresStore

    async def run() -> list[str]:
        async with PostgresStore(parsed.dsn, schema=parsed.schema, notify=False) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except (PrewarmKitError, ValueError) as error:
        print(error, file=sys.stderr)
        return None
