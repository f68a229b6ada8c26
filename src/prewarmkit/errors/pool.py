"""Errors of the pool, its queue and its store."""

from __future__ import annotations

from typing import Literal

from prewarmkit.errors.base import PrewarmKitError

__all__ = [
    "MediaNotReady",
    "PoolClosed",
    "PoolError",
    "QueueClosed",
    "QueueEmpty",
    "QueueError",
    "QueueFull",
    "StoreError",
    "StoreFull",
    "WarmFailed",
    "WarmTimeout",
]


class StoreError(PrewarmKitError):
    """The database could not do it now: locked, unreachable, disk trouble."""

    is_retryable = True


class StoreFull(StoreError):
    """There is no room on the database's disk, or its own bound is reached; nothing queued was lost."""


class PoolError(PrewarmKitError):
    """The pool cannot give what was asked for."""


class MediaNotReady(PoolError):
    """`PrewarmPool.require` met a cold medium.

    Attributes:
        state: ``None`` (never asked for), ``"pending"``, ``"warming"`` or ``"failed"``.
        retry_after: Seconds after which asking again makes sense; ``None`` if that is not known.
    """

    is_retryable = True

    def __init__(
        self,
        state: Literal["pending", "warming", "failed"] | None = None,
        retry_after: float | None = None,
        *,
        key: str = "",
    ) -> None:
        what = f"{key!r} is not ready" if key else "The medium is not ready"
        now = "it was never queued" if state is None else f"it is {state}"
        when = (
            "use pool.warm() to wait for it" if retry_after is None else f"ask again in {retry_after:.3g} s"
        )
        super().__init__(f"{what}: {now}; {when}.")
        self.state = state
        self.retry_after = retry_after
        self.key = key


class WarmFailed(PoolError):
    """A medium failed for good.

    Attributes:
        reason: The row's reason, such as ``too_large: …``.
        attempts: How many attempts it took.
    """

    def __init__(self, reason: str, attempts: int, *, key: str = "") -> None:
        what = f"{key!r}" if key else "The medium"
        super().__init__(
            f"{what} failed after {attempts} attempt{'' if attempts == 1 else 's'}: {reason}. "
            "Mend the cause, then pool.requeue_failed()."
        )
        self.reason = reason
        self.attempts = attempts
        self.key = key


class WarmTimeout(PoolError, TimeoutError):
    """`PrewarmPool.warm` waited as long as it was allowed to; the work goes on.

    Attributes:
        retry_after: Seconds until the target takes work again, where that is known.
    """

    is_retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PoolClosed(PoolError):
    """The pool stopped, or was never entered.

    Attributes:
        cause: The error that stopped it; ``None`` if it was asked to.
    """

    def __init__(self, message: str = "The pool is closed.", *, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class QueueError(PrewarmKitError):
    """Base of the queue's refusals."""


class QueueFull(QueueError):
    """There is no room now."""

    is_retryable = True


class QueueEmpty(QueueError):
    """There is nothing to take now."""

    is_retryable = True


class QueueClosed(QueueError):
    """The queue was closed: it takes nothing more, and what it held has been drained."""
