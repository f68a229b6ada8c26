"""An older PostgreSQL that we test on too, where it is installed beside the one that comes with the tests."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prewarmkit.testing.postgres import PostgresServer

__all__ = ["older_postgres"]

_BINARIES = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def older_postgres(**settings: str) -> Generator[PostgresServer]:
    """A PostgreSQL 15; skips the test, and says why, where there is none."""
    if not (_BINARIES / "initdb").exists():
        pytest.skip(f"PostgreSQL 15 is not in {_BINARIES}: apt install postgresql-15")
    with PostgresServer(binaries=_BINARIES, settings=settings) as server:
        yield server
