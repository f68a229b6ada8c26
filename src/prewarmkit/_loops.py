"""Which event loop a task runs on. Knows nothing else."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["is_on_asyncio"]


def is_on_asyncio() -> bool:
    """Whether the task that calls runs on asyncio; trio may run as a guest of its loop, and is asked first."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
