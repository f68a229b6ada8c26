"""The fast transport: llhttp's parser on asyncio's own connections. Needs ``prewarmkit[fast]``, and asyncio."""

from __future__ import annotations

import importlib.util
import ssl
from datetime import timedelta

from prewarmkit._loops import is_on_asyncio
from prewarmkit.errors import ConfigurationError
from prewarmkit.transports.direct import DirectTransport
from prewarmkit.transports.limits import Engine, Limits

__all__ = ["FastTransport"]


class FastTransport(DirectTransport):
    """Sends requests as `DirectTransport` does, at the least cost.

    Example::

        async with FastTransport(max_connections=16) as transport:
            async with R2Client(..., transport=transport) as r2:
                ...

    What differs is the parser: llhttp, that of Node.js, in C. Under trio there is none.

    Args:
        max_connections: Connections in all, over all origins; further callers wait in their order.
        connect_timeout: For opening a connection, and again for TLS.
        stall_timeout: For any single wait for bytes to go out or to come in.
        keepalive: How long an unused connection is kept.
        ssl_context: For https; ``None``: the system's and certifi's authorities, loaded at first use.

    Raises:
        prewarmkit.errors.ConfigurationError: The extra is not installed.
    """

    def __init__(
        self,
        *,
        max_connections: int = 64,
        connect_timeout: float | timedelta = 10.0,
        stall_timeout: float | timedelta = 30.0,
        keepalive: float | timedelta = 60.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if importlib.util.find_spec("httptools") is None:
            raise ConfigurationError(
                "FastTransport needs the package httptools: pip install 'prewarmkit[fast]', "
                "or use DirectTransport."
            )
        super().__init__(
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            stall_timeout=stall_timeout,
            keepalive=keepalive,
            ssl_context=ssl_context,
        )

    def _start(self, limits: Limits) -> Engine:
        if not is_on_asyncio():
            raise ConfigurationError("FastTransport runs on asyncio only: use DirectTransport under trio.")
        from prewarmkit.transports.loop.engine import LoopEngine
        from prewarmkit.transports.loop.llhttp import LlhttpAnswer

        return LoopEngine(limits, LlhttpAnswer)
