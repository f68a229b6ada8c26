"""A real pgbouncer in transaction mode before a test's database, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from prewarmkit.testing import postgres_runner
from prewarmkit.testing.processes import free_ports

__all__ = ["pgbouncer"]

_START_SECONDS = 10


@contextmanager
def pgbouncer(dsn: str, *, servers: int = 3) -> Generator[str]:
    """The connection string of a pgbouncer that shares a few of the server's connections by transaction.

    Skips the test, and says why, where there is no pgbouncer or it has no user to run as.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer here: apt-get install pgbouncer")
    account = _unprivileged()
    with tempfile.TemporaryDirectory(prefix="prewarmkit-pgb-") as folder:
        home, port = Path(folder), free_ports(1)[0]
        _configure(home, dsn, port, servers)
        if account is not None:
            for path in (home, *home.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        ids = ("-", "-") if account is None else (str(account.pw_uid), str(account.pw_gid))
        command = [program, "--quiet", str(home / "pgbouncer.ini")]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", postgres_runner.__file__, *ids, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        via = make_conninfo(dsn, host="127.0.0.1", port=port)
        try:
            _wait_until_ready(process, via, home / "log")
            yield via
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom it runs as, since it refuses root; ``None``: as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("pgbouncer does not run as root, and there is no user named nobody")


def _configure(home: Path, dsn: str, port: int, servers: int) -> None:
    known = conninfo_to_dict(dsn)
    users = home / "users"
    users.touch(mode=0o600)
    users.write_text(f'"{known["user"]}" "{known.get("password", "")}"\n')
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": users,
        "pool_mode": "transaction",
        "default_pool_size": servers,
        "max_client_conn": 200,
    }
    lines = ["[databases]", f"* = host={known['host']} port={known['port']}", "[pgbouncer]"]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    (home / "pgbouncer.ini").write_text("\n".join(lines) + "\n")


def _wait_until_ready(process: subprocess.Popen[bytes], via: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(via, connect_timeout=2).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"pgbouncer does not serve. Its last words:\n{log.read_text(errors='replace')}")
            time.sleep(0.03)
        else:
            return
