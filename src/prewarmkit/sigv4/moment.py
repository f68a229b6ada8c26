"""What all signatures of one second by one credential have in common, computed once.

Knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.canonical import encode
from prewarmkit.sigv4.credentials import Credentials
from prewarmkit.sigv4.keyring import ReadyKey
from prewarmkit.sigv4.keys import KeyScope
from prewarmkit.sigv4.stencil import Stencil
from prewarmkit.sigv4.times import stamp

__all__ = ["ALGORITHM", "Moment"]

ALGORITHM = "AWS4-HMAC-SHA256"
_MAX_STENCILS = 256


class Moment:
    """One second of one credential, for one region and service.

    Attributes:
        second: Its POSIX time.
        credentials: Whose it is.
        timestamp: Such as ``20150830T123600Z``.
        scope: What names the signing key; one object for a whole day, so that caches may compare by identity.
        to_sign: The string to sign, up to the request's hash.
        authorization: The header's value, up to the names of the signed headers.
        credential_parameter: ``X-Amz-Credential``, encoded.
        stencils: By shape, for requests of this second.
        primed: The key that `prime` was called with last, and what it gave.
    """

    __slots__ = (
        "authorization",
        "credential_parameter",
        "credentials",
        "primed",
        "scope",
        "second",
        "stencils",
        "timestamp",
        "to_sign",
    )

    def __init__(
        self,
        second: int,
        credentials: Credentials,
        *,
        region: str,
        service: str,
        before: Moment | None = None,
    ) -> None:
        """The moment; `SigningError` if the credentials have ended by then."""
        expires_at = credentials.expires_at
        if expires_at is not None and expires_at.timestamp() <= second:
            raise SigningError(
                f"The credentials ended at {expires_at.isoformat()}; with a provider, "
                "`await signer.refresh()` before signing, else make the signer anew with valid ones."
            )
        self.second = second
        self.credentials = credentials
        self.timestamp, date = stamp(second)
        scope = KeyScope(credentials.secret_digest, date, region, service)
        self.scope: KeyScope = before.scope if before is not None and before.scope == scope else scope
        scope_text = f"{date}/{region}/{service}/aws4_request"
        credential = f"{credentials.access_key_id}/{scope_text}"
        self.to_sign = f"{ALGORITHM}\n{self.timestamp}\n{scope_text}\n"
        self.authorization = f"{ALGORITHM} Credential={credential}, SignedHeaders="
        self.credential_parameter = encode(credential)
        self.stencils: dict[tuple[object, ...], Stencil] = {}
        self.primed: tuple[ReadyKey | None, Any] = None, None

    def keep(self, shape: tuple[object, ...], stencil: Stencil) -> None:
        """Have a stencil for what else is signed in this second."""
        if len(self.stencils) < _MAX_STENCILS:
            self.stencils[shape] = stencil

    def scope_of_tomorrow(self) -> KeyScope:
        """What names the next day's key."""
        return self.scope._replace(date=stamp(self.second + 86_400).date)

    def prime(self, key: ReadyKey) -> Any:
        """The inner hash of HMAC with the key and `to_sign` in it already; to be copied."""
        inner = key.inner.copy()
        inner.update(self.to_sign.encode())
        # Threads may overwrite each other's: each works with the one it has in hand.
        self.primed = key, inner
        return inner
