"""What transports with connections of their own have in common: limits, figures, whom they trust."""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol, Self

import anyio
import anyio.to_thread
import httpcore
from attrs import define, field, frozen

from prewarmkit.media import seconds_of
from prewarmkit.transports.base import Response
from prewarmkit.transports.prepared import Prepared

__all__ = ["Engine", "Limits", "TransportStatistics"]


@frozen
class TransportStatistics:
    """What a transport holds now, and what it did.

    Attributes:
        busy: Connections in use.
        idle: Connections that wait to be used again.
        waiting: Callers that wait for a connection.
        opened: Connections opened since the transport was entered.
        requests: Requests given an answer since then.
    """

    busy: int
    idle: int
    waiting: int
    opened: int
    requests: int


@define(eq=False)
class Limits:
    """How many connections, for how long, and whom they trust.

    Attributes:
        max_connections: In all, over all origins.
        connect_seconds: For opening a connection, and again for TLS.
        stall_seconds: For any single wait for bytes to go out or to come in.
        keepalive_seconds: How long an unused connection is kept.
    """

    max_connections: int
    connect_seconds: float
    stall_seconds: float
    keepalive_seconds: float
    _ssl_context: ssl.SSLContext | None = field(repr=False)
    _lock: anyio.Lock | None = field(init=False, default=None)

    @classmethod
    def of(
        cls,
        max_connections: int,
        connect_timeout: float | timedelta,
        stall_timeout: float | timedelta,
        keepalive: float | timedelta,
        ssl_context: ssl.SSLContext | None,
    ) -> Self:
        """The limits that a constructor's arguments stand for.

        Raises:
            ValueError: One of them cannot be.
        """
        if max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, not {max_connections}.")
        return cls(
            max_connections,
            seconds_of(connect_timeout, "connect_timeout"),
            seconds_of(stall_timeout, "stall_timeout"),
            seconds_of(keepalive, "keepalive"),
            ssl_context,
        )

    def begin(self) -> None:
        """A transport with these limits is entered."""
        self._lock = anyio.Lock()

    async def tls(self) -> ssl.SSLContext:
        """What https trusts; made at the first call where none was given, for reading the authorities takes 30 ms."""
        if self._ssl_context is None:
            assert self._lock is not None
            async with self._lock:
                if self._ssl_context is None:  # somebody may have made it while we waited
                    context = await anyio.to_thread.run_sync(httpcore.default_ssl_context)
                    context.set_alpn_protocols(["http/1.1"])
                    self._ssl_context = context
        return self._ssl_context


class Engine(Protocol):
    """What sends requests for a transport, from its being entered to its being left."""

    def send(
        self, prepared: Prepared, deadline_seconds: float | None
    ) -> AbstractAsyncContextManager[Response]:
        """One exchange."""
        ...

    def statistics(self) -> TransportStatistics:
        """Connections and requests, in O(1)."""
        ...

    async def aclose(self) -> None:
        """Close what is idle; what is in use is closed when its caller leaves."""
        ...
