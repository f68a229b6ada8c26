"""What all signatures of one second by one credential have in common, computed once.

Knows nothing of requests.
"""

from __future__ import annotations

from typing import NamedTuple

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.canonical import encode
from prewarmkit.sigv4.credentials import Credentials
from prewarmkit.sigv4.keys import KeyScope
from prewarmkit.sigv4.times import stamp

__all__ = ["ALGORITHM", "Moment"]

ALGORITHM = "AWS4-HMAC-SHA256"


class Moment(NamedTuple):
    """One second of one credential, for one region and service.

    Attributes:
        second: Its POSIX time.
        credentials: Whose it is.
        timestamp: Such as ``20150830T123600Z``.
        scope: What names the signing key.
        to_sign: The string to sign, up to the request's hash.
        authorization: The header's value, up to the names of the signed headers.
        credential_parameter: ``X-Amz-Credential``, encoded.
    """

    second: int
    credentials: Credentials
    timestamp: str
    scope: KeyScope
    to_sign: str
    authorization: str
    credential_parameter: str

    @classmethod
    def at(cls, second: int, credentials: Credentials, *, region: str, service: str) -> Moment:
        """The moment; `SigningError` if the credentials have ended by then."""
        expires_at = credentials.expires_at
        if expires_at is not None and expires_at.timestamp() <= second:
            raise SigningError(
                f"The credentials ended at {expires_at.isoformat()}; with a provider, "
                "`await signer.refresh()` before signing, else make the signer anew with valid ones."
            )
        timestamp, date = stamp(second)
        scope_text = f"{date}/{region}/{service}/aws4_request"
        credential = f"{credentials.access_key_id}/{scope_text}"
        return cls(
            second,
            credentials,
            timestamp,
            KeyScope(credentials.secret_digest, date, region, service),
            f"{ALGORITHM}\n{timestamp}\n{scope_text}\n",
            f"{ALGORITHM} Credential={credential}, SignedHeaders=",
            encode(credential),
        )
