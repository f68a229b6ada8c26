"""What every test shares: both event loops."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("prewarmkit.testing.contracts")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each asynchronous test on both event loops; a module pins one by overriding this."""
    return str(request.param)
