"""A call whose task asyncio itself cancels goes on in its thread: nothing else may touch its connection meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from prewarmkit.stores.sqlite_db import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # trio's cancellation has no way through a shield


class Work:
    """Holds its connection until it may go on; then says what it found."""

    def __init__(self) -> None:
        self.has_begun, self.may_end, self.found = threading.Event(), threading.Event(), list[object]()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.has_begun.set()
        self.may_end.wait(10)
        if connection.in_transaction:
            connection.execute("INSERT INTO t VALUES ('first')")
        self.found += connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


async def abandoned(task: asyncio.Task[None], work: Work) -> None:
    """Cancel a call while its thread is at work, and see it leave."""
    await asyncio.to_thread(work.has_begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("call", ["read", "write"])
async def test_closing_waits_for_the_thread_of_a_call_that_was_cancelled(tmp_path: Path, call: str) -> None:
    """A connection that is closed while it is being read crashes the process."""
    database, work = Database(tmp_path / "t.db"), Work()
    await database.open()
    await database.write(lambda connection: connection.execute("CREATE TABLE t (x)"))
    await abandoned(asyncio.create_task(getattr(database, call)(work)), work)
    closing = asyncio.create_task(database.close())
    done, _ = await asyncio.wait({closing}, timeout=0.2)
    assert not done
    work.may_end.set()
    await closing
    assert work.found == [1]


async def test_a_write_waits_for_the_thread_of_one_that_was_cancelled(tmp_path: Path) -> None:
    """Two transactions on one connection would be one, or none."""
    database, work = Database(tmp_path / "t.db"), Work()
    await database.open()
    await database.write(lambda connection: connection.execute("CREATE TABLE t (x)"))
    await abandoned(asyncio.create_task(database.write(work)), work)

    def second(connection: sqlite3.Connection) -> list[str]:
        connection.execute("INSERT INTO t VALUES ('second')")
        return [row[0] for row in connection.execute("SELECT x FROM t")]

    writing = asyncio.create_task(database.write(second))
    done, _ = await asyncio.wait({writing}, timeout=0.2)
    assert not done
    work.may_end.set()
    assert await writing == ["first", "second"]
    await database.close()
