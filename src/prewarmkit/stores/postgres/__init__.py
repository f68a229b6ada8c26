"""The table in PostgreSQL, for many processes and machines.

`store` is what a host sees. `link` has the connections, and `host` a host's own; `work` takes turns, `enqueue` puts
rows in, `count` counts, `rows` translates, `queries` reads the SQL files; `listen` hears of new rows, `budget` shares
rates, `schema` and `verify` keep the tables, `going_back` takes them back, `adoption`
has the scripts that take the original system's over, `errors` says what went wrong.
"""

from __future__ import annotations

from prewarmkit.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
