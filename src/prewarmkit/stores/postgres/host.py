"""Enqueue by a connection that somebody else owns: async or sync, in its transaction.

Carries out the steps of `prewarmkit.stores.postgres.enqueue`; commits nothing and closes
nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import anyio.to_thread
import psycopg
from attrs import define, field
from psycopg.pq import Format
from psycopg.rows import tuple_row

from prewarmkit.media import Media, MediaKind, seconds_of
from prewarmkit.stores.base import Enqueued, Job
from prewarmkit.stores.postgres.enqueue import Rows, Steps, enqueue_steps
from prewarmkit.stores.postgres.schema import check_version
from prewarmkit.stores.postgres.session import name_apart
from prewarmkit.stores.rules import priority_of

__all__ = ["AnyConnection", "HostEnqueue"]

AnyConnection = psycopg.AsyncConnection[Any] | psycopg.Connection[Any]

_LOWEST_PRIORITY = 9
_CHECK_SECONDS = 60.0


@define(eq=False)
class HostEnqueue:
    """Enqueues by whatever connection it is given.

    Attributes:
        queries: The named queries.
        schema: Whose version is looked at before the first row is put in, and once a minute; ``None``: never.
        channel: Where to leave a hint, which goes out when the host commits; ``None``: nowhere.
        prepare: Whether to prepare statements; ``None`` leaves it to the connection's own threshold.
    """

    queries: Mapping[str, bytes]
    schema: str | None = None
    channel: str | None = None
    prepare: bool | None = None
    _checked_at: float = field(init=False, default=-math.inf)

    async def enqueue(
        self,
        connection: AnyConnection,
        media: Media | str | Iterable[Media | str],
        *,
        target: Any,
        **how: Any,
    ) -> list[Enqueued]:
        """See `PostgresStore.enqueue_in`."""
        if isinstance(connection, psycopg.Connection):
            return await anyio.to_thread.run_sync(
                lambda: self.enqueue_sync(connection, media, target=target, **how)
            )
        _check(connection, psycopg.AsyncConnection)
        name_apart(connection)
        jobs = _jobs(media, target, **how)
        answers = await self.run(connection, self._steps(jobs)) if jobs else []
        if self.channel is not None and jobs:
            await connection.execute("SELECT pg_notify(%s, '')", [self.channel], prepare=self.prepare)
        return answers

    def enqueue_sync(
        self,
        connection: psycopg.Connection[Any],
        media: Media | str | Iterable[Media | str],
        *,
        target: Any,
        **how: Any,
    ) -> list[Enqueued]:
        """See `PostgresStore.enqueue_in_sync`."""
        _check(connection, psycopg.Connection)
        name_apart(connection)
        jobs = _jobs(media, target, **how)
        answers = self.run_sync(connection, self._steps(jobs)) if jobs else []
        if self.channel is not None and jobs:
            connection.execute("SELECT pg_notify(%s, '')", [self.channel], prepare=self.prepare)
        return answers

    def _steps(self, jobs: list[Job]) -> Steps:
        if self.schema is not None and time.monotonic() - self._checked_at > _CHECK_SECONDS:
            [[version]] = yield "version", []
            check_version(version, self.schema, "the connection that was handed in")
            self._checked_at = time.monotonic()
        return (yield from enqueue_steps(jobs, channel=self.channel))

    async def run(self, connection: psycopg.AsyncConnection[Any], steps: Steps) -> list[Enqueued]:
        """Carry out steps on an async connection."""
        rows: Rows | None = None
        while True:
            try:
                query, values = next(steps) if rows is None else steps.send(rows)
            except StopIteration as done:
                return list(done.value)
            cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
            cursor.format = Format.BINARY
            await cursor.execute(self.queries[query], values, prepare=self.prepare)
            rows = await cursor.fetchall() if cursor.description else []

    def run_sync(self, connection: psycopg.Connection[Any], steps: Steps) -> list[Enqueued]:
        """Carry out steps on a sync connection."""
        rows: Rows | None = None
        while True:
            try:
                query, values = next(steps) if rows is None else steps.send(rows)
            except StopIteration as done:
                return list(done.value)
            cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
            cursor.format = Format.BINARY
            cursor.execute(self.queries[query], values, prepare=self.prepare)
            rows = cursor.fetchall() if cursor.description else []


def _check(connection: object, expected: type) -> None:
    if not isinstance(connection, expected):
        raise TypeError(
            f"enqueue_in takes an open psycopg connection, not {type(connection).__name__}; "
            "under SQLAlchemy that is `(await session.connection()).get_raw_connection()`'s driver_connection."
        )


def _jobs(
    media: Media | str | Iterable[Media | str],
    target: Any,
    *,
    kind: MediaKind | str | None = None,
    priority: int | None = None,
    delay: float | timedelta | None = None,
    retry_failed: bool = False,
) -> list[Job]:
    """The jobs that a call means.

    Raises:
        TypeError: Something is not what it should be.
        ValueError: A kind that contradicts, or a priority that is none.
    """
    name = target if isinstance(target, str) else getattr(target, "id", None)
    if not isinstance(name, str):
        raise TypeError(f"target is a target or its id, not {type(target).__name__}.")
    if priority is not None and not 0 <= priority <= _LOWEST_PRIORITY:
        raise ValueError(f"priority is 0 (most urgent) to 9, not {priority!r}.")
    seconds = 0.0 if delay is None else seconds_of(delay, "delay")
    many = [media] if isinstance(media, str | Media) else media
    return [
        Job(
            name,
            each,
            priority=priority_of(each) if priority is None else priority,
            delay=seconds,
            retry_failed=retry_failed,
        )
        for each in (_medium(given, kind) for given in many)
    ]


def _medium(given: Media | str, kind: MediaKind | str | None) -> Media:
    if isinstance(given, str):
        return Media(given, None if kind is None else MediaKind.parse(kind))
    if not isinstance(given, Media):
        raise TypeError(f"A medium is a str key or a Media, not {type(given).__name__}.")
    if kind is not None and MediaKind.parse(kind) is not given.kind:
        raise ValueError(f"kind={str(kind)!r} contradicts {given!r}: give the kind once.")
    return given
