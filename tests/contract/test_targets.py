"""Every target passes one contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from prewarmkit.targets import TelegramTarget
from prewarmkit.testing.botapi import BotApiServer
from prewarmkit.testing.contracts.target import TargetContract


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
