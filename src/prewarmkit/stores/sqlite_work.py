"""What happens to rows inside one SQLite transaction: synchronous, at one moment.

Runs in a worker thread. It moves rows exactly as `prewarmkit.stores.lifecycle` says and
decides as `prewarmkit.stores.rules` says; the contract suite holds it to both.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from attrs import define

from prewarmkit.media import Media, Warmed
from prewarmkit.stores.base import (
    Enqueued,
    Failed,
    Job,
    Lease,
    MediaId,
    Outcome,
    Released,
    Retry,
    Succeeded,
)
from prewarmkit.stores.clock import Moment
from prewarmkit.stores.lifecycle import (
    LIVE_PRIORITY,
    RENEWAL_PRIORITY,
    RENEWED_AT_ONCE,
    State,
    rank_offset,
)
from prewarmkit.stores.rules import background_share, in_turns, is_new_version, merged
from prewarmkit.stores.sql import load_queries
from prewarmkit.stores.sqlite_rows import (
    as_lease,
    as_media,
    handle_columns,
    id_columns,
    media_columns,
    warmed_columns,
)

__all__ = ["SQL", "Work"]

SQL = load_queries("sqlite")


@define
class Work:
    """One transaction's work.

    Attributes:
        connection: Inside its transaction.
        at: The one moment at which all of it happens.
    """

    connection: sqlite3.Connection
    at: Moment

    def change(self, query: str, **values: Any) -> int:
        """Run a named query; how many rows it changed."""
        values["now"] = self.at.now
        return self.connection.execute(SQL[query], values).rowcount

    def waiting(self) -> dict[str, int]:
        """How many rows wait, by target, where any does."""
        return dict(self.connection.execute(SQL["waiting"]).fetchall())

    def next_due(self) -> float | None:
        """See `Turn.next_due`."""
        moment = self.connection.execute(SQL["next_due"], {"now": self.at.now}).fetchone()[0]
        return None if moment is None else max(0.0, moment - self.at.now)

    # ── enqueue ──────────────────────────────────────────────────────────────

    def enqueue(self, job: Job) -> Enqueued:
        """Put one job in."""
        media, now, due_at = job.media, self.at.now, self.at.now + job.delay
        version = (media.size, media.etag, media.sha256, media.content_type, media.filename)
        place = (job.priority, due_at, due_at > now)
        inserted = self.connection.execute(
            SQL["insert"], (job.target, media.key, media.kind.value, *version, *place, now, now)
        )
        if inserted.rowcount != 1:
            return self._enqueue_again(job)
        shared = self._warm(job.target, media)
        if shared is None:
            return Enqueued.QUEUED
        self.change("share", id=inserted.lastrowid, **handle_columns(shared))
        return Enqueued.READY

    def _enqueue_again(self, job: Job) -> Enqueued:
        row = self.connection.execute(SQL["find"], id_columns(job.id)).fetchone()
        state, known = State(row["state"]), as_media(row)
        is_new, is_queued = is_new_version(known, job.media), state in {State.PENDING, State.WARMING}
        media = merged(known, job.media)
        if media != known:
            self.change("describe", id=row["id"], **media_columns(media))
        if not is_new and not is_queued and not self._is_due_again(row, job):
            return Enqueued.READY if state is State.READY else Enqueued.FAILED
        if (is_new or state is not State.WARMING) and self._share(row, media):
            return Enqueued.READY
        if not is_new and is_queued:
            self._hurry(row, job)
            return Enqueued.DUPLICATE
        priority = min(job.priority, row["priority"]) if is_queued else job.priority
        due = self._due(self.at.now + job.delay)
        self.change("renew", id=row["id"], priority=priority, is_new=is_new, **due)
        return Enqueued.DUPLICATE if is_queued else Enqueued.QUEUED

    def _share(self, row: sqlite3.Row, media: Media) -> bool:
        """Give a row without a handle that of the same content under another key."""
        shared = self._warm(row["target"], media) if row["handle"] is None else None
        if shared is not None:
            self.change("share", id=row["id"], **handle_columns(shared))
        return shared is not None

    def _is_due_again(self, row: sqlite3.Row, job: Job) -> bool:
        if row["state"] == State.READY:
            return row["expires_at"] is not None and row["expires_at"] <= self.at.wall
        return job.retry_failed

    def _warm(self, target: str, media: Media) -> sqlite3.Row | None:
        """Any row with the same content that has a good handle."""
        if media.sha256 is None:
            return None
        wanted = {"target": target, "sha256": media.sha256, "kind": media.kind, "wall": self.at.wall}
        row: sqlite3.Row | None = self.connection.execute(SQL["good_handle"], wanted).fetchone()
        return row

    def _hurry(self, row: sqlite3.Row, job: Job) -> None:
        due_at = min(self.at.now + job.delay, row["due_at"])
        if job.priority < row["priority"] or due_at < row["due_at"]:
            priority = min(job.priority, row["priority"])
            self.change("hurry", id=row["id"], priority=priority, **self._due(due_at))

    def _due(self, due_at: float) -> dict[str, Any]:
        return {"due_at": due_at, "delayed": due_at > self.at.now}

    # ── settle ───────────────────────────────────────────────────────────────

    def settle(self, outcome: Outcome) -> bool:
        """Apply one outcome if its lease still holds; say whether it did."""
        lease = outcome.lease
        held = {**id_columns(lease.id), "token": lease.token}
        match outcome:
            case Succeeded(_, warmed, renew_in):
                return self._succeed(lease.id, held, warmed, renew_in)
            case Retry(_, delay, reason, refund):
                due = self._due(self.at.now + delay)
                changed = self.change("put_back", **held, **due, reason=reason, refund=int(refund))
            case Failed(_, reason):
                changed = self.change("fail", **held, reason=reason)
            case Released():
                changed = self.change("put_back", **held, **self._due(self.at.now), reason=None, refund=1)
        return changed > 0

    def _succeed(self, id_: MediaId, held: dict[str, Any], warmed: Warmed, renew_in: float | None) -> bool:
        renew_at = None if renew_in is None else self.at.now + renew_in
        given = warmed_columns(warmed, id_.kind, self.at.wall)
        columns = {**held, **given, "renew_at": renew_at, "now": self.at.now}
        rows = self.connection.execute(SQL["succeed"], columns).fetchall()
        if rows and rows[0][0] is not None:
            self.change("share_with_waiting", **{**columns, "sha256": rows[0][0]})
        return bool(rows)

    # ── lease ────────────────────────────────────────────────────────────────

    def sweep(self) -> None:
        """Take back the leases that ran out, and make due what is to be renewed."""
        self.change("expire")
        self.change("renew_due", priority=RENEWAL_PRIORITY, most=RENEWED_AT_ONCE)

    def lease(
        self, most: int, targets: Sequence[str], lease_seconds: float, *, may_suspect: bool, in_a_row: int
    ) -> tuple[list[Lease], tuple[int, int] | None]:
        """Lease up to ``most`` due rows, in their turn.

        Args:
            most: At most 1 of them a suspect.
            targets: Ids to lease for.
            lease_seconds: How long they hold.
            may_suspect: Whether a suspect may be among them.
            in_a_row: Live rows that were leased since the last background row.

        Returns:
            The leases; and of the suspect among them, if there is one, its row's number and its token.
        """
        chosen = self._heads(most, targets, may_suspect=may_suspect, in_a_row=in_a_row)
        if not chosen:
            return [], None
        place = {id_: n for n, (_, id_, _) in enumerate(chosen)}
        token: int = self.connection.execute(SQL["next_token"]).fetchall()[0][0]
        ids = json.dumps(list(place))
        wanted = {"ids": ids, "token": token, "now": self.at.now, "lease_seconds": lease_seconds}
        rows = self.connection.execute(SQL["lease"], wanted).fetchall()
        rows.sort(key=lambda row: place[row[0]])  # RETURNING promises no order
        suspect = next(((id_, token) for _, id_, is_suspect in chosen if is_suspect), None)
        return [as_lease(row, token, self.at.now) for row in rows], suspect

    def _heads(
        self, most: int, targets: Sequence[str], *, may_suspect: bool, in_a_row: int
    ) -> list[tuple[float, int, bool]]:
        """Rank, number and suspicion of the due rows whose turn it is: the best of each lane, and of these the best."""
        lanes = self.connection.execute(SQL["lanes"], {"targets": json.dumps(targets)}).fetchall()
        urgent = [(target, rank) for target, suspect, rank in lanes if not suspect and rank == LIVE_PRIORITY]
        others = [(target, rank) for target, suspect, rank in lanes if not suspect and rank != LIVE_PRIORITY]
        live = self._best(urgent, most)
        background = self._best(others, max(most - len(live), background_share(most, in_a_row)))
        if may_suspect:
            suspects = [
                (head, rank)
                for target, suspect, rank in lanes
                if suspect
                for head in self._head(target, rank, 1, is_suspect=True)
            ]
            for head, rank in sorted(suspects)[:1]:
                (live if rank == LIVE_PRIORITY else background).append(head)
                live, background = sorted(live), sorted(background)
        return in_turns(live, background, in_a_row)[:most]

    def _best(self, lanes: Sequence[tuple[str, int]], most: int) -> list[tuple[float, int, bool]]:
        best: list[tuple[float, int, bool]] = []
        for target, priority in lanes if most else ():
            # Only what can still be among the best: a long urgent lane spares the others.
            until = best[-1][0] if len(best) == most else None
            best = sorted(best + self._head(target, priority, most, until=until))[:most]
        return best

    def _head(
        self, target: str, priority: int, most: int, *, until: float | None = None, is_suspect: bool = False
    ) -> list[tuple[float, int, bool]]:
        """The first rows of one lane that are due and have no rank after ``until``."""
        offset = rank_offset(priority)
        last = self.at.now if until is None else min(self.at.now, until - offset)
        rows = self.connection.execute(SQL["lane"], (target, is_suspect, priority, last, most)).fetchall()
        return [(due_at + offset, id_, is_suspect) for due_at, id_ in rows]

    def is_held(self, id_: int, token: int) -> bool:
        """Whether that lease of that row still holds."""
        return self.connection.execute(SQL["is_held"], (id_, token)).fetchone() is not None

    def heartbeat(self, lease: Lease, lease_seconds: float) -> bool:
        """Hold one lease on; say whether it was ours still."""
        held = {**id_columns(lease.id), "token": lease.token}
        return self.change("heartbeat", **held, lease_seconds=lease_seconds) > 0
