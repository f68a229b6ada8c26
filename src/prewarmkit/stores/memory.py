"""The table in memory: nothing survives the process, everything else holds.

Each call is one synchronous step between two awaits, which is all the transaction that
one event loop needs. Rows and their order: `prewarmkit.stores.memory_table`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Self

from attrs import define, evolve, field

from prewarmkit.budget import Budget, MemoryBudget
from prewarmkit.errors import ConfigurationError, QueueFull
from prewarmkit.media import Media, MediaKind
from prewarmkit.stores.base import (
    Counts,
    Enqueued,
    Failed,
    Hint,
    Job,
    KeyValue,
    Lease,
    Looked,
    MediaId,
    Outcome,
    Released,
    Retry,
    Row,
    Succeeded,
    Turn,
)
from prewarmkit.stores.clock import Moment, StoreClock, boot_seconds
from prewarmkit.stores.lifecycle import Move, State
from prewarmkit.stores.memory_table import MemoryKeyValue, Record, Table
from prewarmkit.stores.rules import handle_of, is_new_version, merged, moment, states_of, tell_all
from prewarmkit.stores.wakeups import Wakeups

__all__ = ["MemoryStore"]


@define(eq=False)
class MemoryStore:
    """``media_cache`` in memory, for tests and for hosts that can warm again after a restart.

    Attributes:
        clock: POSIX seconds, for tests that move time; ``None``: the machine's, see `prewarmkit.stores.clock`.
    """

    clock: Callable[[], float] | None = None
    _clock: StoreClock = field(init=False, repr=False)
    is_durable: bool = field(init=False, default=False)
    _table: Table = field(init=False, factory=Table, repr=False)
    _wakeups: Wakeups = field(init=False, factory=Wakeups, repr=False)
    _budgets: dict[str, MemoryBudget] = field(init=False, factory=dict[str, MemoryBudget], repr=False)
    _states: dict[str, KeyValue] = field(init=False, factory=dict[str, KeyValue], repr=False)
    owner: object | None = field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        self._clock = StoreClock(self.clock, time.time() - boot_seconds())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def migrate(self) -> None:
        """Nothing to do."""

    async def check_schema(self) -> None:
        """Nothing to check."""

    def claim_for(self, pool: object) -> None:
        """Bind the store to one pool: two pools over one memory would each think that it holds all."""
        if self.owner is not None and self.owner is not pool:
            raise ConfigurationError(
                "This MemoryStore serves another pool: give each pool a store of its own."
            )
        self.owner = pool

    @property
    def pending(self) -> int:
        """Rows that wait, delayed ones included."""
        return self._table.pending()

    # ── enqueue ──────────────────────────────────────────────────────────────

    async def enqueue(self, jobs: Sequence[Job], *, limit: int | None = None) -> list[Enqueued]:
        """See `MediaStore.enqueue`."""
        at = self._clock()
        if limit is not None and (more := self._would_queue(jobs, at)):
            pending = self._table.pending()
            if pending + more > limit:
                raise QueueFull(f"{pending} media are pending and {limit} is the bound: try again later.")
        answers = [self._enqueue(job, at) for job in jobs]
        self._wakeups.notify()
        return answers

    def _would_queue(self, jobs: Sequence[Job], at: Moment) -> int:
        """How many rows more would wait: of one row each job knows what those before it said."""
        known: dict[MediaId, Media] = {}
        due: set[MediaId] = set()
        for job in jobs:
            row = self._table.rows.get(job.id)
            media = known.get(job.id, None if row is None else row.media)
            if media is None:
                is_due = self._table.warm(job.target, job.media, at.wall) is None
            else:
                is_again = row is not None and not row.is_queued and _is_due_again(row, job, at)
                is_due = is_again or is_new_version(media, job.media)
            if is_due and (row is None or row.state is not State.PENDING):
                due.add(job.id)
            known[job.id] = job.media if media is None else merged(media, job.media)
        return len(due)

    def _enqueue(self, job: Job, at: Moment) -> Enqueued:
        row = self._table.rows.get(job.id)
        if row is None:
            return self._make_due(self._table.add(job.id, job.media), job, at)
        is_new = is_new_version(row.media, job.media)
        if row.is_queued and not is_new:
            return self._hurry(row, job, at)
        if not row.is_queued and not _is_due_again(row, job, at):
            self._table.describe(row, merged(row.media, job.media))
            return Enqueued.READY if row.state is State.READY else Enqueued.FAILED
        was_queued, urgency = row.is_queued, min(job.priority, row.priority)
        self._table.move(row, Move.RENEW if is_new or row.state is State.READY else Move.REQUEUE, at.now)
        self._table.describe(row, merged(row.media, job.media))
        row.stale, row.is_suspect = row.handle is not None, row.is_suspect and not is_new
        answer = self._make_due(row, evolve(job, priority=urgency) if was_queued else job, at)
        return Enqueued.DUPLICATE if was_queued and answer is Enqueued.QUEUED else answer

    def _hurry(self, row: Record, job: Job, at: Moment) -> Enqueued:
        """Take over what a duplicate knows better: facts, a better priority, a sooner time."""
        self._table.describe(row, merged(row.media, job.media))
        if row.state is State.PENDING and self._share(row, at):
            return Enqueued.READY
        is_sooner = at.now + job.delay < row.due_at
        if row.state is State.PENDING and (job.priority < row.priority or is_sooner):
            row.priority = min(job.priority, row.priority)
            self._table.schedule(row, min(at.now + job.delay, row.due_at), at.now)
        return Enqueued.DUPLICATE

    def _make_due(self, row: Record, job: Job, at: Moment) -> Enqueued:
        row.priority, row.reason, row.updated_at = job.priority, None, at.now
        if self._share(row, at):
            return Enqueued.READY
        self._table.schedule(row, at.now + job.delay, at.now)
        return Enqueued.QUEUED

    def _share(self, row: Record, at: Moment) -> bool:
        """Give a waiting row without a handle that of the same content under another key."""
        source = self._table.warm(row.id.target, row.media, at.wall) if row.handle is None else None
        if source is not None:
            self._table.share(row, source, at.now)
        return source is not None

    # ── settle and lease ─────────────────────────────────────────────────────

    async def turn(
        self,
        settle: Sequence[Outcome] = (),
        lease: int = 0,
        targets: Collection[str] | None = None,
        lease_seconds: float = 60.0,
    ) -> Turn:
        """See `MediaStore.turn`."""
        at = self._clock()
        lost = tell_all(settle, lambda outcome: self._settle(outcome, at))
        self._table.advance(at.now)
        return Turn(
            leased=self._lease(lease, targets, at.now, lease_seconds),
            lost=lost,
            pending=self._table.pending(targets),
            waiting=self._table.waiting(),
            next_due=self._table.next_due(at.now),
        )

    def _settle(self, outcome: Outcome, at: Moment) -> bool:
        row, now = self._held(outcome.lease), at.now
        if row is None:
            return False
        table = self._table
        match outcome:
            case Succeeded(_, warmed, renew_in):
                table.move(row, Move.SUCCEED, now)
                row.handle, row.stale, row.reason = handle_of(row.id, warmed, now=at.wall), False, None
                row.is_suspect = False
                table.renew_later(row, None if renew_in is None else now + renew_in)
                for other in table.same_content(row.id.target, row.media, State.PENDING):
                    if not other.stale:  # it has no handle, or one that is to be renewed
                        table.share(other, row, now)
            case Retry(_, delay, reason, refund):
                table.move(row, Move.DEFER if refund else Move.RETRY, now)
                row.reason, row.is_suspect = reason, False  # its process lived to tell
                table.schedule(row, now + delay, now)
            case Failed(_, reason):
                table.move(row, Move.FAIL, now)
                row.reason = reason
            case Released():
                table.move(row, Move.RELEASE, now)
                table.schedule(row, now, now)
        return True

    def _lease(
        self, most: int, targets: Collection[str] | None, now: float, lease_seconds: float
    ) -> list[Lease]:
        leased: list[Lease] = []
        while len(leased) < most and (row := self._table.take(targets)) is not None:
            self._table.move(row, Move.CLAIM, now)
            self._table.hold(row, now + lease_seconds)
            waited = max(0.0, now - row.due_at)
            leased.append(Lease(row.id, row.token, row.attempts, row.media, row.priority, waited))
        return leased

    async def heartbeat(self, leases: Sequence[Lease], lease_seconds: float = 60.0) -> list[Lease]:
        """See `MediaStore.heartbeat`."""
        until = self._clock().now + lease_seconds
        lost: list[Lease] = []
        for lease in leases:
            row = self._held(lease)
            if row is None:
                lost.append(lease)
            else:
                self._table.hold(row, until)
        return lost

    async def release(self, leases: Sequence[Lease]) -> list[Lease]:
        """See `MediaStore.release`."""
        turn = await self.turn([Released(lease) for lease in leases])
        self._wakeups.notify()
        return [outcome.lease for outcome in turn.lost]

    def _held(self, lease: Lease) -> Record | None:
        row = self._table.rows.get(lease.id)
        is_held = row is not None and row.state is State.WARMING and row.token == lease.token
        return row if is_held else None

    # ── read ─────────────────────────────────────────────────────────────────

    async def lookup_many(self, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
        """See `MediaStore.lookup_many`."""
        at = self._clock()
        found: dict[MediaId, Looked] = {}
        for id_ in ids:
            row = self._table.rows.get(id_)
            if row is not None:
                found[id_] = Looked(
                    state=row.state,
                    handle=row.readable(at.wall),
                    reason=row.reason,
                    attempts=row.attempts,
                    due_in=max(0.0, row.due_at - at.now) if row.state is State.PENDING else 0.0,
                    failed_ago=at.now - row.updated_at if row.state is State.FAILED else None,
                    media=row.media,
                )
        return found

    async def counts(self, targets: Collection[str] | None = None) -> Counts:
        """See `MediaStore.counts`."""
        return {
            place: rows
            for place, rows in self._table.counts.items()
            if rows and (targets is None or place[0] in targets)
        }

    async def has_work(self, targets: Collection[str] | None = None) -> bool:
        """See `MediaStore.has_work`."""
        counts = await self.counts(targets)
        return any(state in {State.PENDING, State.WARMING} for _, _, state in counts)

    async def list(
        self,
        state: State | Collection[State] | None = None,
        *,
        after: str | None = None,
        limit: int = 100,
        targets: Collection[str] | None = None,
    ) -> list[Row]:
        """See `MediaStore.list`."""
        at = self._clock()
        start, states = 0 if after is None else int(after), states_of(state)
        rows = (
            self._row(row, at)
            for row in self._table.rows.values()
            if row.serial > start
            and (states is None or row.state in states)
            and (targets is None or row.id.target in targets)
        )
        return list(islice(rows, limit))

    @staticmethod
    def _row(row: Record, at: Moment) -> Row:
        return Row(
            id=row.id,
            state=row.state,
            priority=row.priority,
            attempts=row.attempts,
            due_in=row.due_at - at.now if row.state is State.PENDING else None,
            lease_left=row.lease_until - at.now if row.state is State.WARMING else None,
            reason=row.reason,
            handle=row.readable(at.wall),
            media=row.media,
            updated_at=moment(at.on_calendar(row.updated_at)),
            cursor=str(row.serial),
            renew_in=None if row.renew_at is None else row.renew_at - at.now,
        )

    # ── change by hand ───────────────────────────────────────────────────────

    async def invalidate(self, id: MediaId, value: str | None = None, *, rewarm: bool = True) -> bool:  # noqa: A002
        """See `MediaStore.invalidate`."""
        row = self._table.rows.get(id)
        if row is None or row.handle is None or (value is not None and row.handle.value != value):
            return False
        now, refused = self._clock().now, row.handle.value
        is_dropped = not rewarm and not row.is_queued
        for other in self._table.same_content(id.target, row.media, State.READY):
            # Left to another key of the same content, it would come back to this one.
            if other is not row and other.handle is not None and other.handle.value == refused:
                self._refuse(other, now, is_dropped=is_dropped)
        if row.is_queued:
            row.handle, row.stale = None, False
            return True
        if not is_dropped:
            row.priority = 0
        self._refuse(row, now, is_dropped=is_dropped)
        return True

    def _refuse(self, row: Record, now: float, *, is_dropped: bool) -> None:
        """A row that is not queued loses its handle: it is due again, or gone."""
        if is_dropped:
            self._table.forget(row)
            return
        self._table.move(row, Move.INVALIDATE, now)
        row.reason, row.handle, row.stale = "the handle was refused", None, False
        self._table.schedule(row, now, now)
        self._wakeups.notify()

    async def requeue(
        self,
        *,
        target: str | None = None,
        kind: MediaKind | None = None,
        reason: str | None = None,
        keys: Collection[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """See `MediaStore.requeue`."""
        now = self._clock().now
        chosen = (
            row
            for row in self._table.rows.values()
            if row.state is State.FAILED
            and (target is None or row.id.target == target)
            and (kind is None or row.id.kind is kind)
            and (reason is None or (row.reason or "").startswith(reason))
            and (keys is None or row.id.key in keys)
        )
        for row in (rows := list(islice(chosen, limit))):
            self._table.move(row, Move.REQUEUE, now)
            self._table.schedule(row, now, now)
        if rows:
            self._wakeups.notify()
        return len(rows)

    async def purge(self, *, older_than: float, state: State | None = None) -> int:
        """See `MediaStore.purge`."""
        before = self._clock().now - older_than
        states = {State.READY, State.FAILED} & ({State.READY, State.FAILED} if state is None else {state})
        rows = [row for row in self._table.rows.values() if row.state in states and row.updated_at <= before]
        for row in rows:
            self._table.forget(row)
        return len(rows)

    # ── services ─────────────────────────────────────────────────────────────

    def wakeups(self) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """See `MediaStore.wakeups`."""
        return self._wakeups.listen()

    def budget(self, name: str) -> Budget:
        """See `MediaStore.budget`."""
        return self._budgets.setdefault(name, MemoryBudget(lambda: self._clock().now))

    def state(self, name: str) -> KeyValue:
        """See `MediaStore.state`."""
        return self._states.setdefault(name, MemoryKeyValue())


def _is_due_again(row: Record, job: Job, at: Moment) -> bool:
    """Whether a row that has ended its life begins another."""
    if is_new_version(row.media, job.media):
        return True
    return row.has_expired(at.wall) if row.state is State.READY else job.retry_failed
