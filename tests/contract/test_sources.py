"""Every source keeps the same contract. R2Client's turn is among the integration tests."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from memory_source import MemorySource

from prewarmkit.sources import DirectorySource, MediaSource, SpooledSource
from prewarmkit.testing.contracts.source import SourceContract

pytestmark = pytest.mark.anyio


class TestDirectorySource(SourceContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.roots = (tmp_path / f"root-{number}" for number in itertools.count())

    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        root = next(self.roots)
        root.mkdir()
        for key, content in objects.items():
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(content)
        yield DirectorySource(root)


class TestSpooledSourceOverADirectory(TestDirectorySource):
    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        async with super().source(objects) as wrapped, SpooledSource(wrapped, next(self.roots)) as source:
            yield source


class TestSpooledSourceOverMemory(SourceContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.spool = tmp_path / "spool"

    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        async with SpooledSource(MemorySource(objects), self.spool) as source:
            yield source


class TestSpooledSourceWithoutRoom(TestSpooledSourceOverMemory):
    """All that is larger than a byte is passed through."""

    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        async with SpooledSource(MemorySource(objects), self.spool, max_bytes=1) as source:
            yield source


class TestMemorySource(SourceContract):
    """The stand-in that others are tested over is a source itself."""

    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        yield MemorySource(objects)
