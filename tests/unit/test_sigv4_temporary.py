"""R2's temporary credentials, minted offline.

Format: Cloudflare R2 documentation, "Temporary credentials" and the example "Authenticate
against R2 with temporary credentials".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from prewarmkit import Credentials, SigningError, SigV4Signer, mint_temporary_credentials

PARENT = Credentials("parent-key-id", "parent-secret-0123456789")
NOW = 1_750_000_000


def mint(**changes: Any) -> Credentials:
    arguments: dict[str, Any] = {
        "account_id": "0123abc",
        "bucket": "media",
        "permission": "object-read-only",
        "ttl_seconds": 900,
        "now": NOW,
    }
    parent = changes.pop("parent", PARENT)
    return mint_temporary_credentials(parent, **(arguments | changes))


def jwt_of(credentials: Credentials) -> str:
    assert credentials.session_token is not None
    decoded = base64.b64decode(credentials.session_token, validate=True).decode("ascii")
    kind, _, token = decoded.partition("/")
    assert kind == "jwt"
    return token


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims_of(credentials: Credentials) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(decoded(jwt_of(credentials).split(".")[1]))
    return claims


def test_the_three_values_are_made_as_documented() -> None:
    minted = mint()
    token = jwt_of(minted)
    header, _, signature = token.split(".")
    assert json.loads(decoded(header)) == {"alg": "HS256", "typ": "JWT"}
    signed = token.rpartition(".")[0].encode()
    assert decoded(signature) == hmac.digest(PARENT.secret_access_key.encode(), signed, "sha256")
    assert minted.access_key_id == PARENT.access_key_id
    assert minted.secret_access_key == hashlib.sha256(token.encode()).hexdigest()
    assert "=" not in token
    assert minted.expires_at == datetime.fromtimestamp(NOW + 900, UTC)


def test_the_claims_say_what_was_asked_for() -> None:
    assert claims_of(mint()) == {
        "bucket": "media",
        "scope": "object-read-only",
        "sub": "0123abc",
        "iss": "parent-key-id",
        "aud": "0123abc.r2.cloudflarestorage.com",
        "iat": NOW,
        "exp": NOW + 900,
    }
    scoped = claims_of(mint(prefixes=["videos/é/"], objects=("a.png",), permission="object-read-write"))
    assert scoped["scope"] == "object-read-write"
    assert scoped["paths"] == {"prefixPaths": ["videos/é/"], "objectPaths": ["a.png"]}
    assert claims_of(mint(objects=["a"]))["paths"] == {"prefixPaths": [], "objectPaths": ["a"]}


@pytest.mark.parametrize(
    ("jurisdiction", "host"),
    [("eu", "0123abc.eu.r2.cloudflarestorage.com"), ("fedramp", "0123abc.fedramp.r2.cloudflarestorage.com")],
)
def test_a_jurisdiction_has_an_endpoint_of_its_own(jurisdiction: str, host: str) -> None:
    assert claims_of(mint(jurisdiction=jurisdiction))["aud"] == host


def test_the_same_moment_gives_the_same_credentials() -> None:
    assert mint() == mint(now=datetime.fromtimestamp(NOW, UTC)) == mint(now=NOW + 0.9)
    assert mint() != mint(now=NOW + 1)
    assert mint() != mint(bucket="other")


def test_without_a_moment_they_begin_now() -> None:
    claims = claims_of(mint(now=None))
    assert abs(claims["iat"] - time.time()) < 60


def test_they_sign_with_their_token_until_they_end() -> None:
    signer = SigV4Signer(mint())
    added = signer.sign("GET", "https://host/media/a", signed_at=NOW)
    assert added["x-amz-security-token"] == mint().session_token
    assert "x-amz-security-token" in added["authorization"]
    with pytest.raises(SigningError, match="ended"):
        signer.sign("GET", "https://host/media/a", signed_at=NOW + 900)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("parent", "secret"),
        ("parent", Credentials("a", "b", "token")),
        ("account_id", ""),
        ("account_id", "a.b"),
        ("account_id", None),
        ("bucket", ""),
        ("bucket", "a/b"),
        ("bucket", None),
        ("permission", "read"),
        ("permission", None),
        ("prefixes", "videos/"),
        ("prefixes", [""]),
        ("prefixes", [1]),
        ("objects", "a.png"),
        ("objects", [None]),
        ("prefixes", 5),
        ("ttl_seconds", 0),
        ("ttl_seconds", 604_801),
        ("ttl_seconds", 1.5),
        ("ttl_seconds", True),
        ("jurisdiction", ""),
        ("jurisdiction", "eu.evil"),
        ("now", datetime(2030, 1, 1)),  # noqa: DTZ001 - naive on purpose
        ("now", "today"),
    ],
)
def test_what_cannot_be_minted_is_refused(argument: str, value: Any) -> None:
    with pytest.raises(SigningError, match=argument) as caught:
        mint(**{argument: value})
    assert PARENT.secret_access_key not in str(caught.value)
