"""How a connection is opened: a name's addresses, TCP, then TLS.

Owns the way from an origin to a `LoopConnection` that stands, and what goes wrong on it;
a connection that did not come to be leaves no socket behind. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

import anyio

from prewarmkit.errors import TransportError
from prewarmkit.transports.loop.answer import Answer
from prewarmkit.transports.loop.connection import LoopConnection
from prewarmkit.transports.prepared import Origin

__all__ = ["connect"]

_NEXT_ADDRESS_AFTER_SECONDS = 0.25  # RFC 8305, section 5
_Address = tuple[socket.AddressFamily, tuple[Any, ...]]


async def connect(
    origin: Origin,
    context: ssl.SSLContext | None,
    answer: Answer,
    seconds: float,
    *,
    stall_seconds: float,
    on_lost: Callable[[LoopConnection], None],
) -> LoopConnection:
    """Open a connection.

    Args:
        origin: Where to.
        context: For https.
        answer: What will read the answers.
        seconds: For TCP, and again for TLS.
        stall_seconds: See `LoopConnection`.
        on_lost: As above.

    Raises:
        TransportError: It could not be opened; nothing was sent.
    """
    try:
        async with asyncio.timeout(seconds):
            own = await _connected_socket(origin.host, origin.port)
            connection = LoopConnection(origin, own, answer, stall_seconds=stall_seconds, on_lost=on_lost)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: connection, sock=own)
        if context is not None:
            async with asyncio.timeout(seconds):
                await _encrypt(transport, connection, context, seconds)
    except TimeoutError:
        raise _fault(origin, "did not answer in time") from None
    except ssl.SSLCertVerificationError as error:
        fault = TransportError(
            f"The certificate of {origin} is not trusted ({error.verify_message}): check the host name, "
            "or hand in an ssl_context that trusts it.",
            request_sent=False,
        )
        fault.is_retryable = False  # the same certificate comes again
        raise fault from None
    except (OSError, UnicodeError) as error:  # the second: a host name that is none
        raise _fault(origin, f"failed ({str(error) or type(error).__name__})") from None
    return connection


async def _connected_socket(host: str, port: int) -> socket.socket:
    """Connect to the address that answers first, each tried a little after the one before it.

    asyncio's own way of doing so leaves sockets behind when it is cancelled.
    """
    addresses = await _addresses(host, port)
    if len(addresses) == 1:
        return await _attempt(addresses[0])
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: _Address, has_failed: anyio.Event) -> None:
        try:
            connected.append(await _attempt(address))
            tasks.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
            has_failed.set()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                has_failed = anyio.Event()
                tasks.start_soon(attempt, address, has_failed)
                with anyio.move_on_after(_NEXT_ADDRESS_AFTER_SECONDS):
                    await has_failed.wait()
    except BaseException:
        for one in connected:
            one.close()
        raise
    for late in connected[1:]:
        late.close()
    if not connected:
        raise errors[-1]
    return connected[0]


async def _addresses(host: str, port: int) -> list[_Address]:
    """All that a name stands for, the two families taking turns."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[_Address] = [(family, address) for family, _, _, _, address in found]
    preferred = addresses[0][0]
    first = [one for one in addresses if one[0] == preferred]
    second = [one for one in addresses if one[0] != preferred]
    return [one for one in chain.from_iterable(zip_longest(first, second)) if one is not None]


async def _attempt(address: _Address) -> socket.socket:
    # With the protocol's number: without it asyncio does not turn Nagle's delay off.
    own = socket.socket(address[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        own.setblocking(False)  # noqa: FBT003 - socket's own signature
        await asyncio.get_running_loop().sock_connect(own, address[1])
    except BaseException:
        own.close()
        raise
    return own


async def _encrypt(
    transport: asyncio.Transport, connection: LoopConnection, context: ssl.SSLContext, seconds: float
) -> None:
    try:
        encrypted = await asyncio.get_running_loop().start_tls(
            transport,
            connection,
            context,
            server_hostname=connection.origin.host,
            ssl_handshake_timeout=seconds + 1,
        )
    except BaseException:
        transport.abort()
        raise
    if encrypted is None:
        raise ConnectionResetError("the server closed it during the handshake")
    connection.connection_made(encrypted)
    chosen = encrypted.get_extra_info("ssl_object").selected_alpn_protocol()
    if chosen not in {None, "http/1.1"}:
        connection.abort()
        raise OSError(f"the ssl_context let TLS choose {chosen}, and only http/1.1 is spoken here")


def _fault(origin: Origin, what: str) -> TransportError:
    return TransportError(
        f"Connecting to {origin} {what}: check the address and whether it is up.", request_sent=False
    )
