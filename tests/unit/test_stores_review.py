"""What a review of the stores found, kept found; rules for every store are in the contract suite."""
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from prewarmkit.errors import QueueFull
from prewarmkit.media import Warmed
from prewarmkit.stores import (
    Failed,
    Lease,
    MediaStore,
    MemoryStore,
    Outcome,
    Retry,
    SqliteStore,
    State,
    Succeeded,
)
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.store import job

pytestmark = pytest.mark.anyio


async def test_many_keys_of_one_content_are_queued_in_no_more_time_than_others() -> None:
    """The look for a handle of the same content meets ready rows only, not each that waits."""
    store = MemoryStore()
    began = time.process_time()
    await store.enqueue([job(str(n), sha256="S") for n in range(10_000)], limit=20_000)
    assert time.process_time() - began < 2  # half a minute if each row met all before it


async def test_renewals_that_never_come_are_not_kept_until_their_time() -> None:
    """A handle that is refused day after day, to be renewed in a month each time, leaves nothing behind."""
    store = MemoryStore()
    await store.enqueue([job("a")])
    for n in range(2_000):
        [lease] = (await store.turn(lease=1)).leased
        await store.turn([Succeeded(lease, Warmed(f"{n}"), renew_in=30 * 86_400)])
        assert await store.invalidate(lease.id)
    assert len(store._table._renewals) < 200


def test_a_file_is_asked_for(tmp_path: Path) -> None:
    """SQLite's name for no file would be one database for writing and another for reading."""
    del tmp_path
    with pytest.raises(ValueError, match="MemoryStore"):
        SqliteStore(":memory:")


async def test_a_store_is_entered_once_at_a_time(tmp_path: Path) -> None:
    """Entered again inside, it would lose its connections at the inner end."""
    store = SqliteStore(tmp_path / "p.db")
    for _ in range(2):
        async with store:
            with pytest.raises(RuntimeError, match="entered already"):
                await store.__aenter__()
            assert await store.counts() == {}


async def test_a_second_store_on_a_file_leaves_the_locks_of_the_first_alone(tmp_path: Path) -> None:
    """POSIX drops a process's locks on a file when it closes any descriptor of it (sqlite.org, "How To Corrupt", 2.2).

    Another process then takes itself for the last one to leave, and removes the log that the first store writes to.
    """
    path = tmp_path / "p.db"
    leave = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM media_cache'); c.close()"
    async with SqliteStore(path) as first:
        await first.enqueue([job("a")])
        async with SqliteStore(path) as second:
            await second.enqueue([job("b")])
            await anyio.run_process([sys.executable, "-c", leave, str(path)])
            assert await anyio.Path(f"{path}-wal").exists()
            await first.enqueue([job("c")])
    async with SqliteStore(path) as later:
        assert {row.id.key for row in await later.list()} == {"a", "b", "c"}


# ── what every store does, on the two that need no server ────────────────────


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[MediaStore]:
    made = (
        MemoryStore(clock=clock) if request.param == "memory" else SqliteStore(tmp_path / "p.db", clock=clock)
    )
    async with made:
        yield made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_of_a_hundred_rows_one_poison_costs_the_others_one_attempt(
    store: MediaStore, clock: FakeClock
) -> None:
    """A process that dies at it takes with it what it had in hand, once: then the row that kills is alone.

    The process has ten rows in hand, works on them in the order in which they came, and dies at the poison.
    """
    await store.enqueue([job(str(n)) for n in range(100)])
    most, poison, deaths = 6, "42", 0
    spent: dict[str, int] = {}
    while await store.has_work():
        in_hand: list[Lease] = []
        outcomes: list[Outcome] = []
        while True:
            turn = await store.turn(outcomes, 10 - len(in_hand) + bool(outcomes))
            in_hand += turn.leased
            if outcomes:
                in_hand.remove(outcomes[0].lease)
            if not in_hand:
                break
            spent |= {lease.id.key: lease.attempt for lease in turn.leased}
            first = in_hand[0]
            if first.attempt > most:
                outcomes = [Failed(first, "crash: six attempts ended without an outcome")]
            elif first.id.key == poison:
                break  # nobody tells the store: the process is dead
            else:
                outcomes = [Succeeded(first, Warmed("H"))]
        if in_hand:
            deaths += 1
            clock.advance(61)
    assert deaths == most
    [failed] = await store.list(State.FAILED)
    assert failed.id.key == poison
    assert len(await store.list(State.READY, limit=1000)) == 99
    assert max(attempts for key, attempts in spent.items() if key != poison) == 2
    assert sum(attempts - 1 for key, attempts in spent.items() if key != poison) <= most * 9


async def test_one_suspect_is_in_hand_at_a_time_beside_any_number_of_others(
    store: MediaStore, clock: FakeClock
) -> None:
    """Rows whose lease ran out pass one by one; the rest goes on at full width, and the next comes at once."""
    await store.enqueue([job(f"old {n}") for n in range(3)])
    await store.turn(lease=3)
    clock.advance(61)
    await store.enqueue([job(f"new {n}") for n in range(5)])
    turn = await store.turn(lease=9)
    keys = {lease.id.key: lease for lease in turn.leased}
    assert set(keys) == {"old 0", *(f"new {n}" for n in range(5))}
    assert turn.pending == 2
    assert (await store.turn(lease=9)).leased == []
    turn = await store.turn([Succeeded(keys["old 0"], Warmed("H"))], lease=9)
    assert [lease.id.key for lease in turn.leased] == ["old 1"]
    clock.advance(61)
    assert len((await store.turn(lease=9)).leased) == 1  # all that was in hand is suspect now


async def test_a_suspect_is_one_until_an_outcome_is_told(store: MediaStore, clock: FakeClock) -> None:
    """Given back unstarted it proved nothing; after a retry its process lived."""
    await store.enqueue([job("a"), job("b")])
    await store.turn(lease=2)
    clock.advance(61)
    for _ in range(2):
        [first] = (await store.turn(lease=9)).leased
        await store.release([first])
    for _ in range(2):
        [each] = (await store.turn(lease=9)).leased
        await store.turn([Retry(each, 5, "transient: reset")])
    clock.advance(5)
    assert len((await store.turn(lease=9)).leased) == 2


async def test_a_suspect_that_failed_is_one_when_it_is_asked_for_again(
    store: MediaStore, clock: FakeClock
) -> None:
    """Another version of its content is not."""
    await store.enqueue([job("a", etag="1"), job("b", etag="1")])
    await store.turn(lease=2)
    clock.advance(61)
    for _ in range(2):
        [each] = (await store.turn(lease=9)).leased
        await store.turn([Failed(each, "crash: too often")])
    assert await store.requeue(reason="crash") == 2
    [each] = (await store.turn(lease=9)).leased
    await store.release([each])
    await store.enqueue([job("a", etag="2")])
    assert len((await store.turn(lease=9)).leased) == 2


async def test_a_row_that_was_removed_and_put_in_anew_does_not_meet_its_old_leases(
    store: MediaStore, clock: FakeClock
) -> None:
    """A token only grows, whatever becomes of the row: a late word of its first life changes nothing."""
    id_ = job("a").id
    await store.enqueue([job("a")])
    [late] = (await store.turn(lease=1)).leased
    clock.advance(61)
    [again] = (await store.turn(lease=1)).leased
    await store.turn([Succeeded(again, Warmed("H"))])
    assert await store.invalidate(id_, rewarm=False)
    await store.enqueue([job("a")])
    [new] = (await store.turn(lease=1)).leased
    outcome = Succeeded(late, Warmed("of the first life"))
    assert list((await store.turn([outcome])).lost) == [outcome]
    assert await store.heartbeat([late]) == [late]
    assert not (await store.turn([Succeeded(new, Warmed("new"))])).lost


async def test_a_bound_counts_a_version_that_is_new_beside_an_earlier_job_of_the_same_call(
    store: MediaStore,
) -> None:
    """The first job tells the version that is being warmed, the second another one."""
    await store.enqueue([job("a")])
    await store.turn(lease=1)
    await store.enqueue([job("b")])
    with pytest.raises(QueueFull):
        await store.enqueue([job("a", etag="1"), job("a", etag="2")], limit=1)


async def test_a_step_of_the_calendar_moves_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays are measured by the machine's own clock; what is shown is the calendar's time."""
    calendar, up = 1_800_000_000.0, 500.0
    monkeypatch.setattr("prewarmkit.stores.clock.time.time", lambda: calendar)
    for module in ("clock", "memory"):
        monkeypatch.setattr(f"prewarmkit.stores.{module}.boot_seconds", lambda: up)
    store = MemoryStore()
    await store.enqueue([job("a", delay=30)])
    calendar += 3600
    assert (await store.turn(lease=1)).next_due == 30
    assert [row.updated_at.timestamp() for row in await store.list()] == [calendar]
    calendar, up = calendar + 30, up + 30
    assert len((await store.turn(lease=1)).leased) == 1
