"""Every store passes one contract suite."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from prewarmkit.stores import MediaStore, MemoryStore, PostgresStore, SqliteStore
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.store import StoreContract
from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.postgres_time import shift_rows


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[MemoryStore]:
        async with MemoryStore(clock=clock) as store:
            yield store


class TestSqliteStore(StoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        async with SqliteStore(tmp_path / "prewarm.db", clock=clock) as store:
            yield store


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """One server for the whole run, one database."""
    with PostgresServer() as server:
        yield server.create_database()


class TestPostgresStore(StoreContract):
    """On a real server, each test in a schema of its own; time passes by shifting its rows' times."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock(now=time.time())

    @pytest.fixture
    def schema(self, dsn: str) -> Iterator[str]:
        name = f"it's a {secrets.token_hex(4)}"
        yield name
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))

    @pytest.fixture
    async def store(self, dsn: str, schema: str) -> AsyncIterator[PostgresStore]:
        async with PostgresStore(dsn, schema=schema, auto_migrate=True) as store:
            self.moved = (dsn, schema)
            yield store

    async def advance(self, store: MediaStore, clock: FakeClock, seconds: float) -> None:
        del store
        dsn, schema = self.moved
        shift_rows(dsn, seconds, schema=schema)
        clock.advance(seconds)


OLDER = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def older_dsn() -> Iterator[str]:
    with PostgresServer(binaries=OLDER) as server:
        yield server.create_database()


@pytest.mark.skipif(
    not (OLDER / "initdb").exists(), reason=f"PostgreSQL 15 is not in {OLDER}: apt install postgresql-15"
)
class TestPostgresStoreOnPostgres15(TestPostgresStore):
    """An older server: without skip scans, and with other plans."""

    @pytest.fixture
    def dsn(self, older_dsn: str) -> str:
        return older_dsn
