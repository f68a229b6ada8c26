"""The proxy: a port, the connections to it, the script."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import anyio

from prewarmkit.testing.faults.fault import Ending, Fault
from prewarmkit.testing.faults.line import Line
from prewarmkit.testing.faults.plan import Exchange, FaultRule, Plan, ProxyStatistics, When
from prewarmkit.testing.faults.relay import Relay

__all__ = ["FaultProxy"]

_BACKLOG = 128


class FaultProxy:
    """Stands between a client and a server, and lets go wrong what it is told to.

    See `prewarmkit.testing.faults` for an example and for what it can do. It speaks HTTP/1.1 on a
    free port of 127.0.0.1, over asyncio or trio, and is entered by ``async with``.

    Args:
        host: Of the server.
        port: Of the server.

    Attributes:
        port: Where clients find the proxy; known once it is entered.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._plan = Plan()
        self._relays: set[Relay] = set()
        self._opened = 0
        self._running: AbstractAsyncContextManager[None] | None = None
        self.port = 0

    @classmethod
    def before(cls, url: str) -> Self:
        """In front of the server at an ``http://host:port`` address.

        Raises:
            ValueError: It is no such address; TLS in particular is not spoken.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"The address must be http://host:port, not {url!r}.")
        return cls(parts.hostname, parts.port or 80)

    def __repr__(self) -> str:
        host, port = self._upstream
        return f"FaultProxy(host={host!r}, port={port})"

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("This FaultProxy is entered already.")
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.__aexit__(exc_type, exc_value, traceback)

    # ── the script ───────────────────────────────────────────────────────────

    def next(self, fault: Fault, *, when: When | None = None, times: int = 1) -> FaultRule:
        """Let the next ``times`` requests for which ``when`` is true meet ``fault``.

        The first rule that takes a request has it; all of `next` come before those of `always`.

        Args:
            fault: What they meet.
            when: Looks at a request's head; ``None``: any.
            times: How many.

        Returns:
            The rule, whose ``hits`` tells which requests met it and what became of them.
        """
        return self._plan.next(fault, when=when, times=times)

    def always(self, fault: Fault, *, when: When | None = None) -> FaultRule:
        """Let every request for which ``when`` is true meet ``fault``, until `clear`; see `next`."""
        return self._plan.always(fault, when=when)

    def clear(self) -> None:
        """Forget the rules; the log stays."""
        self._plan.clear()

    async def drop_idle(self, ending: Ending = "close") -> int:
        """End all connections that lie idle now, and give their number once it is done."""
        dropped = {relay for relay in self._relays if relay.drop(ending)}
        while dropped & self._relays:
            await self._one_ended.wait()
        return len(dropped)

    # ── what it saw ──────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        """The base URL for clients."""
        if not self.port:
            raise RuntimeError("Enter the FaultProxy first: `async with FaultProxy(...) as proxy`.")
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections of clients that are open now."""
        return len(self._relays)

    @property
    def log(self) -> Sequence[Exchange]:
        """Every request and what became of it, oldest first."""
        return tuple(self._plan.log)

    def statistics(self) -> ProxyStatistics:
        """The figures."""
        return ProxyStatistics(
            connections=len(self._relays),
            opened=self._opened,
            requests=len(self._plan.log),
            faults=sum(exchange.has_struck for exchange in self._plan.log),
        )

    async def wait_closed(self, *, timeout_seconds: float = 1.0) -> None:
        """Wait until no client has a connection open.

        Raises:
            TimeoutError: One had one for longer.
        """
        with anyio.move_on_after(timeout_seconds):
            while self._relays:
                await self._one_ended.wait()
        if self._relays:
            raise TimeoutError(
                f"{len(self._relays)} connections to the proxy are still open after {timeout_seconds:g} s: "
                "the client leaks them, or was not closed."
            )

    # ── connections ──────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        failure: Exception | None = None
        self._one_ended = anyio.Event()
        with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
            listener.settimeout(0.0)
            self.port = listener.getsockname()[1]
            async with anyio.create_task_group() as tasks:

                async def accept() -> None:
                    while True:
                        try:
                            accepted, _address = listener.accept()
                        except BlockingIOError:
                            await anyio.wait_readable(listener)
                        else:
                            tasks.start_soon(self._serve, Line(accepted))

                tasks.start_soon(accept)
                try:
                    yield
                except Exception as error:  # noqa: BLE001 - raised again below, bare and not in a group
                    failure = error
                tasks.cancel_scope.cancel()
        self.port = 0
        if failure is not None:
            raise failure

    async def _serve(self, client: Line) -> None:
        relay = Relay(client, self._opened, self._upstream, self._plan)
        self._opened += 1
        self._relays.add(relay)
        try:
            await relay.run()
        finally:
            self._relays.discard(relay)
            self._one_ended.set()
            self._one_ended = anyio.Event()  # for who waits for the next one
