"""R2's temporary credentials, minted offline.

Owns the token that R2 accepts in place of a call to its API: a JWT (HS256) signed with
the parent's secret, whose SHA-256 is the temporary secret. Format: the Cloudflare R2
documentation, "Temporary credentials" and "Authenticate against R2 with temporary
credentials". Knows nothing of requests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, get_args

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.checks import is_a
from prewarmkit.sigv4.credentials import Credentials
from prewarmkit.sigv4.times import posix_time

__all__ = ["Permission", "mint_temporary_credentials"]

Permission = Literal["object-read-only", "object-read-write", "admin-read-only", "admin-read-write"]
"""What temporary credentials may do; never more than their parent."""

_MAX_TTL_SECONDS = 604_800
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


def mint_temporary_credentials(
    parent: Credentials,
    *,
    account_id: str,
    bucket: str,
    permission: Permission,
    prefixes: Iterable[str] = (),
    objects: Iterable[str] = (),
    ttl_seconds: int,
    jurisdiction: str | None = None,
    now: datetime | float | None = None,
) -> Credentials:
    """Credentials for one bucket and a limited time, without asking R2.

    They have the access key id of their parent, and end with it.

    Args:
        parent: A permanent R2 access key.
        account_id: The Cloudflare account that the bucket is in.
        bucket: The one bucket that they are for.
        permission: What they may do there.
        prefixes: Allow only keys that start with one of these; with `objects`: either.
        objects: Allow only these very keys.
        ttl_seconds: 1 second to 7 days.
        jurisdiction: Of the bucket, such as ``"eu"``; ``None`` for none.
        now: When they begin, an aware datetime or a POSIX time; ``None`` for this moment.
    """
    if not is_a(parent, Credentials) or parent.session_token is not None:
        raise SigningError("parent must be permanent Credentials: temporary ones cannot mint others.")
    if not is_a(bucket, str) or not bucket or "/" in bucket:
        raise SigningError(f"bucket must be the name of one bucket, not {bucket!r}.")
    if permission not in get_args(Permission):
        raise SigningError(
            f"permission must be one of {', '.join(get_args(Permission))}, not {permission!r}."
        )
    if is_a(ttl_seconds, bool) or not is_a(ttl_seconds, int) or not 1 <= ttl_seconds <= _MAX_TTL_SECONDS:
        raise SigningError(
            f"ttl_seconds must be a whole number from 1 to {_MAX_TTL_SECONDS} (7 days), not {ttl_seconds!r}."
        )
    paths = {"prefixPaths": _keys(prefixes, "prefixes"), "objectPaths": _keys(objects, "objects")}
    issued = int(posix_time(time.time() if now is None else now, "now"))
    claims: dict[str, object] = {"bucket": bucket, "scope": permission}
    if any(paths.values()):
        claims["paths"] = paths
    claims |= {
        "sub": account_id,
        "iss": parent.access_key_id,
        "aud": _endpoint_host(account_id, jurisdiction),
        "iat": issued,
        "exp": issued + ttl_seconds,
    }
    token = _signed_jwt(claims, parent.secret_access_key)
    return Credentials(
        parent.access_key_id,
        hashlib.sha256(token).hexdigest(),
        base64.b64encode(b"jwt/" + token).decode(),
        expires_at=datetime.fromtimestamp(issued + ttl_seconds, UTC),
    )


def _keys(values: Iterable[str], argument: str) -> list[str]:
    if is_a(values, str) or not is_a(values, Iterable):
        raise SigningError(f"{argument} must be a list of strings, not {type(values).__name__}.")
    keys = list(values)
    if not all(is_a(key, str) and key for key in keys):
        raise SigningError(
            f"{argument} must be a list of non-empty strings; leave it out to allow every key."
        )
    return keys


def _endpoint_host(account_id: str, jurisdiction: str | None) -> str:
    labels = (
        {"account_id": account_id}
        if jurisdiction is None
        else {"account_id": account_id, "jurisdiction": jurisdiction}
    )
    for argument, label in labels.items():
        if not is_a(label, str) or not _LABEL.fullmatch(label):
            raise SigningError(f"{argument} must be letters, digits and hyphens, not {label!r}.")
    return ".".join([*labels.values(), "r2.cloudflarestorage.com"])


def _signed_jwt(claims: dict[str, object], secret: str) -> bytes:
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    signed = b".".join(
        _base64url(json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode()) for part in parts
    )
    return signed + b"." + _base64url(hmac.new(secret.encode(), signed, "sha256").digest())


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
