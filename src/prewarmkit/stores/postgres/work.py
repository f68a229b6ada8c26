"""A turn with PostgreSQL: outcomes told, rows leased, leases held, in one commit.

The statements of a turn go out together (a pipeline) and are one transaction of the server.
Each outcome applies only where (row, warming, token) still match; the answers say which did.
This file knows the queries of ``turn.sql`` and nothing of connections.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from operator import itemgetter
from typing import Any

import psycopg
from attrs import define, evolve, field, frozen
from psycopg import errors as pg
from psycopg.rows import TupleRow

from prewarmkit.media import MediaKind, Warmed
from prewarmkit.stores.base import Failed, Lease, Looked, MediaId, Outcome, Released, Retry, Succeeded, Turn
from prewarmkit.stores.lifecycle import LIVE_PRIORITY
from prewarmkit.stores.postgres.count import Waiting
from prewarmkit.stores.postgres.link import Session
from prewarmkit.stores.postgres.rows import (
    as_lease,
    as_looked,
    details_text,
    id_arrays,
    is_text,
    number_array,
    text_array,
    weak_text,
)
from prewarmkit.stores.rules import background_share, in_turns, live_in_a_row

__all__ = ["REFUSALS", "Carried", "heartbeat", "landed", "look_up", "whole_turn"]

logger = logging.getLogger("prewarmkit.stores")

Cursor = psycopg.AsyncRawCursor[TupleRow]
REFUSALS = (psycopg.DataError, psycopg.IntegrityError, pg.ProgramLimitExceeded)
"""What the database says to one value that it cannot keep."""

_LOOK_UP = 128


async def whole_turn(
    session: Session,
    waiting: Waiting,
    carried: Carried,
    settle: Sequence[Outcome],
    lease: int,
    targets: Collection[str] | None,
    lease_seconds: float,
) -> Turn:
    """A turn that no single row holds up."""

    async def take(told: Sequence[Outcome]) -> Turn:
        return await take_turn(session, waiting, carried, told, lease, targets, lease_seconds)

    try:
        turn = await _take_around_locks(session, carried, settle, take)
    except REFUSALS:
        if not settle:
            raise
        lost, deferred = await settle_singly(session, settle)
        turn = evolve(await take(()), lost=lost, deferred=deferred)
    carried.deferred.difference_update(map(_name, settle))
    carried.deferred.update(map(_name, turn.deferred))
    if asked := carried.among(settle, turn):
        applied = await landed(session, asked)
        turn = evolve(turn, lost=[outcome for outcome in turn.lost if outcome not in applied])
    return turn


async def _take_around_locks(
    session: Session,
    carried: Carried,
    settle: Sequence[Outcome],
    take: Callable[[Sequence[Outcome]], Awaitable[Turn]],
) -> Turn:
    """A turn that leaves out the outcomes whose rows somebody's open transaction has locked."""
    # One that was locked when it was last told is not waited for again.
    if carried.deferred.isdisjoint(map(_name, settle)):
        try:
            return await take(settle)
        except pg.LockNotAvailable:
            if not settle:
                raise
    locked = await _locked(session, settle)
    told = [outcome for place, outcome in enumerate(settle) if place not in locked]
    try:
        turn = await take(told)
    except pg.LockNotAvailable:
        # More have been locked meanwhile: the next turn looks again.
        return evolve(await take(()), deferred=list(settle))
    return evolve(turn, deferred=[settle[place] for place in sorted(locked)]) if locked else turn


async def _locked(session: Session, settle: Sequence[Outcome]) -> set[int]:
    """The places of those whose rows are ours and locked."""
    tokens = number_array([outcome.lease.token for outcome in settle])
    cursor = await _planned(session, "locked", *id_arrays([outcome.lease.id for outcome in settle]), tokens)
    return {int(row[0]) - 1 for row in await cursor.fetchall()}


async def take_turn(
    session: Session,
    waiting: Waiting,
    carried: Carried,
    settle: Sequence[Outcome],
    lease: int,
    targets: Collection[str] | None,
    lease_seconds: float,
) -> Turn:
    """Settle, sweep, lease and count in one transaction; what leases nothing has no need of a sweep."""
    groups = _grouped(settle)
    names = None if targets is None else sorted(set(targets))
    came: Cursor | None = None
    async with session.together():
        await session.send("plan")
        told = [(group, await _tell(session, query, group)) for query, group in groups.items() if group]
        if lease > 0:
            await session.send("sweep")
            is_one = names is not None and len(names) == 1
            which = None if names is None else names[0] if is_one else text_array(names)
            query = "lease_one" if is_one else "lease_many"
            share = background_share(lease, carried.in_a_row)
            came = await session.send(query, which, lease, lease_seconds, *carried.in_hand(settle), share)
        is_counted = waiting.is_cheap
        figures = await session.send("figures" if is_counted else "soon")
    [*_, next_due], *counted = await figures.fetchall()
    if is_counted:
        waiting.learn(counted)
    return Turn(
        leased=[] if came is None else carried.take(await came.fetchall()),
        lost=await _lost(told, settle),
        pending=waiting.of(names),
        waiting=waiting.by_target,
        next_due=None if next_due is None else max(0.0, next_due),
    )


# ── outcomes ─────────────────────────────────────────────────────────────────


@define(eq=False)
class Carried:
    """What a store carries from turn to turn: outcomes in doubt, a row that may kill, whose turn it is.

    Attributes:
        unheard: Told in a turn whose answer never came: applied, or not.
        deferred: Not told so far, since their rows were locked when they should have been.
        suspect: The lease of the suspect that was handed out last; until it is over no other is.
        in_a_row: Live rows that were handed out since the last background row.
    """

    unheard: set[tuple[MediaId, int]] = field(init=False, factory=set[tuple[MediaId, int]])
    deferred: set[tuple[MediaId, int]] = field(init=False, factory=set[tuple[MediaId, int]])
    suspect: Lease | None = field(init=False, default=None)
    in_a_row: int = field(init=False, default=0)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """A turn with these failed."""
        self.unheard.update(map(_name, outcomes))

    def among(self, told: Sequence[Outcome], turn: Turn) -> list[Outcome]:
        """Of what a turn found lost, that which had been told before; what it told is in doubt no more."""
        if not self.unheard:
            return []
        asked = [outcome for outcome in turn.lost if _name(outcome) in self.unheard]
        self.unheard.difference_update(map(_name, told))
        self.unheard.update(map(_name, turn.deferred))  # not told this time
        return asked

    def in_hand(self, told: Sequence[Outcome]) -> Sequence[str | int | None]:
        """What a lease asks the database of the last suspect, unless its outcome is among those told."""
        if self.suspect is not None and any(outcome.lease == self.suspect for outcome in told):
            self.suspect = None
        if self.suspect is None:
            return None, None, None, None
        id_ = self.suspect.id
        return id_.target, id_.key, id_.kind.value, self.suspect.token

    def take(self, rows: Sequence[Sequence[Any]]) -> list[Lease]:
        """Rows that were leased, as leases in their order."""
        live: list[Lease] = []
        background: list[Lease] = []
        for row in sorted(rows, key=itemgetter(0)):
            lease = as_lease(row)
            (live if lease.priority == LIVE_PRIORITY else background).append(lease)
            if row[0] % 2:
                self.suspect = lease
        leases = in_turns(live, background, self.in_a_row) if live else background
        self.in_a_row = live_in_a_row(leases, self.in_a_row)
        return leases


def _name(outcome: Outcome) -> tuple[MediaId, int]:
    return outcome.lease.id, outcome.lease.token


@frozen
class _Told:
    """An outcome, and where it stood in what the caller gave."""

    place: int
    outcome: Outcome


def _grouped(outcomes: Sequence[Outcome]) -> dict[str, list[_Told]]:
    """Outcomes by the query that tells them, each group in the order of the rows.

    One order for all, so that two processes never wait for each other's rows in a circle.
    """
    # Successes last: rows that go back to waiting in this turn take over a handle of the same content.
    groups: dict[str, list[_Told]] = {"put_back": [], "fail": [], "succeed": []}
    for place, outcome in enumerate(outcomes):
        kept = _keepable(outcome)
        query = (
            "succeed" if isinstance(kept, Succeeded) else "fail" if isinstance(kept, Failed) else "put_back"
        )
        groups[query].append(_Told(place, kept))
    for group in groups.values():
        group.sort(key=lambda told: told.outcome.lease.id)
    return groups


def _keepable(outcome: Outcome) -> Outcome:
    """An outcome that PostgreSQL can keep: one value that it cannot must not hold up the others."""
    match outcome:
        case Succeeded(lease, warmed):
            texts = (warmed.handle, warmed.unique_id, *warmed.weak)
            if not all(map(is_text, texts)):
                return Failed(
                    lease, "media_unfit: the handle is no text that PostgreSQL keeps (NUL, or no Unicode)"
                )
            return outcome
        case Retry(_, _, reason) | Failed(_, reason):
            return outcome if is_text(reason) else evolve(outcome, reason=_cleaned(reason))
        case Released():
            return outcome


def _cleaned(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


async def _tell(session: Session, query: str, group: Sequence[_Told]) -> Cursor:
    outcomes = [told.outcome for told in group]
    held = [*id_arrays([outcome.lease.id for outcome in outcomes])]
    held.append(number_array([outcome.lease.token for outcome in outcomes]))
    return await session.send(query, *held, *_said(outcomes))


def _said(outcomes: Sequence[Outcome]) -> list[str]:
    """What outcomes of one group say beside whose they are: the parameters that follow the tokens."""
    given = [each for each in outcomes if isinstance(each, Succeeded)]
    if given:
        said = _said_of_success([each.warmed for each in given], [each.lease.id.kind for each in given])
        return [*said, number_array([each.renew_in for each in given])]
    failed = [each.reason for each in outcomes if isinstance(each, Failed)]
    if failed:
        return [text_array(failed)]
    back = [
        (each.delay, each.reason, int(each.refund)) if isinstance(each, Retry) else (0.0, None, 1)
        for each in outcomes
    ]
    return [
        number_array([delay for delay, _, _ in back]),
        text_array([reason for _, reason, _ in back]),
        number_array([refund for _, _, refund in back]),
    ]


def _said_of_success(given: Sequence[Warmed], asked: Sequence[MediaKind]) -> list[str]:
    delivered = [None if each.kind is kind else each.kind for each, kind in zip(given, asked, strict=True)]
    return [
        text_array([each.handle for each in given]),
        text_array(delivered),
        text_array([each.unique_id for each in given]),
        text_array([weak_text(each.weak) for each in given]),
        text_array([details_text(each.details) for each in given]),
        number_array([None if each.expires_at is None else each.expires_at.timestamp() for each in given]),
    ]


async def _lost(told: Sequence[tuple[Sequence[_Told], Cursor]], settle: Sequence[Outcome]) -> list[Outcome]:
    """What did not apply, as and where the caller gave it."""
    lost: set[int] = set()
    for group, cursor in told:
        applied = {row[0] for row in await cursor.fetchall()}
        lost.update(each.place for n, each in enumerate(group, 1) if n not in applied)
    return [settle[place] for place in sorted(lost)]


async def settle_singly(session: Session, settle: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Tell outcomes one by one, after the database refused a batch; return those lost, and those to tell later.

    One that it will not keep fails its row. Those whose rows somebody's open transaction has
    locked are found together and not waited for.
    """
    blocked = await _locked(session, settle)
    lost: set[int] = set()
    for told in [told for group in _grouped(settle).values() for told in group if told.place not in blocked]:
        outcome = told.outcome
        try:
            applied = await _settle_one(session, outcome)
        except pg.LockNotAvailable:
            blocked.add(told.place)
            continue
        except REFUSALS as error:
            said = error.diag.message_primary
            logger.warning("%s: PostgreSQL cannot keep its outcome: %s", outcome.lease.id, said)
            unfit = Failed(outcome.lease, "media_unfit: PostgreSQL cannot keep what the target gave")
            applied = await _settle_one(session, unfit)
        if not applied:
            lost.add(told.place)
    return [settle[place] for place in sorted(lost)], [settle[place] for place in sorted(blocked)]


async def _settle_one(session: Session, outcome: Outcome) -> bool:
    [(query, group)] = [item for item in _grouped([outcome]).items() if item[1]]
    async with session.together():
        await session.send("plan")
        await session.send("brief")
        cursor = await _tell(session, query, group)
    return bool(await cursor.fetchall())


async def landed(session: Session, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Of outcomes that did not apply now, those that a turn without an answer had applied already."""
    held = [*id_arrays([outcome.lease.id for outcome in outcomes])]
    tokens = number_array([outcome.lease.token for outcome in outcomes])
    kept = [_keepable(outcome) for outcome in outcomes]
    handles = [each.warmed.handle if isinstance(each, Succeeded) else None for each in kept]
    states = [
        "ready" if isinstance(each, Succeeded) else "failed" if isinstance(each, Failed) else "pending"
        for each in kept
    ]
    cursor = await _planned(session, "landed", *held, tokens, text_array(handles), text_array(states))
    return [outcomes[int(row[0]) - 1] for row in await cursor.fetchall()]


async def heartbeat(session: Session, leases: Sequence[Lease], lease_seconds: float) -> list[Lease]:
    """Hold leases on; return those that are not ours any more."""
    ordered = sorted(leases, key=lambda lease: lease.id)
    held = [*id_arrays([lease.id for lease in ordered]), number_array([lease.token for lease in ordered])]
    try:
        cursor = await _planned(session, "heartbeat", *held, lease_seconds)
    except pg.LockNotAvailable:
        cursor = await _planned(session, "heartbeat_free", *held, lease_seconds)
    applied = {row[0] for row in await cursor.fetchall()}
    return [lease for n, lease in enumerate(ordered, 1) if n not in applied]


async def _planned(session: Session, query: str, *values: Any) -> Cursor:
    """Run one query of a turn, alone."""

    async def run() -> Cursor:
        async with session.together():
            await session.send("plan")
            return await session.send(query, *values)

    return await session.again_unprepared(run)


async def look_up(session: Session, ids: Sequence[MediaId]) -> dict[MediaId, Looked]:
    """Rows by their ids, a hundred or so at a time: the server finds the next ones while we read these."""
    found: dict[MediaId, Looked] = {}
    parts = [ids[first : first + _LOOK_UP] for first in range(0, len(ids), _LOOK_UP)]
    async with session.connection.pipeline():
        asked = [(part, await session.send("find_many", *id_arrays(part))) for part in parts]
        for part, cursor in asked:
            for row in await cursor.fetchall():
                id_ = part[int(row[0]) - 1]
                found[id_] = as_looked(id_, row)
    return found
