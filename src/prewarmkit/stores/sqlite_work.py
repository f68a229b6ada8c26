"""What happens to rows inside one SQLite transaction: synchronous, at one moment.

Runs in a worker thread. It moves rows exactly as `prewarmkit.stores.lifecycle` says and
decides as `prewarmkit.stores.rules` says; the contract suite holds it to both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

from attrs import frozen

from prewarmkit.media import Handle, Media
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
from prewarmkit.stores.lifecycle import AGEING_SECONDS, LIVE_RANK, State, rank_offset
from prewarmkit.stores.rules import handle_of, is_new_version, merged
from prewarmkit.stores.sql import load_queries
from prewarmkit.stores.sqlite_rows import (
    NO_HANDLE,
    as_handle,
    as_lease,
    as_media,
    handle_columns,
    id_columns,
    json_list,
    media_columns,
)

__all__ = ["SQL", "Work"]

SQL = load_queries("sqlite")


@frozen
class Work:
    """One transaction's work.

    Attributes:
        connection: Inside its transaction.
        now: The one moment at which all of it happens, POSIX seconds.
    """

    connection: sqlite3.Connection
    now: float

    def change(self, query: str, **values: Any) -> int:
        """Run a named query; how many rows it changed."""
        values |= {"now": self.now, "live": LIVE_RANK, "ageing": AGEING_SECONDS}
        return self.connection.execute(SQL[query], values).rowcount

    def pending(self, targets: Collection[str] | None = None) -> int:
        """How many rows wait."""
        return int(self.connection.execute(SQL["pending"], {"targets": json_list(targets)}).fetchone()[0])

    def next_due(self) -> float | None:
        """See `Turn.next_due`."""
        moment = self.connection.execute(SQL["next_due"], {"now": self.now}).fetchone()[0]
        return None if moment is None else max(0.0, moment - self.now)

    # ── enqueue ──────────────────────────────────────────────────────────────

    def enqueue(self, job: Job) -> Enqueued:
        """Put one job in."""
        row = self.connection.execute(SQL["find"], id_columns(job.id)).fetchone()
        if row is None:
            return self._insert(job)
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
        self.change("renew", id=row["id"], **self._due(priority, self.now + job.delay))
        return Enqueued.DUPLICATE if is_queued else Enqueued.QUEUED

    def _share(self, row: sqlite3.Row, media: Media) -> bool:
        """Give a row without a handle that of the same content under another key."""
        shared = self._good_handle(row["target"], media) if row["handle"] is None else None
        if shared is not None:
            self.change("share", id=row["id"], **handle_columns(shared))
        return shared is not None

    def _is_due_again(self, row: sqlite3.Row, job: Job) -> bool:
        if row["state"] == State.READY:
            return row["expires_at"] is not None and row["expires_at"] <= self.now
        return job.retry_failed

    def _insert(self, job: Job) -> Enqueued:
        shared = self._good_handle(job.target, job.media)
        self.change(
            "insert",
            **id_columns(job.id),
            **media_columns(job.media),
            **self._due(job.priority, self.now + job.delay),
            **(NO_HANDLE if shared is None else handle_columns(shared)),
            state=State.PENDING if shared is None else State.READY,
        )
        return Enqueued.QUEUED if shared is None else Enqueued.READY

    def _good_handle(self, target: str, media: Media) -> Handle | None:
        if media.sha256 is None:
            return None
        wanted = {"target": target, "sha256": media.sha256, "kind": media.kind, "now": self.now}
        row = self.connection.execute(SQL["good_handle"], wanted).fetchone()
        return None if row is None else as_handle(row, self.now)

    def _hurry(self, row: sqlite3.Row, job: Job) -> None:
        due_at = min(self.now + job.delay, row["due_at"])
        if job.priority < row["priority"] or due_at < row["due_at"]:
            self.change("hurry", id=row["id"], **self._due(min(job.priority, row["priority"]), due_at))

    @staticmethod
    def _due(priority: int, due_at: float) -> dict[str, Any]:
        return {"priority": priority, "due_at": due_at, "rank": due_at + rank_offset(priority)}

    # ── settle and lease ─────────────────────────────────────────────────────

    def settle(self, outcome: Outcome) -> bool:
        """Apply one outcome if its lease still holds; say whether it did."""
        lease = outcome.lease
        held = {**id_columns(lease.id), "token": lease.token}
        match outcome:
            case Succeeded(_, warmed):
                return self._succeed(lease.id, held, handle_of(lease.id, warmed, now=self.now))
            case Retry(_, delay, reason, refund):
                changed = self.change(
                    "put_back", **held, due_at=self.now + delay, reason=reason, refund=int(refund)
                )
            case Failed(_, reason):
                changed = self.change("fail", **held, reason=reason)
            case Released():
                changed = self.change("put_back", **held, due_at=self.now, reason=None, refund=1)
        return changed > 0

    def _succeed(self, id_: MediaId, held: dict[str, Any], handle: Handle) -> bool:
        columns = {**held, **handle_columns(handle), "now": self.now}
        rows = self.connection.execute(SQL["succeed"], columns).fetchall()
        if rows and rows[0]["sha256"] is not None:
            self.change("share_with_waiting", **{**columns, **id_columns(id_), "sha256": rows[0]["sha256"]})
        return bool(rows)

    def expire(self) -> None:
        """Take back the leases that ran out."""
        self.change("expire")

    def lease(self, most: int, targets: Collection[str] | None, lease_seconds: float) -> list[Lease]:
        """Lease up to ``most`` due rows, most urgent first."""
        wanted = {
            "now": self.now,
            "most": most,
            "targets": json_list(targets),
            "lease_seconds": lease_seconds,
        }
        rows = self.connection.execute(SQL["lease"], wanted).fetchall()
        rows.sort(key=lambda row: (row["rank"], row["id"]))  # RETURNING promises no order
        return [as_lease(row, self.now) for row in rows]

    def heartbeat(self, lease: Lease, lease_seconds: float) -> bool:
        """Hold one lease on; say whether it was ours still."""
        held = {**id_columns(lease.id), "token": lease.token}
        return self.change("heartbeat", **held, lease_seconds=lease_seconds) > 0
