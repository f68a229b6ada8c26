"""SQL that ships in the package: numbered migrations and named queries, plain files.

A query stands in a file without a number under a line ``-- name: …``; code never builds SQL.
Beside a migration ``0001_what.sql`` may stand ``0001_what.down.sql``, which takes it back.
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["load_down", "load_migrations", "load_queries", "load_text", "migration_names"]

_DOWN = ".down.sql"


def load_queries(dialect: str) -> dict[str, str]:
    """The named queries of ``dialect`` (a folder beside this file)."""
    queries: dict[str, str] = {}
    for name, text in _files(dialect):
        if name[:4].isdigit():
            continue
        for block in text.split("-- name:")[1:]:
            query, _, sql = block.partition("\n")
            queries[query.strip()] = sql.strip().rstrip(";")
    return queries


def load_migrations(dialect: str) -> list[tuple[int, str]]:
    """The migrations of ``dialect`` by number: files named ``0001_what.sql``."""
    return [(int(name[:4]), text) for name, text in _files(dialect) if _is_migration(name)]


def load_text(dialect: str, name: str) -> str:
    """One file of ``dialect`` as it is."""
    return files("prewarmkit.stores.sql").joinpath(dialect, name).read_text(encoding="utf-8")


def migration_names(dialect: str) -> dict[int, str]:
    """The file name of each migration, without its ending."""
    return {int(name[:4]): name.removesuffix(".sql") for name, _ in _files(dialect) if _is_migration(name)}


def _is_migration(name: str) -> bool:
    return name[:4].isdigit() and not name.endswith(_DOWN)


def load_down(dialect: str, name: str) -> str:
    """What takes the migration of that name back, see `migration_names`."""
    return load_text(dialect, f"{name}{_DOWN}")


def _files(dialect: str) -> list[tuple[str, str]]:
    folder = files("prewarmkit.stores.sql").joinpath(dialect)
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted((entry.name, entry.read_text(encoding="utf-8")) for entry in found)
