"""The rows of a `MemoryStore` and their order, synchronous and told the time; its small facts.

Due rows stand in heaps by target: the live ones, the others, and suspects (rows whose last
lease ran out); delayed rows, leases and rows to be renewed in heaps by time. A row has one valid entry in them at
a time; an entry whose row has moved on is dropped when it comes up, so that moving a row never
searches a heap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from attrs import define, evolve, field

from prewarmkit.media import Handle, Media, MediaKind
from prewarmkit.stores.base import MediaId
from prewarmkit.stores.lifecycle import (
    LIVE_IN_A_ROW,
    LIVE_PRIORITY,
    RENEWAL_PRIORITY,
    RENEWED_AT_ONCE,
    TRANSITIONS,
    Move,
    State,
    rank_offset,
)

__all__ = ["MemoryKeyValue", "Record", "Table"]


@define(eq=False)
class Record:
    """One row. `entry` is the number of its one valid place in the heaps, 0 for none."""

    id: MediaId
    media: Media
    serial: int
    state: State = State.PENDING
    priority: int = 5
    due_at: float = 0.0
    attempts: int = 0
    token: int = 0
    lease_until: float = 0.0
    renew_at: float | None = None
    handle: Handle | None = None
    stale: bool = False
    reason: str | None = None
    updated_at: float = 0.0
    is_suspect: bool = False
    entry: int = 0

    @property
    def is_queued(self) -> bool:
        """Whether it waits or is being warmed."""
        return self.state in {State.PENDING, State.WARMING}

    def readable(self, wall: float) -> Handle | None:
        """The handle, with `stale` told truly."""
        if self.handle is None:
            return None
        return evolve(self.handle, stale=True) if self.stale or self.has_expired(wall) else self.handle

    def has_expired(self, wall: float) -> bool:
        """Whether there is a handle whose time is over."""
        expires = None if self.handle is None else self.handle.expires_at
        return expires is not None and expires.timestamp() <= wall


Heap = list[tuple[float, int, Record]]
_FEW = 64
ContentKey = tuple[str, str | None, MediaKind, State]


@define(eq=False)
class Table:
    """Rows, counted by state, indexed by content, ordered by rank."""

    rows: dict[MediaId, Record] = field(init=False, factory=dict[MediaId, Record])
    counts: Counter[tuple[str, MediaKind, State]] = field(
        init=False, factory=Counter[tuple[str, MediaKind, State]]
    )
    _live: dict[str, Heap] = field(init=False, factory=dict[str, Heap])
    _background: dict[str, Heap] = field(init=False, factory=dict[str, Heap])
    _suspects: dict[str, Heap] = field(init=False, factory=dict[str, Heap])
    _in_hand: tuple[Record, int] | None = field(init=False, default=None)
    _in_a_row: int = field(init=False, default=0)
    _delayed: Heap = field(init=False, factory=Heap)
    _leases: Heap = field(init=False, factory=Heap)
    _renewals: Heap = field(init=False, factory=Heap)
    _most_renewals: int = field(init=False, default=_FEW)
    _by_content: dict[ContentKey, dict[MediaId, Record]] = field(
        init=False, factory=dict[ContentKey, dict[MediaId, Record]]
    )
    _serial: Iterator[int] = field(init=False, factory=lambda: count(1))
    _tokens: Iterator[int] = field(init=False, factory=lambda: count(1))

    # ── rows ─────────────────────────────────────────────────────────────────

    def add(self, id_: MediaId, media: Media) -> Record:
        """A new pending row, not due yet: `schedule` it."""
        row = self.rows[id_] = Record(id_, media, next(self._serial))
        self.counts[id_.target, id_.kind, State.PENDING] += 1
        self._index(row)
        return row

    def forget(self, row: Record) -> None:
        """Remove a row."""
        del self.rows[row.id]
        self.counts[row.id.target, row.id.kind, row.state] -= 1
        row.entry = 0
        self._unindex(row)

    def describe(self, row: Record, media: Media) -> None:
        """Give a row other facts."""
        self._unindex(row)
        row.media = media
        self._index(row)

    def move(self, row: Record, move: Move, now: float) -> None:
        """Move a row as the lifecycle allows; the one place that does."""
        step = TRANSITIONS[row.state, move]
        self.counts[row.id.target, row.id.kind, row.state] -= 1
        self.counts[row.id.target, row.id.kind, step.to] += 1
        self._unindex(row)
        row.state, row.updated_at, row.renew_at, row.entry = step.to, now, None, 0
        self._index(row)
        row.attempts = 0 if step.attempts is None else row.attempts + step.attempts

    def pending(self, targets: Collection[str] | None = None) -> int:
        """How many rows wait."""
        return sum(
            rows
            for (target, _, state), rows in self.counts.items()
            if state is State.PENDING and (targets is None or target in targets)
        )

    def waiting(self) -> dict[str, int]:
        """How many wait, by target."""
        waiting: dict[str, int] = {}
        for (target, _, state), rows in self.counts.items():
            if state is State.PENDING:
                waiting[target] = waiting.get(target, 0) + rows
        return waiting

    # ── content ──────────────────────────────────────────────────────────────

    def same_content(self, target: str, media: Media, state: State) -> list[Record]:
        """Every row of that target, SHA-256, kind and state."""
        if media.sha256 is None:
            return []
        return list(self._by_content.get((target, media.sha256, media.kind, state), {}).values())

    def warm(self, target: str, media: Media, wall: float) -> Record | None:
        """Any row with the same content that has a good handle."""
        for row in self._by_content.get((target, media.sha256, media.kind, State.READY), {}).values():
            if row.handle is not None and not row.stale and not row.has_expired(wall):
                return row
        return None

    def share(self, row: Record, source: Record, now: float) -> None:
        """Give a waiting row the handle of another key, to be renewed with it."""
        assert source.handle is not None  # what is shared is warm
        self.move(row, Move.SHARE, now)
        row.handle, row.stale, row.reason = evolve(source.handle, key=row.id.key), False, None
        row.is_suspect = False
        self.renew_later(row, source.renew_at)

    def _index(self, row: Record) -> None:
        if row.media.sha256 is not None:
            self._by_content.setdefault(_content(row), {})[row.id] = row

    def _unindex(self, row: Record) -> None:
        if row.media.sha256 is not None:
            group = self._by_content[_content(row)]
            del group[row.id]
            if not group:
                del self._by_content[_content(row)]

    # ── order ────────────────────────────────────────────────────────────────

    def schedule(self, row: Record, due_at: float, now: float) -> None:
        """Make a pending row due at a time."""
        row.due_at, row.entry = due_at, next(self._serial)
        if due_at > now:
            heappush(self._delayed, (due_at, row.entry, row))
        else:
            heaps = self._live if row.priority == LIVE_PRIORITY else self._background
            heap = (self._suspects if row.is_suspect else heaps).setdefault(row.id.target, [])
            heappush(heap, (due_at + rank_offset(row.priority), row.entry, row))

    def hold(self, row: Record, until: float) -> None:
        """Lease a warming row until a time."""
        row.lease_until, row.entry = until, next(self._serial)
        heappush(self._leases, (until, row.entry, row))

    def renew_later(self, row: Record, renew_at: float | None) -> None:
        """Have a ready row be due again at a time."""
        row.renew_at = renew_at
        if renew_at is None:
            return
        row.entry = next(self._serial)
        if len(self._renewals) >= self._most_renewals:
            # They may lie days ahead: what has moved on must not stay for so long.
            self._renewals = [place for place in self._renewals if not _has_moved_on(place)]
            heapify(self._renewals)
            self._most_renewals = max(_FEW, 2 * len(self._renewals))
        heappush(self._renewals, (renew_at, row.entry, row))

    def advance(self, now: float) -> None:
        """Make what was delayed until now due, and what is to be renewed; take leases back that ran out."""
        while (row := _pop_until(self._delayed, now)) is not None:
            self.schedule(row, row.due_at, now)
        while (row := _pop_until(self._leases, now)) is not None:
            self.move(row, Move.EXPIRE, now)
            row.reason = row.reason or "crash: the lease ran out before an outcome came"
            row.is_suspect = True
            self.schedule(row, now, now)
        for _ in range(RENEWED_AT_ONCE):
            if (row := _pop_until(self._renewals, now)) is None:
                break
            self.move(row, Move.RENEW, now)
            row.priority = max(row.priority, RENEWAL_PRIORITY)
            self.schedule(row, now, now)

    def take(self, targets: Collection[str] | None) -> Record | None:
        """The next row of these targets, out of its heap: live ones first, but not endlessly; a suspect only if none is in hand."""
        live = list(self._heads(self._live, targets))
        background = list(self._heads(self._background, targets))
        if not self._has_suspect_in_hand() and (heap := _first(self._heads(self._suspects, targets))):
            (live if heap[0][2].priority == LIVE_PRIORITY else background).append(heap)
        is_live = bool(live) and not (background and self._in_a_row >= LIVE_IN_A_ROW)
        heap = _first(live if is_live else background)
        if heap is None:
            return None
        self._in_a_row = self._in_a_row + 1 if is_live else 0
        row = heappop(heap)[2]
        row.token = next(self._tokens)
        if row.is_suspect:
            self._in_hand = row, row.token
        return row

    def _has_suspect_in_hand(self) -> bool:
        # Of the rows whose last lease ran out one may be what killed or hung a process:
        # it shall not take others of them with it again.
        if self._in_hand is None:
            return False
        row, token = self._in_hand
        return row.state is State.WARMING and row.token == token

    def next_due(self, now: float) -> float | None:
        """Seconds until the next row is due or to be renewed, or lease runs out; may be early, never late."""
        heads = [heap[0][0] for heap in (self._delayed, self._leases, self._renewals) if heap]
        return max(0.0, min(heads) - now) if heads else None

    @staticmethod
    def _heads(heaps: dict[str, Heap], targets: Collection[str] | None) -> Iterator[Heap]:
        """The heaps of these targets that have a row, with a valid one in front."""
        for target in heaps if targets is None else targets:
            heap = heaps.get(target, [])
            while heap and _has_moved_on(heap[0]):
                heappop(heap)
            if heap:
                yield heap


def _content(row: Record) -> ContentKey:
    return row.id.target, row.media.sha256, row.id.kind, row.state


def _first(heaps: Iterable[Heap]) -> Heap | None:
    """That with the most urgent row."""
    return min(heaps, key=lambda heap: heap[0][:2], default=None)


def _has_moved_on(place: tuple[float, int, Record]) -> bool:
    return place[1] != place[2].entry


def _pop_until(heap: Heap, now: float) -> Record | None:
    """The next row whose time has come; its places that it has left are dropped on the way."""
    while heap and (heap[0][0] <= now or _has_moved_on(heap[0])):
        place = heappop(heap)
        if not _has_moved_on(place):
            return place[2]
    return None


@define(eq=False)
class MemoryKeyValue:
    """A `KeyValue` in memory."""

    _facts: dict[str, str] = field(init=False, factory=dict[str, str])

    async def get(self, key: str) -> str | None:
        """See `KeyValue.get`."""
        return self._facts.get(key)

    async def put(self, key: str, value: str | None) -> None:
        """See `KeyValue.put`."""
        if value is None:
            self._facts.pop(key, None)
        else:
            self._facts[key] = value
