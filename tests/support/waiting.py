"""Waiting for what happens, in tests that cannot be told of it."""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ["eventually"]


async def eventually(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    """Wait until it holds.

    Raises:
        TimeoutError: It did not, within ``timeout`` seconds.
    """
    with anyio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds, from outside
            await anyio.sleep(0.002)
