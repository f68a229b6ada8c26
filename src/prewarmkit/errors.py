"""Every error that prewarmkit raises, by whose fault it is.

::

    PrewarmKitError
    ├── ConfigurationError          yours: a setting, a key, a schema
    │   ├── SigningError            (also a ValueError)
    │   ├── TargetRequired
    │   ├── UnknownTarget
    │   ├── InvalidSetting          (also a ValueError)
    │   ├── CredentialsMissing
    │   ├── SchemaMissing
    │   ├── SchemaTooOld
    │   └── SchemaTooNew
    ├── RemoteError                 theirs: a service answered, and said no
    │   └── R2Error                 code, status, request_id, attempts
    │       ├── NotFound
    │       ├── PreconditionFailed
    │       ├── AccessDenied
    │       ├── SlowDown
    │       ├── InvalidRequest
    │       ├── ServiceFault
    │       ├── ConnectionFault     (also a TransportError)
    │       └── BodyFault
    ├── TransportError              the world's: nothing, or not all, came back
    ├── StoreError                  the world's: the database could not do it
    │   └── StoreFull               no room on its disk
    ├── PoolError
    │   ├── MediaNotReady           state, retry_after
    │   ├── WarmFailed              reason, attempts
    │   ├── WarmTimeout             (also a TimeoutError) retry_after
    │   └── PoolClosed              cause
    ├── QueueError
    │   ├── QueueFull
    │   ├── QueueEmpty
    │   └── QueueClosed
    └── TargetFailure               what a WarmTarget raises: a closed set
        ├── RateLimited             no attempt spent · retry_after, scope
        ├── TargetDown              no attempt spent
        ├── Moved                   no attempt spent · new_id
        ├── ChatDead                no attempt spent
        ├── SourceMissing           final
        ├── MediaUnfit              final
        ├── TooLarge                final · limit
        ├── Transient               one attempt · outcome_unknown
        ├── SourceChanged           one attempt
        ├── RouteUnfit              one attempt
        └── BadHandle               one attempt · handle

Each message says what to do next, each class says by `is_retryable` whether doing
the same again can help, and none ever holds a key, a token or a presigned query.
This module imports nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prewarmkit.media import Handle

__all__ = [
    "AccessDenied",
    "BadHandle",
    "BodyFault",
    "ChatDead",
    "ConfigurationError",
    "ConnectionFault",
    "CredentialsMissing",
    "InvalidRequest",
    "InvalidSetting",
    "MediaNotReady",
    "MediaUnfit",
    "Moved",
    "NotFound",
    "PoolClosed",
    "PoolError",
    "PreconditionFailed",
    "PrewarmKitError",
    "QueueClosed",
    "QueueEmpty",
    "QueueError",
    "QueueFull",
    "R2Error",
    "RateLimited",
    "RemoteError",
    "RouteUnfit",
    "SchemaMissing",
    "SchemaTooNew",
    "SchemaTooOld",
    "ServiceFault",
    "SigningError",
    "SlowDown",
    "SourceChanged",
    "SourceMissing",
    "StoreError",
    "StoreFull",
    "TargetDown",
    "TargetFailure",
    "TargetRequired",
    "TooLarge",
    "Transient",
    "TransportError",
    "UnknownTarget",
    "WarmFailed",
    "WarmTimeout",
]


class PrewarmKitError(Exception):
    """Root of all errors of this library."""

    is_retryable: bool = False
    """Whether the same call can succeed later with nothing changed by you."""


# ── yours ────────────────────────────────────────────────────────────────────


class ConfigurationError(PrewarmKitError):
    """Something that the host set up cannot work; the message names it."""


class SigningError(ConfigurationError, ValueError):
    """A request that cannot be signed as given."""


class InvalidSetting(ConfigurationError, ValueError):
    """A setting, or an environment variable, has a value that cannot work; the message names it."""


class TargetRequired(ConfigurationError):
    """The pool has several targets, or a resolver, and the call named none."""


class UnknownTarget(ConfigurationError):
    """The call named a target that the pool does not have."""


class CredentialsMissing(ConfigurationError):
    """No credentials were found where they were looked for."""


class SchemaMissing(ConfigurationError):
    """The database has no prewarmkit tables: run the migration first."""


class SchemaTooOld(ConfigurationError):
    """The database is behind this version: run the migration."""


class SchemaTooNew(ConfigurationError):
    """The database was migrated by a newer prewarmkit: upgrade this process."""


# ── theirs ───────────────────────────────────────────────────────────────────


class RemoteError(PrewarmKitError):
    """A service answered, and the answer was a refusal."""


class R2Error(RemoteError):
    """What R2, or another S3-compatible service, answered.

    Attributes:
        code: The service's own code, such as ``NoSuchKey``; ``None`` where it gave none.
        status: The HTTP status; ``None`` where there was no answer.
        request_id: ``cf-ray`` or ``x-amz-request-id``, for a support ticket.
        attempts: How many times the request was sent.
        is_retryable: Whether the same call may succeed later.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
        is_retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.request_id = request_id
        self.attempts = attempts
        if is_retryable is not None:
            self.is_retryable = is_retryable


class NotFound(R2Error):
    """No such key, bucket or upload; `code` says which."""


class PreconditionFailed(R2Error):
    """An ``If-Match`` or ``If-None-Match`` did not hold (412), or nothing changed (304)."""


class AccessDenied(R2Error):
    """The credentials are wrong, expired, or may not do this."""


class SlowDown(R2Error):
    """The service asks for fewer requests (429, 503 SlowDown)."""

    is_retryable = True


class InvalidRequest(R2Error):
    """The service found the request itself wrong; sending it again cannot help."""


class ServiceFault(R2Error):
    """The service failed (5xx)."""

    is_retryable = True


class BodyFault(R2Error):
    """A body that must not be used: cut short, changed under the reader, or with a wrong checksum."""

    is_retryable = True


# ── the world's ──────────────────────────────────────────────────────────────


class TransportError(PrewarmKitError):
    """No answer, or not all of it: refused, reset, timed out.

    Attributes:
        request_sent: Whether a byte of the request may have reached the server, so that
            the outcome of a request that is not idempotent is unknown.
    """

    is_retryable = True

    def __init__(self, message: str, *, request_sent: bool = True) -> None:
        super().__init__(message)
        self.request_sent = request_sent


class ConnectionFault(R2Error, TransportError):
    """R2 could not be reached, or the connection broke."""

    is_retryable = True
    request_sent = True


class StoreError(PrewarmKitError):
    """The database could not do it now: locked, unreachable, disk trouble."""

    is_retryable = True


class StoreFull(StoreError):
    """There is no room on the database's disk, or its own bound is reached; nothing queued was lost."""


# ── pool ─────────────────────────────────────────────────────────────────────


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


# ── queue ────────────────────────────────────────────────────────────────────


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


# ── targets ──────────────────────────────────────────────────────────────────


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
    """The chat has a new id; the target has noted it, the job goes again at once.

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
