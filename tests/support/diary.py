"""What the chaos tests read in a diary of every move of every row: who made it, when, under which token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest
from attrs import frozen
from kills import Kills

__all__ = ["SWEEP_SECONDS", "Move", "Story", "check_story", "lines_of", "story_of", "until_noted"]

SWEEP_SECONDS = 3.0
"""The longest until the next turn of anybody sweeps: a fraction of a second, unless the machine is busy."""
MANY = 50
"""So many kills meet at least one process that sleeps with work in its hands; of a few each may miss."""


@frozen
class Move:
    """One row's step from one state to another.

    Attributes:
        at: When, in seconds on the store's clock.
        who: The process that made it.
        key: The row.
        was: The state before.
        state: The state after.
        token: Of the lease that the row has or had.
        lease_until: When the lease that it had ran out, or would have.
        handle: What it has afterwards.
    """

    at: float
    who: str
    key: str
    was: str
    state: str
    token: int
    lease_until: float | None
    handle: str | None


@frozen
class Story:
    """What the diary tells of a run.

    Attributes:
        leases: How often each key was leased.
        swept: Leases that ran out.
        latest: The longest that one stayed warming beyond its lease, in seconds.
        handles: The handle that each key became ready with.
    """

    leases: Counter[str]
    swept: int
    latest: float
    handles: dict[str, str]


def story_of(moves: Iterable[Move]) -> Story:
    """What happened to each row, having checked that all of it was lawful."""
    by_key: defaultdict[str, list[Move]] = defaultdict(list)
    for move in moves:
        by_key[move.key].append(move)
    leases, handles = Counter[str](), dict[str, str]()
    late, swept = [0.0], 0
    for key, told in by_key.items():
        holder, token = "", 0
        for move in told:
            assert key not in handles, f"{key} was ready, and moved on: {told}"
            seconds = 0.0 if move.lease_until is None else move.at - move.lease_until
            match move.was, move.state:
                case "pending", "warming":
                    assert move.token > token, told
                    holder, token = move.who, move.token
                    leases[key] += 1
                case "warming", "ready":
                    # Only whoever holds the row may settle it, and only under his own token.
                    assert (move.who, move.token) == (holder, token), told
                    assert move.handle is not None
                    handles[key] = move.handle
                    late.append(seconds)
                case "warming", "pending":
                    assert move.lease_until is not None
                    assert seconds >= 0, f"{key} was taken from {holder} before its time: {told}"
                    late.append(seconds)
                    swept += 1
                case _:
                    pytest.fail(f"no such move is known here: {move}")
    return Story(leases, swept, max(late), handles)


def lines_of(log: Path) -> list[list[str]]:
    """What the workers noted, in words: ``begin key``, ``end key handle``."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


async def until_noted(log: Path, count: int) -> None:
    """Wait until the workers have noted so much."""
    with anyio.fail_after(20):
        while len(lines_of(log)) < count:  # noqa: ASYNC110 - other processes write it
            await anyio.sleep(0.01)


def check_story(story: Story, told: list[list[str]], run: Kills) -> str:
    """Hold a run with kills to what was promised; its figures.

    Args:
        story: Of the diary.
        told: What the workers noted.
        run: What was done to them.
    """
    said = {words[2] for words in told if words[0] == "end"}
    assert len(story.handles) == run.media
    assert set(story.handles.values()) <= said, "a handle that no push gave"
    assert all(handle.split(":")[1] == key for key, handle in story.handles.items())
    pushes = Counter(words[1] for words in told if words[0] == "begin")
    assert all(pushes[key] <= leases for key, leases in story.leases.items()), "a push without a lease"
    # Of the dead nobody knows whether they told; who lived has told all, and what no row has came late.
    late = [
        handle
        for handle in said - set(story.handles.values())
        if int(handle.split(":")[2]) not in run.victims
    ]
    assert story.swept, "the kills met nobody at work"
    assert late or len(run.victims) < MANY, "nobody came back to a lost lease"
    assert story.latest < SWEEP_SECONDS
    return (
        f"\n{len(run.victims)} kills in {run.seconds:.0f} s: {run.media} media ready, {story.swept} leases ran out "
        f"and were swept, none was warming more than {story.latest * 1000:.0f} ms beyond its lease, {len(late)} late "
        f"words changed nothing, {pushes.total() - run.media} pushes were made again"
    )
