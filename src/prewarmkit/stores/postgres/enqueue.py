"""What an enqueue does to rows in PostgreSQL, as steps that any connection can carry out.

A generator yields (query, values) and is sent the rows of its answer, so that the same
decisions serve the store, a host's own async connection and its sync one. Most calls need one
step. Rows that exist are looked at without a lock; only those that change are locked, so that
a host's long transaction never stands in the way of the workers for a plain duplicate.
Decides as `prewarmkit.stores.rules` says. This file knows no connection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, frozen

from prewarmkit.errors import QueueFull, StoreError
from prewarmkit.media import Media, MediaKind
from prewarmkit.stores.base import Enqueued, Job, MediaId
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.postgres.count import Backlog
from prewarmkit.stores.postgres.hints import payloads_of
from prewarmkit.stores.postgres.rows import (
    as_media,
    id_arrays,
    is_text,
    job_arrays,
    media_arrays,
    number_array,
    text_array,
)
from prewarmkit.stores.rules import is_new_version, merged

__all__ = ["LONGEST_ID_BYTES", "Step", "Steps", "enqueue_steps"]

Step = tuple[str, list[Any]]
Rows = Sequence[Sequence[Any]]
Steps = Generator[Step, Rows, list[Enqueued]]

_BATCH = 100_000
LONGEST_ID_BYTES = 2_600  # an entry of a B-tree has a third of a page
_TRIES = 3


def enqueue_steps(
    jobs: Sequence[Job],
    limit: int | None = None,
    backlog: Backlog | None = None,
    *,
    channel: str | None = None,
) -> Steps:
    """Put jobs in; to be carried out in one transaction.

    Args:
        jobs: What to put in.
        limit: Most rows that may be pending then, if this makes more of them.
        backlog: What is known of them, and learns.
        channel: Where to tell, at the commit, whose handle is of another version now; ``None``: nowhere.

    Raises:
        QueueFull: More than ``limit`` rows would be pending: roll back.
        ValueError: An id is no text, or too long, for PostgreSQL.
    """
    _check(jobs)
    answers = Answers([None] * len(jobs))
    turns = _turns(jobs)
    for turn in turns:
        turn.sort(key=lambda place: jobs[place].id)
    later = [place for turn in turns[1:] for place in turn]
    for first in range(0, len(turns[0]) if turns else 0, _BATCH):
        yield from _put_in(jobs, turns[0][first : first + _BATCH], answers, later)
    for turn in turns[1:]:
        again = [place for place in turn if answers[place] is None]
        for first in range(0, len(again), _BATCH):
            yield from _meet(jobs, again[first : first + _BATCH], answers)
    if limit is not None and (answers.take_back or Enqueued.QUEUED in answers):
        yield from _keep_to(limit, Backlog() if backlog is None else backlog, len(jobs))
    if channel is not None and answers.changed:
        yield "notify_all", [channel, text_array(payloads_of(answers.changed))]
    return [answer for answer in answers if answer is not None]


def _keep_to(limit: int, backlog: Backlog, more: int) -> Generator[Step, Rows]:
    """Count what waits. The lock comes last: whoever holds it has no row to wait for."""
    if backlog.is_far_below(limit, more):
        return
    yield "bound", []
    [[rows, took]] = yield "pending", [limit]
    if rows > limit:
        raise QueueFull(f"More than {limit} media would be pending, and that is the bound: try again later.")
    backlog.learn(rows, took)


def _check(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not is_text(job.target):
            raise ValueError(f"A target's id must be Unicode without NUL, not {job.target!a}.")
        if len(job.target.encode()) + len(job.media.key.encode()) > LONGEST_ID_BYTES:
            raise ValueError(
                f"A key and its target's id must have at most {LONGEST_ID_BYTES} bytes together; {job.media.key[:40]!r}… has more."
            )


def _turns(jobs: Sequence[Job]) -> list[list[int]]:
    """Places of jobs so that no turn names a row twice: what comes second meets what the first left."""
    turns: list[list[int]] = []
    seen: dict[MediaId, int] = {}
    for place, job in enumerate(jobs):
        turn = seen.get(key := job.id, 0)
        seen[key] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(place)
    return turns


class Answers(list[Enqueued | None]):
    """One a job, as they become known.

    Attributes:
        take_back: Whether a row that was a duplicate waits again: its version changed in somebody's hands.
        changed: Rows that are of another version now.
    """

    def __init__(self, answers: Iterable[Enqueued | None]) -> None:
        super().__init__(answers)
        self.take_back = False
        self.changed: set[MediaId] = set()


_Content = tuple[str, MediaKind, str]


def _put_in(
    jobs: Sequence[Job], places: list[int], answers: Answers, later: Sequence[int] = ()
) -> Generator[Step, Rows]:
    """Insert what is new; meet what is not.

    Of jobs that depend on one another, each meets what those before it left: ``later``, those
    that name a row again, among them.
    """
    for _ in range(_TRIES):
        asked = [jobs[place] for place in places]
        rows: Rows = yield "insert", [*job_arrays(asked), number_array(places)]
        there = [places[int(row[0]) - 1] for row in rows]
        new = places if not there else sorted(set(places).difference(there))
        for place in new:
            answers[place] = Enqueued.QUEUED
        known = (yield from _look("look", jobs, there)) if there else {}
        gone = [place for place in there if place not in known]
        tied = _tied(jobs, [*places, *later], known)
        yield from _lock_first(jobs, known, tied, later)
        for place in sorted(tied):
            inserts = place not in known and place not in later
            yield from _share(jobs, [place], answers) if inserts else _meet(jobs, [place], answers)
        asking = [place for place in new if jobs[place].media.sha256 is not None and place not in tied]
        yield from _share(jobs, asking, answers)
        known = {place: row for place, row in known.items() if place not in tied} if tied else known
        places = [*gone, *(yield from _change(jobs, known, answers))]
        if not places:
            return
    raise StoreError("Rows appear and vanish under an enqueue: something deletes them. Try again.")


def _lock_first(
    jobs: Sequence[Job], known: Mapping[int, _Known], tied: Collection[int], later: Sequence[int]
) -> Generator[Step, Rows]:
    """Lock all rows that will change, if they will not do so in one step: the steps after the first have no order."""
    again: defaultdict[MediaId, list[Job]] = defaultdict(list)
    for place in later:
        again[jobs[place].id].append(jobs[place])
    first = {place for place in known if place in tied}
    first |= {
        place
        for place, row in known.items()
        if any(not _decide(row, job).is_nothing for job in again.get(jobs[place].id, ()))
    }
    if first:
        changing = {place for place, row in known.items() if not _decide(row, jobs[place]).is_nothing}
        yield from _look("lock", jobs, list(first | changing))


def _meet(jobs: Sequence[Job], places: list[int], answers: Answers) -> Generator[Step, Rows]:
    """Meet rows that an earlier job of this call put in; one that vanished is put in again."""
    known = (yield from _look("look", jobs, places)) if places else {}
    vanished = yield from _change(jobs, known, answers)
    gone = [*(place for place in places if place not in known), *vanished]
    if gone:
        yield from _put_in(jobs, gone, answers)


def _share(jobs: Sequence[Job], places: list[int], answers: Answers) -> Generator[Step, Rows]:
    """Rows without a handle take over that of the same content."""
    if places:
        rows: Rows = yield "share", id_arrays([jobs[place].id for place in places])
        for row in rows:
            answers[places[int(row[0]) - 1]] = Enqueued.READY


# ── rows that exist ──────────────────────────────────────────────────────────


@frozen
class _Known:
    """What an enqueue decides by."""

    state: State
    media: Media
    priority: int
    due_in: float
    has_expired: bool
    can_share: bool

    @property
    def is_queued(self) -> bool:
        return self.state in {State.PENDING, State.WARMING}


@define
class _Plan:
    """What one job does to its row."""

    answer: Enqueued
    media: Media | None = None
    may_share: bool = False
    renew: int | None = None
    is_new: bool = False
    is_hurry: bool = False
    takes_back: bool = False

    @property
    def is_nothing(self) -> bool:
        return self.media is None and not self.may_share and self.renew is None and not self.is_hurry


def _decide(known: _Known, job: Job) -> _Plan:
    is_new = is_new_version(known.media, job.media)
    media = merged(known.media, job.media)
    changed = None if media == known.media else media
    is_due_again = known.has_expired if known.state is State.READY else job.retry_failed
    if not is_new and not known.is_queued and not is_due_again:
        return _Plan(Enqueued.READY if known.state is State.READY else Enqueued.FAILED, changed)
    may_share = media.sha256 is not None and known.can_share and (is_new or known.state is not State.WARMING)
    if not is_new and known.is_queued:
        is_sooner = job.priority < known.priority or job.delay < known.due_in
        is_hurry = known.state is State.PENDING and is_sooner
        return _Plan(Enqueued.DUPLICATE, changed, may_share, is_hurry=is_hurry)
    priority = min(job.priority, known.priority) if known.is_queued else job.priority
    answer = Enqueued.DUPLICATE if known.is_queued else Enqueued.QUEUED
    takes_back = known.state is State.WARMING
    return _Plan(answer, changed, may_share, renew=priority, is_new=is_new, takes_back=takes_back)


def _tied(jobs: Sequence[Job], places: Sequence[int], known: Mapping[int, _Known]) -> set[int]:
    """Places of jobs that change what content is ready, and of others that speak of that content."""
    ready = [place for place, row in known.items() if row.state is State.READY]
    if not ready:
        return set()
    shas = {jobs[place].id: row.media.sha256 for place, row in known.items()}
    speakers: defaultdict[_Content, set[MediaId]] = defaultdict(set)
    for place in places:
        for content in _contents(jobs[place], shas):
            speakers[content].add(jobs[place].id)
    rows = {jobs[place].id: known[place] for place in ready}
    tied: set[MediaId] = set()
    for place in places if speakers else ():
        row = rows.get(jobs[place].id)
        if row is not None and not _decide(row, jobs[place]).is_nothing:
            others = [speakers[content] for content in _contents(jobs[place], shas)]
            tied.update(*[ids for ids in others if len(ids) > 1])
    return {place for place in places if jobs[place].id in tied}


def _contents(job: Job, shas: Mapping[MediaId, str | None]) -> set[_Content]:
    """Of what content a job speaks: its own, and that of the row as it is."""
    return {
        (job.target, job.media.kind, sha) for sha in (job.media.sha256, shas.get(job.id)) if sha is not None
    }


def _change(
    jobs: Sequence[Job], known: Mapping[int, _Known], answers: Answers
) -> Generator[Step, Rows, list[int]]:
    """Decide for rows that exist, and carry it out; return the places of those that vanished meanwhile."""
    plans = {place: _decide(row, jobs[place]) for place, row in known.items()}
    changing = [place for place, plan in plans.items() if not plan.is_nothing]
    if changing:
        locked = yield from _look("lock", jobs, changing)
        plans = {place: plan for place, plan in plans.items() if plan.is_nothing}
        plans |= {place: _decide(row, jobs[place]) for place, row in locked.items()}
    for place, plan in plans.items():
        answers[place] = plan.answer
    yield from _carry_out(
        jobs, {place: plan for place, plan in plans.items() if not plan.is_nothing}, answers
    )
    return [place for place in known if place not in plans]


def _look(query: str, jobs: Sequence[Job], places: list[int]) -> Generator[Step, Rows, dict[int, _Known]]:
    asked = [jobs[place] for place in places]
    ids = id_arrays([job.id for job in asked])
    rows: Rows = yield query, [*ids, text_array([job.media.sha256 for job in asked])]
    known: dict[int, _Known] = {}
    for row in rows:
        place = places[int(row[0]) - 1]
        media = as_media(jobs[place].media.key, jobs[place].media.kind, *row[2:7])
        known[place] = _Known(State(row[1]), media, *row[7:11])
    return known


def _carry_out(jobs: Sequence[Job], plans: dict[int, _Plan], answers: Answers) -> Generator[Step, Rows]:
    answers.changed.update(jobs[place].id for place, plan in plans.items() if plan.is_new)
    described = {place: plan.media for place, plan in plans.items() if plan.media is not None}
    if described:
        ids = id_arrays([jobs[place].id for place in described])
        yield "describe", [*ids, *media_arrays(list(described.values()))]
    asking = [place for place, plan in plans.items() if plan.may_share]
    for place in asking:
        answers[place] = None
    yield from _share(jobs, asking, answers)
    shared = {place for place in asking if answers[place] is not None}
    for place in asking:
        answers[place] = answers[place] or plans[place].answer
    renewed = [place for place, plan in plans.items() if plan.renew is not None and place not in shared]
    if renewed:
        answers.take_back = answers.take_back or any(plans[place].takes_back for place in renewed)
        due = _due(jobs, renewed, [plans[place].renew for place in renewed])
        yield "renew", [*due, text_array(["t" if plans[place].is_new else "f" for place in renewed])]
    hurried = [place for place, plan in plans.items() if plan.is_hurry and place not in shared]
    if hurried:
        yield "hurry", _due(jobs, hurried, [jobs[place].priority for place in hurried])


def _due(jobs: Sequence[Job], places: list[int], priorities: Sequence[int | None]) -> list[Any]:
    asked = [jobs[place] for place in places]
    ids = id_arrays([job.id for job in asked])
    return [*ids, number_array(priorities), number_array([job.delay for job in asked])]
