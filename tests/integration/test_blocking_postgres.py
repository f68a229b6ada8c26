"""The blocking pool on PostgreSQL: a web process that queues, a worker process that warms, one table."""

from __future__ import annotations

import time

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from prewarmkit import Enqueued, MediaNotReady, PoolSettings, SchemaMissing
from prewarmkit.blocking import PrewarmPool
from prewarmkit.stores import PostgresStore
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource


def test_a_web_process_queues_in_its_own_transaction_and_a_worker_warms(postgres_dsn: str) -> None:
    """The worker hears of it when the transaction is committed, and the figures are everybody's."""
    store = PostgresStore(postgres_dsn)
    with pytest.raises(SchemaMissing), PrewarmPool(UnreadSource(), ScriptedTarget(), store):
        pytest.fail("it was entered")

    worker_target, web_target = ScriptedTarget(), ScriptedTarget()
    worker = PrewarmPool(
        UnreadSource(),
        worker_target,
        PostgresStore(postgres_dsn, auto_migrate=True),
        settings=PoolSettings(poll_interval_seconds=30),
    )
    web = PrewarmPool(UnreadSource(), web_target, store, settings=PoolSettings(autostart=False))
    with worker, web, psycopg.connect(postgres_dsn) as connection:
        assert store.enqueue_in_sync(connection, "a.png", target=web_target) is Enqueued.QUEUED
        assert web.lookup("a.png") is None
        connection.commit()
        web.join(timeout=10)
        assert web.require("a.png").value == "H:a.png:1"
        with pytest.raises(MediaNotReady):
            web.require("b.png")
        assert web.warm("b.png", timeout=10).value == "H:b.png:1"
        assert sum(web.counts().values()) == 2
    assert (worker_target.calls, web_target.calls) == (["a.png", "b.png"], [])
    until_nobody_is_connected(postgres_dsn)


def test_a_psycopg_pool_of_the_hosts_is_opened_and_closed_as_a_resource(postgres_dsn: str) -> None:
    connections = AsyncConnectionPool(postgres_dsn, open=False)
    store = PostgresStore(connections, auto_migrate=True)
    with PrewarmPool(UnreadSource(), ScriptedTarget(), store, resources=[connections]) as pool:
        assert pool.warm("a.png", timeout=10).value == "H:a.png:1"
    assert connections.closed
    until_nobody_is_connected(postgres_dsn)


def until_nobody_is_connected(dsn: str) -> None:
    """The server notices in its own time."""
    deadline = time.monotonic() + 10
    with psycopg.connect(dsn, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchone()
            if row == (0,):
                return
            assert time.monotonic() < deadline, row
            time.sleep(0.02)
