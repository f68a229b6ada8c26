"""PostgreSQL's named queries and migrations for one schema, as they are sent.

The files have places for the schema's name, quoted here, and for the order's constants.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from psycopg import sql

from prewarmkit.stores.lifecycle import AGEING_SECONDS, RENEWAL_PRIORITY, RENEWED_AT_ONCE
from prewarmkit.stores.sql import load_down, load_migrations, load_queries, migration_names

__all__ = ["Migration", "downs_for", "migrations_for", "queries_for"]

_LIVE_YEARS = -2000  # before every age that a row can have, and within what a timestamp holds
_FIRST_BACKGROUND = "1000-01-01 00:00:00+00"  # between the ranks of live rows and those of the others
_FRAGMENTS = ("looked", "sharable", "in_hand", "shared", "leasing", "soon", "waiting", "refused")


@frozen
class Migration:
    """One step of the schema.

    Attributes:
        number: Its place.
        name: Its file's name.
        sql: What it does.
        is_concurrent: Whether it must run outside a transaction (``CREATE INDEX CONCURRENTLY``); it
            then builds one index, after which it is named.
    """

    number: int
    name: str
    sql: str
    is_concurrent: bool


def queries_for(schema: str) -> dict[str, bytes]:
    """Every named query for the tables in ``schema``."""
    texts = load_queries("postgres")
    places = _places(schema)
    fragments = {name: _filled(texts[name], places) for name in _FRAGMENTS}
    return {name: _filled(text, places | fragments).as_bytes(None) for name, text in texts.items()}


def migrations_for(schema: str, *, is_concurrent: bool = True) -> list[Migration]:
    """Every migration for ``schema``; without ``is_concurrent`` all can run in one transaction."""
    names = migration_names("postgres")
    return [
        _migration(names[number], text, schema, is_concurrent=is_concurrent)
        for number, text in load_migrations("postgres")
    ]


def downs_for(schema: str) -> list[Migration]:
    """What takes each migration back, the newest first. Each may be run again, also where it finds nothing to do."""
    return [
        _migration(name, load_down("postgres", name), schema)
        for _, name in sorted(migration_names("postgres").items(), reverse=True)
    ]


def _migration(name: str, text: str, schema: str, *, is_concurrent: bool = True) -> Migration:
    concurrently = sql.SQL("CONCURRENTLY" if is_concurrent else "")
    return Migration(
        int(name[:4]),
        name.removesuffix(".concurrently"),
        _filled(text, _places(schema) | {"concurrently": concurrently}).as_string(None),
        name.endswith(".concurrently"),
    )


def _places(schema: str) -> dict[str, Any]:
    return {
        "schema": sql.Identifier(schema),
        "tokens": sql.Literal(sql.Identifier(schema, "media_cache_token").as_string(None)),
        "live": sql.SQL("make_interval(years => {})").format(sql.Literal(_LIVE_YEARS)),
        "background": sql.SQL("timestamptz {}").format(sql.Literal(_FIRST_BACKGROUND)),
        "renewal_priority": sql.Literal(RENEWAL_PRIORITY),
        "renewed_at_once": sql.Literal(RENEWED_AT_ONCE),
        "ageing": sql.SQL("make_interval(secs => {})").format(sql.Literal(AGEING_SECONDS)),
    }


def _filled(text: str, places: dict[str, Any]) -> sql.Composed:
    # The text comes from a file of this package, which is as good as a literal.
    return sql.SQL(cast("Any", text)).format(**places)
