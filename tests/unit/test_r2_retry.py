"""When a request is sent again, and after how long."""

from __future__ import annotations

from datetime import timedelta

import pytest

from prewarmkit import RetryPolicy, Timeouts
from prewarmkit.r2.retry import retry_after_seconds


def test_waits_double_up_to_their_bound_and_are_random_below_it() -> None:
    policy = RetryPolicy(attempts=6, base=1, max_delay=5, random=lambda: 1.0)
    assert [policy.delay_seconds(attempt) for attempt in range(1, 7)] == [1, 2, 4, 5, 5, None]
    assert RetryPolicy(random=lambda: 0.0).delay_seconds(1) == 0
    assert RetryPolicy(attempts=10_000, base=1, max_delay=7, random=lambda: 1.0).delay_seconds(9_000) == 7


def test_what_the_service_asks_for_is_the_least_wait() -> None:
    policy = RetryPolicy(base=1, random=lambda: 0.5, max_retry_after=10)
    assert policy.delay_seconds(1, retry_after=3) == 3
    assert policy.delay_seconds(1, retry_after=0) == 0.5
    assert policy.delay_seconds(1, retry_after=11) is None


def test_durations_are_seconds_or_timedeltas() -> None:
    assert Timeouts(connect=timedelta(seconds=2), operation=timedelta(minutes=1)) == Timeouts(
        connect=2, operation=60
    )
    assert RetryPolicy(base=timedelta(milliseconds=100)).base == 0.1


@pytest.mark.parametrize("name", ["connect", "stall", "operation"])
def test_a_negative_timeout_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Timeouts(**{name: -1})


def test_a_policy_without_an_attempt_is_refused() -> None:
    with pytest.raises(ValueError, match="attempts"):
        RetryPolicy(attempts=0)
    with pytest.raises(ValueError, match="max_delay"):
        RetryPolicy(max_delay=float("nan"))


@pytest.mark.parametrize(
    ("value", "now", "seconds"),
    [
        ("7", None, 7.0),
        (" 0 ", None, 0.0),
        ("Wed, 21 Oct 2026 07:28:10 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 10.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2026 07:28:10 GMT", None, None),
        ("soon", None, None),
        ("-1", None, None),
        (None, None, None),
    ],
)
def test_retry_after_in_both_its_forms(value: str | None, now: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, now=now) == seconds
