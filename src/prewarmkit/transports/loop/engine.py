"""The life of an exchange on asyncio's own connections, from a free slot to a connection laid back.

What it costs a request is little more than what asyncio itself costs, and what the parser does.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from prewarmkit.errors import TransportError
from prewarmkit.transports.base import Response
from prewarmkit.transports.limits import Limits, TransportStatistics
from prewarmkit.transports.loop.answer import Answer
from prewarmkit.transports.loop.connecting import connect
from prewarmkit.transports.loop.connection import LoopConnection
from prewarmkit.transports.loop.pool import LoopPool
from prewarmkit.transports.prepared import CountedBody, Origin, Prepared

__all__ = ["LoopEngine"]

_logger = logging.getLogger("prewarmkit.transports")
# A body up to this size goes out with its head; a larger one in pieces, so that an early answer is noticed.
_AT_ONCE_BYTES = 64 * 1024


class LoopEngine:
    """Sends requests on the event loop that it was made on.

    Args:
        limits: Of the transport.
        answer: Makes what reads a connection's answers.
    """

    def __init__(self, limits: Limits, answer: Callable[[], Answer]) -> None:
        self._limits = limits
        self._answer = answer
        self._pool = LoopPool(limits.max_connections, limits.keepalive_seconds)

    def send(
        self, prepared: Prepared, deadline_seconds: float | None
    ) -> AbstractAsyncContextManager[Response]:
        """One exchange."""
        exchange = _Exchange(prepared, self._pool, self._open)
        return exchange if deadline_seconds is None else _bounded(exchange, prepared, deadline_seconds)

    def statistics(self) -> TransportStatistics:
        """Connections and requests, in O(1)."""
        pool = self._pool
        return TransportStatistics(
            busy=pool.busy, idle=pool.idle, waiting=pool.waiting, opened=pool.opened, requests=pool.requests
        )

    async def aclose(self) -> None:
        """Close what is idle; what is in use is closed when its caller leaves."""
        self._pool.close()
        await anyio.lowlevel.cancel_shielded_checkpoint()  # the loop closes the sockets

    async def _open(self, origin: Origin, pool: LoopPool) -> LoopConnection:
        pool.make_room()
        context = await self._limits.tls() if origin.scheme == "https" else None
        pool.opened += 1
        return await connect(
            origin,
            context,
            self._answer(),
            self._limits.connect_seconds,
            stall_seconds=self._limits.stall_seconds,
            on_lost=pool.forget,
        )


class _Exchange:
    """One request and its answer; also the answer's body. Holds a slot from its beginning to its end."""

    __slots__ = ("_connection", "_open", "_pool", "_prepared", "is_sent")

    def __init__(
        self,
        prepared: Prepared,
        pool: LoopPool,
        open_: Callable[[Origin, LoopPool], Awaitable[LoopConnection]],
    ) -> None:
        self._prepared = prepared
        self._pool = pool
        self._open = open_
        self._connection: LoopConnection | None = None
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

    async def _answered(self, outgoing: CountedBody | None) -> LoopConnection:
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

    async def _ask(self, connection: LoopConnection, outgoing: CountedBody | None) -> LoopConnection:
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
