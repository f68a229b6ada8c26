"""The PostgreSQL server of prewarmkit.testing: fresh databases, crashes, other people's servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from older_postgres import older_postgres
from psycopg.conninfo import conninfo_to_dict

from prewarmkit.errors import ConfigurationError
from prewarmkit.testing.postgres import PostgresServer


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _one(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> PostgresServer:
    """A server of this test's own, whatever the environment says."""
    monkeypatch.delenv("PREWARMKIT_TEST_DSN", raising=False)
    return PostgresServer()


def test_each_test_gets_an_empty_database_of_its_own(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    _one(postgres_dsn, "CREATE TABLE mine (n int)")
    other = postgres_server.create_database()
    assert other != postgres_dsn
    assert _one(other, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == 0


def test_it_is_postgresql_18(own_server: PostgresServer) -> None:
    with own_server:
        version = _one(own_server.dsn, "SHOW server_version_num")
    assert 180_000 <= int(str(version)) < 190_000


def test_another_version_is_started_where_its_binaries_are_named(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever server the environment names: a test that asks for 15 means 15."""
    monkeypatch.setenv("PREWARMKIT_TEST_DSN", postgres_dsn)
    with older_postgres() as server:
        version = _one(server.dsn, "SHOW server_version_num")
    assert 150_000 <= int(str(version)) < 160_000


def test_committed_rows_survive_a_crash(own_server: PostgresServer) -> None:
    with own_server:
        dsn = own_server.create_database()
        _one(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        own_server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn).close()
        own_server.start()
        assert _one(dsn, "SELECT n FROM kept") == 7


def test_nothing_is_left_behind(own_server: PostgresServer) -> None:
    with own_server:
        pid = own_server.pid
        directory = Path(str(_one(own_server.dsn, "SHOW data_directory")))
        assert directory.exists()
    assert not directory.parent.exists()
    assert not _is_running(pid)


def test_it_asks_for_its_password(own_server: PostgresServer) -> None:
    with own_server:
        password = str(conninfo_to_dict(own_server.dsn)["password"])
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(own_server.dsn.replace(password, "guess")).close()
        assert password not in repr(own_server)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="as root the directory must be open to the account that PostgreSQL gets"
)
def test_a_given_directory_may_have_a_space_and_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _try_directory(tmp_path / ("a b " + "x" * 120), monkeypatch)


@pytest.mark.skipif(os.geteuid() != 0, reason="root's way of the test above")
def test_a_directory_given_by_root_may_have_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        _try_directory(Path(place) / ("a b " + "x" * 120), monkeypatch)


def _try_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREWARMKIT_TEST_DSN", raising=False)
    directory.mkdir()
    with PostgresServer(directory) as server:
        assert _one(server.dsn, "SELECT 1") == 1
    assert (directory / "data" / "PG_VERSION").exists(), "what was given is not removed"


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="directory: there is no directory"):
        PostgresServer(tmp_path / "nowhere")


def test_another_server_is_used_and_left_as_it_was(own_server: PostgresServer) -> None:
    with own_server:
        with PostgresServer(dsn=own_server.dsn) as other:
            dsn = other.create_database()
            assert _one(dsn, "SELECT 1") == 1
            with pytest.raises(RuntimeError, match="not started here"):
                other.kill()
        count = "SELECT count(*) FROM pg_database WHERE datname LIKE 'prewarmkit%'"
        assert _one(own_server.dsn, count) == 0


def test_the_environment_names_another_server(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server:
        monkeypatch.setenv("PREWARMKIT_TEST_DSN", own_server.dsn)
        with PostgresServer() as other:
            assert conninfo_to_dict(other.dsn) == conninfo_to_dict(own_server.dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=/run/postgresql user=me dbname=app",
        "postgresql://me:p%40ss@db.example:6432/app?sslmode=require&connect_timeout=5",
        "host=a,b port=1,2 dbname=app",
        r"dbname='app of mine' user='o\'neil'",
    ],
)
def test_any_form_of_dsn_is_understood(dsn: str) -> None:
    with PostgresServer(dsn=dsn) as server:
        assert conninfo_to_dict(server.dsn) == conninfo_to_dict(dsn)


def test_a_dsn_that_is_none_is_refused_without_being_repeated() -> None:
    with (
        pytest.raises(ConfigurationError, match="PREWARMKIT_TEST_DSN") as refused,
        PostgresServer(dsn="secret"),
    ):
        pass
    assert "secret" not in str(refused.value)


@pytest.mark.anyio
async def test_it_works_in_an_event_loop(own_server: PostgresServer) -> None:
    async with own_server as server:
        assert server.create_database().startswith("postgresql://")


def test_the_server_goes_when_its_owner_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill -9 of the process that started it leaves no server behind."""
    monkeypatch.delenv("PREWARMKIT_TEST_DSN", raising=False)
    code = (
        "import time\n"
        "from prewarmkit.testing.postgres import PostgresServer\n"
        "with PostgresServer() as server:\n"
        "    print(server.pid, server._home, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, home = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)
    try:
        end = time.monotonic() + 10
        while _is_running(int(pid)):
            assert time.monotonic() < end, "PostgreSQL outlived its owner"
            time.sleep(0.05)
    finally:
        subprocess.run(["rm", "-rf", home], check=True)
