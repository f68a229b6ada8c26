"""One table that is cache and queue at once: the protocol that every store fulfils.

A row of ``media_cache`` is a job and its result. This file names the values that go in
and out; `prewarmkit.stores.lifecycle` has the states and what moves a row between them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol, Self, runtime_checkable

from attrs import frozen

from prewarmkit.budget import Budget
from prewarmkit.media import Handle, Media, MediaKind, Warmed
from prewarmkit.stores.lifecycle import State

__all__ = [
    "Counts",
    "Enqueued",
    "Failed",
    "Job",
    "KeyValue",
    "Lease",
    "Looked",
    "MediaId",
    "MediaStore",
    "Outcome",
    "Released",
    "Retry",
    "Row",
    "Succeeded",
    "Turn",
]


class Enqueued(StrEnum):
    """What an enqueue found."""

    QUEUED = "queued"
    """The row is new, or due again."""
    DUPLICATE = "duplicate"
    """Pending or warming already; a better priority or a sooner delay was taken over."""
    READY = "ready"
    """There is a good handle."""
    FAILED = "failed"
    """It failed for good, and was left alone."""


class MediaId(NamedTuple):
    """What a row is known by."""

    target: str
    key: str
    kind: MediaKind


@frozen
class Job:
    """One medium to put into the table.

    Attributes:
        target: The target's id.
        media: Key, kind, version and hints.
        priority: 0 (most urgent) to 9.
        delay: Seconds from now, by the store's clock, before it is due.
        retry_failed: Whether a row that failed for good is due again.
    """

    target: str
    media: Media
    priority: int = 5
    delay: float = 0.0
    retry_failed: bool = False

    @property
    def id(self) -> MediaId:
        """The row's identity."""
        return MediaId(self.target, self.media.key, self.media.kind)


@frozen
class Lease:
    """A row that this process may work on until the lease runs out.

    Attributes:
        id: The row.
        token: The fence: it grows with each claim, and an outcome with an old one changes nothing.
        attempt: 1 for the first try; this claim included.
        media: Key, kind, version and hints, as enqueued.
        priority: As enqueued.
        waited: Seconds since the row was due.
    """

    id: MediaId
    token: int
    attempt: int
    media: Media
    priority: int = 5
    waited: float = 0.0


@frozen
class Succeeded:
    """The medium is warm: ``warming → ready``.

    Attributes:
        lease: The row.
        warmed: What the target gave.
        renew_in: Seconds from now, by the store's clock, after which the row is due again by itself, in
            the background; until it is warm anew its handle stays what it is. ``None``: never.
    """

    lease: Lease
    warmed: Warmed
    renew_in: float | None = None


@frozen
class Retry:
    """Try again later: ``warming → pending``.

    Attributes:
        delay: Seconds from now, by the store's clock.
        reason: Kept in the row.
        refund: Whether this attempt does not count.
    """

    lease: Lease
    delay: float
    reason: str
    refund: bool = False


@frozen
class Failed:
    """It failed for good: ``warming → failed``."""

    lease: Lease
    reason: str


@frozen
class Released:
    """Given back unstarted: ``warming → pending``, due at once, the attempt not counted."""

    lease: Lease


Outcome = Succeeded | Retry | Failed | Released


@frozen(kw_only=True)
class Turn:
    """What one `MediaStore.turn` did.

    Attributes:
        leased: Rows that are ours now, in the order in which their turn came.
        lost: Outcomes that changed nothing: their lease had run out, or the row had moved on.
        deferred: Outcomes that were not told, since somebody's open transaction has their rows locked:
            the leases hold, and the outcomes are to be told again.
        pending: Rows of these targets that wait, delayed ones included, leased ones not.
        waiting: The same of each target there is; ``None``: the store would have to count.
        next_due: Seconds until the earliest row that is not due yet or is to be renewed, or until
            the earliest lease of anybody runs out; ``None``: there is none of these.
    """

    leased: Sequence[Lease] = ()
    lost: Sequence[Outcome] = ()
    deferred: Sequence[Outcome] = ()
    pending: int = 0
    waiting: Mapping[str, int] | None = None
    next_due: float | None = None


@frozen(kw_only=True)
class Hint:
    """What a store tells whoever listens, of its own process's changes or of others'.

    Attributes:
        is_due: Rows may have become due.
        changed: Rows whose handle is not what it was: refused, or of another version. ``None``: any may be.
    """

    is_due: bool = True
    changed: Collection[MediaId] | None = ()


@frozen(kw_only=True)
class Row:
    """One row, for people who look.

    Attributes:
        id: Target, key and kind.
        state: Where it is in its life.
        priority: 0 to 9.
        attempts: Claims that counted.
        due_in: Seconds until it is due (0 or less: it is); ``None`` outside ``pending``.
        lease_left: Seconds that its lease still has; ``None`` outside ``warming``.
        renew_in: Seconds until it is due again by itself; ``None``: never, or outside ``ready``.
        reason: Why it last failed or waits; ``None`` if nothing did.
        handle: The handle, stale ones included.
        media: Version and hints, as enqueued.
        updated_at: When the row last changed.
        cursor: Where a listing goes on after this row.
    """

    id: MediaId
    state: State
    priority: int
    attempts: int
    due_in: float | None
    lease_left: float | None
    reason: str | None
    handle: Handle | None
    media: Media
    updated_at: datetime
    cursor: str
    renew_in: float | None = None


@frozen(kw_only=True)
class Looked:
    """What a look-up found: the row's state and its handle.

    Attributes:
        state: The row's state.
        handle: The handle; with ``stale`` set while a newer one is due or it has expired.
        reason: Why it last failed or waits.
        attempts: Claims that counted.
        due_in: Seconds until a pending row is due; 0 if it is, or in any other state.
        failed_ago: Seconds since it failed for good; ``None`` in any other state.
        media: Version and hints, as enqueued; ``None``: the store does not say.
    """

    state: State
    handle: Handle | None
    reason: str | None = None
    attempts: int = 0
    due_in: float = 0.0
    failed_ago: float | None = None
    media: Media | None = None


Counts = Mapping[tuple[str, MediaKind, State], int]
"""Rows by target, kind and state."""


@runtime_checkable
class KeyValue(Protocol):
    """Small durable facts under one name."""

    async def get(self, key: str) -> str | None:
        """The value, or ``None``."""
        ...

    async def put(self, key: str, value: str | None) -> None:
        """Keep a value; ``None`` forgets it."""
        ...


@runtime_checkable
class MediaStore(Protocol):
    """The table. Entering only connects; every call is one transaction.

    Times are the store's own: callers send delays and get spans, never their clock. What
    goes wrong with the database is a `prewarmkit.errors.StoreError`, and then nothing of
    the call was done.
    """

    @property
    def is_durable(self) -> bool:
        """Whether rows survive the process."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def migrate(self) -> object:
        """Bring the schema to this version; idempotent. What a store tells of it is its own affair."""
        ...

    async def check_schema(self) -> None:
        """Raise `SchemaMissing`, `SchemaTooOld` or `SchemaTooNew` if the schema does not fit."""
        ...

    async def enqueue(self, jobs: Sequence[Job], *, limit: int | None = None) -> list[Enqueued]:
        """Put jobs in, all or none; one answer a job, in order.

        Raises:
            QueueFull: More than ``limit`` rows would be pending; none was put in.
        """
        ...

    async def turn(
        self,
        settle: Sequence[Outcome] = (),
        lease: int = 0,
        targets: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> Turn:
        """Settle outcomes and lease up to ``lease`` more rows in one commit.

        Args:
            settle: Outcomes; each applies only if its lease still holds.
            lease: Most rows to lease; 0 for none.
            targets: Ids to lease for; ``None`` for any.
            lease_seconds: How long the new leases hold without a heartbeat.
        """
        ...

    async def heartbeat(self, leases: Sequence[Lease], lease_seconds: float = 60.0) -> list[Lease]:
        """Hold leases for ``lease_seconds`` from now; return those that were lost."""
        ...

    async def release(self, leases: Sequence[Lease]) -> list[Lease]:
        """Give rows back at no attempt's cost; return those that were lost already."""
        ...

    async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
        """The rows that exist, in one read without a lock."""
        ...

    async def invalidate(self, id: MediaId, value: str | None = None, *, rewarm: bool = True) -> bool:  # noqa: A002
        """Drop the row's handle if it still is ``value`` (``None``: whichever it is).

        With ``rewarm`` the row is due at once at priority 0, else it is removed.

        Returns:
            Whether this call did it: of 50 late refusals one does.
        """
        ...

    async def counts(self, targets: Collection[str] | None = None) -> Counts:
        """Rows by target, kind and state."""
        ...

    async def has_work(self, targets: Collection[str] | None = None) -> bool:
        """Whether any row is pending (delayed ones included) or warming; one that is to be renewed later is neither."""
        ...

    async def list(
        self,
        state: State | Collection[State] | None = None,
        *,
        after: str | None = None,
        limit: int = 100,
        targets: Collection[str] | None = None,
    ) -> list[Row]:
        """Rows in a stable order, of one state or several; go on after the last one's `Row.cursor`."""
        ...

    async def requeue(
        self,
        *,
        target: str | None = None,
        kind: MediaKind | None = None,
        reason: str | None = None,
        keys: Collection[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """Make failed rows due again with a fresh attempt counter; return how many.

        ``reason`` matches the start of the row's reason (``"too_large"``). It may take several
        transactions: an error leaves what was done before it.
        """
        ...

    async def purge(self, *, older_than: float, state: State | None = None) -> int:
        """Remove ready or failed rows untouched for ``older_than`` seconds; return how many. As for `requeue`."""
        ...

    def wakeups(self) -> AbstractAsyncContextManager[AsyncIterator[Hint | None]]:
        """A stream of hints; it may miss some, and may be silent. ``None`` is a plain `Hint`."""
        ...

    def budget(self, name: str) -> Budget:
        """The rate budget of that name, shared by all that share the store."""
        ...

    def state(self, name: str) -> KeyValue:
        """Small durable facts under that name."""
        ...
