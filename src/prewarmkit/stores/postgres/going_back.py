"""The script that takes the tables back to what an earlier version made.

Text for people to read and to run; this file connects to nothing.
"""

from __future__ import annotations

from typing import Any, cast

from psycopg import sql

from prewarmkit.stores.postgres.queries import Migration, downs_for

__all__ = ["down_sql"]

# It names no schema: a comment ends where a name has a line break.
_HEAD = """-- Takes prewarmkit's tables back from version {newest} to {to}. Rows stay, but what a later version keeps and
-- the earlier one has no place for is lost: each part says so.
-- Stop what runs the later version first, and keep a dump. Apply with psql -v ON_ERROR_STOP=1, outside a
-- transaction. It may be run again from its start where it broke off."""
# By its number alone: tables that are behind it already are met again by parts that find nothing to do.
_GUARD = """
DECLARE
    found integer := (SELECT max(version) FROM {schema}.prewarm_migrations);
BEGIN
    IF found > {newest} THEN
        RAISE EXCEPTION 'prewarmkit: the tables are at version %, this script begins at {newest}: print it with the version of prewarmkit that made them', found;
    END IF;
END
"""
_FORGET = "DELETE FROM {schema}.prewarm_migrations WHERE version >= {version};"
_LAST = "DROP TABLE {schema}.prewarm_migrations;"


def down_sql(schema: str = "public", *, to: int) -> str:
    """What takes the tables of this version back to those of version ``to``; 0: removes them.

    Raises:
        ValueError: There is no such version, or it is this one.
    """
    downs = downs_for(schema)
    newest = downs[0].number
    if not 0 <= to < newest:
        raise ValueError(f"{to} is no version to go back to: 1 to {newest - 1}, or 0 to remove the tables")
    places = {"schema": sql.Identifier(schema), "newest": sql.Literal(newest), "to": sql.Literal(to)}
    # Its text as a literal: between dollar signs a schema's name could end it.
    guard = _filled("DO {body};", body=sql.Literal(_filled(_GUARD, **places)))
    parts = [_filled(_HEAD, **places), guard]
    parts += [_part(schema, down, is_last=down.number == 1) for down in downs if down.number > to]
    return "\n\n".join(parts) + "\n"


def _part(schema: str, down: Migration, *, is_last: bool) -> str:
    place, version = sql.Identifier(schema), sql.Literal(down.number)
    forget = _filled(_LAST if is_last else _FORGET, schema=place, version=version)
    lines = [down.sql.strip(), forget]
    if not down.is_concurrent:
        lines = ["BEGIN;", *lines, "COMMIT;"]
    return "\n".join([f"-- {down.name}, back", *lines])


def _filled(text: str, **places: sql.Composable) -> str:
    return sql.SQL(cast("Any", text)).format(**places).as_string(None)
