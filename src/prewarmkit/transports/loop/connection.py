"""One HTTP/1.1 connection: an asyncio protocol that carries one exchange at a time.

Owns the request on its way out, the answer's way in, and how much of either may be under way.
An answer is read whether or not the request is still being sent, so that an early refusal of an
upload is never lost. Knows nothing of pools, of sending again, or of how connections are opened.

States change in the callbacks, which wait for nothing and raise nothing; the coroutines only
look at them, wait to be woken, and look again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from typing import cast

from prewarmkit.errors import TransportError
from prewarmkit.transports.loop.answer import Answer
from prewarmkit.transports.loop.waiting import StallWatch
from prewarmkit.transports.prepared import Origin

__all__ = ["LoopConnection"]

_READ_BYTES = 128 * 1024
# Of an answer that nobody reads yet: reading stops above the first and goes on below the second.
_HELD_BYTES = 256 * 1024
_RESUME_BYTES = 64 * 1024
_JOINED_BYTES = 128 * 1024  # of a body, sent together with the head
_IN_A_ROW = 4  # pieces of a body that is always ready, before others run


class LoopConnection(asyncio.BufferedProtocol):
    """A connection that carries one exchange after the other.

    Attributes:
        origin: Where it goes to.
        answer: What came of the answer; its head is there once `ask` has returned.
        idle_since: The loop's time when it became idle.
        has_written: Whether a byte of this request may have been sent.
        is_ended: Whether the connection can carry nothing more.
        was_closed_unread: Whether it broke during this request, before a byte of an answer.
    """

    def __init__(
        self,
        origin: Origin,
        own: socket.socket,
        answer: Answer,
        *,
        stall_seconds: float,
        on_lost: Callable[[LoopConnection], None],
    ) -> None:
        self.origin = origin
        self.answer = answer
        self.idle_since = 0.0
        self.has_written = self.is_ended = self.was_closed_unread = False
        self._on_lost = on_lost
        self._socket = own
        self._transport: asyncio.Transport | None = None
        self._carrier: asyncio.Transport | None = None  # below TLS
        self._tls: ssl.SSLObject | None = None
        self._view = memoryview(bytearray(_READ_BYTES))
        self._watch = StallWatch(stall_seconds)
        self._fault: str | None = None
        self._method = ""
        self._can_write = True
        self._is_sent = self._is_paused = False

    # ── one exchange ─────────────────────────────────────────────────────────

    async def ask(self, method: str, head: bytes, body: AsyncIterable[bytes] | None) -> None:
        """Send a request and wait for the head of its answer.

        Args:
            method: Such as ``GET``.
            head: All that is known at once: the head, and a small body with it.
            body: What follows.

        Raises:
            TransportError: No answer came.
        """
        self._method = method
        self.has_written = self._is_sent = False
        answer = self.answer
        answer.begin(is_head=method == "HEAD")
        if self.is_ended:
            self._break("the server closed it")
        if body is None:
            self._write(head)
            self._is_sent = True
        else:
            await self._send(head, body)
        while not answer.is_answered:
            if self._fault is not None:
                raise TransportError(self._fault, request_sent=self.has_written)
            await self._watch.wait(self)

    async def read(self) -> bytes:
        """The next bytes of the body, as they came.

        Raises:
            StopAsyncIteration: There are no more.
            TransportError: There are, but they did not come.
        """
        answer = self.answer
        while (chunk := answer.take()) is None:
            if answer.is_complete:
                raise StopAsyncIteration
            if self._fault is not None:
                raise TransportError(self._fault)
            await self._watch.wait(self)
        if self._is_paused and answer.held < _RESUME_BYTES and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return chunk

    def finish(self) -> bool:
        """End the exchange, wherever it is; whether the connection may carry another one."""
        self.answer.leave()
        if self._watch.is_waiting:
            self._fail("A body was left while another task still read it.")
        return (
            self.answer.is_complete
            and self.answer.keeps_alive
            and self._is_sent
            and not self.is_ended
            and not self._is_paused
            and not self.unsent()  # somebody has yet to take all of the request
        )

    def is_quiet(self) -> bool:
        """Whether nothing waits in the kernel, not even the end: what does is no answer to what is asked next."""
        if self.is_ended:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def abort(self) -> None:
        """Close at once."""
        self.is_ended = True
        if self._transport is not None:
            self._transport.abort()

    def unsent(self) -> int:
        """Bytes of the request that the kernel did not take yet, below TLS too."""
        carrier = 0 if self._carrier is None else self._carrier.get_write_buffer_size()
        return carrier if self._transport is None else carrier + self._transport.get_write_buffer_size()

    def stall(self) -> None:
        """Nothing has moved for too long: who waits is told, and closes."""
        is_inside = self.answer.is_answered
        what = "stopped sending in the middle of a body" if is_inside else "was silent for too long"
        self._fail(f"{self.origin} {what}: raise stall_timeout, or look at the network.")

    async def _send(self, head: bytes, body: AsyncIterable[bytes]) -> None:
        answer, in_a_row = self.answer, 0
        async for piece in body:
            if answer.is_answered or self._fault is not None:
                return  # there is no one left to read the rest
            if head and len(piece) <= _JOINED_BYTES:
                self._write(head + piece)  # to send it by itself costs more than to copy this
            else:
                self._write(head)
                self._write(piece)
            head = b""
            in_a_row += 1
            if self._can_write and in_a_row >= _IN_A_ROW:
                in_a_row = 0
                await asyncio.sleep(0)  # a fast socket must not keep the loop from the answer
            while not (self._can_write or answer.is_answered or self._fault is not None):
                await self._watch.wait(self)
        self._write(head)
        self._is_sent = True

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self.is_ended:
            self.has_written = True
            self._transport.write(data)

    # ── what comes, and how it ends ──────────────────────────────────────────

    def _take(self, data: bytes | memoryview) -> None:
        """Parse what came, and see what follows from it."""
        answer = self.answer
        fault = answer.feed(data)
        if fault is not None:
            self._fail(f"{self.origin} {fault}")
        if answer.held >= _HELD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        if answer.is_overrun or self.is_ended:
            self.abort()
        if answer.is_answered:
            self._watch.wake()
        else:
            self._watch.note_life()  # a note such as 102 is a sign of life

    def _fail(self, text: str) -> None:
        if self._fault is None:
            self._fault = text
        self.is_ended = True
        self._watch.wake()

    def _break(self, what: str) -> None:
        self.was_closed_unread = not self.answer.is_begun
        if self.answer.is_answered:
            self._fail(f"The connection to {self.origin} broke inside a body ({what}).")
        else:
            self._fail(
                f"The connection to {self.origin} broke before an answer to {self._method} came ({what})."
            )

    def _end(self, error: Exception | None) -> None:
        if self.is_ended:
            return
        has_said_so = self._take_the_rest(error)
        if self.answer.is_complete or (has_said_so and self.answer.end()):
            self.is_ended = True
            self._watch.wake()
        else:
            self._break(_reason(error, has_said_so=has_said_so))

    def _take_the_rest(self, error: Exception | None) -> bool:
        """Take what still lies about of an answer; whether the server said that nothing follows.

        asyncio drops what is in the kernel when a write fails: but who refuses an upload answers and
        resets. And it drops what TLS still holds when a connection ends while nobody reads.
        """
        with suppress(OSError):  # "want read" among them: TLS holds no more, and was cut off
            while not self.answer.is_complete:
                if self._tls is not None:
                    data = self._tls.read(_READ_BYTES)
                else:
                    data = b"" if error is None else self._socket.recv(_READ_BYTES)
                if not data:
                    return error is None
                self._take(data)
        return False

    # ── asyncio's callbacks ──────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called again with the encrypted transport once TLS stands."""
        # uvloop's transports are of no class of asyncio's.
        self._carrier, self._transport = self._transport, cast("asyncio.Transport", transport)
        self._tls = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's own signature
        """Where the next bytes go."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Some came."""
        self._take(self._view[:nbytes])

    def eof_received(self) -> None:
        """The server sends nothing more; asyncio closes the connection."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The last of the callbacks."""
        self._end(exc)
        self._watch.stop()
        self.answer.close()
        self._transport = self._carrier = self._tls = None
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Enough is under way."""
        self._can_write = False

    def resume_writing(self) -> None:
        """Most of it is gone."""
        self._can_write = True
        self._watch.wake()


def _reason(error: Exception | None, *, has_said_so: bool) -> str:
    if error is None:
        return "the server closed it" if has_said_so else "TLS was cut off"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return str(error) or type(error).__name__
