"""The default transport, and what `FastTransport` has in common with it.

Owns the life of a transport, between entering and leaving. What sends is an engine: asyncio's own
connections and h11 (`prewarmkit.transports.loop`), or, on trio, httpcore's (`portable`). Knows nothing of
signatures, retries of answers, redirects or cookies.
"""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from types import TracebackType
from typing import Self

from prewarmkit._loops import is_on_asyncio
from prewarmkit.transports.base import Request, Response
from prewarmkit.transports.limits import Engine, Limits, TransportStatistics
from prewarmkit.transports.prepared import prepare

__all__ = ["DirectTransport", "TransportStatistics"]


class DirectTransport:
    """Sends requests over connections of its own, the last used first, on asyncio and trio.

    Example::

        async with DirectTransport(max_connections=16) as transport:
            async with transport.send(Request("GET", "https://example.com/")) as response:
                body = b"".join([chunk async for chunk in response.body])

    A connection that the server closed while it lay idle costs the caller nothing: the request
    is sent again on a new one, once, if no byte of an answer came, the body is bytes or none, and
    the request is one that may arrive twice (no POST, no conditional PUT or DELETE).

    Args:
        max_connections: Connections in all, over all origins; further callers wait in their order.
        connect_timeout: For opening a connection, and again for TLS.
        stall_timeout: For any single wait for bytes to go out or to come in.
        keepalive: How long an unused connection is kept.
        ssl_context: For https; ``None``: the system's and certifi's authorities, loaded at first use.
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
        self._limits = Limits.of(max_connections, connect_timeout, stall_timeout, keepalive, ssl_context)
        self._engine: Engine | None = None
        self._is_open = False

    async def __aenter__(self) -> Self:
        name = type(self).__name__
        if self._is_open:
            raise RuntimeError(f"This {name} is entered already.")
        self._limits.begin()
        self._engine = self._start(self._limits)
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if self._engine is not None:
            await self._engine.aclose()

    @property
    def max_connections(self) -> int:
        """Connections in all; a component that sends no more at a time signs nothing that then has to wait."""
        return self._limits.max_connections

    def statistics(self) -> TransportStatistics:
        """Connections and requests, in O(1)."""
        if self._engine is None:
            return TransportStatistics(busy=0, idle=0, waiting=0, opened=0, requests=0)
        return self._engine.statistics()

    def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AbstractAsyncContextManager[Response]:
        """See `prewarmkit.transports.Transport.send`.

        Raises:
            ValueError: The request itself is malformed.
            prewarmkit.errors.TransportError: No answer, or not in time.
        """
        prepared = prepare(request)
        if self._engine is None or not self._is_open:
            name = type(self).__name__
            raise RuntimeError(f"Enter the {name} first: `async with {name}() as transport`.")
        return self._engine.send(prepared, deadline_seconds)

    def _start(self, limits: Limits) -> Engine:
        """What sends, on this event loop."""
        if is_on_asyncio():
            from prewarmkit.transports.loop.engine import LoopEngine
            from prewarmkit.transports.loop.h11 import H11Answer

            return LoopEngine(limits, H11Answer)
        from prewarmkit.transports.portable import PortableEngine

        return PortableEngine(limits)
