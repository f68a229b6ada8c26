"""The pool of an application without an event loop: one module that views, commands and workers import.

Importing it opens nothing, so a server may import it before it forks. Each process that serves
calls `open_pool` once, after the fork.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack

from prewarmkit import BadHandle, MediaNotReady
from prewarmkit.blocking import PrewarmPool
from prewarmkit.sources import DirectorySource
from prewarmkit.stores import SqliteStore
from prewarmkit.targets import TelegramTarget

source = DirectorySource(os.environ["MEDIA_ROOT"])  # or R2Client(...)
store = SqliteStore(os.environ["PREWARM_DB"])  # or PostgresStore(dsn), for many machines
bot = TelegramTarget(
    os.environ["BOT_TOKEN"],
    warmup_chats=[int(os.environ["WARMUP_CHAT"])],
    api_base=os.environ.get("BOT_API", "https://api.telegram.org"),
)
pool = PrewarmPool(source, bot, store)  # not entered, and nor is what it is given


def open_pool() -> None:
    """Open the pool of this process; it is left when the process ends, and lets its workers finish."""
    stack = ExitStack()
    stack.enter_context(pool)
    atexit.register(stack.close)


def deliver(chat_id: int, key: str) -> float | None:
    """Send a medium that is warm; give the seconds after which to ask again where it is not.

    Raises:
        BadHandle: The bot refuses the handle; the medium is being warmed anew.
    """
    try:
        handle = pool.require(key)  # cold: it is put in front of the queue
    except MediaNotReady as cold:
        return cold.retry_after or 5.0
    try:
        pool.call(bot.send, chat_id, handle)
    except BadHandle:
        pool.invalidate(handle)
        raise
    return None
