"""The schema of `PostgresStore`: made, brought up to date, compared, printed.

Migrations are numbered files. What was applied stands in a ledger, ``prewarm_migrations``;
an advisory lock lets one process at a time apply more. Each is one transaction, but those
that build an index of a table that may be big: they run outside of one, block nobody, and
clear away what a broken attempt left.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import psycopg
from attrs import frozen
from psycopg import sql

from prewarmkit.errors import ConfigurationError, SchemaMissing, SchemaTooNew, SchemaTooOld, StoreError
from prewarmkit.stores.postgres.link import Connection
from prewarmkit.stores.postgres.queries import Migration, migrations_for
from prewarmkit.stores.postgres.verify import differences

__all__ = ["Schema", "check_version", "schema_sql"]

_LEDGER = """CREATE TABLE IF NOT EXISTS {schema}.prewarm_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_NOTE = "INSERT INTO {schema}.prewarm_migrations (version, name) VALUES ({version}, {name})"
_LOCK = "hashtextextended(%s, 7215)"
_LOCK_WAIT_SECONDS = 600
_POLL_SECONDS = 0.2


def check_version(have: int, name: str, where: str) -> None:
    """Raise if the newest migration that was applied to a schema, 0 for none, is not this code's newest."""
    want = migrations_for(name)[-1].number
    if have == 0:
        raise SchemaMissing(
            f"The schema {name!r} at {where} has no prewarmkit tables: run `python -m prewarmkit migrate DSN` "
            "or `await store.migrate()` once, or name the schema= that has them."
        )
    if have < want:
        raise SchemaTooOld(
            f"The schema {name!r} at {where} is at {have}, this version needs {want}: run `python -m prewarmkit migrate DSN`."
        )
    if have > want:
        raise SchemaTooNew(
            f"The schema {name!r} at {where} is at {have}, this version knows {want}: upgrade prewarmkit in this process."
        )


@frozen
class Schema:
    """The tables in one schema, by a connection in autocommit.

    Attributes:
        connection: Whose role may create tables there; a direct one, not through a pooler.
        name: The schema.
        where: For messages.
    """

    connection: Connection
    name: str
    where: str

    async def version(self) -> int:
        """The newest migration that was applied; 0: none."""
        if not await self._has("prewarm_migrations"):
            return 0
        query = self._filled("SELECT coalesce(max(version), 0) FROM {schema}.prewarm_migrations")
        row = await (await self.connection.execute(query, prepare=False)).fetchone()
        return 0 if row is None else int(row[0])

    async def check(self) -> None:
        """Raise if the schema is missing, older or newer than this code."""
        have = await self.version()
        if have == 0:
            await self._refuse_foreign()
        check_version(have, self.name, self.where)

    async def migrate(self, *, dry_run: bool = False) -> list[str]:
        """Apply what is missing; return the names of it. With ``dry_run`` only say.

        Raises:
            ConfigurationError: There is a ``media_cache`` that is not ours.
            SchemaTooNew: A newer version has been here.
        """
        await self._refuse_foreign()
        migrations, have = migrations_for(self.name), await self.version()
        if have > migrations[-1].number:
            await self.check()
        missing = [migration for migration in migrations if migration.number > have]
        if not dry_run:
            for migration in missing:
                await (self._apply_outside if migration.is_concurrent else self._apply)(migration)
        return [migration.name for migration in missing]

    async def verify(self) -> list[str]:
        """How the tables differ from what this version makes; empty: in nothing."""
        await self.check()
        return await differences(self.connection, self.name)

    # ── steps ────────────────────────────────────────────────────────────────

    async def _apply(self, migration: Migration) -> None:
        async with self.connection.transaction():
            await self._ask(f"SELECT pg_advisory_xact_lock({_LOCK})", self._lock_name)
            await self._begin_ledger()
            if await self._is_applied(migration):
                return
            await self._refuse_foreign()
            await self._execute(migration.sql)
            await self._note(migration)

    async def _apply_outside(self, migration: Migration) -> None:
        await self._lock()
        try:
            if await self._is_applied(migration):
                return
            # An attempt that broke off leaves an index that is not valid, and in the way. Others' are theirs.
            index = migration.name.partition("_")[2]
            if await self._is_invalid(index):
                await self.connection.execute(
                    sql.SQL("DROP INDEX CONCURRENTLY {}.{}").format(
                        sql.Identifier(self.name), sql.Identifier(index)
                    )
                )
            await self._execute(migration.sql)
            await self._note(migration)
        finally:
            if not self.connection.closed:
                await self._ask(f"SELECT pg_advisory_unlock({_LOCK})", self._lock_name)

    async def _lock(self) -> None:
        # Asked for again and again, not waited for: a statement that waits has a snapshot, for
        # the end of which CREATE INDEX CONCURRENTLY of the one that has the lock would wait.
        for _ in range(int(_LOCK_WAIT_SECONDS / _POLL_SECONDS)):
            got = await self._ask(f"SELECT pg_try_advisory_lock({_LOCK})", self._lock_name)
            if (row := await got.fetchone()) is not None and row[0]:
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise StoreError(
            f"Another process has been migrating {self.name!r} at {self.where} for {_LOCK_WAIT_SECONDS} s."
        )

    @property
    def _lock_name(self) -> str:
        return f"prewarmkit:{self.name}"

    async def _begin_ledger(self) -> None:
        found = await self._ask("SELECT FROM pg_namespace WHERE nspname = %s", self.name)
        if await found.fetchone() is None:
            await self.connection.execute(self._filled("CREATE SCHEMA {schema}"))
        await self.connection.execute(self._filled(_LEDGER))

    async def _is_applied(self, migration: Migration) -> bool:
        return await self.version() >= migration.number

    async def _ask(self, query: str, *values: str) -> psycopg.AsyncCursor[Any]:
        # Never prepared: a host's connection may lead through a pooler, where that gets lost.
        return await self.connection.execute(query.encode(), values, prepare=False)

    async def _execute(self, text: str) -> None:
        # No parameters: the simple protocol takes several statements at once.
        await self.connection.execute(text.encode(), prepare=False)

    async def _note(self, migration: Migration) -> None:
        await self._execute(_noted(self.name, migration).as_string(None))

    async def _is_invalid(self, index: str) -> bool:
        query = """SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND t.relname = 'media_cache' AND c.relname = %s AND NOT i.indisvalid"""
        return await (await self._ask(query, self.name, index)).fetchone() is not None

    async def _has(self, table: str) -> bool:
        query = """SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""
        return await (await self._ask(query, self.name, table)).fetchone() is not None

    async def _refuse_foreign(self) -> None:
        if await self._has("media_cache") and await self.version() == 0:
            raise ConfigurationError(
                f"The schema {self.name!r} at {self.where} has a table media_cache that is not prewarmkit's: put ours into a schema of "
                "its own (schema=, or --schema). If it is the original system's, `python -m prewarmkit sql --adopt` prints the script that takes its rows over (docs/adopt.md)."
            )

    def _filled(self, text: str) -> sql.Composed:
        return sql.SQL(cast("Any", text)).format(schema=sql.Identifier(self.name))


def _noted(schema: str, migration: Migration) -> sql.Composed:
    return sql.SQL(_NOTE).format(
        schema=sql.Identifier(schema), version=sql.Literal(migration.number), name=sql.Literal(migration.name)
    )


def schema_sql(schema: str = "public") -> str:
    """All that `migrate` would do to an empty schema, for people who apply SQL themselves."""
    name = sql.Identifier(schema)
    parts: list[str] = [
        "-- prewarmkit's tables. Apply with psql -v ON_ERROR_STOP=1, not in one transaction: it has its own.",
        *(
            []
            if schema == "public"
            else [sql.SQL("CREATE SCHEMA IF NOT EXISTS {};").format(name).as_string(None)]
        ),
        sql.SQL(_LEDGER).format(schema=name).as_string(None) + ";",
    ]
    for migration in migrations_for(schema):
        body = migration.sql.strip()
        note = _noted(schema, migration).as_string(None)
        is_one = not migration.is_concurrent
        parts.append(
            f"-- {migration.name}\n"
            + "\n".join([*(["BEGIN;"] if is_one else []), body, f"{note};", *(["COMMIT;"] if is_one else [])])
        )
    return "\n\n".join(parts) + "\n"
