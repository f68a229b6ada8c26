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
        "--down-to",
        type=int,
        metavar="N",
        help="print what takes the tables back to version N instead, for an earlier prewarmkit; 0 removes them",
    )
    group = parser.add_argument_group("the original system's tables")
    group.add_argument(
        "--adopt",
        action="store_true",
        help="print the script that takes the rows of its media_store and media_cache over instead",
    )
    group.add_argument(
        "--bot",
        type=_bot,
        action="append",
        default=[],
        metavar="SLUG=ID",
        help="the id of the target for a bot_slug, for each bot; without any there is a line to be filled in",
    )
    group.add_argument(
        "--original", default="public", metavar="SCHEMA", help="where its tables are (default %(default)s)"
    )
    group.add_argument("--undo", action="store_true", help="print the script that takes an adoption back")

    def run(parsed: argparse.Namespace) -> int:
        slugs = [slug for slug, _ in parsed.bot]
        if (slugs or parsed.undo) and not parsed.adopt:
            parser.error("--bot and --undo go with --adopt")
        if twice := {slug for slug in slugs if slugs.count(slug) > 1}:
            parser.error(f"--bot: {min(twice)!r} stands twice")
        if parsed.adopt and parsed.schema == parsed.original:
            parser.error("--schema: our media_cache needs another schema than the original's (--original)")
        if parsed.adopt and parsed.down_to is not None:
            parser.error("--down-to and --adopt print different scripts: ask for one")
        try:
            return _sql(parsed)
        except ValueError as error:
            parser.error(f"--down-to: {error}")

    parser.set_defaults(run=run)


def _bot(text: str) -> tuple[str, str]:
    slug, _, target = text.rpartition("=")
    if not slug or not target:
        raise argparse.ArgumentTypeError(f"{text!r} is not SLUG=ID, as in my-bot=123456")
    return slug, target


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
    from prewarmkit.stores.postgres.adoption import adoption_sql, undo_sql
    from prewarmkit.stores.postgres.going_back import down_sql
    from prewarmkit.stores.postgres.schema import schema_sql

    if parsed.down_to is not None:
        text = down_sql(parsed.schema, to=parsed.down_to)
    elif parsed.undo:
        text = undo_sql(parsed.schema)
    elif parsed.adopt:
        text = adoption_sql(parsed.schema, bots=dict(parsed.bot), original=parsed.original)
    else:
        text = schema_sql(parsed.schema)
    print(text, end="")
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
