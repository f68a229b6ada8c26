"""What a pool decides: priorities, delays, verdicts; and what its figures say."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from prewarmkit.errors import NotFound
from prewarmkit.media import KIND_BY_EXTENSION, Handle, Media, MediaKind, Warmed, kind_of, seconds_of
from prewarmkit.pool.settings import PoolSettings
from prewarmkit.pool.state import judge
from prewarmkit.pool.stats import Histogram, Recorder
from prewarmkit.stores import Failed, Lease, MediaId, Retry, State, Succeeded
from prewarmkit.stores.lifecycle import TRANSITIONS, Move
from prewarmkit.stores.rules import priority_of
from prewarmkit.targets import ChatDead, MediaUnfit, Moved, RateLimited, TargetDown, TooLarge, Transient
from prewarmkit.targets.edge.verdicts import WeakReason
from prewarmkit.testing.clock import FakeClock

SETTINGS = PoolSettings()


def lease(attempt: int = 1) -> Lease:
    media = Media("a.png")
    return Lease(MediaId("bot", media.key, media.kind), 1, attempt, media)


@pytest.mark.parametrize(("attempt", "minutes"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16)])
def test_retries_come_after_1_2_4_8_16_minutes(attempt: int, minutes: int) -> None:
    """The original's plan, spread over ±10 %."""
    for jitter, share in ((0.0, 0.9), (0.5, 1.0), (1.0, 1.1)):
        verdict = judge(lease(attempt), Transient("x"), SETTINGS, jitter=jitter)
        assert isinstance(verdict.outcome, Retry)
        assert verdict.outcome.delay == pytest.approx(60 * minutes * share)
        assert not verdict.outcome.refund


def test_the_sixth_attempt_is_the_last() -> None:
    """The first and five retries."""
    verdict = judge(lease(6), Transient("reset"), SETTINGS)
    assert verdict.outcome == Failed(lease(6), "transient: reset")


@pytest.mark.parametrize(("attempt", "delay"), [(1, 0.5), (2, 1), (3, 2), (4, 480)])
def test_somebody_waiting_gets_three_quick_retries(attempt: int, delay: float) -> None:
    """0.5, 1, 2 seconds, then as usual."""
    verdict = judge(lease(attempt), Transient("x"), SETTINGS, is_awaited=True)
    assert isinstance(verdict.outcome, Retry)
    assert verdict.outcome.delay == pytest.approx(delay)


@pytest.mark.parametrize("failure", [RateLimited("x", 9.0), TargetDown("x"), Moved("x", 5), ChatDead("x")])
def test_what_is_not_the_mediums_fault_spends_no_attempt(failure: Exception) -> None:
    """Even the last attempt is given back."""
    verdict = judge(lease(6), failure, SETTINGS)
    assert isinstance(verdict.outcome, Retry)
    assert verdict.outcome.refund
    assert verdict.label == "deferred"


def test_only_what_concerns_the_target_lets_it_rest() -> None:
    """A full chat holds the job shortly; a full bot rests; a dead one rests longer each time."""
    assert judge(lease(), RateLimited("x", 9.0, "chat"), SETTINGS).pause is None
    limited = judge(lease(), RateLimited("x", 9.0), SETTINGS).pause
    assert limited is not None
    assert (limited.seconds, limited.is_down) == (9.0, False)
    rests = [judge(lease(), TargetDown("x"), SETTINGS, downs=downs).pause for downs in (0, 1, 2, 10)]
    assert [rest.seconds for rest in rests if rest] == [30, 60, 120, 300]


@pytest.mark.parametrize(
    "failure", [MediaUnfit("x"), TooLarge("x", 5), NotFound("no such key", code="NoSuchKey")]
)
def test_final_failures_fail_at_the_first_try(failure: Exception) -> None:
    """A missing key that a target let through is final too."""
    assert isinstance(judge(lease(), failure, SETTINGS).outcome, Failed)


def test_reasons_fit_any_row() -> None:
    """Long, broken or binary messages are cut to text."""
    outcome = judge(lease(), MediaUnfit("\ud800\0" + "x" * 10_000), SETTINGS).outcome
    assert isinstance(outcome, Failed)
    assert len(outcome.reason) == 500
    assert "\0" not in outcome.reason.encode().decode()


def test_a_good_result_succeeds() -> None:
    """And is no news otherwise."""
    assert judge(lease(), Warmed("H"), SETTINGS).outcome == Succeeded(lease(), Warmed("H"))


def test_a_weak_result_without_a_handle_is_never_stored() -> None:
    """There is nothing to store, whatever the policy."""
    settings = PoolSettings(weak="store", retry_weak_id=0)
    assert isinstance(judge(lease(), Warmed("", weak=("no_photo_size",)), settings).outcome, Failed)


@pytest.mark.parametrize("weak", ["store", "retry", "reject"])
def test_a_weak_reason_that_is_final_is_not_tried_again(weak: Literal["store", "retry", "reject"]) -> None:
    """An edge that is not set up to keep a medium says the same each time, however many tries there are."""
    settings = PoolSettings(weak=weak, retry_weak_id=5)
    final = Warmed("https://media.example.com/a.m4a", weak=(WeakReason.INELIGIBLE_EXTENSION,))
    expected = Succeeded if weak == "store" else Failed
    assert isinstance(judge(lease(), final, settings).outcome, expected)
    passing = Warmed("https://media.example.com/a.jpg", weak=(WeakReason.STALE,))
    assert isinstance(judge(lease(), passing, settings).outcome, Failed if weak == "reject" else Retry)


def test_priorities_follow_size_and_kind() -> None:
    """A step each time the size is fourfold, photos ahead; unknown is the middle; none is live."""
    sizes = [0, 2**15 - 1, 2**15, 2**17 - 1, 2**17, 2**19, 2**21, 2**23, 2**25, 2**27, 2**29, 2**40]
    of = [priority_of(Media("x", "video", size=size)) for size in sizes]
    assert of == [2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 9, 9]
    assert priority_of(Media("x", "photo", size=2**19)) == 4
    assert priority_of(Media("x", "document")) == 5
    assert min(priority_of(Media("x", kind, size=0)) for kind in MediaKind) == 1


def test_the_lifecycle_has_no_dead_end_and_refunds_what_it_says() -> None:
    """Each state is reached and left; only a claim adds to the attempts."""
    assert {step.to for step in TRANSITIONS.values()} == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert {key for key, step in TRANSITIONS.items() if step.attempts == 1} == {(State.PENDING, Move.CLAIM)}
    refunds = {move for (_, move), step in TRANSITIONS.items() if step.attempts == -1}
    assert refunds == {Move.DEFER, Move.RELEASE}


def test_a_histogram_is_within_five_percent() -> None:
    """The stated error, against exact quantiles, from microseconds to hours."""
    dice = random.Random(1)
    spans = [10 ** dice.uniform(-4.5, 4) for _ in range(20_000)]
    histogram = Histogram()
    for span in spans:
        histogram.add(span)
    quantiles, spans = histogram.quantiles(), sorted(spans)
    for share, found in ((0.5, quantiles.p50), (0.95, quantiles.p95), (0.99, quantiles.p99)):
        assert found == pytest.approx(spans[int(share * len(spans))], rel=0.055)
    assert (quantiles.max, quantiles.count) == (spans[-1], 20_000)


def test_throughput_is_that_of_the_last_minute() -> None:
    """Old successes are forgotten."""
    clock = FakeClock()
    recorder = Recorder(clock)
    for _ in range(90):
        recorder.succeeded("bot")
        clock.advance(1)
    assert recorder.throughput_per_min() == 59
    clock.advance(100)
    assert recorder.throughput_per_min() == 0


# ── media ────────────────────────────────────────────────────────────────────


def test_a_bare_key_has_the_kind_of_its_extension() -> None:
    """The table is fixed; what is not in it is a document."""
    for extension, kind in KIND_BY_EXTENSION.items():
        assert kind_of(f"dir.x/name{extension}") is kind
        assert Media(f"N{extension.upper()}").kind is kind
    for key in ("a", "a.", "dir.png/a", "a.tar.gz", ".png", "a.pdf"):
        assert kind_of(key) is MediaKind.DOCUMENT


def test_a_medium_checks_itself() -> None:
    """Types, emptiness, kinds and sizes."""
    assert Media("a", "photo").kind is MediaKind.PHOTO
    with pytest.raises(ValueError, match="Unknown kind 'x': use one of photo"):
        Media("a", "x")
    for size in (-1, 1.5, True):
        with pytest.raises(ValueError, match="size"):
            Media("a", size=size)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes"):
        Media(b"a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="surrogate"):
        Media("\ud800")


def test_values_are_frozen_and_hashable() -> None:
    """They may be keys of a host's own tables."""
    handle = Handle("H", MediaKind.PHOTO, "bot", "a", details={"x": [1]})
    assert {handle: 1}[handle] == 1
    with pytest.raises(AttributeError):
        handle.value = "other"  # type: ignore[misc]


def test_durations_are_seconds_or_timedeltas() -> None:
    """Negative ones and NaN are refused by name."""
    from datetime import timedelta

    assert seconds_of(timedelta(minutes=1)) == 60.0
    assert seconds_of(2) == 2.0
    for wrong in (-1, float("nan"), timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="grace"):
            seconds_of(wrong, "grace")
