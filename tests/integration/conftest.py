"""The real servers, one of each for a whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from older_postgres import older_postgres

from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.pytest import postgres_dsn, postgres_server
from prewarmkit.testing.s3 import RcloneServer, SeaweedServer

__all__ = ["postgres_dsn", "postgres_server"]


@pytest.fixture(scope="session")
def older_postgres_server() -> Iterator[PostgresServer]:
    """PostgreSQL 15, where it is installed."""
    with older_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[SeaweedServer]:
    """SeaweedFS: signatures are checked, conditions and ranges honoured."""
    with SeaweedServer() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[RcloneServer]:
    """rclone: signatures are checked; ignores conditions and answers ranges with 200."""
    with RcloneServer() as server:
        yield server
