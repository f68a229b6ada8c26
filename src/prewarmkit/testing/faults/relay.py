"""One client's connection: its exchanges, one after another, each with its fault.

Owns what passes between the two sides. Heads are parsed with h11; bodies are passed on as they
come, so that nothing is right only because it was put right here. Each request goes over a
connection of its own to the server, so that what lies idle there adds no fault that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import anyio
import h11

from prewarmkit.testing.faults.events import Events
from prewarmkit.testing.faults.fault import Answer, Ending
from prewarmkit.testing.faults.heads import Head, framed
from prewarmkit.testing.faults.line import Gone, Line
from prewarmkit.testing.faults.plan import Exchange, Plan, ProxiedRequest
from prewarmkit.testing.faults.valve import Cut, Valve

__all__ = ["Relay"]

T = TypeVar("T")
Read = Callable[[], Awaitable[bytes | None]]
"""The next piece of a body; ``None``: it has ended."""

_NO_UPSTREAM = Answer(status=502, body=b"The proxy could not reach the server.\n")
_NOT_HTTP = Answer(status=400, headers=(("Connection", "close"),), body=b"The proxy expects HTTP/1.1.\n")


class Relay:
    """Serves one connection until either side, or a fault, ends it.

    Args:
        client: Accepted.
        number: Of the connection.
        upstream: Host and port of the server.
        plan: Has the faults and the log.
    """

    def __init__(self, client: Line, number: int, upstream: tuple[str, int], plan: Plan) -> None:
        self._client = client
        self._number = number
        self._upstream = upstream
        self._plan = plan
        self._last: Exchange | None = None
        self._idle: anyio.CancelScope | None = None
        self._dropped: Ending | None = None

    async def run(self) -> None:
        """Exchanges until the connection's end."""
        ending: Ending = "close"
        try:
            await self._exchanges()
        except Cut as cut:
            ending = cut.ending
        except Gone:
            pass  # the client: there is nobody to tell
        except h11.RemoteProtocolError:
            with suppress(Gone):
                await self._client.send(bytes(Head.own(_NOT_HTTP, "GET")) + _NOT_HTTP.body)
                await self._client.linger()
        finally:
            self._client.end(ending)

    def drop(self, ending: Ending) -> bool:
        """End the connection if it is idle, which it is once it has answered; whether it was."""
        if self._last is not None and self._last.outcome == "open":
            return False
        self._dropped = ending
        if self._idle is not None:
            self._idle.cancel()
        return True

    # ── one exchange after another ───────────────────────────────────────────

    async def _exchanges(self) -> None:
        left, nth = b"", 0
        while True:
            events = Events(self._client, h11.SERVER, left)
            head = await self._next_head(events)
            if head is None:
                return
            self._last = exchange = self._plan.begin(self._request(head, nth))
            if not await self._answered(exchange, head, events):
                await self._client.linger()
                return
            left, nth = events.left, nth + 1

    async def _next_head(self, events: Events) -> h11.Request | None:
        """The next request; ``None``: the client has closed."""
        last = self._last
        fault = None if last is None else last.fault
        event: object = None
        with anyio.move_on_after(None if fault is None else fault.idle_seconds) as self._idle:
            if self._dropped is not None:
                self._idle.cancel()
            event = await events.next()
        was_ended, self._idle = self._idle.cancelled_caught, None
        if was_ended and self._dropped is None and last is not None and fault is not None:
            last.has_struck, self._dropped = True, fault.ending
        if was_ended:
            raise Cut(self._dropped or "close")
        return event if isinstance(event, h11.Request) else None

    def _request(self, head: h11.Request, nth: int) -> ProxiedRequest:
        pairs = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
        return ProxiedRequest(method, target, pairs, len(self._plan.log), self._number, nth)

    async def _answered(self, exchange: Exchange, head: h11.Request, events: Events) -> bool:
        """Whether another exchange can follow."""
        try:
            is_last = await _beside(self._client.watch, partial(self._answer, exchange, head, events))
        except Gone:
            exchange.end("hung up")
            raise
        except BaseException:
            exchange.end("cut")
            raise
        asked = (exchange.request.header("connection") or "").lower() == "close"
        return not (is_last or asked or head.http_version < b"1.1")

    async def _answer(self, exchange: Exchange, head: h11.Request, events: Events) -> bool:
        """Whether the connection ends with this answer."""
        fault = exchange.fault
        if fault is not None and fault.answer is not None:
            return await self._own(exchange, fault.answer, events)
        read: Read = events.data
        try:
            for _ in range(0 if fault is None else fault.copies - 1):
                pieces = await _all(read)
                await self._forward(exchange, head, _replay(pieces), is_given=False)
                exchange.has_struck, read = True, _replay(pieces)
            is_last = await self._forward(exchange, head, read, is_given=True)
        except OSError:
            exchange.end("no upstream")
            return await self._own(exchange, _NO_UPSTREAM, events)
        return is_last or not events.is_done

    async def _own(self, exchange: Exchange, answer: Answer, events: Events) -> bool:
        if answer.reads_body:
            if events.waits_for_go_ahead:
                await self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await _all(events.data)
        pieces = [answer.body] if answer.body else []
        is_last = await self._give(exchange, Head.own(answer, exchange.request.method), _replay(pieces))
        return is_last or not events.is_done

    # ── up and down ──────────────────────────────────────────────────────────

    async def _forward(self, exchange: Exchange, head: h11.Request, read: Read, *, is_given: bool) -> bool:
        """Ask the server; whether the connection to the client ends with the answer.

        Raises:
            OSError: The server could not be reached.
        """
        line = await Line.to(*self._upstream)
        server = Events(line, h11.CLIENT)
        try:
            return await _beside(
                partial(self._up, head, read, server, Valve(line, exchange)),
                partial(self._down, exchange, server, is_given=is_given),
            )
        except Cut as cut:
            line.end(cut.ending)
            raise
        except Gone as gone:
            if gone.line is self._client:
                raise
            raise Cut("reset") from None  # the server did it: the client gets the same
        except h11.RemoteProtocolError:
            raise Cut("close") from None  # as above, in the middle of its answer
        finally:
            line.end()

    @staticmethod
    async def _up(head: h11.Request, read: Read, server: Events, valve: Valve) -> None:
        await valve.begin("request head")
        try:
            await valve.send(server.encode(head))
            await valve.begin("request body")
            while (piece := await read()) is not None:
                await valve.send(server.encode(h11.Data(data=piece)))
            await valve.send(server.encode(h11.EndOfMessage()))
        except h11.LocalProtocolError:
            return  # the server has ended the exchange before its time; its answer says why
        except Gone as gone:
            if gone.line is not server.line:
                raise
            # As above, and what it said before it closed is still to be read.

    async def _down(self, exchange: Exchange, server: Events, *, is_given: bool) -> bool:
        method, fault = exchange.request.method, exchange.fault
        while isinstance(event := await server.next(), h11.InformationalResponse):
            await self._client.send(bytes(Head.of(event, method)))
        if not isinstance(event, h11.Response):
            raise Cut("close")
        if fault is not None and fault.loses_answer:
            await _all(server.data)
            exchange.has_struck = True
            raise Cut(fault.ending)
        if not is_given:
            await _all(server.data)
            return False
        return await self._give(exchange, Head.of(event, method), server.data)

    async def _give(self, exchange: Exchange, head: Head, read: Read) -> bool:
        """Send an answer to the client; whether the connection ends with it."""
        fault = exchange.fault
        if fault is not None and fault.length_by and not head.is_bodiless and head.is_chunked:
            pieces = await _all(read)
            head, read = head.with_length(sum(map(len, pieces))), _replay(pieces)
        told = head.spoilt(fault)
        if fault is not None and (told != head or fault.answer is not None):
            exchange.has_struck = True
        valve = Valve(self._client, exchange)
        await valve.begin("answer head")
        exchange.status = head.status
        await valve.send(bytes(told))
        await valve.begin("answer body")
        left = head.length
        while (piece := None if left == 0 else await read()) is not None:
            await valve.send(framed(piece, told))
            # No step lies between the last byte and this: who has the answer finds it in the log.
            left = None if left is None else left - len(piece)
        if told.is_chunked and left is None:
            await valve.send(framed(b"", told))
        exchange.end("answered")
        return told.is_last or (fault is not None and fault.length_by > 0)


async def _all(read: Read) -> list[bytes]:
    pieces: list[bytes] = []
    while (piece := await read()) is not None:
        pieces.append(piece)
    return pieces


def _replay(pieces: list[bytes]) -> Read:
    left = iter(pieces)

    async def read() -> bytes | None:
        await anyio.lowlevel.checkpoint()
        return next(left, None)

    return read


async def _beside(aside: Callable[[], Awaitable[None]], main: Callable[[], Awaitable[T]]) -> T:
    """What ``main`` gives, ``aside`` running while it does; the first end of either comes out bare."""
    ends: list[Exception] = []
    results: list[T] = []
    async with anyio.create_task_group() as tasks:

        async def run_aside() -> None:
            try:
                await aside()
            except (Cut, Gone, h11.RemoteProtocolError) as end:
                ends.append(end)
                tasks.cancel_scope.cancel()

        tasks.start_soon(run_aside)
        try:
            results.append(await main())
        except (Cut, Gone, OSError, h11.RemoteProtocolError) as end:
            ends.append(end)
        tasks.cancel_scope.cancel()
    if ends:
        raise ends[0]
    return results[0]
