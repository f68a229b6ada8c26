"""An HTTP handler that is served from a thread of its own, so that tests of any event loop, or of none, may call it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from aiohttp import web

from prewarmkit.testing.lifespan import Lifespan

__all__ = ["HOST", "Served", "ServedLifespan", "reset"]

HOST = "127.0.0.1"
_STOP_SECONDS = 10

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served:
    """A handler of every path, on a port of this machine.

    Args:
        name: For messages.
        handle: Answers a request, in the thread's event loop.
        port: Where to listen; 0: anywhere free.
        ssl_context: Makes it https.
        on_end: Closes what the handler has opened, in the same event loop.

    Attributes:
        bug: What a request or the thread met; `stop` raises it.
    """

    def __init__(
        self,
        name: str,
        handle: Handle,
        *,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        on_end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.bug: Exception | None = None
        self._name = name
        self._handle = handle
        self._port = port
        self._tls = ssl_context
        self._on_end = on_end
        self._ready: Future[int] = Future()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def is_started(self) -> bool:
        """Whether it has been started, once and for all."""
        return self._thread is not None

    @property
    def port(self) -> int:
        """Where it listens."""
        if not self._ready.done():
            raise RuntimeError(f"{self._name} has no address yet: enter it first.")
        return self._ready.result()

    def start(self) -> None:
        """Bind the port, and return when requests are served."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Close every connection and the port, and end the thread.

        Raises:
            Exception: See `bug`.
        """
        if self._loop is not None and self._stop is not None:
            # The loop is closed already where the thread failed on its own.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                raise RuntimeError(f"{self._name} did not stop within {_STOP_SECONDS} seconds.")
        if self.bug is not None:
            bug, self.bug = self.bug, None
            raise bug

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - handed to whoever waits for the start
            if self._ready.done():
                self.bug = self.bug or RuntimeError(f"The thread of {self._name} died: {failure!r}")
            else:
                self._ready.set_exception(failure)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self._port, ssl_context=self._tls).start()
            self._ready.set_result(runner.addresses[0][1])
            await self._stop.wait()
        finally:
            await runner.cleanup()
            if self._on_end is not None:
                await self._on_end()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._handle(request)
        except ConnectionError:
            return web.Response(status=400)  # nobody is left to answer
        except Exception as bug:
            self.bug = self.bug or bug
            raise


class ServedLifespan(Lifespan):
    """A server that is `Served`: started once, by ``start`` or by entering it.

    Attributes:
        _served: The handler and its thread; set by the subclass.
    """

    _served: Served

    def start(self) -> None:
        """Bind the port, and return when requests are served."""
        if self._served.is_started:
            raise RuntimeError(f"{type(self).__name__} is started once: make another.")
        self._prepare()
        try:
            self._served.start()
        except BaseException:
            self.stop()
            raise

    def _prepare(self) -> None:
        """What a subclass does before requests come."""

    def stop(self) -> None:
        """Close every connection and the port, and end the thread.

        Raises:
            Exception: A request met a bug of this server; it was answered by 500, and is raised here.
        """
        self._served.stop()

    def _open(self) -> None:
        self.start()

    def _close(self) -> None:
        self.stop()


def reset(request: web.Request) -> None:
    """Break the connection off so that the client sees a reset, not an end."""
    transport = request.transport
    if transport is not None:
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
