"""Every store passes one contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prewarmkit.stores import MemoryStore, SqliteStore
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.store import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock) -> AsyncIterator[MemoryStore]:
        async with MemoryStore(clock=clock) as store:
            yield store


class TestSqliteStore(StoreContract):
    @pytest.fixture
    async def store(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        async with SqliteStore(tmp_path / "prewarm.db", clock=clock) as store:
            yield store
