"""TCP passed on to a server, until a test says otherwise: what a network does that loses a peer without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import cast

from attrs import define, field
from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["Relay", "relay"]

_CHUNK_BYTES = 1 << 16


@define(eq=False)
class Relay:
    """Passes bytes on both ways.

    Attributes:
        dsn: The database, through it.
        is_blocked: Whether new connections are taken, and nothing of them is passed on.
    """

    _host: str
    _port: int
    dsn: str = field(init=False, default="")
    is_blocked: bool = field(init=False, default=False)
    _gates: set[asyncio.Event] = field(init=False, factory=set[asyncio.Event])
    _tasks: set[asyncio.Task[None]] = field(init=False, factory=set[asyncio.Task[None]])

    def stall(self) -> int:
        """From now on nothing comes through on the connections that there are; they stay open. Says how many."""
        for gate in self._gates:
            gate.clear()
        return len(self._gates)

    def block(self) -> None:
        """As `stall`, for those to come too."""
        self.is_blocked = True
        self.stall()

    def unblock(self) -> None:
        """Those to come get through again; those that stalled do not."""
        self.is_blocked = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        gate = asyncio.Event()
        if not self.is_blocked:
            gate.set()
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        self._gates.add(gate)
        ends = [writer]
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
            ends.append(back)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, back, gate))
                pumps.create_task(_pump(there, writer, gate))
        finally:
            self._gates.discard(gate)
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def close(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            await gate.wait()
            writer.write(data)
            await writer.drain()
        await gate.wait()
        writer.transport.abort()


@asynccontextmanager
async def relay(dsn: str) -> AsyncGenerator[Relay]:
    """A relay before the server of ``dsn``."""
    known = conninfo_to_dict(dsn)
    passing = Relay(str(known["host"]), int(str(known["port"])))
    server = await asyncio.start_server(passing.serve, "127.0.0.1", 0)
    passing.dsn = make_conninfo(dsn, host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    try:
        yield passing
    finally:
        server.close()
        await passing.close()
        await server.wait_closed()
