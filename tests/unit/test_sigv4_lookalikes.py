"""Requests that look like one that was signed before, and values that look like plain text, sign as what they are."""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from typing import Any

import pytest

from prewarmkit import UNSIGNED_PAYLOAD, Credentials, SigningError, SigV4Signer
from prewarmkit.testing.clock import FakeClock

CREDENTIALS = Credentials("AKID", "secret")
URL = "https://a.test/k"


class Named(str, Enum):  # noqa: UP042 - not StrEnum, whose str() is the value: what is tested
    """Equal to its value, and written as its name."""

    RANGE = "bytes=0-9"
    UNSIGNED = "UNSIGNED-PAYLOAD"
    REGION = "auto"
    SERVICE = "s3"
    KEY_ID = "AKID"


def fresh(service: str = "s3") -> SigV4Signer:
    return SigV4Signer(CREDENTIALS, service=service, clock=FakeClock())


@pytest.mark.parametrize("service", ["s3", "execute-api"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("https://a.test/k", "https://a.test/a b"),
        ("https://a.test/k", "https://a.test/a b?x=1"),
        ("https://a.test/k", "https://a.test/ /k"),
        ("https://a.testx", "https://a.test/k"),
        ("https://media.com", "https://media.co/k"),
        ("http://a.test:8081", "http://a.test:808/k"),
    ],
)
def test_a_url_is_not_taken_for_its_neighbour(service: str, first: str, second: str) -> None:
    signer = fresh(service)
    signer.sign("GET", first)
    signer.presign("GET", first)
    assert signer.sign("GET", second) == fresh(service).sign("GET", second)
    assert signer.presign("GET", second) == fresh(service).presign("GET", second)


@pytest.mark.parametrize("rest", ["#f", "?X-Amz-Signature=abc"])
def test_a_blank_hides_nothing_that_is_refused(rest: str) -> None:
    signer = fresh()
    signer.sign("GET", URL)
    with pytest.raises(SigningError, match="url has"):
        signer.sign("GET", f"https://a.test/a b{rest}")


@pytest.mark.parametrize(
    "url",
    ["http\u017f://a.test/", "http\u017f://a.test:1/", "https://\u212a.test/", "https://\u017f.test/", "https://\u0131.test/"],
)  # fmt: skip
def test_letters_that_only_look_ascii_are_refused(url: str) -> None:
    """Without regard to case, an S may be a long s, and a K the sign for kelvin."""
    with pytest.raises(SigningError, match="url"):
        fresh().sign("GET", url)


def test_an_enum_signs_as_its_value() -> None:
    expected = fresh().sign("GET", URL, {"range": "bytes=0-9"}, payload_hash=UNSIGNED_PAYLOAD)
    signer = fresh()
    for _ in range(2):
        assert signer.sign("GET", URL, {"range": Named.RANGE}, payload_hash=Named.UNSIGNED) == expected
    assert signer.sign("GET", URL, {"range": "bytes=0-9"}, payload_hash=UNSIGNED_PAYLOAD) == expected
    named = SigV4Signer(
        Credentials(Named.KEY_ID, "secret"), region=Named.REGION, service=Named.SERVICE, clock=FakeClock()
    )
    assert named.sign("GET", URL) == fresh().sign("GET", URL)


def test_what_equals_a_lifetime_is_refused_before_and_after() -> None:
    signer = fresh()
    wrong: Any = Fraction(60)
    for _ in range(2):
        with pytest.raises(SigningError, match="expires"):
            signer.presign("GET", URL, expires=wrong)
        signer.presign("GET", URL, expires=60)


def test_a_time_that_no_float_can_hold_is_refused() -> None:
    with pytest.raises(SigningError, match="signed_at"):
        fresh().sign("GET", URL, signed_at=10**400)


def test_a_payload_hash_that_must_be_sent_with_a_url_is_signed() -> None:
    """S3 refuses it as a header that was not signed."""
    canonical = fresh().canonical_request("PUT", URL, {"x-amz-content-sha256": "ab" * 32}, expires=60)
    assert canonical.split("\n")[3:] == [
        "host:a.test",
        f"x-amz-content-sha256:{'ab' * 32}",
        "",
        "host;x-amz-content-sha256",
        "ab" * 32,
    ]
