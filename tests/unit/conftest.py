"""Stand-ins for the unit tests of the pool."""

from __future__ import annotations

import pytest

from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource


@pytest.fixture
def source() -> UnreadSource:
    return UnreadSource()


@pytest.fixture
def target() -> ScriptedTarget:
    return ScriptedTarget()
