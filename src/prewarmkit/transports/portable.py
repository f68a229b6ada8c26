"""Requests over httpcore's own HTTP/1.1 connections, the last used first: `DirectTransport` on trio.

Owns the idle connections: one stack for each origin, taken from and put back to its
top in O(1), never scanned. A client of one origin with n requests in flight so uses n
connections and lets the others grow old at the bottom, where they are closed. Runs on
asyncio too, where `prewarmkit.transports.loop` costs a quarter of it.
"""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import httpcore
from attrs import define

from prewarmkit.errors import TransportError
from prewarmkit.transports.base import Response
from prewarmkit.transports.incoming import IncomingBody, is_bodiless
from prewarmkit.transports.limits import Limits, TransportStatistics
from prewarmkit.transports.prepared import CountedBody, Origin, Prepared
from prewarmkit.transports.wire import WatchedBackend

__all__ = ["PortableEngine"]

_logger = logging.getLogger("prewarmkit.transports")
# A body that fits the socket's buffer is gone before an answer can come; watching it costs more.
_WATCHED_FROM_BYTES = 64 * 1024
_DIED = (httpcore.RemoteProtocolError, httpcore.ReadError)
_NOT_SENT = (httpcore.ConnectError, httpcore.ConnectTimeout)
_FAULTS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


@define(eq=False)
class _Connection:
    origin: Origin
    http: httpcore.AsyncHTTPConnection
    backend: WatchedBackend
    is_used: bool = False
    idle_since: float = 0.0

    @property
    def has_sent(self) -> bool:
        return self.backend.stream is not None and self.backend.stream.has_written

    @property
    def has_received(self) -> bool:
        return self.backend.stream is not None and self.backend.stream.has_read

    @property
    def holds_unasked_bytes(self) -> bool:
        # What followed an answer stays in httpcore's parser, which would begin the next answer with it. Only
        # a look inside tells; the transports' contract tells when the inside has changed.
        state = getattr(getattr(self.http, "_connection", None), "_h11_state", None)
        return state is not None and bool(state.trailing_data[0])


class PortableEngine:
    """Sends requests on any event loop that anyio knows."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        stall = limits.stall_seconds
        self._timeouts = {"connect": limits.connect_seconds, "read": stall, "write": stall}
        self._slots = anyio.Semaphore(limits.max_connections)
        self._is_open = True
        self._idle: OrderedDict[Origin, deque[_Connection]] = OrderedDict()
        self._idle_count = self._busy = self._opened = self._requests = 0

    async def aclose(self) -> None:
        """Close what is idle; what is in use is closed when its caller leaves."""
        self._is_open = False
        doomed = [connection for stack in self._idle.values() for connection in stack]
        self._idle.clear()
        self._idle_count = 0
        for connection in doomed:
            await self._close(connection)

    def statistics(self) -> TransportStatistics:
        """Connections and requests, in O(1)."""
        return TransportStatistics(
            busy=self._busy,
            idle=self._idle_count,
            waiting=self._slots.statistics().tasks_waiting,
            opened=self._opened,
            requests=self._requests,
        )

    @asynccontextmanager
    async def send(
        self, prepared: Prepared, deadline_seconds: float | None
    ) -> AsyncGenerator[Response, None]:
        """One exchange."""
        sent = False
        with anyio.move_on_after(deadline_seconds) as deadline:
            async with self._slots:
                self._busy += 1
                connection: _Connection | None = None
                body: IncomingBody | None = None
                try:
                    connection = await self._take(prepared.origin)
                    connection, answer = await self._start(connection, prepared)
                    body = IncomingBody(answer, prepared.origin)
                    sent = True
                    self._requests += 1
                    response = await _response(prepared, answer, body)
                    yield response
                finally:
                    sent = sent or (connection is not None and connection.has_sent)
                    await self._release(connection, body)
        if deadline.cancelled_caught:
            raise TransportError(
                f"{prepared.method} to {prepared.origin} took longer than its deadline of "
                f"{deadline_seconds:g} s: allow more, or look at the network.",
                request_sent=sent,
            )

    # ── connections: state changes first, closing after ──────────────────────

    async def _take(self, origin: Origin) -> _Connection:
        """The connection used last, or a new one; what is found dead on the way is closed."""
        while (connection := self._pop(origin)) is not None:
            if self._is_alive(connection):
                return connection
            await self._close(connection)
        return await self._new(origin)

    async def _new(self, origin: Origin) -> _Connection:
        while self._idle_count and self._idle_count + self._busy > self._limits.max_connections:
            await self._close(self._pop_oldest())
        context = await self._limits.tls() if origin.scheme == "https" else None
        backend = WatchedBackend()
        http = httpcore.AsyncHTTPConnection(
            origin=httpcore.Origin(origin.scheme.encode(), origin.host.encode("ascii"), origin.port),
            ssl_context=context,
            http1=True,
            http2=False,
            network_backend=backend,
        )
        self._opened += 1
        return _Connection(origin, http, backend)

    def _pop(self, origin: Origin) -> _Connection | None:
        stack = self._idle.get(origin)
        if stack is None:
            return None
        connection = stack.pop()
        self._idle_count -= 1
        if not stack:
            del self._idle[origin]
        return connection

    def _pop_oldest(self) -> _Connection:
        """The bottom of the stack that was longest without a release."""
        origin, stack = next(iter(self._idle.items()))
        connection = stack.popleft()
        self._idle_count -= 1
        if not stack:
            del self._idle[origin]
        return connection

    def _push(self, connection: _Connection) -> _Connection | None:
        """Put a connection on top; gives back the one at the bottom if it grew too old."""
        connection.idle_since = anyio.current_time()
        connection.is_used = True
        stack = self._idle.setdefault(connection.origin, deque())
        self._idle.move_to_end(connection.origin)
        stack.append(connection)
        self._idle_count += 1
        if stack[0].idle_since + self._limits.keepalive_seconds < connection.idle_since:
            self._idle_count -= 1
            return stack.popleft()
        return None

    def _is_alive(self, connection: _Connection) -> bool:
        # Readable while idle: the server has closed, or said what it has no business saying.
        fresh = anyio.current_time() <= connection.idle_since + self._limits.keepalive_seconds
        return fresh and connection.http.is_available() and not connection.http.has_expired()

    async def _release(self, connection: _Connection | None, body: IncomingBody | None) -> None:
        doomed = connection
        if connection is not None and self._is_open and connection.http.is_available():
            doomed = connection if connection.holds_unasked_bytes else self._push(connection)
        self._busy -= 1
        if doomed is not None:
            await self._close(doomed)
        if body is not None:
            await body.finish()

    @staticmethod
    async def _close(connection: _Connection) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await connection.http.aclose()
            except (httpcore.NetworkError, OSError) as error:
                _logger.debug("Closing a connection to %s: %s", connection.origin, type(error).__name__)

    # ── one exchange ─────────────────────────────────────────────────────────

    async def _start(
        self, connection: _Connection, prepared: Prepared
    ) -> tuple[_Connection, httpcore.Response]:
        """Send, and read the answer's head; once more if the connection had died idle."""
        try:
            return connection, await self._attempt(connection, prepared)
        except _FAULTS as error:
            await self._close(connection)
            died_idle = connection.is_used and isinstance(error, _DIED) and not connection.has_received
            if not (died_idle and prepared.is_replayable):
                raise _fault(error, connection, prepared) from None
        _logger.debug("A connection to %s had died idle; sending again.", prepared.origin)
        connection = await self._new(prepared.origin)
        try:
            return connection, await self._attempt(connection, prepared)
        except _FAULTS as error:
            await self._close(connection)
            raise _fault(error, connection, prepared) from None

    async def _attempt(self, connection: _Connection, prepared: Prepared) -> httpcore.Response:
        body = prepared.body
        is_large = body is not None and (
            not isinstance(body, bytes) or (prepared.content_length or 0) > _WATCHED_FROM_BYTES
        )
        connection.backend.begin(watching=is_large)
        origin = connection.origin
        outgoing = CountedBody(prepared)
        request = httpcore.Request(
            prepared.method,
            httpcore.URL(
                scheme=origin.scheme,
                host=origin.host.encode("ascii"),
                port=origin.port,
                target=prepared.target,
            ),
            headers=prepared.headers,
            content=outgoing,
            extensions={"timeout": self._timeouts},
        )
        try:
            return await connection.http.handle_async_request(request)
        except BaseException:
            await self._close(connection)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await outgoing.aclose()


async def _response(prepared: Prepared, answer: httpcore.Response, body: IncomingBody) -> Response:
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in answer.headers
    )
    if answer.status == 101:  # noqa: PLR2004 - Switching Protocols, which nobody asked for
        raise TransportError(f"{prepared.origin} switched protocols without being asked: is it HTTP?")
    if is_bodiless(prepared.method, answer.status, headers):
        await body.exhaust()  # no byte is waited for; it is what makes the connection idle again
    return Response(answer.status, headers, body)


def _fault(error: Exception, connection: _Connection, prepared: Prepared) -> TransportError:
    origin = connection.origin
    if isinstance(error, _NOT_SENT):
        return _connect_fault(error, origin)
    if isinstance(error, httpcore.TimeoutException):
        text = f"{origin} was silent for too long: raise stall_timeout, or look at the network."
    elif isinstance(error, httpcore.LocalProtocolError):
        text = f"The request to {origin} cannot be sent as HTTP/1.1: {error}"
    else:
        text = (
            f"The connection to {origin} broke before an answer to {prepared.method} came ({_what(error)})."
        )
    return TransportError(text, request_sent=connection.has_sent)


def _what(error: Exception) -> str:
    """The error's own words; a reset has none."""
    return str(error) or type(error).__name__


def _connect_fault(error: Exception, origin: Origin) -> TransportError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            fault = TransportError(
                f"The certificate of {origin} is not trusted ({cause.verify_message}): check the host name, "
                "or hand in an ssl_context that trusts it.",
                request_sent=False,
            )
            fault.is_retryable = False  # the same certificate comes again
            return fault
        cause = cause.__cause__ or cause.__context__
    what = "did not answer in time" if isinstance(error, httpcore.ConnectTimeout) else f"failed ({error})"
    return TransportError(
        f"Connecting to {origin} {what}: check the address and whether it is up.", request_sent=False
    )
