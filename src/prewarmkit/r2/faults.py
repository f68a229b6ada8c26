"""Which error an answer is: every row of R2's table, and what other services add.

Pure: status, headers and body in, an error out. Each message names what was asked for,
what the service said, and what to change. The service's own words are cut short and
stripped of anything that could be part of a signature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    ConnectionFault,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    R2Error,
    ServiceFault,
    SlowDown,
)
from prewarmkit.r2.requests import Draft
from prewarmkit.r2.responses import parse_fields

__all__ = ["fault_of", "request_id_of"]

_MAX_MESSAGE = 200
_MAX_CODE = 100
_SECRETISH = re.compile(r"(?i)(signature|credential|token|secret)[^\s=]{0,40}=\S+")


@frozen
class _Kind:
    error: type[R2Error]
    advice: str = ""
    is_retryable: bool | None = None


_CLOCK = "set this machine's clock"
_DENIED = _Kind(AccessDenied, "give these credentials the permission, or use others")
_BUCKET = _Kind(NotFound, "create the bucket {bucket!r}, or correct bucket= and the endpoint")
_TOO_FAST = _Kind(SlowDown, "ask less often")
_SERVER = _Kind(ServiceFault, "try again later")
_TRUNCATED = _Kind(BodyFault, "send the body again")

_BY_CODE: Mapping[str, _Kind] = {
    "Unauthorized": _Kind(AccessDenied, "check the access key id and the secret access key"),
    "AccessDenied": _DENIED,
    "SignatureDoesNotMatch": _Kind(AccessDenied, "check the secret access key"),
    "InvalidAccessKeyId": _Kind(AccessDenied, "check the access key id"),
    "InvalidToken": _Kind(AccessDenied, "check the session token"),
    "ExpiredToken": _Kind(AccessDenied, "get new temporary credentials"),
    "ExpiredRequest": _Kind(AccessDenied, _CLOCK + ", or sign anew"),
    "RequestExpired": _Kind(AccessDenied, _CLOCK + ", or sign anew"),
    "RequestTimeTooSkewed": _Kind(AccessDenied, _CLOCK),
    "NotEntitled": _Kind(AccessDenied, "enable R2 for the account"),
    "ObjectLockedByBucketPolicy": _Kind(AccessDenied, "the bucket's lock rule keeps this object as it is"),
    "NoSuchBucket": _BUCKET,
    "NoSuchKey": _Kind(NotFound, "check the key"),
    "NoSuchUpload": _Kind(NotFound, "start the upload anew"),
    "PreconditionFailed": _Kind(PreconditionFailed, "read the object again"),
    "NotModified": _Kind(PreconditionFailed, "use the copy at hand"),
    "ConditionalRequestConflict": _Kind(PreconditionFailed, "try again", is_retryable=True),
    "OperationAborted": _Kind(ServiceFault, "try again"),
    "BadDigest": _TRUNCATED,
    "XAmzContentSHA256Mismatch": _TRUNCATED,
    "IncompleteBody": _TRUNCATED,
    "ClientDisconnect": _Kind(ConnectionFault, "send the body again"),
    "RequestTimeout": _Kind(ConnectionFault, "send the body again, and faster"),
    "EntityTooLarge": _Kind(
        InvalidRequest, "one PUT takes up to 4.995 GiB: give part_size for a multipart upload"
    ),
    "EntityTooSmall": _Kind(InvalidRequest, "parts but the last have at least 5 MiB"),
    "InvalidPart": _Kind(InvalidRequest, "parts but the last must be of one size"),
    "MetadataTooLarge": _Kind(InvalidRequest, "metadata holds up to 8192 bytes"),
    "InvalidDigest": _Kind(InvalidRequest, "the checksum that was sent is malformed"),
    "MissingContentLength": _Kind(InvalidRequest, "something on the way removed Content-Length"),
    "InvalidRange": _Kind(InvalidRequest, "the range lies outside the object"),
    "BucketNotEmpty": _Kind(InvalidRequest, "delete the objects first"),
    "BucketConflict": _Kind(InvalidRequest, "the bucket exists with other settings"),
    "BucketAlreadyExists": _Kind(InvalidRequest, "the name is taken: choose another"),
    "NotImplemented": _Kind(InvalidRequest, "this service does not know the operation", is_retryable=False),
    "TooManyRequests": _TOO_FAST,
    "SlowDown": _TOO_FAST,
    "InternalError": _SERVER,
    "ServiceUnavailable": _SERVER,
}

_BY_STATUS: Mapping[int, _Kind] = {
    304: _BY_CODE["NotModified"],
    401: _BY_CODE["Unauthorized"],
    403: _Kind(AccessDenied, "check the secret access key, and what these credentials may do"),
    404: _Kind(NotFound, "check the key and the bucket {bucket!r}"),
    408: _BY_CODE["RequestTimeout"],
    411: _BY_CODE["MissingContentLength"],
    412: _BY_CODE["PreconditionFailed"],
    413: _BY_CODE["EntityTooLarge"],
    416: _BY_CODE["InvalidRange"],
    429: _TOO_FAST,
    501: _BY_CODE["NotImplemented"],
}
_REDIRECT = _Kind(InvalidRequest, "redirects are never followed: correct the endpoint or the region")
_REFUSED = _Kind(InvalidRequest, "change the request")
# HEAD has no body to say it, and these statuses leave no doubt.
_CODE_BY_STATUS: Mapping[int, str] = {304: "NotModified", 412: "PreconditionFailed", 416: "InvalidRange"}


def fault_of(
    draft: Draft, status: int, headers: Mapping[str, str], body: bytes, *, attempts: int = 1
) -> R2Error:
    """The error that an answer is.

    Args:
        draft: What was asked for.
        status: The answer's.
        headers: The answer's, names in lower case.
        body: As far as it was read; empty for HEAD. HTML, or nothing, is as good as any.
        attempts: How often the request was sent.
    """
    fields = parse_fields(body) or {}
    code = _plain(fields.get("Code", ""), _MAX_CODE) or _CODE_BY_STATUS.get(status) or _missing(draft, status)
    kind = _kind(code, status)
    advice = kind.advice.format(bucket=draft.bucket)
    where = f"{draft.key!r} in the bucket {draft.bucket!r}" if draft.key else f"the bucket {draft.bucket!r}"
    said = f"{status} {code}" if code else f"{status}{_what_came_instead(headers, body)}"
    words = _own_words(fields.get("Message", ""))
    return kind.error(
        f"{draft.operation} of {where}: {said}{words}. To do: {advice}.",
        code=code,
        status=status,
        request_id=request_id_of(headers, fields),
        attempts=attempts,
        is_retryable=kind.is_retryable,
    )


def request_id_of(headers: Mapping[str, str], fields: Mapping[str, str] | None = None) -> str | None:
    """What the service's support asks for."""
    header = headers.get("cf-ray") or headers.get("x-amz-request-id")
    return (
        header[:_MAX_MESSAGE] if header else _plain((fields or {}).get("RequestId", ""), _MAX_MESSAGE) or None
    )


def _missing(draft: Draft, status: int) -> str | None:
    """The code of a bare 404: a HEAD tells what it was about."""
    if status != 404 or draft.method != "HEAD":  # noqa: PLR2004 - Not Found
        return None
    return "NoSuchBucket" if draft.key is None else "NoSuchKey"


def _kind(code: str | None, status: int) -> _Kind:
    # 200 with an <Error> inside is how S3 ends a long operation that failed.
    if code is not None and code in _BY_CODE:
        return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500 or status < 300:  # noqa: PLR2004 - the class of a status
        return _SERVER
    return _REDIRECT if status < 400 else _REFUSED  # noqa: PLR2004 - as above


def _what_came_instead(headers: Mapping[str, str], body: bytes) -> str:
    if not body:
        return " without a body"
    return f" with a body of {headers.get('content-type', 'no type')[:60]!r} that is no S3 error"


def _own_words(message: str) -> str:
    words = _plain(message, _MAX_MESSAGE).rstrip(".")
    return f" ({words})" if words else ""


def _plain(text: str, longest: int) -> str:
    """A service's text on one line, cut short, without what could be part of a signature."""
    words = "".join(c if c.isprintable() else " " for c in _SECRETISH.sub(r"\1=…", text)).strip()
    return words if len(words) <= longest else words[: longest - 1] + "…"
