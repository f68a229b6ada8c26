"""Fixtures for a host's own tests: ``pytest_plugins = ["prewarmkit.testing.pytest"]``.

Each server is started when a test first asks for it. Nothing here is loaded unless named so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prewarmkit.testing.botapi import BotApiServer
from prewarmkit.testing.edge import EdgeServer
from prewarmkit.testing.postgres import PostgresServer

__all__ = ["bot_api_server", "edge_server", "postgres_dsn", "postgres_server"]


@pytest.fixture
def bot_api_server() -> Iterator[BotApiServer]:
    """A Bot API server of the test's own: its `token`, its `url`, what it `received`."""
    with BotApiServer() as server:
        yield server


@pytest.fixture
def edge_server() -> Iterator[EdgeServer]:
    """A CDN edge of the test's own, with a bucket behind it: its `url`, what it was asked (`requests`)."""
    with EdgeServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole run; ``PREWARMKIT_TEST_DSN`` names another to use instead."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> str:
    """The URL of a new, empty database."""
    return postgres_server.create_database()
