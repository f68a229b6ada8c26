"""The byte streams under `DirectTransport`: httpcore's, watched.

Owns one thing that httpcore does not do: noticing an answer that comes while the
request's body is still on its way out. A server that refuses an upload (413, 403)
often answers at once and closes; who only writes then sees a broken pipe, and the
answer that says why is lost. Knows nothing of HTTP but the first line of an answer.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import anyio
import httpcore

__all__ = ["WatchedBackend", "WatchedStream"]

_READ_BYTES = 64 * 1024
# How long the rest of an early answer may take once its first bytes are there. The write that
# is under way is only given up after it: cancelling a TLS write breaks the stream for reading too.
_REST_OF_ANSWER_SECONDS = 0.25


class _TlsReadError(httpcore.ReadError):
    """TLS that broke after its handshake."""


class _TlsWriteError(httpcore.WriteError):
    """The same, found while writing."""


@contextmanager
def _tls_faults(kind: type[_TlsReadError | _TlsWriteError]) -> Generator[None]:
    """Turn what httpcore lets through, such as the alert that a client's certificate is missing, into its errors."""
    try:
        yield
    except ssl.SSLError as error:
        raise kind(f"TLS: {error.reason or error}") from error


class WatchedStream(httpcore.AsyncNetworkStream):
    """A network stream that reads ahead while it writes, when it is told to.

    Attributes:
        watching: Whether writes look out for an early answer.
        has_written: Whether a byte may have been sent since `begin`.
        has_read: Whether a byte was received since `begin`.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._ahead: deque[bytes] = deque()
        self._head = b""
        self._is_answered = False
        self._is_ended = False
        self._broken: _TlsReadError | None = None
        self.watching = False
        self.has_written = False
        self.has_read = False

    def begin(self, *, watching: bool) -> None:
        """Start counting anew for the next request."""
        self.watching = watching
        self.has_written = self.has_read = False
        self._head = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What was read ahead, then what comes."""
        if self._ahead:
            data = self._ahead.popleft()
            if len(data) > max_bytes:
                self._ahead.appendleft(data[max_bytes:])
                data = data[:max_bytes]
        elif self._broken is not None:
            raise self._broken
        elif self._is_ended:
            return b""
        else:
            with _tls_faults(_TlsReadError):
                data = await self._stream.read(max_bytes, timeout)
                if not data:
                    self._must_be_an_end()
        self.has_read = self.has_read or bool(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, or raise `httpcore.WriteError` once the server has answered already.

        httpcore takes a write error as "read the answer now", which is what is wanted.
        """
        if not buffer:
            return
        self.has_written = True
        if not self.watching:
            with _tls_faults(_TlsWriteError):
                await self._stream.write(buffer, timeout)
            return
        # An answer in the kernel's buffer must be taken out before a write can fail: asyncio
        # drops what is unread as soon as it sees the reset.
        if self._stream.get_extra_info("is_readable"):
            with anyio.move_on_after(_REST_OF_ANSWER_SECONDS):
                await self._read_ahead()
        if not self._is_answered:
            await self._write_watched(buffer, timeout)
        if self._is_answered:
            raise httpcore.WriteError("The server answered before it had read the whole body.")

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Upgrade, closing the socket on every way out but success."""
        try:
            self._stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """What the stream below knows, and whether something is waiting to be read."""
        if info == "is_readable" and (self._ahead or self._is_ended):
            return True
        return self._stream.get_extra_info(info)

    async def _write_watched(self, buffer: bytes, timeout: float | None) -> None:
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                await self._read_ahead()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            try:
                with _tls_faults(_TlsWriteError):
                    await self._stream.write(buffer, timeout)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None and not self._is_answered:
            raise failure

    async def _read_ahead(self) -> None:
        """Read until the first bytes of a final answer, or the end, and then a little more."""
        while not self._is_answered:
            await self._take()
        with anyio.move_on_after(_REST_OF_ANSWER_SECONDS):
            while not self._is_ended:
                await self._take()

    def _must_be_an_end(self) -> None:
        """Raise `ssl.SSLError` where TLS was cut off: anybody on the way can do that, and anyio does not tell."""
        tls: ssl.SSLObject | None = self._stream.get_extra_info("ssl_object")
        if tls is not None:
            tls.read(1)

    async def _take(self) -> None:
        try:
            with _tls_faults(_TlsReadError):
                data = await self._stream.read(_READ_BYTES)
                if not data:
                    self._must_be_an_end()
        except _TlsReadError as error:
            self._broken, data = error, b""  # an alert says why: who reads on is told
        except httpcore.NetworkError:
            data = b""  # a reset ends the answer as a close does; who reads on sees it cut short
        if data:
            self._ahead.append(data)
            self._head += data[: max(0, _READ_BYTES - len(self._head))]
        else:
            self._is_ended = True
        self._is_answered = self._is_ended or _is_final(self._head)


class WatchedBackend(httpcore.AsyncNetworkBackend):
    """Connects through httpcore's anyio back end, on either event loop, and keeps hold of the stream it made."""

    def __init__(self) -> None:
        # httpcore defines the class in a try block, which hides its base from type checkers.
        self._backend = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())
        self.stream: WatchedStream | None = None
        self.watching = False

    def begin(self, *, watching: bool) -> None:
        """Tell the stream, which may not be there yet, what the next request wants."""
        self.watching = watching
        if self.stream is not None:
            self.stream.begin(watching=watching)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See httpcore."""
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        self.stream = WatchedStream(stream)
        self.stream.begin(watching=self.watching)
        return self.stream

    async def sleep(self, seconds: float) -> None:
        """See httpcore."""
        await anyio.sleep(seconds)


def _is_final(head: bytes) -> bool:
    """Whether ``head`` holds the beginning of an answer that is not one of the 1xx notes."""
    while head[:5] == b"HTTP/" and head[9:10] == b"1":
        _note, end, head = head.partition(b"\r\n\r\n")
        if not end:
            return False
    # Too short to tell is not final yet; anything that is not HTTP is for the parser to refuse.
    return len(head) >= len(b"HTTP/1.1 2") or (bool(head) and not b"HTTP/1.1 ".startswith(head[:9]))
