"""Hints between processes by LISTEN and NOTIFY, as hints only: without them there is the poll.

A listener has a connection of its own, makes it anew with growing pauses, and asks itself
now and then, on a channel that nobody else hears, whether it still hears. Hints go out at most
once in a while, however many rows were put in, since each NOTIFY takes a lock of the whole
server at its commit.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psycopg
from attrs import define, field
from psycopg import sql

from prewarmkit.errors import PrewarmKitError
from prewarmkit.stores.base import Hint
from prewarmkit.stores.postgres.hints import DUE, SETTLED, hint_of
from prewarmkit.stores.postgres.session import Connection, connect
from prewarmkit.stores.wakeups import Wakeups

__all__ = ["Listener", "Notifier"]

logger = logging.getLogger("prewarmkit.stores")

_DEBOUNCE_SECONDS = 0.05
_PARTING_SECONDS = 1.0
_PROBE_SECONDS = 20.0
_ANSWER_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 30.0


@define(eq=False)
class Notifier:
    """Tells other processes, at most once a debounce."""

    send: Callable[[str], Awaitable[None]]
    _last: float = field(init=False, default=float("-inf"))
    _is_coming: bool = field(init=False, default=False)
    _payload: str = field(init=False, default=SETTLED)
    _is_leaving: asyncio.Event = field(init=False, factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(init=False, factory=set[asyncio.Task[None]])

    def notify(self, payload: str = DUE) -> None:
        """Have a hint sent soon; never waits."""
        if payload == DUE:
            self._payload = DUE  # whoever hears that looks for what was settled too
        if not self._is_coming:
            self._is_coming = True
            wait = max(0.0, self._last + _DEBOUNCE_SECONDS - time.monotonic())
            task = asyncio.get_running_loop().create_task(self._send_after(wait))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_after(self, seconds: float) -> None:
        if seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_leaving.wait()
        # From here on what is put in is not told by this hint: the next one may be asked for.
        self._last, self._is_coming = time.monotonic(), False
        payload, self._payload = self._payload, SETTLED
        try:
            await self.send(payload)
        except PrewarmKitError as error:
            logger.debug("a hint was not sent: %s", error)

    async def close(self) -> None:
        """Send now what is still to be sent, and nothing more; waits a second for it at most."""
        self._is_leaving.set()
        tasks = list(self._tasks)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=_PARTING_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._is_coming = False
            self._is_leaving.clear()


@define(eq=False)
class Listener:
    """Hears other processes while anybody wants hints.

    Attributes:
        dsn: Where to listen; a direct one, not through a pooler that shares connections.
        channel: What to listen to.
        wakeups: Who wants hints.
    """

    dsn: str = field(repr=False)
    channel: str
    wakeups: Wakeups
    is_hearing: bool = field(init=False, default=False)
    _wanted: int = field(init=False, default=0)
    _task: asyncio.Task[None] | None = field(init=False, default=None)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncIterator[Hint]]:
        """A stream of hints, of this process and of others."""
        self._wanted += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._hear())
        try:
            async with self.wakeups.listen() as hints:
                yield hints
        finally:
            self._wanted -= 1
            if not self._wanted:
                await self.close()

    async def close(self) -> None:
        """Hang up."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _hear(self) -> None:
        pause = 0.5
        while True:
            began = time.monotonic()
            try:
                await self._hear_on_one_connection()
            except (psycopg.Error, OSError, TimeoutError, ConnectionError) as error:
                logger.info("hints are not heard (%s); polling goes on", type(error).__name__)
            self.is_hearing = False
            if time.monotonic() - began > 2 * _PROBE_SECONDS:
                pause = 0.5
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - no secret, only not in step
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _hear_on_one_connection(self) -> None:
        async with asyncio.timeout(2 * _ANSWER_SECONDS):
            connection = await connect(self.dsn, prepare_threshold=None)
        own = f"{self.channel}_{secrets.token_hex(8)}"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                for channel in (self.channel, own):
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self.wakeups.notify(Hint(changed=None))  # what came while nobody heard
            self.is_hearing = True
            while True:
                if not await self._heard(connection, _PROBE_SECONDS):
                    await self._probe(connection, own)
        finally:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    async def _heard(self, connection: Connection, seconds: float) -> bool:
        """Pass hints on until none came for a while; say whether anything came."""
        did = False
        async for heard in connection.notifies(timeout=seconds, stop_after=1):
            did = True
            if heard.channel == self.channel:
                self.wakeups.notify(hint_of(heard.payload))
        return did

    async def _probe(self, connection: Connection, own: str) -> None:
        """Tell ourselves: on a connection that is half open, or not ours alone, nothing comes back.

        Raises:
            ConnectionError: Nothing came.
        """
        async with asyncio.timeout(_ANSWER_SECONDS):
            await connection.execute("SELECT pg_notify(%s, '')", [own])
        if not await self._heard(connection, _ANSWER_SECONDS):
            raise ConnectionError("no hint comes back on this connection")
