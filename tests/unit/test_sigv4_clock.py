"""A wrong clock is corrected from the server's answers.

The rules are those of the clock-skew specification that the AWS SDKs share since 2026; the
cases follow its scenarios (aws-sdk-go-v2, ``aws/middleware/testdata/clock-skew-test-cases.json``).
Which failures are worth a second attempt is the client's business, not the signer's.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import frozen

from prewarmkit import Credentials, SigV4Signer
from prewarmkit.testing.clock import FakeClock

URL = "https://host/bucket/key"
START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def http_date(seconds: float) -> str:
    return datetime.fromtimestamp(START + seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


@frozen
class Exchange:
    """One request and its answer; all times in seconds after midnight.

    Attributes:
        sent: By our clock.
        received: By our clock.
        signed: What the request says, with what was learnt before.
        date: The server's; ``None``: the answer has no date.
        skew: What is known afterwards.
        age: The answer's ``Age``.
    """

    sent: float
    received: float
    signed: float
    date: float | None
    skew: float
    age: str | None = None


SCENARIOS = {
    "clocks agree": [Exchange(0, 2, 0, 1, 0)],
    "skew is learnt from a refusal, and kept": [
        Exchange(0, 2, 0, 301, 300),
        Exchange(2, 4, 302, 303, 300),
        Exchange(60, 62, 360, 361, 300),
    ],
    "a slow answer says nothing": [Exchange(0, 960, 0, 600, 0), Exchange(1020, 1022, 1020, 1321, 300)],
    "a stale skew heals": [
        Exchange(0, 2, 0, 301, 300),
        Exchange(10, 12, 310, 11, 0),
        Exchange(20, 22, 20, 21, 0),
    ],
    "a small skew counts as well": [Exchange(0, 2, 0, 121, 120), Exchange(10, 12, 130, 131, 120)],
    "a clock ahead is corrected too": [
        Exchange(3600, 3602, 3600, 1, -3600),
        Exchange(3610, 3612, 10, 11, -3600),
    ],
    "no date, nothing learnt": [Exchange(0, 2, 0, None, 0)],
    "an answer from a cache says nothing": [
        Exchange(60660, 60662, 60660, 43381, 0, age="17280"),
        Exchange(60670, 60672, 60670, 60971, 300),
    ],
    "a clock that jumped back during the exchange says nothing": [Exchange(100, 50, 100, 75, 0)],
}


@pytest.mark.parametrize("exchanges", SCENARIOS.values(), ids=list(SCENARIOS))
def test_header_signatures_follow_the_servers_clock(exchanges: list[Exchange]) -> None:
    clock = FakeClock(now=START)
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=clock)
    for exchange in exchanges:
        clock.now = START + exchange.sent
        expected = datetime.fromtimestamp(START + exchange.signed, UTC).strftime("%Y%m%dT%H%M%SZ")
        assert signer.sign("GET", URL)["x-amz-date"] == expected
        assert signer.now() == clock.now
        clock.now = START + exchange.received
        learnt = signer.observe_server_date(
            None if exchange.date is None else http_date(exchange.date),
            sent_at=START + exchange.sent,
            age=exchange.age,
        )
        assert signer.clock_skew_seconds == exchange.skew
        assert learnt in {None, exchange.skew}


def test_presigned_urls_and_explicit_times_are_never_shifted() -> None:
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=FakeClock(now=START))
    presigned = signer.presign("GET", URL)
    given = signer.sign("GET", URL, signed_at=START)
    assert signer.observe_server_date(http_date(3 * 86_400)) == 3 * 86_400
    assert signer.presign("GET", URL) == presigned
    assert "X-Amz-Date=20260101T000000Z" in presigned
    assert signer.sign("GET", URL, signed_at=START) == given


def test_less_than_two_seconds_are_no_skew() -> None:
    """A ``Date`` has whole seconds: less is its rounding, and would start a new second for nothing."""
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=FakeClock(now=START))
    for served, known in ((1, 0), (-1, 0), (2, 2), (3, 2), (1, 2), (0, 0)):
        assert signer.observe_server_date(http_date(served)) == served
        assert signer.clock_skew_seconds == known


def test_what_is_shown_has_the_time_that_is_signed() -> None:
    """The canonical form follows the corrected clock for a header's signature, and this machine's for a URL's."""
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=FakeClock(now=START))
    signer.observe_server_date(http_date(3600))
    assert "\nx-amz-date:20260101T010000Z\n" in signer.canonical_request("GET", URL)
    assert "\n20260101T010000Z\n" in signer.string_to_sign("GET", URL)
    assert "X-Amz-Date=20260101T000000Z" in signer.canonical_request("GET", URL, expires=60)
    assert "\n20260101T000000Z\n" in signer.string_to_sign("GET", URL, expires=60)


def test_the_scope_follows_the_corrected_day() -> None:
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=FakeClock(now=START - 10))
    assert "/20251231/" in signer.sign("GET", URL)["authorization"]
    signer.observe_server_date(http_date(5))
    assert "/20260101/" in signer.sign("GET", URL)["authorization"]


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Thu, 01 Jan 2026",
        "Mon, 30 Feb 2026 00:00:00 GMT",
        "Mon, 01 Foo 2026 00:00:00 GMT",
        "1767225600",
    ],
)
def test_a_date_that_is_none_says_nothing(date: str) -> None:
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=FakeClock(now=START))
    assert signer.observe_server_date(date) is None
    assert signer.clock_skew_seconds == 0
