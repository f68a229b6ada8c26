"""Whose turn it is, as every store decides it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prewarmkit.media import Media, Warmed
from prewarmkit.stores import Failed, Lease, Outcome, Released, Retry, Succeeded
from prewarmkit.stores.lifecycle import LIVE_IN_A_ROW
from prewarmkit.stores.rules import background_share, in_turns, live_in_a_row, tell_all
from prewarmkit.testing.contracts.store import job


def lease(key: str, priority: int = 5) -> Lease:
    return Lease(job(key).id, 1, 1, Media(key), priority)


def one_by_one(live: list[str], background: list[str], in_a_row: int) -> list[str]:
    """The rule, row by row."""
    live, background, came = live[::-1], background[::-1], list[str]()
    while live or background:
        is_live = bool(live) and not (background and in_a_row >= LIVE_IN_A_ROW)
        came.append((live if is_live else background).pop())
        in_a_row = in_a_row + 1 if is_live else 0
    return came


few = st.integers(0, 40)


@given(live=few, background=few, in_a_row=st.integers(0, LIVE_IN_A_ROW))
def test_rows_merged_at_once_come_as_they_would_one_by_one(live: int, background: int, in_a_row: int) -> None:
    rows = [f"live {n}" for n in range(live)], [f"{n}" for n in range(background)]
    assert in_turns(*rows, in_a_row) == one_by_one(*rows, in_a_row)


@given(most=few, in_a_row=st.integers(0, LIVE_IN_A_ROW))
def test_the_share_is_what_background_rows_get_beside_endless_live_ones(most: int, in_a_row: int) -> None:
    rows = ["live"] * 100, ["background"] * 100
    assert background_share(most, in_a_row) == one_by_one(*rows, in_a_row)[:most].count("background")


@given(places=st.lists(st.booleans()), before=st.integers(0, LIVE_IN_A_ROW))
def test_live_rows_in_a_row_are_counted_from_the_last_background_row(places: list[bool], before: int) -> None:
    leases = [lease(str(n), 0 if is_live else 5) for n, is_live in enumerate(places)]
    last = next((n for n, is_live in enumerate(reversed(places)) if not is_live), len(places) + before)
    assert live_in_a_row(leases, before) == min(last, LIVE_IN_A_ROW)


def test_successes_are_told_last_and_the_lost_ones_as_they_were_given() -> None:
    """So that what goes back to waiting can take over a handle of the same turn."""
    told: list[Outcome] = []

    def tell(outcome: Outcome) -> bool:
        told.append(outcome)
        return not isinstance(outcome, Succeeded | Released)

    leases = [lease(str(n)) for n in range(4)]
    given_: list[Outcome] = [
        Succeeded(leases[0], Warmed("H")),
        Failed(leases[1], "no"),
        Released(leases[2]),
        Retry(leases[3], 1, "later"),
    ]
    assert tell_all(given_, tell) == [given_[0], given_[2]]
    assert told == [given_[2], given_[3], given_[1], given_[0]]
