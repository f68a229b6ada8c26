"""A TCP server on loopback that a test scripts byte by byte.

::

    async def handler(wire: Wire) -> None:
        request = await wire.request()
        await wire.answer(200, body=b"hello")

    async with serve(handler) as server:
        ...  # server.url, server.requests, server.connections

It parses requests with its own few lines and not with an HTTP library, so that what it
records is what was on the wire. Anything odd (a chunked body) it refuses loudly.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus

import anyio
import anyio.abc
from anyio.streams.tls import TLSListener
from attrs import define, field, frozen

__all__ = ["RecordedRequest", "ScriptedServer", "Wire", "serve"]

Handler = Callable[["Wire"], Awaitable[None]]
_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, ssl.SSLError)


@frozen
class RecordedRequest:
    """One request as it was on the wire.

    Attributes:
        method: Such as ``GET``.
        target: Path and query, undecoded.
        headers: Pairs in order, names as they were sent.
        body: All of it.
        connection: The number of the connection it came on, from 0.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@define
class ScriptedServer:
    """What a running server saw."""

    url: str
    port: int
    connections: int = 0
    requests: list[RecordedRequest] = field(factory=list[RecordedRequest])


class Wire:
    """One accepted connection, in the hands of the handler."""

    def __init__(self, stream: anyio.abc.ByteStream, server: ScriptedServer, number: int) -> None:
        self.stream = stream
        self.number = number
        self._server = server
        self._buffer = b""

    @property
    def requests(self) -> list[RecordedRequest]:
        """What the server recorded so far, on all connections."""
        return self._server.requests

    async def head(self) -> RecordedRequest:
        """Read a request's head only; its body stays on the wire."""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self.stream.receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ")
        pairs = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        return RecordedRequest(method, target, pairs, b"", self.number)

    async def request(self) -> RecordedRequest:
        """Read a whole request and record it."""
        return await self.rest(await self.head())

    async def rest(self, head: RecordedRequest) -> RecordedRequest:
        """Read the body that belongs to a head, and record the whole request."""
        if head.header("transfer-encoding") is not None:
            raise ValueError("A request came with Transfer-Encoding; only Content-Length is understood here.")
        length = int(head.header("content-length") or 0)
        while len(self._buffer) < length:
            self._buffer += await self.stream.receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        whole = RecordedRequest(head.method, head.target, head.headers, body, self.number)
        self._server.requests.append(whole)
        return whole

    async def answer(
        self,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        length: int | None = None,
    ) -> None:
        """Send an answer; ``length`` is a Content-Length other than the body's."""
        pairs = [*headers, ("Content-Length", str(len(body) if length is None else length))]
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{name}: {value}" for name, value in pairs),
        ]
        await self.stream.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def close(self) -> None:
        """Close in an orderly way."""
        await self.stream.aclose()

    async def reset(self) -> None:
        """Close so that the other side sees a connection reset."""
        raw = self.stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610 - anyio, not Django
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()


@asynccontextmanager
async def serve(
    handler: Handler, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[ScriptedServer, None]:
    """Run a server whose every connection is given to ``handler``, until the block is left.

    A connection that the client breaks ends its handler quietly; any other error of a handler
    comes out of the block. A handler that returns closes its connection.
    """
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port: int = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - as above
    scheme = "http" if ssl_context is None else "https"
    host = "127.0.0.1" if ssl_context is None else "localhost"
    server = ScriptedServer(f"{scheme}://{host}:{port}", port)

    async def accept(stream: anyio.abc.ByteStream) -> None:
        number = server.connections
        server.connections += 1
        async with stream:
            try:
                await handler(Wire(stream, server, number))
            except _GONE:
                return

    accepting: anyio.abc.Listener[anyio.abc.ByteStream] = (
        listener
        if ssl_context is None
        else TLSListener(listener, ssl_context=ssl_context, standard_compatible=False)
    )
    failure: Exception | None = None
    async with accepting, anyio.create_task_group() as tasks:
        tasks.start_soon(accepting.serve, accept)
        try:
            yield server
        except Exception as error:  # noqa: BLE001 - raised again below, bare and not in a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
