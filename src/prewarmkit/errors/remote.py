"""Errors of services (they answered, and said no) and of the world between (nothing came back)."""

from __future__ import annotations

from prewarmkit.errors.base import PrewarmKitError

__all__ = [
    "AccessDenied",
    "BodyFault",
    "ConnectionFault",
    "InvalidRequest",
    "NotFound",
    "PreconditionFailed",
    "R2Error",
    "RemoteError",
    "ServiceFault",
    "SlowDown",
    "TransportError",
]


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
