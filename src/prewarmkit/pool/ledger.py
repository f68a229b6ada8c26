"""What the store has been told: into the figures, the events, and to whoever waits."""

from __future__ import annotations

import time

from prewarmkit.errors import WarmFailed
from prewarmkit.pool.core import Core
from prewarmkit.pool.events import (
    LeaseLost,
    MediaDeferred,
    MediaFailed,
    MediaReady,
    MediaReleased,
    MediaRetried,
)
from prewarmkit.pool.state import Verdict
from prewarmkit.stores.base import Failed, Lease, Released, Retry, Succeeded
from prewarmkit.stores.rules import handle_of

__all__ = ["tell", "tell_lost"]


def tell(core: Core, verdict: Verdict, seconds: float) -> None:
    """The store has it. Media that became ready are counted by whoever knows how many did."""
    outcome = verdict.outcome
    id_ = outcome.lease.id
    match outcome:
        case Succeeded(_, warmed, _):
            # Most often nobody listens and nobody waits: then there is nothing to make a handle for.
            if core.events.is_heard or (len(core.flights) and core.flights.is_awaited(id_)):
                handle = handle_of(id_, warmed, now=time.time())
                core.flights.land(id_, handle, outcome.lease.media)
                core.events.emit(MediaReady(id_, handle, seconds))
        case Failed(lease, reason):
            core.recorder.count("failed", target=id_.target)
            core.flights.land(id_, WarmFailed(reason, lease.attempt, key=id_.key), lease.media)
            core.events.emit(MediaFailed(id_, lease.attempt, reason))
        case Retry(lease, delay, reason, refund):
            core.recorder.count(verdict.label, target=id_.target)
            core.events.emit(
                MediaDeferred(id_, reason, delay)
                if refund
                else MediaRetried(id_, lease.attempt, reason, delay)
            )
        case Released():
            if core.events.is_heard:
                core.events.emit(MediaReleased(id_))


def tell_lost(core: Core, lease: Lease) -> None:
    """Somebody else has it now."""
    core.recorder.count("lost", target=lease.id.target)
    core.events.emit(LeaseLost(lease.id))
