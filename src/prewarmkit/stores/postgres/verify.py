"""What the catalogue says of our tables, as lines that can be compared.

``catalogue.txt`` has the lines of a fresh install; a test keeps it true. The lines are
worded alike by every PostgreSQL that we state, and name no schema.
"""

from __future__ import annotations

from importlib.resources import files

from prewarmkit.stores.postgres.link import Connection

__all__ = ["catalogue", "differences", "expected_catalogue"]

_TABLES = ["media_cache", "prewarm_state", "prewarm_budget", "prewarm_migrations"]
_QUERY = r"""
SELECT line FROM (
    SELECT format('table %%s (%%s)', c.relname, array_to_string(ARRAY(SELECT unnest(c.reloptions) ORDER BY 1), ', ')) AS line
    FROM pg_class c WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = ANY (%(tables)s) AND c.relkind = 'r'
    UNION ALL
    SELECT format('column %%s.%%s %%s%%s%%s%%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  CASE WHEN l.collname IS NOT NULL AND l.collname <> 'default' THEN ' collate ' || l.collname ELSE '' END,
                  CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
                  coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = ANY (%(tables)s) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('index %%s%%s', replace(pg_get_indexdef(i.indexrelid), format(' ON %%I.', n.nspname), ' ON '),
                  CASE WHEN i.indisvalid THEN '' ELSE ' (invalid)' END)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = ANY (%(tables)s)
    UNION ALL
    SELECT format('constraint %%s.%%s %%s', c.relname, k.conname, pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = ANY (%(tables)s) AND k.contype <> 'n'
    UNION ALL
    SELECT format('view %%s.%%s %%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = 'media_warming_stats' AND a.attnum > 0
    UNION ALL
    -- Older servers name the table before each column, and one that is not on the search path by its schema.
    SELECT format('view %%s AS %%s', c.relname, replace(replace(
        regexp_replace(trim(both ' ;' from pg_get_viewdef(c.oid)), '\s+', ' ', 'g'), format('%%I.', n.nspname), ''), 'media_cache.', ''))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = 'media_warming_stats' AND c.relkind = 'v'
    UNION ALL
    SELECT format('sequence %%s', c.relname) FROM pg_class c
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = 'media_cache_token' AND c.relkind = 'S'
) AS lines ORDER BY line COLLATE "C"
"""


async def catalogue(connection: Connection, schema: str) -> list[str]:
    """The lines of the tables in a schema."""
    quoted = '"' + schema.replace('"', '""') + '"'
    found = await connection.execute(_QUERY, {"schema": quoted, "tables": _TABLES}, prepare=False)
    return [row[0] for row in await found.fetchall()]


def expected_catalogue() -> list[str]:
    """The lines of a fresh install."""
    path = files("prewarmkit.stores.sql").joinpath("postgres", "catalogue.txt")
    return path.read_text(encoding="utf-8").splitlines()


async def differences(connection: Connection, schema: str) -> list[str]:
    """Lines that are missing (``-``) or that nobody expects (``+``)."""
    have, want = await catalogue(connection, schema), expected_catalogue()
    missing = [f"- {line}" for line in want if line not in have]
    return missing + [f"+ {line}" for line in have if line not in want]
