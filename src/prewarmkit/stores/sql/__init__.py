"""SQL that ships in the package: numbered migrations and named queries, plain files.

A query stands in a ``queries.sql`` under a line ``-- name: …``; code never builds SQL.
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["load_migrations", "load_queries"]


def load_queries(dialect: str) -> dict[str, str]:
    """The named queries of ``dialect`` (a folder beside this file)."""
    text = files("prewarmkit.stores.sql").joinpath(dialect, "queries.sql").read_text(encoding="utf-8")
    queries: dict[str, str] = {}
    for block in text.split("-- name:")[1:]:
        name, _, sql = block.partition("\n")
        queries[name.strip()] = sql.strip().rstrip(";")
    return queries


def load_migrations(dialect: str) -> list[tuple[int, str]]:
    """The migrations of ``dialect`` by number: files named ``0001_what.sql``."""
    folder = files("prewarmkit.stores.sql").joinpath(dialect)
    found = [entry for entry in folder.iterdir() if entry.name[:4].isdigit() and entry.name.endswith(".sql")]
    return sorted((int(entry.name[:4]), entry.read_text(encoding="utf-8")) for entry in found)
