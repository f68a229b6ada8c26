"""What the supervisor and its worker tell each other: one line of JSON at a time.

The supervisor writes one `Order` to the worker's standard input and then only keeps it open:
its end is the worker's end. The worker answers with `Report` lines. Pure values.
"""

from __future__ import annotations

import json
from typing import Any, Self, cast

from attrs import asdict, field, frozen

__all__ = ["BUCKET", "Order", "Report", "first_of"]

BUCKET = "media"


@frozen(kw_only=True)
class Order:
    """All that a worker needs. It goes through a pipe, so no secret stands in a command line or file.

    Attributes:
        endpoint: Of the S3 server.
        access_key_id: Whose the objects are.
        secret_access_key: Hidden in ``repr``.
        bucket: Where the objects are.
        api_base: Of the Bot API server.
        token: The bot's; hidden in ``repr``.
        chats: Private warmup chats.
        has_budget: Whether to keep to Telegram's limits.
        concurrency: Media that are warmed at once.
        lease_seconds: How long the media of a dead worker wait for the next one.
        database: The SQLite file, or PostgreSQL's address; hidden in ``repr``, since a password may stand in it.
        schema: Of the table in PostgreSQL; ``None``: it is a file.
        max_bytes: How large it may get; ``None``: no bound.
    """

    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    bucket: str = BUCKET
    api_base: str
    token: str = field(repr=False)
    chats: int
    has_budget: bool
    concurrency: int
    lease_seconds: float
    database: str = field(repr=False)
    schema: str | None = None
    max_bytes: int | None = None

    def to_line(self) -> bytes:
        """The order as it goes through the pipe."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """The order that came through the pipe."""
        return cls(**json.loads(line))


@frozen(kw_only=True)
class Report:
    """What a worker has done so far; counters are of its whole life, lists only new.

    Attributes:
        pending: Media that nobody has begun.
        active: Media being warmed now.
        succeeded: Media warmed.
        failed: Media that failed for good.
        retried: Attempts that failed and go again.
        signing_hits: Requests signed with a key from the cache.
        signing_misses: Requests for which the key was derived.
        peak_memory_bytes: The most memory it ever had; ``None``: this system does not tell.
        waits: Seconds from due to begun, of each medium begun since the last report.
        moves: Seconds that the bytes of a medium were on their way, as far as it is known by now.
        warms: Seconds from begun to warm, of each medium ready since the last report.
        began_at: When the first medium was begun, POSIX time; ``None``: none was.
        ready_at: When the last medium was ready; ``None``: none was.
        trouble: Why it stops before the work is done: a message for the operator.
        is_done: Whether nothing is left to warm.
    """

    pending: int = 0
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    signing_hits: int = 0
    signing_misses: int = 0
    peak_memory_bytes: int | None = None
    waits: list[float] = field(factory=list[float])
    moves: list[float] = field(factory=list[float])
    warms: list[float] = field(factory=list[float])
    began_at: float | None = None
    ready_at: float | None = None
    trouble: str | None = None
    is_done: bool = False

    def to_line(self) -> bytes:
        """The report as it goes through the pipe."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """The report that came through the pipe."""
        values: dict[str, Any] = json.loads(line)
        return cls(**values)


def first_of(error: BaseException) -> BaseException:
    """The first error in a group, however deep; tasks that fail together raise one."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
