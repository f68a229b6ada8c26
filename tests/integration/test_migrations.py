"""The schema in PostgreSQL: made, upgraded, compared, refused, printed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import sql

from prewarmkit import ConfigurationError, SchemaMissing, SchemaTooNew, SchemaTooOld, StoreError
from prewarmkit.cli.main import main
from prewarmkit.stores import Enqueued, PostgresStore
from prewarmkit.stores.postgres.queries import migrations_for
from prewarmkit.stores.postgres.schema import schema_sql
from prewarmkit.stores.postgres.verify import catalogue, expected_catalogue
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.postgres import PostgresServer

pytestmark = pytest.mark.anyio

KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
ALL = [migration.name for migration in migrations_for("public")]


ON_EACH_SERVER = pytest.mark.parametrize(
    "postgres_dsn",
    [
        pytest.param("postgres_server", id="server of the tests"),
        pytest.param("older_postgres_server", id="PostgreSQL 15"),
    ],
    indirect=True,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def postgres_dsn(request: pytest.FixtureRequest) -> str:
    """The URL of a new, empty database, on whichever server the test is to run on."""
    server: PostgresServer = request.getfixturevalue(getattr(request, "param", "postgres_server"))
    return server.create_database()


def run(dsn: str, *statements: str) -> None:
    """Run statements."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def lines(dsn: str, schema: str = "public") -> list[str]:
    """What the catalogue says."""
    async with await psycopg.AsyncConnection[Any].connect(dsn, autocommit=True) as connection:
        return await catalogue(connection, schema)


@ON_EACH_SERVER
async def test_a_fresh_install_is_what_the_catalogue_file_says(postgres_dsn: str) -> None:
    """To renew `catalogue.txt`: put what this test finds into it."""
    async with PostgresStore(postgres_dsn) as store:
        assert await store.migrate() == ALL
        assert await store.verify() == []
    assert await lines(postgres_dsn) == expected_catalogue()


@ON_EACH_SERVER
@pytest.mark.parametrize("version", range(1, len(ALL)))
async def test_an_upgrade_from_each_version_equals_a_fresh_install(postgres_dsn: str, version: int) -> None:
    """And the rows that were there stay."""
    old = migrations_for("public", is_concurrent=False)[:version]
    run(
        postgres_dsn,
        "CREATE TABLE prewarm_migrations (version integer PRIMARY KEY, name text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())",
        *[migration.sql for migration in old],
        *[
            f"INSERT INTO prewarm_migrations (version, name) VALUES ({each.number}, '{each.name}')"
            for each in old
        ],
        "INSERT INTO media_cache (target, media_key, kind, priority, due_at, updated_at, rank, state) "
        "VALUES ('bot', 'a.png', 'photo', 5, now(), now(), now(), 'pending')",
        "INSERT INTO media_cache (target, media_key, kind, priority, due_at, updated_at, state, token, attempts, leased_at, "
        "lease_until) SELECT 'bot', key, 'photo', 5, now(), now(), 'warming', 1, 1, now(), now() + span FROM (VALUES "
        "('held.png', interval '1 hour'), ('left.png', interval '-1 second')) AS given (key, span)",
    )
    async with PostgresStore(postgres_dsn) as store:
        with pytest.raises(SchemaTooOld, match="python -m prewarmkit migrate"):
            await store.check_schema()
        assert await store.migrate(dry_run=True) == ALL[version:]
        assert await store.migrate() == ALL[version:]
        assert await store.migrate() == []
        await store.check_schema()
        leases = (await store.turn(lease=9)).leased
        assert [(lease.id.key, lease.attempt) for lease in leases] == [("a.png", 1), ("left.png", 2)]
    assert await lines(postgres_dsn) == expected_catalogue()


async def test_a_dry_run_touches_nothing(postgres_dsn: str) -> None:
    async with PostgresStore(postgres_dsn) as store:
        assert await store.migrate(dry_run=True) == ALL
        with pytest.raises(SchemaMissing, match="migrate"):
            await store.check_schema()
        with pytest.raises(SchemaMissing, match="schema="):
            await store.counts()


async def test_a_newer_schema_is_refused(postgres_dsn: str) -> None:
    """An old process must not write into tables that it does not know."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        run(postgres_dsn, "INSERT INTO prewarm_migrations (version, name) VALUES (9999, 'x')")
        with pytest.raises(SchemaTooNew, match="upgrade prewarmkit"):
            await store.check_schema()
        with pytest.raises(SchemaTooNew):
            await store.migrate()


async def test_a_newer_schema_is_refused_before_the_first_change(postgres_dsn: str) -> None:
    """Also by a process that only enqueues, without a pool; it looks once, not at each call."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        assert await store.enqueue([job("a.png")]) == [Enqueued.QUEUED]
        run(postgres_dsn, "INSERT INTO prewarm_migrations (version, name) VALUES (9999, 'x')")
        assert await store.enqueue([job("b.png")]) == [Enqueued.QUEUED]
    async with PostgresStore(postgres_dsn) as store:
        for change in (
            lambda: store.enqueue([job("c.png")]),
            lambda: store.turn(lease=1),
            store.requeue,
            lambda: store.budget("bot").hold("chat", 1),
            lambda: store.state("bot").put("key", "value"),
        ):
            with pytest.raises(SchemaTooNew, match="upgrade prewarmkit"):
                await change()
        assert sum((await store.counts()).values()) == 2


async def test_a_newer_schema_is_refused_once_the_server_was_away(postgres_dsn: str) -> None:
    """An upgrade may be why it was: what a store had found does not hold for the connections that it makes then."""
    async with PostgresStore(postgres_dsn, auto_migrate=True, notify=False) as store:
        assert await store.enqueue([job("a.png")]) == [Enqueued.QUEUED]
        run(postgres_dsn, "INSERT INTO prewarm_migrations (version, name) VALUES (9999, 'x')", KILL)
        with pytest.raises((StoreError, SchemaTooNew)):  # it notices now, or has noticed already
            await store.enqueue([job("b.png")])
        with pytest.raises(SchemaTooNew, match="upgrade prewarmkit"):
            await store.enqueue([job("b.png")])
        assert sum((await store.counts()).values()) == 1


async def test_somebody_elses_table_is_left_alone(postgres_dsn: str) -> None:
    """The message names schema= and where the script is."""
    run(postgres_dsn, "CREATE TABLE media_cache (bot_slug text, sha256 text, kind text)")
    async with PostgresStore(postgres_dsn) as store:
        for call in (store.migrate, store.check_schema):
            with pytest.raises(ConfigurationError, match=r"schema=.*docs/adopt\.md"):
                await call()
    async with PostgresStore(postgres_dsn, schema="prewarm", auto_migrate=True) as store:
        assert await store.verify() == []


@pytest.mark.parametrize("schema", ["Mixed Case", 'quo"te', "per%cent", "{brace}", "ключ", "drop table"])
async def test_any_name_can_be_the_schemas(postgres_dsn: str, schema: str) -> None:
    """It is quoted wherever it stands."""
    async with PostgresStore(postgres_dsn, schema=schema, auto_migrate=True) as store:
        await store.enqueue([job()])
        assert len((await store.turn(lease=1)).leased) == 1
        assert await store.verify() == []
    assert await lines(postgres_dsn) == []


@ON_EACH_SERVER
async def test_many_processes_may_migrate_at_once(postgres_dsn: str) -> None:
    """One does it, the others find it done."""
    stores = [PostgresStore(postgres_dsn, schema="together") for _ in range(6)]
    applied: list[list[str]] = []

    async def migrate(store: PostgresStore) -> None:
        async with store:
            await store.migrate()
            applied.append(await store.verify())

    async with anyio.create_task_group() as group:
        for store in stores:
            group.start_soon(migrate, store)
    assert applied == [[]] * 6


@ON_EACH_SERVER
async def test_an_index_that_was_left_half_built_is_built_again(postgres_dsn: str) -> None:
    """CREATE INDEX CONCURRENTLY that broke off leaves an invalid one under the name."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        run(
            postgres_dsn,
            "DELETE FROM prewarm_migrations WHERE version >= 5",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_media_cache_failed'::regclass",
        )
        assert await store.migrate() == ALL[4:]
        assert await store.verify() == []


async def test_an_invalid_index_of_somebody_elses_is_left_alone(postgres_dsn: str) -> None:
    """Somebody may be building it at this moment."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        run(
            postgres_dsn,
            "CREATE INDEX theirs ON media_cache (size)",
            "DELETE FROM prewarm_migrations WHERE version >= 5",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('theirs'::regclass, 'ix_media_cache_failed'::regclass)",
        )
        assert await store.migrate() == ALL[4:]
        assert await store.verify() == [
            "+ index CREATE INDEX theirs ON media_cache USING btree (size) (invalid)"
        ]


def test_a_migration_that_runs_outside_of_a_transaction_is_named_after_the_index_that_it_builds() -> None:
    """So that an attempt that broke off can be cleared away, and nothing else."""
    concurrent = [migration for migration in migrations_for("public") if migration.is_concurrent]
    assert concurrent
    for migration in concurrent:
        assert f"INDEX CONCURRENTLY IF NOT EXISTS {migration.name[5:]} ON" in migration.sql
        assert migration.sql.count(" INDEX ") == 1


@ON_EACH_SERVER
async def test_verify_compares_what_the_view_counts(postgres_dsn: str) -> None:
    """Not its columns alone."""
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            row = connection.execute("SELECT pg_get_viewdef('media_warming_stats'::regclass)").fetchone()
            assert row is not None
            changed = row[0].replace("'warming'", "'ready'")
            connection.execute(f"CREATE OR REPLACE VIEW media_warming_stats AS {changed}".encode())
        missing, other = await store.verify()
        assert missing.startswith("- view media_warming_stats AS SELECT")
        assert other == missing.replace("- ", "+ ", 1).replace("'warming'", "'ready'")


async def test_verify_says_what_differs(postgres_dsn: str) -> None:
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        run(
            postgres_dsn,
            "DROP INDEX ix_media_cache_due",
            "ALTER TABLE media_cache ADD COLUMN mine int",
            "ALTER TABLE media_cache DROP CONSTRAINT media_cache_state",
        )
        found = await store.verify()
        assert [line.split()[:3] for line in found] == [
            ["-", "constraint", "media_cache.media_cache_state"],
            ["-", "index", "CREATE"],
            ["+", "column", "media_cache.mine"],
        ]


@ON_EACH_SERVER
async def test_the_printed_sql_makes_what_migrate_makes(postgres_dsn: str) -> None:
    """For whoever applies SQL by other means: piece by piece, as psql would."""
    in_transactions, mark, outside = schema_sql("by hand").partition("-- 0005")
    run(postgres_dsn, in_transactions, *(mark + outside).strip().split(";\n"))
    async with PostgresStore(postgres_dsn, schema="by hand") as store:
        assert await store.migrate() == []
        assert await store.verify() == []


@ON_EACH_SERVER
async def test_the_view_counts_rows_by_target_and_kind(postgres_dsn: str) -> None:
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        await store.enqueue([job("1"), job("2"), job("3", delay=60)])
        await store.turn(lease=1)
    with psycopg.connect(postgres_dsn) as connection:
        row = connection.execute(
            "SELECT target, kind, pending, delayed, warming, ready, failed FROM media_warming_stats"
        ).fetchone()
    assert row == ("bot", "document", 2, 1, 1, 0, 0)


# ── the command line ─────────────────────────────────────────────────────────


def test_the_commands_make_compare_and_print(postgres_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    """migrate, again, verify, a difference, sql."""
    assert main(["migrate", postgres_dsn, "--schema", "s", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"would apply {name}" for name in ALL]
    assert main(["verify", postgres_dsn, "--schema", "s"]) == 1
    assert "python -m prewarmkit migrate DSN" in capsys.readouterr().err
    assert main(["migrate", postgres_dsn, "--schema", "s"]) == 0
    assert main(["migrate", postgres_dsn, "--schema", "s"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "up to date"
    assert main(["verify", postgres_dsn, "--schema", "s"]) == 0
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP VIEW s.media_warming_stats"))
    assert main(["verify", postgres_dsn, "--schema", "s"]) == 1
    capsys.readouterr()
    assert main(["sql", "--schema", "s"]) == 0
    assert capsys.readouterr().out == schema_sql("s")


def test_a_command_that_fails_says_why_without_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "postgresql://u:s3cret@127.0.0.1:1/x"]) == 1
    said = capsys.readouterr()
    assert "127.0.0.1:1/x" in said.err
    assert "s3cret" not in said.out + said.err


def test_help_loads_no_database_driver() -> None:
    """The command line answers fast."""
    code = "import sys; from prewarmkit.cli.main import main; main(['sql', '--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "psycopg" not in done.stderr
