"""The tables of an earlier version again: what `sql --down-to` prints undoes what `migrate` did, and rows stay."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from prewarmkit.budget import Window
from prewarmkit.cli.main import main
from prewarmkit.media import Warmed
from prewarmkit.stores import Failed, PostgresStore, Succeeded
from prewarmkit.stores.postgres.going_back import down_sql
from prewarmkit.stores.postgres.queries import migrations_for
from prewarmkit.stores.postgres.verify import catalogue
from prewarmkit.testing.contracts.store import job

pytestmark = pytest.mark.anyio

ALL = [migration.name for migration in migrations_for("public")]
NEWEST = len(ALL)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_every_migration_has_its_way_back() -> None:
    """Beside `0001_what.sql` stands `0001_what.down.sql`: without it nobody could go back behind it."""
    folder = files("prewarmkit.stores.sql").joinpath("postgres")
    names = {entry.name for entry in folder.iterdir() if entry.name[:4].isdigit()}
    downs = {name for name in names if name.endswith(".down.sql")}
    assert downs == {name.removesuffix(".sql") + ".down.sql" for name in names - downs}


def run_as_psql(dsn: str, script: str) -> None:
    """Each statement by itself; the first that fails ends it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for part in script.split("\n\n"):
            for statement in [part] if part.startswith("DO ") else part.split(";\n"):
                connection.execute(statement.encode())


def make_fresh(dsn: str, schema: str, version: int) -> None:
    """The tables as that version made them."""
    place, ups = sql.Identifier(schema), migrations_for(schema, is_concurrent=False)[:version]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(place))
        if ups:
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {}.prewarm_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                    "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
                ).format(place)
            )
        for migration in ups:
            connection.execute(migration.sql.encode())
            note = sql.SQL("INSERT INTO {}.prewarm_migrations (version, name) VALUES (%s, %s)").format(place)
            connection.execute(note, [migration.number, migration.name])


REST = """
SELECT format('%%s %%s %%s', relkind, relname, CASE relkind WHEN 'v' THEN
              replace(pg_get_viewdef(oid), format('%%I.', %(name)s::text), '') END) FROM pg_class WHERE relnamespace = %(schema)s::regnamespace
UNION ALL SELECT format('function %%s', proname) FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace
UNION ALL SELECT format('trigger %%s', t.tgname) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = %(schema)s::regnamespace
UNION ALL SELECT format('type %%s', typname) FROM pg_type WHERE typnamespace = %(schema)s::regnamespace
ORDER BY 1"""


async def everything_in(dsn: str, schema: str) -> list[str]:
    """What the schema is made of, and which migrations it says were applied."""
    place = sql.Identifier(schema)
    async with await psycopg.AsyncConnection[Any].connect(dsn, autocommit=True) as connection:
        lines = await catalogue(connection, schema)
        cursor = await connection.execute(REST, {"name": schema, "schema": place.as_string(None)})
        lines += [row[0] for row in await cursor.fetchall()]
        if any(line.startswith("table prewarm_migrations") for line in lines):
            query = sql.SQL("SELECT version, name FROM {}.prewarm_migrations ORDER BY 1").format(place)
            cursor = await connection.execute(query)
            lines += [str(row) for row in await cursor.fetchall()]
    return lines


async def fill(store: PostgresStore) -> None:
    """Rows of every state; a fact; a call that was spent and a hold."""
    await store.enqueue(
        [job(key, sha256=f"sha256 of {key}") for key in ("ready", "failed", "suspect", "warming")]
    )
    leases = {lease.id.key: lease for lease in (await store.turn(lease=3)).leased}
    await store.turn([Succeeded(leases["ready"], Warmed("H")), Failed(leases["failed"], "too_large: 3 GB")])
    await store.heartbeat([leases["suspect"]], 0)
    await store.turn()
    assert [lease.id.key for lease in (await store.turn(lease=1)).leased] == ["warming"]
    await store.enqueue([job("waiting"), job("delayed", delay=3600), job("ready", sha256="another")])
    await store.state("bot").put("moved", "-100")
    await store.budget("bot").take({"chat:1": [Window(1, 60)]})
    await store.budget("bot").hold("chat:2", 100)


def rows_in(dsn: str, schema: str) -> dict[str, list[dict[str, Any]]]:
    """All rows by table; but for a row's place in the queue, which each version may write in its own way."""
    found: dict[str, list[dict[str, Any]]] = {}
    with psycopg.connect(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
        for table in ("media_cache", "prewarm_state", "prewarm_budget"):
            name = sql.Identifier(schema, table)
            cursor.execute("SELECT FROM pg_class WHERE oid = to_regclass(%s)", [name.as_string(None)])
            if cursor.rowcount == 0:
                continue
            rows = cursor.execute(sql.SQL("SELECT * FROM {}").format(name)).fetchall()
            kept = [{key: value for key, value in row.items() if key != "rank"} for row in rows]
            found[table] = sorted(kept, key=str)
    return found


def without_columns(rows: list[dict[str, Any]], columns: set[str]) -> list[dict[str, Any]]:
    return sorted(({key: row[key] for key in sorted(columns)} for row in rows), key=str)


@pytest.mark.parametrize("to", range(NEWEST))
async def test_going_back_makes_the_tables_of_that_version_and_keeps_its_rows(
    postgres_dsn: str, to: int
) -> None:
    """Then up again: the tables of this version, with the same rows, and work goes on."""
    make_fresh(postgres_dsn, "fresh", to)
    async with PostgresStore(postgres_dsn, schema="s", auto_migrate=True) as store:
        await fill(store)
        before = rows_in(postgres_dsn, "s")
        run_as_psql(postgres_dsn, down_sql("s", to=to))
        assert await everything_in(postgres_dsn, "s") == await everything_in(postgres_dsn, "fresh")
        after = rows_in(postgres_dsn, "s")
        assert set(after) == set(rows_in(postgres_dsn, "fresh"))
        for table, rows in after.items():
            columns = set(rows[0])
            assert without_columns(rows, columns) == without_columns(before[table], columns)
        assert await store.migrate() == ALL[to:]
        assert await store.verify() == []
        again = rows_in(postgres_dsn, "s")
        for table, rows in after.items():
            assert without_columns(again[table], set(rows[0])) == without_columns(rows, set(rows[0]))
        if to > 0:
            leased = {lease.id.key for lease in (await store.turn(lease=9)).leased}
            assert leased == {"suspect", "waiting", "ready"}
            assert (await store.lookup_many([job("ready").id]))[job("ready").id].handle is not None


@pytest.mark.parametrize("to", range(1, NEWEST))
async def test_a_script_that_broke_off_is_run_again_from_its_start(postgres_dsn: str, to: int) -> None:
    """After any of its parts, and after all of them."""
    make_fresh(postgres_dsn, "fresh", to)
    script = down_sql("s", to=to)
    parts = script.split("\n\n")
    async with PostgresStore(postgres_dsn, schema="s", auto_migrate=True) as store:
        for done in range(len(parts)):
            run_as_psql(postgres_dsn, "\n\n".join(parts[: done + 1]))
            run_as_psql(postgres_dsn, script)
            assert await everything_in(postgres_dsn, "s") == await everything_in(postgres_dsn, "fresh")
            await store.migrate()


async def test_a_script_of_an_earlier_version_leaves_newer_tables_alone(postgres_dsn: str) -> None:
    """It does not know what came after it."""
    async with PostgresStore(postgres_dsn, auto_migrate=True):
        pass
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO prewarm_migrations (version, name) VALUES (9999, 'x')")
    before = await everything_in(postgres_dsn, "public")
    with pytest.raises(
        psycopg.errors.RaiseException, match=rf"at version 9999, this script begins at {NEWEST}"
    ):
        run_as_psql(postgres_dsn, down_sql(to=1))
    assert await everything_in(postgres_dsn, "public") == before


async def test_a_hosts_own_view_of_the_tables_stops_the_part_that_would_take_it_along(
    postgres_dsn: str,
) -> None:
    """Nothing is dropped that is not ours, and of a part all or nothing: here the table goes before the sequence."""
    async with PostgresStore(postgres_dsn, schema="s", auto_migrate=True) as store:
        await fill(store)
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("CREATE VIEW mine AS SELECT last_value FROM s.media_cache_token")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            run_as_psql(postgres_dsn, down_sql("s", to=0))
        assert await store.migrate() == ALL[1:]
        assert len(rows_in(postgres_dsn, "s")["media_cache"]) == 6


@pytest.mark.parametrize(
    "schema", ["Mixed Case", 'quo"te', "per%cent", "{brace}", "ключ", "line\nbreak", "$it's$"]
)
async def test_any_name_can_be_the_schemas(postgres_dsn: str, schema: str) -> None:
    """It is quoted wherever it stands."""
    async with PostgresStore(postgres_dsn, schema=schema, auto_migrate=True):
        pass
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        script = down_sql(schema, to=0)
        for part in script.split("\n\n"):
            if part.startswith("DO ") or "BEGIN;" in part:
                connection.execute(part.encode())
            else:
                for statement in part.split(";\n"):
                    connection.execute(statement.encode())
    assert await everything_in(postgres_dsn, schema) == []


def test_the_command_prints_the_script_and_needs_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "--schema", "s", "--down-to", "1"]) == 0
    assert capsys.readouterr().out == down_sql("s", to=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--down-to", str(NEWEST)], f"1 to {NEWEST - 1}, or 0 to remove"),
        (["--down-to", "-1"], "or 0 to remove"),
        (["--down-to", "1", "--schema", "s", "--adopt"], "ask for one"),
        (["--down-to", "x"], "invalid int"),
    ],
)
def test_a_version_that_is_none_is_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["sql", *arguments])
    assert says in capsys.readouterr().err
