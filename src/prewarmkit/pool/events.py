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
    "MediaInvalidated",
    "MediaReady",
    "MediaReleased",
    "MediaRequeued",
    "MediaRetried",
    "MediaStarted",
    "PoolEvent",
    "PoolPaused",
    "PoolResized",
    "PoolResumed",
    "PoolStarted",
    "PoolStopped",
    "StoreTrouble",
    "TargetPaused",
    "TargetResumed",
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
class PoolPaused:
    """Nothing new is begun, until `PoolResumed`."""


@frozen
class PoolResumed:
    """Work goes on."""


@frozen
class PoolResized:
    """So many media are warmed at once from now on."""

    concurrency: int


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
class MediaReleased:
    """A medium was given back unfinished at no attempt's cost: the pool stops or pauses, or its target rests."""

    id: MediaId


@frozen
class MediaInvalidated:
    """A delivery by its handle was refused, and the handle dropped."""

    id: MediaId


@frozen
class MediaRequeued:
    """So many media that had failed for good are due again."""

    media: int


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
class TargetResumed:
    """A target that had rested has taken a medium."""

    target: str


@frozen
class StoreTrouble:
    """The store could not do it; the pool tries again in `retry_in` seconds."""

    error: str
    is_full: bool
    retry_in: float


PoolEvent = (
    PoolStarted
    | PoolStopped
    | PoolPaused
    | PoolResumed
    | PoolResized
    | MediaEnqueued
    | MediaStarted
    | MediaReady
    | MediaRetried
    | MediaDeferred
    | MediaReleased
    | MediaFailed
    | MediaInvalidated
    | MediaRequeued
    | LeaseLost
    | TargetPaused
    | TargetResumed
    | StoreTrouble
)
"""Every event that ``on_event`` may get; a target's own come through `Services.emit`."""
