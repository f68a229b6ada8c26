"""The life of a row, as data: its states and what moves it from one to another.

Nothing else may move a row than `TRANSITIONS` says. `MemoryStore`, the docs' table and the
model that every store is tested against read it; the others say the same in SQL. This
module knows no database and no clock.

An attempt counts when it is claimed; `Step.attempts` says which moves give it back.

A row whose lease ran out is a *suspect*: it may be what killed or hung its process. Of the
suspects a store object hands out one at a time, beside any number of other rows, so what
kills again takes no other suspect with it, and a row that only stood beside it spends one
attempt. It stops being one when an outcome is told (a success, a retry) or when it gets
another version; given back unstarted, failed and requeued it stays one.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AGEING_SECONDS",
    "LIVE_IN_A_ROW",
    "LIVE_PRIORITY",
    "LIVE_RANK",
    "RENEWAL_PRIORITY",
    "RENEWED_AT_ONCE",
    "TRANSITIONS",
    "Move",
    "State",
    "Step",
    "rank_offset",
]


class State(StrEnum):
    """Where a row is."""

    PENDING = "pending"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


class Move(StrEnum):
    """What moves it."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    RETRY = "retry"
    DEFER = "defer"
    FAIL = "fail"
    RELEASE = "release"
    EXPIRE = "expire"
    RENEW = "renew"
    INVALIDATE = "invalidate"
    REQUEUE = "requeue"
    SHARE = "share"


@frozen
class Step:
    """One row of the table.

    Attributes:
        to: The state after the move.
        attempts: What it does to the attempt counter: ``+1``, ``-1``, ``0``, or ``None`` for a reset.
        why: One sentence for the docs.
    """

    to: State
    attempts: int | None
    why: str


TRANSITIONS: Mapping[tuple[State, Move], Step] = MappingProxyType(
    {
        (State.PENDING, Move.CLAIM): Step(State.WARMING, 1, "a pool leases the row; its token grows"),
        (State.PENDING, Move.SHARE): Step(
            State.READY, None, "another key with the same SHA-256 became ready"
        ),
        (State.WARMING, Move.SUCCEED): Step(State.READY, None, "the target gave a handle"),
        (State.WARMING, Move.RETRY): Step(State.PENDING, 0, "a failure that a later try may not meet"),
        (State.WARMING, Move.DEFER): Step(
            State.PENDING, -1, "rate limited, or the target is down: no attempt spent"
        ),
        (State.WARMING, Move.FAIL): Step(State.FAILED, 0, "a final failure, or the last attempt failed"),
        (State.WARMING, Move.RELEASE): Step(State.PENDING, -1, "the pool stops before it began"),
        (State.WARMING, Move.EXPIRE): Step(State.PENDING, 0, "the lease ran out: the process died or hangs"),
        (State.WARMING, Move.RENEW): Step(
            State.PENDING, None, "enqueued with another version while it was warming"
        ),
        (State.PENDING, Move.RENEW): Step(State.PENDING, None, "enqueued with another version"),
        (State.READY, Move.RENEW): Step(
            State.PENDING,
            None,
            "another version, or the handle expired: it stays, stale; or it is to be renewed: it stays",
        ),
        (State.READY, Move.INVALIDATE): Step(
            State.PENDING, None, "a delivery was refused; the handle is dropped"
        ),
        (State.FAILED, Move.INVALIDATE): Step(
            State.PENDING, None, "the handle that it had from before was refused"
        ),
        (State.FAILED, Move.RENEW): Step(State.PENDING, None, "enqueued with another version"),
        (State.FAILED, Move.REQUEUE): Step(State.PENDING, None, "somebody asked for it again"),
    }
)
"""Every legal move. A pair that is not here does not happen."""

AGEING_SECONDS = 60.0
"""What one step of priority is worth in waiting: a row of priority p goes before every row
that became due more than ``60 × p`` seconds after it, so nothing starves."""

LIVE_PRIORITY = 0
"""Of a row that somebody waits for now. It goes before all background work, `LIVE_IN_A_ROW` times."""

LIVE_IN_A_ROW = 7
"""Live rows that a store object hands out in a row while a background row is due: then that one comes,
so that endless live requests leave background work an eighth. Without the one the other has all."""

RENEWAL_PRIORITY = 5
"""The best that a row has which is due because its handle is to be renewed: nobody waits for it yet."""

RENEWED_AT_ONCE = 1000
"""Rows that one turn makes due for that, at most."""

LIVE_RANK = -1e12
"""Added to the rank of a live row: smaller than that of any background row."""


def rank_offset(priority: int) -> float:
    """Seconds to add to the time a row became due; the smallest sum is served first."""
    return LIVE_RANK if priority == LIVE_PRIORITY else priority * AGEING_SECONDS
