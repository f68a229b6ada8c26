"""Every store against a plain dictionary that lives by the table of the lifecycle: the same answers, always.

A store joins by one line in `STORES`, beside an async context manager that gives an entered,
empty store, and says how time passes for it.
"""
# pyright: reportPrivateUsage=false

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import define, field, frozen
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from prewarmkit.errors import QueueFull
from prewarmkit.media import Media, Warmed
from prewarmkit.stores import (
    Enqueued,
    Failed,
    Job,
    Lease,
    MediaId,
    MediaStore,
    MemoryStore,
    Outcome,
    PostgresStore,
    Released,
    Retry,
    SqliteStore,
    State,
    Succeeded,
)
from prewarmkit.stores.lifecycle import TRANSITIONS, Move, rank_offset
from prewarmkit.stores.rules import is_new_version, merged
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.postgres_time import shift_rows
from prewarmkit.testing.pytest import postgres_dsn, postgres_server

__all__ = ["postgres_dsn", "postgres_server"]

LEASE_SECONDS = 60.0
SOON = 50.0
EPOCH = FakeClock().now
IN_A_ROW = 2
"""Live rows before a background row, here: with seven it would seldom come to that."""
A_MOMENT = 4.0
"""Times of the model are multiples of five; what a real clock adds during an example is less than this."""


@frozen
class Driven:
    """A store under test.

    Attributes:
        store: Entered, empty.
        pass_time: Lets seconds pass for it.
        date: What its calendar says now, POSIX seconds.
        sweeps: Whether it counts, and takes leases back, in turns that lease nothing too.
    """

    store: MediaStore
    pass_time: Callable[[float], None]
    date: Callable[[], float]
    sweeps: bool = True


OpenStore = Callable[[], AbstractAsyncContextManager[Driven]]


@asynccontextmanager
async def memory() -> AsyncGenerator[Driven]:
    clock = FakeClock()
    async with MemoryStore(clock=clock) as store:
        yield Driven(store, clock.advance, clock)


@asynccontextmanager
async def sqlite() -> AsyncGenerator[Driven]:
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as folder:
        async with SqliteStore(Path(folder) / "p.db", clock=clock) as store:
            assert store._db._writer is not None
            store._db._writer.execute("PRAGMA synchronous = OFF")  # a thousand commits in a second
            yield Driven(store, clock.advance, clock)


@asynccontextmanager
async def postgres(dsn: str) -> AsyncGenerator[Driven]:
    schema = f"model_{secrets.token_hex(4)}"
    async with PostgresStore(dsn, schema=schema, auto_migrate=True, notify=False) as store:
        pass_time = partial(shift_rows, dsn, schema=schema)
        yield Driven(store, pass_time, time.time, sweeps=False)


STORES: dict[str, Callable[..., AbstractAsyncContextManager[Driven]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "postgres": postgres,
}
LIVES = {"memory": 150, "sqlite": 40, "postgres": 15}
"""Examples of the short form: as many as five seconds allow."""


@pytest.fixture(autouse=True)
def few_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rules", "memory_table"):
        monkeypatch.setattr(f"prewarmkit.stores.{module}.LIVE_IN_A_ROW", IN_A_ROW)


@pytest.fixture(params=STORES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_store(name: str, request: pytest.FixtureRequest) -> OpenStore:
    needs = [request.getfixturevalue("postgres_dsn")] if name == "postgres" else []
    return partial(STORES[name], *needs)


# ── the model ────────────────────────────────────────────────────────────────


@define
class Line:
    """One row of the model; `handles` are the values that it may have, one of them."""

    id: MediaId
    media: Media
    priority: int
    due: float
    updated: float
    state: State = State.PENDING
    attempts: int = 0
    lease: Lease | None = None
    lease_until: float = 0.0
    renew_at: float | None = None
    handles: frozenset[str] = frozenset()
    is_stale: bool = False
    reason: str | None = None
    is_suspect: bool = False

    @property
    def rank(self) -> float:
        return self.due + rank_offset(self.priority)


@define
class Model:
    """What a store must do, in so many words."""

    now: float = EPOCH
    lines: dict[MediaId, Line] = field(factory=dict[MediaId, Line])
    expiries: dict[str, float] = field(factory=dict[str, float])
    renewals: dict[str, float] = field(factory=dict[str, float])
    tokens: dict[MediaId, int] = field(factory=dict[MediaId, int])
    suspect_in_hand: Lease | None = None
    in_a_row: int = 0
    taken_over: list[Line] = field(factory=list[Line])

    def move(self, line: Line, move: Move) -> None:
        step = TRANSITIONS[line.state, move]
        line.state, line.updated, line.lease, line.renew_at = step.to, self.now, None, None
        line.attempts = 0 if step.attempts is None else line.attempts + step.attempts

    def held(self, lease: Lease) -> Line | None:
        line = self.lines.get(lease.id)
        return line if line is not None and line.lease == lease else None

    def pending(self, targets: Collection[str] | None = None) -> int:
        return sum(
            line.state is State.PENDING and (targets is None or id_.target in targets)
            for id_, line in self.lines.items()
        )

    def has_expired(self, handles: Collection[str]) -> bool:
        return any(self.expiries.get(handle, self.now + 1) <= self.now for handle in handles)

    # ── enqueue ──────────────────────────────────────────────────────────────

    def enqueue(self, job: Job) -> Enqueued:
        line = self.lines.get(job.id)
        if line is None:
            line = self.lines[job.id] = Line(job.id, job.media, job.priority, self.now + job.delay, self.now)
            return Enqueued.READY if self.share(line) else Enqueued.QUEUED
        is_new, is_queued = (
            is_new_version(line.media, job.media),
            line.state in {State.PENDING, State.WARMING},
        )
        line.media = merged(line.media, job.media)
        if is_queued and not is_new:
            return self.hurry(line, job)
        is_expired = line.state is State.READY and self.has_expired(line.handles)
        is_asked_for = line.state is State.FAILED and job.retry_failed
        if not (is_new or is_expired or is_asked_for):
            return Enqueued.READY if line.state is State.READY else Enqueued.FAILED
        line.is_suspect = line.is_suspect and not is_new
        self.move(line, Move.REQUEUE if is_asked_for and not is_new else Move.RENEW)
        line.priority = min(job.priority, line.priority) if is_queued else job.priority
        line.due, line.reason, line.is_stale = self.now + job.delay, None, bool(line.handles)
        if self.share(line):
            return Enqueued.READY
        return Enqueued.DUPLICATE if is_queued else Enqueued.QUEUED

    def hurry(self, line: Line, job: Job) -> Enqueued:
        if line.state is State.PENDING:
            if self.share(line):
                return Enqueued.READY
            line.priority = min(line.priority, job.priority)
            line.due = min(line.due, self.now + job.delay)
        return Enqueued.DUPLICATE

    def share(self, line: Line) -> bool:
        shared = [
            other
            for other in self.lines.values()
            if other.state is State.READY and not other.is_stale and not self.has_expired(other.handles)
            if other.media.sha256 == line.media.sha256 and other.id.target == line.id.target
        ]
        if line.handles or line.media.sha256 is None or not shared:
            return False
        self.take_over(line, shared)
        return True

    def take_over(self, line: Line, sources: Sequence[Line]) -> None:
        self.move(line, Move.SHARE)
        line.handles = frozenset(handle for source in sources for handle in source.handles)
        line.is_stale, line.reason, line.is_suspect = False, None, False

    # ── turns ────────────────────────────────────────────────────────────────

    def settle_all(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle them as one turn, successes last; return those that were lost."""
        self.taken_over, lost = [], list[Outcome]()
        for outcome in sorted(outcomes, key=lambda each: isinstance(each, Succeeded)):
            if not self.settle(outcome):
                lost.append(outcome)
        return [outcome for outcome in outcomes if outcome in lost]

    def settle(self, outcome: Outcome) -> bool:
        line = self.held(outcome.lease)
        if line is None:
            return False
        match outcome:
            case Succeeded(_, warmed, renew_in):
                self.succeed(line, warmed, renew_in)
            case Retry(_, delay, reason, refund):
                self.move(line, Move.DEFER if refund else Move.RETRY)
                line.due, line.reason, line.is_suspect = self.now + delay, reason, False
            case Failed(_, reason):
                self.move(line, Move.FAIL)
                line.reason = reason
            case Released():
                self.move(line, Move.RELEASE)
                line.due = self.now
        return True

    def succeed(self, line: Line, warmed: Warmed, renew_in: float | None) -> None:
        self.move(line, Move.SUCCEED)
        line.handles, line.is_stale = frozenset({warmed.handle}), False
        line.reason, line.is_suspect = None, False
        if renew_in is not None:
            line.renew_at = self.renewals[warmed.handle] = self.now + renew_in
        if warmed.expires_at is not None:
            self.expiries[warmed.handle] = self.now + SOON
        same = [
            other
            for other in self.lines.values()
            if (other.id.target, other.media.sha256) == (line.id.target, line.media.sha256)
            if line.media.sha256 is not None
        ]
        for other in same:
            if other.state is State.PENDING and not other.is_stale:
                self.take_over(other, [line])
                self.taken_over.append(other)
            elif other in self.taken_over:
                other.handles |= line.handles  # of two successes in one turn it has either's

    def sweep(self) -> None:
        for line in self.lines.values():
            if line.state is State.WARMING and line.lease_until <= self.now:
                self.move(line, Move.EXPIRE)
                line.due, line.is_suspect = self.now, True
                line.reason = line.reason or "crash"
        for line in self.lines.values():
            if line.renew_at is not None and line.renew_at <= self.now:
                self.move(line, Move.RENEW)
                line.due, line.priority = self.now, max(line.priority, 5)

    def claim(self, leases: Sequence[Lease], most: int, targets: Collection[str] | None) -> None:
        """Check that these are the rows to lease, each in its turn, and lease them."""
        due = {
            line.id: line
            for line in self.lines.values()
            if line.state is State.PENDING and line.due <= self.now
            if targets is None or line.id.target in targets
        }
        for lease in leases:
            choice = self.next_ones(due.values())
            assert lease.id in {line.id for line in choice}, f"not {lease.id}'s turn, but one of {choice}"
            line = due.pop(lease.id)
            self.in_a_row = self.in_a_row + 1 if line.priority == 0 else 0
            self.lease(line, lease)
        assert len(leases) <= most
        assert len(leases) == most or not self.next_ones(due.values())

    def next_ones(self, due: Collection[Line]) -> list[Line]:
        """The row whose turn it is; of those that a moment lies between it may be any."""
        is_in_hand = self.suspect_in_hand is not None and self.held(self.suspect_in_hand) is not None
        suspects = [] if is_in_hand else self.best([line for line in due if line.is_suspect])
        rows = [line for line in due if not line.is_suspect] + suspects
        live = [line for line in rows if line.priority == 0]
        background = [line for line in rows if line.priority != 0]
        is_backgrounds_turn = not live or self.in_a_row >= IN_A_ROW
        return self.best(background if background and is_backgrounds_turn else live)

    def best(self, lines: Collection[Line]) -> list[Line]:
        first = min((line.rank for line in lines), default=0.0)
        return [line for line in lines if line.rank <= first + A_MOMENT]

    def lease(self, line: Line, lease: Lease) -> None:
        waited = self.now - line.due
        self.move(line, Move.CLAIM)
        line.lease, line.lease_until = lease, self.now + LEASE_SECONDS
        assert lease.token > self.tokens.get(line.id, 0), "a token only grows, whatever became of the row"
        self.tokens[line.id] = lease.token
        assert (lease.attempt, lease.priority, lease.media) == (line.attempts, line.priority, line.media)
        assert lease.waited == pytest.approx(waited, abs=A_MOMENT)
        if line.is_suspect:
            self.suspect_in_hand = lease

    def next_due(self) -> float | None:
        """The next moment at which something becomes due."""
        return min(
            [line.due for line in self.lines.values() if line.state is State.PENDING and line.due > self.now]
            + [line.lease_until for line in self.lines.values() if line.state is State.WARMING]
            + [line.renew_at for line in self.lines.values() if line.renew_at is not None],
            default=None,
        )

    # ── by hand ──────────────────────────────────────────────────────────────

    def invalidate(
        self, id_: MediaId, value: str | None, *, rewarm: bool, others: Collection[MediaId]
    ) -> bool:
        """``others`` have the refused handle for the same content."""
        line = self.lines.get(id_)
        if line is None or not line.handles or (value is not None and value not in line.handles):
            return False
        is_queued = line.state not in {State.READY, State.FAILED}
        for other in others if is_queued else (id_, *others):
            if not rewarm and not is_queued:
                del self.lines[other]
            else:
                self._refuse(self.lines[other])
        if is_queued:
            line.handles, line.is_stale = frozenset(), False
        elif rewarm:
            line.priority = 0
        return True

    def _refuse(self, line: Line) -> None:
        self.move(line, Move.INVALIDATE)
        line.due, line.reason = self.now, "the handle was refused"
        line.handles, line.is_stale = frozenset(), False

    def requeue(self, *, target: str | None, reason: str | None, keys: Collection[str] | None) -> int:
        meant = [
            line
            for line in self.lines.values()
            if line.state is State.FAILED and (target is None or line.id.target == target)
            if (reason is None or (line.reason or "").startswith(reason))
            if keys is None or line.id.key in keys
        ]
        for line in meant:
            self.move(line, Move.REQUEUE)
            line.due = self.now
        return len(meant)

    def purge(self, older_than: float, state: State | None) -> int:
        gone = [
            id_
            for id_, line in self.lines.items()
            if line.state in {State.READY, State.FAILED} and state in {None, line.state}
            if line.updated <= self.now - older_than
        ]
        for id_ in gone:
            del self.lines[id_]
        return len(gone)


# ── the machine ──────────────────────────────────────────────────────────────

TARGETS, KEYS = ("a", "b"), ("1.png", "2.png", "3.png")
IDS = [Job(target, Media(key)).id for target in TARGETS for key in KEYS]
SPANS = st.sampled_from([0.0, 10.0, 100.0])
medium = st.builds(
    Media,
    st.sampled_from(KEYS),
    etag=st.sampled_from([None, None, "1", "2"]),
    sha256=st.sampled_from([None, None, "S", "T"]),
    size=st.sampled_from([None, 5]),
)
jobs = st.builds(
    Job,
    st.sampled_from(TARGETS),
    medium,
    priority=st.sampled_from([0, 0, 0, 3, 5, 9]),
    delay=SPANS,
    retry_failed=st.booleans(),
)
some_targets = st.sampled_from([None, None, ("a",), ("b", "a"), ()])
OUTCOMES = ("succeed", "expiring", "kept warm", "kept warm", "retry", "refund", "fail", "release")
words = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(OUTCOMES)), max_size=4, unique_by=lambda told: told[0]
)


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and the model side by side."""

    def __init__(self, portal: BlockingPortal, open_store: OpenStore) -> None:
        super().__init__()
        self.portal, self.model = portal, Model()
        self.opened = portal.wrap_async_context_manager(open_store())
        self.driven = self.opened.__enter__()
        self.store, self.pass_time = self.driven.store, self.driven.pass_time
        self.leases: list[Lease] = []  # every one that was ever given: late words are told too
        self.serial = 0

    def teardown(self) -> None:
        self.opened.__exit__(None, None, None)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self.portal.call(partial(getattr(self.store, name), *arguments, **options))

    # ── rules ────────────────────────────────────────────────────────────────

    @initialize(media=st.lists(jobs, max_size=6), most=st.integers(0, 4))
    def there_is_work(self, media: list[Job], most: int) -> None:
        given = [Job(id_.target, Media(id_.key)) for id_ in IDS]
        self.enqueue_all(given + media)
        self.take_turn([], most, None)

    @rule(given=st.lists(jobs, min_size=1, max_size=3))
    def enqueue(self, given: list[Job]) -> None:
        self.enqueue_all(given)

    def enqueue_all(self, given: list[Job]) -> None:
        assert self.call("enqueue", given) == [self.model.enqueue(job) for job in given]

    @rule(
        given=st.lists(jobs.filter(lambda job: job.media.sha256 is None), max_size=4), limit=st.integers(1, 6)
    )
    def enqueue_within_a_bound(self, given: list[Job], limit: int) -> None:
        after = deepcopy(self.model)
        answers = [after.enqueue(job) for job in given]
        if after.pending() > max(limit, self.model.pending()):
            with pytest.raises(QueueFull):
                self.call("enqueue", given, limit=limit)
        elif after.pending() <= limit:
            assert self.call("enqueue", given, limit=limit) == answers
            self.model = after

    @rule(told=words, most=st.integers(0, 5), of=some_targets)
    def turn(self, told: list[tuple[int, str]], most: int, of: tuple[str, ...] | None) -> None:
        self.take_turn(told, most, of)

    def take_turn(self, told: list[tuple[int, str]], most: int, of: tuple[str, ...] | None) -> None:
        settle = [self.outcome(self.leases[-1 - n], word) for n, word in told if n < len(self.leases)]
        most = most if self.driven.sweeps else max(most, 1)
        turn = self.call("turn", settle, most, of, LEASE_SECONDS)
        assert list(turn.lost) == self.model.settle_all(settle)
        self.model.sweep()
        self.model.claim(turn.leased, most, of)
        self.leases += turn.leased
        if not self.driven.sweeps:
            return  # its figures may be older
        assert turn.pending == self.model.pending(of)
        if (moment := self.model.next_due()) is not None:
            assert turn.next_due is not None
            assert turn.next_due <= moment - self.model.now + A_MOMENT, "a pool would sleep too long"

    @rule(words_=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3), most=st.integers(0, 3))
    def all_that_is_held_is_settled(self, words_: list[str], most: int) -> None:
        held = [n for n, lease in enumerate(reversed(self.leases)) if self.model.held(lease) is not None]
        self.take_turn([(n, words_[n % len(words_)]) for n in held], most, None)

    @rule(before=st.integers(0, 3), after=st.integers(0, 6))
    def a_process_dies_and_another_goes_on(self, before: int, after: int) -> None:
        self.take_turn([], before, None)
        self.time_passes(LEASE_SECONDS)
        self.take_turn([], after, None)

    def outcome(self, lease: Lease, word: str) -> Outcome:
        self.serial += 1
        warmed = Warmed(f"H{self.serial}")
        soon = datetime.fromtimestamp(self.driven.date() + SOON, UTC)
        outcomes: dict[str, Outcome] = {
            "succeed": Succeeded(lease, warmed),
            "expiring": Succeeded(lease, Warmed(f"H{self.serial}", expires_at=soon)),
            "kept warm": Succeeded(lease, Warmed(f"H{self.serial}", expires_at=soon), renew_in=10.0),
            "retry": Retry(lease, 10.0, "transient: reset"),
            "refund": Retry(lease, 0.0, "rate_limited", refund=True),
            "fail": Failed(lease, "too_large: 99 MB"),
            "release": Released(lease),
        }
        return outcomes[word]

    @precondition(lambda self: self.leases)
    @rule(places=st.lists(st.integers(0, 40), max_size=4, unique=True))
    def heartbeat(self, places: list[int]) -> None:
        leases = [self.leases[-1 - n] for n in places if n < len(self.leases)]
        lost = self.call("heartbeat", leases, LEASE_SECONDS)
        held = {lease.id: lease for lease in leases if self.model.held(lease) is not None}
        assert {(lease.id, lease.token) for lease in lost} == {
            (lease.id, lease.token) for lease in leases if held.get(lease.id) != lease
        }
        for lease in held.values():
            self.model.lines[lease.id].lease_until = self.model.now + LEASE_SECONDS

    @precondition(lambda self: self.leases)
    @rule(places=st.lists(st.integers(0, 40), max_size=4, unique=True))
    def release(self, places: list[int]) -> None:
        leases = [self.leases[-1 - n] for n in places if n < len(self.leases)]
        lost = self.model.settle_all([Released(lease) for lease in leases])
        assert self.call("release", leases) == [outcome.lease for outcome in lost]
        if self.driven.sweeps:
            self.model.sweep()
        else:
            self.take_turn([], 1, None)

    @rule(seconds=st.sampled_from([5.0, 10.0, 60.0, 100.0, 1000.0]))
    def some_time_passes(self, seconds: float) -> None:
        self.time_passes(seconds)

    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)
        self.model.now += seconds

    @rule(
        id_=st.sampled_from(IDS),
        value=st.sampled_from(["its own", "its own", None, "other"]),
        rewarm=st.booleans(),
    )
    def invalidate(self, id_: MediaId, value: str | None, rewarm: bool) -> None:
        if value == "its own":
            line = self.model.lines.get(id_)
            value = next(iter(line.handles), "none") if line is not None else "none"
        others = self.with_the_same_handle(id_)
        assert self.call("invalidate", id_, value, rewarm=rewarm) == self.model.invalidate(
            id_, value, rewarm=rewarm, others=others
        )

    def with_the_same_handle(self, id_: MediaId) -> list[MediaId]:
        """Ready rows of the same content that have the very handle of this one: the model knows only which may."""
        line, looked = self.model.lines.get(id_), self.call("lookup_many", IDS)
        handle = looked[id_].handle if id_ in looked else None
        if line is None or handle is None or line.media.sha256 is None:
            return []
        return [
            other
            for other, one in self.model.lines.items()
            if other != id_
            if (other.target, other.kind, one.media.sha256) == (id_.target, id_.kind, line.media.sha256)
            if one.state is State.READY and looked[other].handle is not None
            if looked[other].handle.value == handle.value
        ]

    @rule(
        of=st.sampled_from([None, None, "a"]),
        reason=st.sampled_from([None, None, "too_large", "other"]),
        keys=st.sampled_from([None, None, KEYS[:2]]),
    )
    def requeue(self, of: str | None, reason: str | None, keys: tuple[str, ...] | None) -> None:
        filters: dict[str, Any] = {"target": of, "reason": reason, "keys": keys}
        assert self.call("requeue", **filters) == self.model.requeue(**filters)

    @rule(older_than=SPANS, state=st.sampled_from([None, State.READY, State.FAILED]))
    def purge(self, older_than: float, state: State | None) -> None:
        assert self.call("purge", older_than=older_than, state=state) == self.model.purge(older_than, state)

    # ── what anybody sees ────────────────────────────────────────────────────

    @invariant()
    def look_ups_tell_what_the_model_says(self) -> None:
        found = self.call("lookup_many", IDS)
        assert set(found) == set(self.model.lines)
        now = self.model.now
        for id_, line in self.model.lines.items():
            looked, handle = found[id_], found[id_].handle
            assert (looked.state, looked.attempts, looked.media) == (line.state, line.attempts, line.media)
            assert (looked.reason or "").partition(":")[0] == (line.reason or "").partition(":")[0]
            assert (handle is not None) == bool(line.handles)
            if handle is not None:
                assert handle.value in line.handles
                line.handles = frozenset({handle.value})  # of several with one content any may be taken
                if line.state is State.READY:
                    line.renew_at = self.model.renewals.get(handle.value)
                assert handle.stale == (line.is_stale or self.model.has_expired(line.handles))
                assert (handle.target, handle.key) == (id_.target, id_.key)
            due_in = max(0.0, line.due - now) if line.state is State.PENDING else 0.0
            assert looked.due_in == pytest.approx(due_in, abs=A_MOMENT)
            failed_ago = now - line.updated if line.state is State.FAILED else None
            assert looked.failed_ago == (
                None if failed_ago is None else pytest.approx(failed_ago, abs=A_MOMENT)
            )

    @invariant()
    def rows_are_listed_and_counted_as_they_are(self) -> None:
        rows, lines = {row.id: row for row in self.call("list", limit=100)}, self.model.lines
        assert set(rows) == set(lines)
        counts: dict[Any, int] = {}
        for id_, line in lines.items():
            assert rows[id_].state is line.state
            if line.state is not State.READY:  # which has no use for one
                assert rows[id_].priority == line.priority
            left = line.lease_until - self.model.now if line.state is State.WARMING else None
            assert rows[id_].lease_left == (None if left is None else pytest.approx(left, abs=A_MOMENT))
            renew_in = None if line.renew_at is None else line.renew_at - self.model.now
            assert rows[id_].renew_in == (None if renew_in is None else pytest.approx(renew_in, abs=A_MOMENT))
            place = id_.target, id_.kind, line.state
            counts[place] = counts.get(place, 0) + 1
        assert self.call("counts") == counts
        assert self.call("has_work") == any(state in {State.PENDING, State.WARMING} for _, _, state in counts)


def run(open_store: OpenStore, *, examples: int, steps: int) -> None:
    # Not shrunk: that takes minutes. The steps of a failure are printed; a seed brings them back.
    how = settings(
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    with start_blocking_portal("asyncio") as portal:

        class Machine(StoreMachine):
            def __init__(self) -> None:
                super().__init__(portal, open_store)

        run_state_machine_as_test(Machine, settings=how)


def test_a_store_does_what_the_model_does(name: str, open_store: OpenStore) -> None:
    """Short form."""
    run(open_store, examples=LIVES[name], steps=30)


@pytest.mark.slow
def test_a_store_does_what_the_model_does_for_long(open_store: OpenStore) -> None:
    """Long form: more lives, and longer ones."""
    run(open_store, examples=1000, steps=60)
