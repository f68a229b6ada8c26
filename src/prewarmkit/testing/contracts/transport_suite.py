"""What the transport contracts share: how one is made, and steps that stories take often."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.lowlevel

from prewarmkit.errors import TransportError
from prewarmkit.testing.wire import Wire
from prewarmkit.transports.base import Request, Transport

__all__ = ["MIB", "TransportSuite", "asked_for", "echo", "fault_of", "pieces"]

MIB = 1024 * 1024


class TransportSuite:
    """Override `transport` and `impatient_transport`, and the switches where a rule cannot hold."""

    max_connections = 8
    """How many connections what `transport` makes may open at most."""

    reads_early_answers = True
    """Whether an answer that comes in the middle of a large upload is given, not a write error."""

    drops_unasked_bytes = True
    """Whether bytes that follow an answer are never taken for the next one."""

    def transport(self) -> AbstractAsyncContextManager[Transport]:
        """A fresh transport, entered by the suite."""
        raise NotImplementedError

    def impatient_transport(self, stall_seconds: float) -> AbstractAsyncContextManager[Transport]:
        """One that gives up when any single wait for bytes lasts so long."""
        raise NotImplementedError

    def busy(self, transport: Transport) -> int:
        """Connections in use now; a transport without such a figure is judged by what the server sees alone."""
        del transport
        return 0


async def echo(wire: Wire) -> None:
    """Answer with what came."""
    while True:
        request = await wire.request()
        await wire.answer(
            200, [("X-Method", request.method), ("x-twice", "a"), ("x-twice", "b")], request.body
        )


async def pieces(*chunks: bytes) -> AsyncGenerator[bytes, None]:
    """A body that comes in pieces."""
    for chunk in chunks:
        await anyio.lowlevel.checkpoint()
        yield chunk


async def asked_for(
    transport: Transport, request: Request, *, deadline_seconds: float | None = None
) -> tuple[int, bytes]:
    """Status and body of an answer."""
    async with transport.send(request, deadline_seconds=deadline_seconds) as response:
        return response.status, b"".join([chunk async for chunk in response.body])


async def fault_of(
    transport: Transport, request: Request, *, deadline_seconds: float | None = None
) -> TransportError:
    """How an exchange fails, as it must."""
    try:
        await asked_for(transport, request, deadline_seconds=deadline_seconds)
    except TransportError as error:
        return error
    raise AssertionError("A TransportError was expected.")
