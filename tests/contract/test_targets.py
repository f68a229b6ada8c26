"""Every target passes one contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from prewarmkit.targets import EdgeTarget, TelegramTarget
from prewarmkit.testing.botapi import BotApiServer
from prewarmkit.testing.contracts.target import MemorySource, TargetContract
from prewarmkit.testing.edge import EdgeServer, Rules


class TestTelegramTarget(TargetContract):
    secrets = ("AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0",)

    @pytest.fixture
    def server(self) -> Iterator[BotApiServer]:
        with BotApiServer() as server:
            yield server

    @pytest.fixture
    async def target(self, server: BotApiServer) -> AsyncIterator[TelegramTarget]:
        target = TelegramTarget(server.token, warmup_chats=[-1001, -1002], api_base=server.url, budget=None)
        async with target:
            yield target


class TestEdgeTarget(TargetContract):
    reads_bytes = False

    @pytest.fixture
    def server(self, source: MemorySource) -> Iterator[EdgeServer]:
        with EdgeServer(rules=Rules(caches_everything=True)) as server:
            for key, body in source.objects.items():
                server.put(key, body)
            yield server

    @pytest.fixture
    async def target(self, server: EdgeServer) -> AsyncIterator[EdgeTarget]:
        async with EdgeTarget(server.url, verify_delays=(0, 0, 0)) as target:
            yield target
