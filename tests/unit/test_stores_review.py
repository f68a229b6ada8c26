"""What a review of the stores found, kept found; rules for every store are in the contract suite."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anyio
import pytest

from prewarmkit.stores import MemoryStore, SqliteStore
from prewarmkit.testing.contracts.store import job

pytestmark = pytest.mark.anyio


async def test_many_keys_of_one_content_are_queued_in_no_more_time_than_others() -> None:
    """The look for a handle of the same content meets ready rows only, not each that waits."""
    store = MemoryStore()
    began = time.process_time()
    await store.enqueue([job(str(n), sha256="S") for n in range(10_000)], limit=20_000)
    assert time.process_time() - began < 2  # half a minute if each row met all before it


def test_a_file_is_asked_for(tmp_path: Path) -> None:
    """SQLite's name for no file would be one database for writing and another for reading."""
    del tmp_path
    with pytest.raises(ValueError, match="MemoryStore"):
        SqliteStore(":memory:")


async def test_a_store_is_entered_once_at_a_time(tmp_path: Path) -> None:
    """Entered again inside, it would lose its connections at the inner end."""
    store = SqliteStore(tmp_path / "p.db")
    for _ in range(2):
        async with store:
            with pytest.raises(RuntimeError, match="entered already"):
                await store.__aenter__()
            assert await store.counts() == {}


async def test_a_second_store_on_a_file_leaves_the_locks_of_the_first_alone(tmp_path: Path) -> None:
    """POSIX drops a process's locks on a file when it closes any descriptor of it (sqlite.org, "How To Corrupt", 2.2).

    Another process then takes itself for the last one to leave, and removes the log that the first store writes to.
    """
    path = tmp_path / "p.db"
    leave = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM media_cache'); c.close()"
    async with SqliteStore(path) as first:
        await first.enqueue([job("a")])
        async with SqliteStore(path) as second:
            await second.enqueue([job("b")])
            await anyio.run_process([sys.executable, "-c", leave, str(path)])
            assert await anyio.Path(f"{path}-wal").exists()
            await first.enqueue([job("c")])
    async with SqliteStore(path) as later:
        assert {row.id.key for row in await later.list()} == {"a", "b", "c"}
