"""A Bot API server for tests and the demo: real HTTP, real multipart, per-bot handles, faults on demand.

::

    with BotApiServer() as server:
        target = TelegramTarget(server.token, warmup_chats=[-1001], api_base=server.url)
        server.fail(Fault(retry_after=3))
        …
        assert server.received[0].sha256 == digest

``python -m prewarmkit.testing.botapi`` runs one as a process of its own.
"""

from __future__ import annotations

try:
    import aiohttp as _aiohttp  # noqa: F401 - only whether it is there  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "The Bot API server needs aiohttp: pip install 'prewarmkit[testing]'.", name=missing.name
    ) from missing

from prewarmkit.testing.botapi.faults import Fault
from prewarmkit.testing.botapi.gates import HostedGates
from prewarmkit.testing.botapi.journal import read_journal
from prewarmkit.testing.botapi.limits import FloodLimits, most_in_window
from prewarmkit.testing.botapi.server import BotApiServer
from prewarmkit.testing.botapi.values import FAKE_BOT, Call, Fetch, Gone, Send, Upload

__all__ = [
    "FAKE_BOT",
    "BotApiServer",
    "Call",
    "Fault",
    "Fetch",
    "FloodLimits",
    "Gone",
    "HostedGates",
    "Send",
    "Upload",
    "most_in_window",
    "read_journal",
]
