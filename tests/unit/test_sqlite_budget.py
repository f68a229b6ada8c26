"""The rate budget in a file: `MemoryBudget`'s answers, for all who share the file, and after a restart."""
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarmkit.budget import MemoryBudget, Window
from prewarmkit.errors import StoreError
from prewarmkit.stores import SqliteStore
from prewarmkit.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

MINUTE = Window(20, 60.0)


@pytest.fixture
def anyio_backend() -> str:
    """The file is worked on in a thread; the contract suite runs it on both loops."""
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1.8e9)


def connection_of(store: SqliteStore) -> sqlite3.Connection:
    connection = store._db._writer
    assert connection is not None
    return connection


def names_in(store: SqliteStore) -> int:
    """Of how many names there is a row."""
    return int(connection_of(store).execute("SELECT count(*) FROM prewarm_budget").fetchone()[0])


async def test_what_arrives_late_counts_from_then(tmp_path: Path, clock: FakeClock) -> None:
    """Of several under way the right one, in memory as in the file."""
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        for budget in (MemoryBudget(clock), store.budget("bot")):
            limits = {"chat": [Window(3, 60)]}
            spent = list[float]()
            for _ in range(3):
                wait, at = await budget.take_at(limits)
                assert wait == 0.0
                spent.append(at)
                clock.advance(10)
            await budget.arrived("chat", spent[1])
            await budget.arrived("nobody", spent[1])
            assert await budget.take(limits) == pytest.approx(30, abs=0.01)  # the first
            clock.advance(30.1)
            assert await budget.take(limits) == 0.0
            assert await budget.take(limits) == pytest.approx(19.9, abs=0.01)  # the third, and not the second


# ── the same answers ─────────────────────────────────────────────────────────

NAMES = st.sampled_from(["bot", "chat:1", "chat:2"])
WINDOWS = st.lists(st.builds(Window, st.integers(3, 6), st.sampled_from([0.5, 1.0, 7.0, 60.0])), max_size=2)
STEPS = st.one_of(
    st.tuples(st.just("take"), st.dictionaries(NAMES, WINDOWS, max_size=3), st.integers(1, 3)),
    st.tuples(st.just("hold"), NAMES, st.sampled_from([0.0, 0.3, 5.0, 100.0])),
    st.tuples(st.just("wait"), st.floats(0, 20), st.none()),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
async def test_it_answers_as_the_budget_in_memory_does(steps: list[tuple[str, Any, Any]]) -> None:
    """To the last digit, whatever is asked when, in turns through two stores on the file."""
    clock = FakeClock(1.8e9)
    memory = MemoryBudget(clock)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.db")
        async with SqliteStore(path, clock=clock) as a, SqliteStore(path, clock=clock) as b:
            for n, (step, what, how) in enumerate(steps):
                budget = (a, b)[n % 2].budget("bot:1")
                match step:
                    case "take":
                        assert await budget.take(what, cost=how) == await memory.take(what, cost=how)
                    case "hold":
                        await budget.hold(what, how)
                        await memory.hold(what, how)
                    case _:
                        clock.advance(what)


async def test_a_window_that_was_asked_for_in_vain_is_remembered_too(
    tmp_path: Path, clock: FakeClock
) -> None:
    """From then on shorter ones forget nothing that it needs."""
    second = [Window(1, 1.0)]
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        budget = store.budget("bot:1")
        await budget.hold("chat", 5)
        assert await budget.take({"chat": [MINUTE]}) == pytest.approx(5)
        clock.advance(5)
        for _ in range(20):
            assert await budget.take({"chat": second}) == 0.0
            clock.advance(1.5)
        assert await budget.take({"chat": [MINUTE]}) == pytest.approx(30, abs=1e-3)


# ── who shares it ────────────────────────────────────────────────────────────


async def test_stores_on_one_file_share_what_may_be_spent(tmp_path: Path, clock: FakeClock) -> None:
    """Two let no more through than one, however they hurry."""
    limits = {"chat:1": [MINUTE], "bot": [Window(30, 1), Window(200, 60)]}
    path = tmp_path / "p.db"
    async with SqliteStore(path, clock=clock) as a, SqliteStore(path, clock=clock) as b:
        waits: list[float] = []

        async def spend(store: SqliteStore) -> None:
            for _ in range(15):
                waits.append(await store.budget("bot:1").take(limits))  # noqa: PERF401 - others append in between

        async with anyio.create_task_group() as group:
            for each in (a, b, a, b):
                group.start_soon(spend, each)
        assert sorted(waits)[:20] == [0.0] * 20
        assert sorted(waits)[20:] == [pytest.approx(60, abs=1e-3)] * 40
        assert await b.budget("bot:2").take(limits) == 0.0


async def test_what_was_spent_and_held_outlives_the_process(tmp_path: Path, clock: FakeClock) -> None:
    """A bot that starts anew does not send its minute again, nor into a hold."""
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        assert await store.budget("bot:1").take({"chat:1": [MINUTE]}, cost=20) == 0.0
        await store.budget("bot:1").hold("chat:2", 100)
        await store.budget("bot:1").hold("chat:2", 5)
    clock.advance(10)
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        budget = store.budget("bot:1")
        assert await budget.take({"chat:1": [MINUTE]}) == pytest.approx(50, abs=1e-3)
        assert await budget.take({"chat:2": []}) == pytest.approx(90)
        assert await budget.take({"chat:3": [MINUTE]}) == 0.0


async def test_a_restart_of_the_machine_whose_calendar_is_wrong_stretches_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a battery wakes in 1970; the store's time does not go behind its budget's."""
    calendar, up, boot = 1.8e9, 500.0, "first"
    monkeypatch.setattr("prewarmkit.stores.clock.time.time", lambda: calendar)
    for module in ("clock", "sqlite"):
        monkeypatch.setattr(f"prewarmkit.stores.{module}.boot_seconds", lambda: up)
    monkeypatch.setattr("prewarmkit.stores.sqlite.boot_id", lambda: boot)
    async with SqliteStore(tmp_path / "p.db") as store:
        up += 3600
        assert await store.budget("bot:1").take({"chat:1": [MINUTE]}, cost=20) == 0.0
        await store.budget("bot:1").hold("chat:2", 100)
    calendar, up, boot = 5.0, 5.0, "second"
    async with SqliteStore(tmp_path / "p.db") as store:
        assert await store.budget("bot:1").take({"chat:1": [MINUTE]}) == pytest.approx(60, abs=1e-3)
        assert await store.budget("bot:1").take({"chat:2": []}) == pytest.approx(100, abs=1e-3)


async def test_a_clock_that_was_set_back_makes_no_wait_longer_than_its_window(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Where processes have only the calendar in common."""
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        budget = store.budget("bot:1")
        assert await budget.take({"chat:1": [MINUTE]}, cost=19) == 0.0
        clock.advance(-3600)
        assert await budget.take({"chat:1": [MINUTE]}) == 0.0
        assert await budget.take({"chat:1": [MINUTE]}) == pytest.approx(60, abs=1e-3)
        clock.advance(60.01)
        assert await budget.take({"chat:1": [MINUTE]}, cost=20) == 0.0


# ── what it costs ────────────────────────────────────────────────────────────


async def test_names_that_were_left_are_forgotten(tmp_path: Path, clock: FakeClock) -> None:
    """A bot that writes to a hundred thousand users does not keep them all for ever."""
    most = 0
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        budget = store.budget("bot:1")
        for user in range(1500):
            assert await budget.take({f"chat:{user}": [Window(1, 1.0)], "bot": [Window(200, 1.0)]}) == 0.0
            clock.advance(0.01)
            most = max(most, names_in(store))
        assert most < 250  # two seconds' worth, and what has not been swept yet
        clock.advance(10)
        for _ in range(200):
            assert await budget.take({"bot": [Window(200, 1.0)]}) == 0.0
        assert names_in(store) == 1


async def test_forgetting_names_never_forgets_what_still_counts(tmp_path: Path, clock: FakeClock) -> None:
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        budget = store.budget("bot:1")
        await budget.hold("held", 10_000)
        assert await budget.take({"kept": [Window(1, 10_000)]}) == 0.0
        for user in range(200):
            assert await budget.take({f"chat:{user}": [Window(1, 1.0)]}) == 0.0
            clock.advance(10)
        assert names_in(store) < 10
        assert await budget.take({"held": []}) == pytest.approx(8000)
        assert await budget.take({"kept": [Window(1, 10_000)]}) == pytest.approx(8000, abs=1e-3)


async def test_a_row_keeps_the_calls_of_its_longest_window_and_no_more(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        for _ in range(300):
            assert await store.budget("bot:1").take({"bot": [Window(30, 1.0), Window(100, 5.0)]}) == 0.0
            clock.advance(0.1)
        [[calls]] = connection_of(store).execute("SELECT json_array_length(calls) FROM prewarm_budget")
        assert calls <= 52


async def test_a_call_holds_up_the_writers_for_no_flush_and_a_refused_one_writes_nothing(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A hold, which a power cut must not end, is flushed; so is all that comes after."""
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        connection = connection_of(store)
        said: list[str] = []
        connection.set_trace_callback(lambda statement: said.append(statement.split("\n")[0]))
        limits = {"chat:1": [Window(1, 60.0)]}
        assert await store.budget("bot:1").take(limits) == 0.0
        first = [said.index(text) for text in ("PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE", "COMMIT")]
        assert first == sorted(first)
        assert said[-1] == "PRAGMA synchronous = FULL"
        before = connection.total_changes
        assert await store.budget("bot:1").take(limits) > 0
        assert connection.total_changes == before
        said.clear()
        await store.budget("bot:1").hold("chat:1", 3)
        assert not [statement for statement in said if statement.startswith("PRAGMA")]
        with pytest.raises(StoreError, match="no such table"):
            await store._db.write(lambda each: each.execute("SELECT * FROM nowhere"), is_flushed=False)
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
