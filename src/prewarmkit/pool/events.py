"""What happens in a pool, one frozen value each; logs, metrics and progress read these.

No event holds a secret: keys, ids and counts only.
"""

from __future__ import annotations

from attrs import frozen

from prewarmkit.media import Handle
from prewarmkit.stores.base import Enqueued, MediaId

__all__ = [
    "LeaseLost",
    "MediaDeferred",
    "MediaEnqueued",
    "MediaFailed",
    "MediaReady",
    "MediaRetried",
    "MediaStarted",
    "PoolEvent",
    "PoolStarted",
    "PoolStopped",
    "StoreTrouble",
    "TargetPaused",
]


@frozen
class PoolStarted:
    """The workers run."""

    concurrency: int


@frozen
class PoolStopped:
    """The workers have stopped; `failure` is the bug that stopped them, if one did."""

    failure: BaseException | None = None


@frozen
class MediaEnqueued:
    """A medium was offered; `answer` says what was found."""

    id: MediaId
    answer: Enqueued


@frozen
class MediaStarted:
    """A worker took a medium; it had been due for `waited` seconds."""

    id: MediaId
    attempt: int
    waited: float


@frozen
class MediaReady:
    """A medium is warm, and the store has it; it took `seconds`."""

    id: MediaId
    handle: Handle
    seconds: float


@frozen
class MediaRetried:
    """An attempt failed; the next one is due in `delay` seconds."""

    id: MediaId
    attempt: int
    reason: str
    delay: float


@frozen
class MediaDeferred:
    """A try was put off at no attempt's cost: rate limited, or the target is down."""

    id: MediaId
    reason: str
    delay: float


@frozen
class MediaFailed:
    """A medium failed for good."""

    id: MediaId
    attempt: int
    reason: str


@frozen
class LeaseLost:
    """Somebody else has this medium now: our lease had run out, or its version changed."""

    id: MediaId


@frozen
class TargetPaused:
    """A target takes nothing for `seconds`; `is_down` if it refused altogether."""

    target: str
    reason: str
    seconds: float
    is_down: bool


@frozen
class StoreTrouble:
    """The store could not do it; the pool tries again in `retry_in` seconds."""

    error: str
    is_full: bool
    retry_in: float


PoolEvent = (
    PoolStarted
    | PoolStopped
    | MediaEnqueued
    | MediaStarted
    | MediaReady
    | MediaRetried
    | MediaDeferred
    | MediaFailed
    | LeaseLost
    | TargetPaused
    | StoreTrouble
)
"""Every event that ``on_event`` may get; a target's own come through `Services.emit`."""
