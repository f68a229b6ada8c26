"""What a `WarmTarget` raises: a closed set, each of which says what a pool does about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit.errors.base import PrewarmKitError

if TYPE_CHECKING:
    from prewarmkit.media import Handle

__all__ = [
    "BadHandle",
    "ChatDead",
    "MediaUnfit",
    "Moved",
    "RateLimited",
    "RouteUnfit",
    "SourceChanged",
    "SourceMissing",
    "TargetDown",
    "TargetFailure",
    "TooLarge",
    "Transient",
]


class TargetFailure(PrewarmKitError):
    """What a `WarmTarget` raises; the pool acts by the class. The first argument is a message.

    Attributes:
        reason: Short, stable name of the class as it stands in rows: ``rate_limited``, ``too_large``, …
        spends_attempt: Whether the job's attempt counter keeps this try.
        is_final: Whether trying again is pointless.
    """

    reason: str = "target_failure"
    spends_attempt: bool = True
    is_final: bool = False


class RateLimited(TargetFailure):
    """The target, one chat or one bot takes nothing for a while; no attempt is spent.

    Attributes:
        retry_after: Seconds.
        scope: ``"target"`` pauses the whole target, any other (``"chat"``) holds the job only.
    """

    reason = "rate_limited"
    spends_attempt = False
    is_retryable = True

    def __init__(self, message: str, retry_after: float, scope: str = "target") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.scope = scope


class TargetDown(TargetFailure):
    """The target as a whole cannot work: a revoked token, an empty chat pool, a source that refuses us.

    Attributes:
        retry_after: Seconds after which one probe makes sense; ``None`` leaves it to the pool.
    """

    reason = "target_down"
    spends_attempt = False

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Moved(TargetFailure):
    """The chat has a new id; the target has noted it, the job goes again in a moment.

    Attributes:
        new_id: The id that holds from now on.
    """

    reason = "moved"
    spends_attempt = False
    is_retryable = True

    def __init__(self, message: str, new_id: int | str) -> None:
        super().__init__(message)
        self.new_id = new_id


class ChatDead(TargetFailure):
    """One chat is gone for us (kicked, deleted); the target goes on with the others."""

    reason = "chat_dead"
    spends_attempt = False
    is_retryable = True


class SourceMissing(TargetFailure):
    """The source has no such key."""

    reason = "source_missing"
    is_final = True


class MediaUnfit(TargetFailure):
    """The target refuses this medium as this kind, and always will."""

    reason = "media_unfit"
    is_final = True


class TooLarge(TargetFailure):
    """The medium is over what the target takes by any route.

    Attributes:
        limit: Bytes; ``None`` if the target did not say.
    """

    reason = "too_large"
    is_final = True

    def __init__(self, message: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class Transient(TargetFailure):
    """The world failed: a reset, a timeout, a 5xx.

    Attributes:
        outcome_unknown: Whether the target may have done the work all the same.
    """

    reason = "transient"
    is_retryable = True

    def __init__(self, message: str, outcome_unknown: bool = False) -> None:  # noqa: FBT001, FBT002 - positional in the contract
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class SourceChanged(TargetFailure):
    """The object changed, or ended early, while it was read."""

    reason = "source_changed"
    is_retryable = True


class RouteUnfit(TargetFailure):
    """This way of sending does not fit the medium; another may."""

    reason = "route_unfit"
    is_retryable = True


class BadHandle(TargetFailure):
    """A delivery by handle was refused: pass the handle to `PrewarmPool.invalidate`.

    Attributes:
        handle: The `Handle` (or its bare value) that was refused.
    """

    reason = "bad_handle"

    def __init__(self, message: str, handle: Handle | str) -> None:
        super().__init__(message)
        self.handle = handle
