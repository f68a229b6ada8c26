"""The scripts that take the original system's tables over, and that take it back.

Text for people to read and to run; this file connects to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from psycopg import sql

from prewarmkit.media import MediaKind
from prewarmkit.stores.lifecycle import AGEING_SECONDS
from prewarmkit.stores.postgres.enqueue import LONGEST_ID_BYTES
from prewarmkit.stores.sql import load_text

__all__ = ["adoption_sql", "undo_sql"]

_TO_FILL_IN = {"my-bot": "123456"}


def adoption_sql(schema: str, *, bots: Mapping[str, str] | None = None, original: str = "public") -> str:
    """The script that takes the original system's rows over.

    Args:
        schema: Where prewarmkit's tables are.
        bots: The target's id for each ``bot_slug``; ``None``: a line to be filled in.
        original: Where the original's tables are.
    """
    pairs = [
        sql.SQL("({}, {})").format(sql.Literal(slug), sql.Literal(target))
        for slug, target in (bots or _TO_FILL_IN).items()
    ]
    return _filled(
        "adopt.sql",
        schema,
        original=sql.Identifier(original),
        bots=sql.SQL(",\n    ").join(pairs),
        kinds=sql.SQL(", ").join(sql.Literal(kind.value) for kind in MediaKind),
        longest=sql.Literal(LONGEST_ID_BYTES),
        ageing=sql.SQL("make_interval(secs => {})").format(sql.Literal(AGEING_SECONDS)),
    )


def undo_sql(schema: str) -> str:
    """The script that removes what the other one made."""
    return _filled("adopt_undo.sql", schema)


def _filled(name: str, schema: str, **places: sql.Composable) -> str:
    text = cast("Any", load_text("postgres", name))  # a file of this package is as good as a literal
    return sql.SQL(text).format(schema=sql.Identifier(schema), **places).as_string(None)
