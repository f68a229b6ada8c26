"""Stand-ins for the unit tests of the pool, and the end of clients of the Bot API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bot_api_client import Client

from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource


@pytest.fixture
def source() -> UnreadSource:
    return UnreadSource()


@pytest.fixture
def target() -> ScriptedTarget:
    return ScriptedTarget()


@pytest.fixture
def close_bot_clients() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().http.close()
