"""A TCP connection that can be ended as a test wants it.

Sockets and not anyio's streams: closing one of those begins with a FIN on asyncio, so that the
other side may read an orderly end where a reset was meant.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from typing import Self

import anyio
import anyio.lowlevel

from prewarmkit.testing.faults.fault import Ending

__all__ = ["Gone", "Line"]

_READ_BYTES = 64 * 1024
_LINGER_SECONDS = 1.0
_LOOK_SECONDS = 0.02


class Gone(Exception):
    """The other side has reset its connection, or closed it before its time.

    Args:
        line: Which one.
    """

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line


class Line:
    """The proxy's end of one connection; to be ended exactly once by `end`, further calls do nothing.

    Args:
        sock: Connected.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._is_open = True

    @classmethod
    async def to(cls, host: str, port: int) -> Self:
        """Connect.

        Raises:
            OSError: Nobody listens there.
        """
        [(family, kind, protocol, _name, address), *_more] = await anyio.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(0.0)
            with suppress(BlockingIOError):
                sock.connect(address)
            await anyio.wait_writable(sock)
        except BaseException:
            sock.close()
            raise
        fault = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault:
            sock.close()
            raise OSError(fault, f"{host}:{port} could not be reached.")
        return cls(sock)

    async def receive(self) -> bytes:
        """What comes next; nothing: the other side has closed.

        Raises:
            Gone: It was reset.
        """
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except OSError:
                raise Gone(self) from None

    async def send(self, data: bytes) -> None:
        """Hand over all of it to the kernel.

        Raises:
            Gone: The other side is.
        """
        await anyio.lowlevel.checkpoint()
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError:
                raise Gone(self) from None

    async def watch(self) -> None:
        """Wait for the other side to close or reset, also while bytes of it are still unread.

        Looks now and then: a task that waits for bytes may have its hands on the socket. Where the
        system cannot tell (Windows) it waits for ever. An end that comes behind more bytes than the
        system holds unread cannot be seen before they are read.

        Raises:
            Gone: It has.
        """
        if not hasattr(select, "poll"):
            await anyio.sleep_forever()
        gone = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
        look = select.poll()
        look.register(self._socket, gone)
        while True:
            if look.poll(0):
                raise Gone(self)
            await anyio.sleep(_LOOK_SECONDS)

    async def linger(self) -> None:
        """Say that no more comes, and read on for a moment.

        Closing with bytes unread is a reset, which would take back the answer that was just sent.
        """
        with suppress(OSError, Gone), anyio.move_on_after(_LINGER_SECONDS):
            self._socket.shutdown(socket.SHUT_WR)
            while await self.receive():
                pass

    def end(self, ending: Ending = "close") -> None:
        """Close, or reset."""
        if not self._is_open:
            return
        self._is_open = False
        if ending == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
