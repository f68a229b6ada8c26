"""A page of a file's rows, in the order in which they came.

All look-ups wait for the one connection that reads, so a page must not walk over a table
of which it shows little.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.sqlite_rows import json_list
from prewarmkit.stores.sqlite_work import SQL

__all__ = ["page"]


def page(
    connection: sqlite3.Connection,
    states: Collection[State] | None,
    *,
    after: int,
    most: int,
    targets: Collection[str] | None,
) -> list[sqlite3.Row]:
    """Up to ``most`` rows of these states and targets (``None``: any) whose number is above ``after``."""
    values = {"after": after, "most": most, "targets": json_list(targets)}
    if states is not None and _are_few(connection, states):
        wanted = {state.value: state in states for state in State}
        return connection.execute(SQL["list_few"], values | wanted).fetchall()
    return connection.execute(SQL["list"], {**values, "states": json_list(states)}).fetchall()


def _are_few(connection: sqlite3.Connection, states: Collection[State]) -> bool:
    """Whether fewer rows would have to be sorted than walked over: those that failed stand sorted."""
    totals = connection.execute(SQL["totals"]).fetchone()
    to_sort = sum(totals[state] for state in {*states} - {State.FAILED})
    return bool(2 * to_sort <= sum(totals))
