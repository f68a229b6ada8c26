"""Time that passes for the rows of a `PostgresStore`, whose clock is the server's.

All times of all rows move into the past, which is what an observer sees of time that passed.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

__all__ = ["shift_rows"]

_ROWS = """UPDATE {schema}.media_cache SET
    due_at = due_at - {span}, updated_at = updated_at - {span}, rank = rank - {span},
    leased_at = leased_at - {span}, lease_until = lease_until - {span},
    warmed_at = warmed_at - {span}, expires_at = expires_at - {span}, renew_at = renew_at - {span}"""
_BUDGETS = """UPDATE {schema}.prewarm_budget SET
    calls = ARRAY(SELECT call - {span} FROM unnest(calls) AS call), held_until = held_until - {span}"""


def shift_rows(dsn: str, seconds: float, *, schema: str = "public") -> None:
    """Let that many seconds have passed for every row in ``schema``."""
    span = sql.SQL("make_interval(secs => {})").format(sql.Literal(seconds))
    with psycopg.connect(dsn) as connection:
        for text in (_ROWS, _BUDGETS):
            connection.execute(sql.SQL(text).format(schema=sql.Identifier(schema), span=span))
