"""The fast transport: httptools' parser on asyncio's own connections.

Owns the life of an exchange, from a free slot to a connection laid back; the connections
themselves, the pool and the opening are in the modules beside it. What it costs a request is
little more than what asyncio itself costs. Needs the extra ``prewarmkit[fast]``, and asyncio.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpcore

from prewarmkit.errors import ConfigurationError, TransportError
from prewarmkit.media import seconds_of
from prewarmkit.transports.base import Request, Response
from prewarmkit.transports.direct import TransportStatistics
from prewarmkit.transports.fast_pool import FastPool
from prewarmkit.transports.prepared import CountedBody, Origin, Prepared, prepare

if TYPE_CHECKING:
    from prewarmkit.transports.fast_connection import FastConnection

__all__ = ["FastTransport"]

_logger = logging.getLogger("prewarmkit.transports")
# A body up to this size goes out with its head; a larger one in pieces, so that an early answer is noticed.
_AT_ONCE_BYTES = 64 * 1024


class FastTransport:
    """Sends requests over asyncio's own connections, several times faster than `DirectTransport`.

    Example::

        async with FastTransport(max_connections=16) as transport:
            async with R2Client(..., transport=transport) as r2:
                ...

    It behaves as `DirectTransport` does, also in what it sends again. Under trio there is none:
    use `DirectTransport`.

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
        try:
            from prewarmkit.transports.fast_connecting import connect
        except ModuleNotFoundError as error:
            if error.name != "httptools":
                raise
            raise ConfigurationError(
                "FastTransport needs the package httptools: pip install 'prewarmkit[fast]', "
                "or use DirectTransport."
            ) from None
        if max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, not {max_connections}.")
        self._max_connections = max_connections
        self._connect_seconds = seconds_of(connect_timeout, "connect_timeout")
        self._stall_seconds = seconds_of(stall_timeout, "stall_timeout")
        self._keepalive = seconds_of(keepalive, "keepalive")
        self._ssl_context = ssl_context
        self._connect = connect
        self._pool: FastPool | None = None

    async def __aenter__(self) -> Self:
        if self._pool is not None and self._pool.is_open:
            raise RuntimeError("This FastTransport is entered already.")
        try:
            self._pool = FastPool(self._max_connections, self._keepalive)
        except RuntimeError:  # no loop of asyncio's runs
            raise ConfigurationError(
                "FastTransport runs on asyncio only: use DirectTransport under trio."
            ) from None
        self._ssl_lock = anyio.Lock()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.close()
            await anyio.lowlevel.cancel_shielded_checkpoint()  # the loop closes the sockets

    def statistics(self) -> TransportStatistics:
        """Connections and requests, in O(1)."""
        pool = self._pool
        if pool is None:
            return TransportStatistics(busy=0, idle=0, waiting=0, opened=0, requests=0)
        return TransportStatistics(
            busy=pool.busy, idle=pool.idle, waiting=pool.waiting, opened=pool.opened, requests=pool.requests
        )

    def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AbstractAsyncContextManager[Response]:
        """See `prewarmkit.transports.Transport.send`.

        Raises:
            ValueError: The request itself is malformed.
            prewarmkit.errors.TransportError: No answer, or not in time.
        """
        prepared = prepare(request)
        pool = self._pool
        if pool is None or not pool.is_open:
            raise RuntimeError("Enter the FastTransport first: `async with FastTransport() as transport`.")
        exchange = _Exchange(prepared, pool, self._open)
        return exchange if deadline_seconds is None else _bounded(exchange, prepared, deadline_seconds)

    async def _open(self, origin: Origin, pool: FastPool) -> FastConnection:
        pool.make_room()
        context = await self._tls() if origin.scheme == "https" else None
        pool.opened += 1
        return await self._connect(
            origin,
            context,
            self._connect_seconds,
            stall_seconds=self._stall_seconds,
            on_lost=pool.forget,
        )

    async def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            async with self._ssl_lock:
                if self._ssl_context is None:  # somebody may have made it while we waited
                    context = await anyio.to_thread.run_sync(httpcore.default_ssl_context)
                    context.set_alpn_protocols(["http/1.1"])
                    self._ssl_context = context
        return self._ssl_context


class _Exchange:
    """One request and its answer; also the answer's body. Holds a slot from its beginning to its end."""

    __slots__ = ("_connection", "_open", "_pool", "_prepared", "is_sent")

    def __init__(
        self,
        prepared: Prepared,
        pool: FastPool,
        open_: Callable[[Origin, FastPool], Awaitable[FastConnection]],
    ) -> None:
        self._prepared = prepared
        self._pool = pool
        self._open = open_
        self._connection: FastConnection | None = None
        self.is_sent = False

    async def __aenter__(self) -> Response:
        body = self._prepared.body
        if body is None or isinstance(body, bytes):
            return await self._begin(None)
        outgoing = CountedBody(self._prepared)
        try:
            return await self._begin(outgoing)
        finally:
            await _close(outgoing, self)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None:
            raise RuntimeError("A body can be read inside the context of its `send` only.")
        return await self._connection.read()

    def end(self) -> None:
        """Lay the connection back, or close it; then give up the slot."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.finish() and self._pool.is_open:
            self._pool.put(connection)
        else:
            connection.abort()
        self._pool.release()

    async def _begin(self, outgoing: CountedBody | None) -> Response:
        pool = self._pool
        await anyio.lowlevel.checkpoint_if_cancelled()  # else the first wait is after the request went out
        await pool.acquire()
        try:
            connection = await self._answered(outgoing)
        except BaseException:
            pool.release()
            raise
        self._connection = connection
        self.is_sent = True
        pool.requests += 1
        return Response(connection.answer.status, tuple(connection.answer.headers), self)

    async def _answered(self, outgoing: CountedBody | None) -> FastConnection:
        """A connection with the answer's head; the request goes out again if the first had died idle."""
        prepared = self._prepared
        connection = self._pool.take(prepared.origin)
        if connection is not None:
            try:
                return await self._ask(connection, outgoing)
            except TransportError:
                if not (connection.was_closed_unread and prepared.is_replayable):
                    raise
            _logger.debug("A connection to %s had died idle; sending again.", prepared.origin)
        return await self._ask(await self._open(prepared.origin, self._pool), outgoing)

    async def _ask(self, connection: FastConnection, outgoing: CountedBody | None) -> FastConnection:
        prepared = self._prepared
        head = _head(prepared)
        body = prepared.body
        if isinstance(body, bytes):
            if len(body) <= _AT_ONCE_BYTES:
                head += body
            else:
                outgoing = CountedBody(prepared)
        try:
            await connection.ask(prepared.method, head, outgoing)
        except BaseException:
            self.is_sent = self.is_sent or connection.has_written
            connection.abort()
            raise
        return connection


async def _close(outgoing: CountedBody, exchange: _Exchange) -> None:
    with anyio.CancelScope(shield=True):
        try:
            await outgoing.aclose()
        except BaseException:
            exchange.end()
            raise


def _head(prepared: Prepared) -> bytes:
    lines = [f"{prepared.method} {prepared.target} HTTP/1.1".encode("ascii")]
    lines += [b"%b: %b" % pair for pair in prepared.headers]
    return b"\r\n".join([*lines, b"", b""])


@asynccontextmanager
async def _bounded(
    exchange: _Exchange, prepared: Prepared, deadline_seconds: float
) -> AsyncGenerator[Response, None]:
    with anyio.move_on_after(deadline_seconds) as deadline:
        async with exchange as response:
            yield response
    if deadline.cancelled_caught:
        raise TransportError(
            f"{prepared.method} to {prepared.origin} took longer than its deadline of "
            f"{deadline_seconds:g} s: allow more, or look at the network.",
            request_sent=exchange.is_sent,
        )
