"""What only a file can show: its plans and their cost, its clock, its migrations, its faults."""
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import itertools
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from prewarmkit.errors import ConfigurationError, StoreError
from prewarmkit.media import MediaKind, Warmed
from prewarmkit.stores import Failed, Lease, Row, SqliteStore, State, Succeeded
from prewarmkit.stores import clock as clock_module
from prewarmkit.stores.lifecycle import AGEING_SECONDS
from prewarmkit.stores.rules import moment
from prewarmkit.stores.sql import load_migrations
from prewarmkit.stores.sqlite_work import SQL
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.store import job

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The file is worked on in a thread; the contract suite runs it on both loops."""
    return "asyncio"


def connection_of(store: SqliteStore) -> sqlite3.Connection:
    connection = store._db._writer
    assert connection is not None
    return connection


# ── cost ─────────────────────────────────────────────────────────────────────

HOT = [
    "find",
    "good_handle",
    "insert",
    "succeed",
    "put_back",
    "fail",
    "expire",
    "renew_due",
    "waiting",
    "lanes",
    "lane",
    "next_token",
    "lease",
    "is_held",
    "heartbeat",
    "next_due",
    "counts",
    "has_work",
    "share_with_waiting",
    "failed",
    "purge",
]


class Anything(dict[str, Any]):
    """A value for every name."""

    def __missing__(self, key: str) -> int:
        return 0


@pytest.mark.parametrize("name", HOT)
async def test_a_query_finds_its_rows_by_an_index_and_sorts_none(name: str, tmp_path: Path) -> None:
    """No plan of the hot path, of requeue or of purge walks the table or sorts."""
    async with SqliteStore(tmp_path / "p.db") as store:
        places = SQL[name].count("?")
        values: Any = (0,) * places if places else Anything()
        plan = connection_of(store).execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values).fetchall()
        steps = [str(step["detail"]) for step in plan]
    table = [step for step in steps if "media_cache" in step or step.startswith("SEARCH next")]
    assert not [step for step in table if step.startswith("SCAN")], steps
    lanes = ["USE TEMP B-TREE FOR ORDER BY"] if name == "lanes" else []  # of the lanes, not of rows
    assert [step for step in steps if "TEMP B-TREE" in step] == lanes, steps


async def steps_of_a_turn(path: Path, rows: int, **kind: Any) -> int:
    """What SQLite's machine does in a turn of twenty beside that many rows which it may not lease."""
    async with SqliteStore(path) as store:
        state, renew_at = kind.pop("state", None), kind.pop("renew_at", None)
        await store.enqueue([job(str(n), **kind) for n in range(rows)])
        if state is not None:
            changed = "UPDATE media_cache SET state = ?, handle = 'H', renew_at = ?"
            connection_of(store).execute(changed, (state, renew_at))
        await store.enqueue([job(f"due {n}", priority=3) for n in range(40)])
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection_of(store).set_progress_handler(step, 1)
        turn = await store.turn(lease=20, targets=["bot"])
        assert {lease.id.key for lease in turn.leased} == {f"due {n}" for n in range(20)}
        return steps


@pytest.mark.parametrize(
    "kind",
    [
        {"target": "at rest"},
        {"delay": 86_400.0},
        {"delay": 86_400.0, "priority": 0},
        {"priority": 9},
        {"state": "ready"},
        {"state": "ready", "renew_at": 1e12},
        {"state": "failed"},
    ],
    ids=["at rest", "delayed", "delayed, urgent", "of a worse lane", "ready", "to be renewed", "failed"],
)
async def test_a_turn_costs_the_same_however_many_rows_wait(kind: dict[str, Any], tmp_path: Path) -> None:
    """The backlog of a resting target, delayed rows and ready rows are never walked over."""
    few = await steps_of_a_turn(tmp_path / "few.db", 100, **kind)
    many = await steps_of_a_turn(tmp_path / "many.db", 10_000, **kind)
    assert many < 1.2 * few


async def steps_of_a_page(path: Path, others: int, other: State, wanted: list[State]) -> int:
    """What SQLite's machine does to list four rows of each wanted state that stand behind so many others."""
    async with SqliteStore(path) as store:
        connection, reader = connection_of(store), store._db._reader
        assert reader is not None
        await store.enqueue([job(str(n)) for n in range(others + 4 * len(wanted))])
        ready = "handle = 'H', handle_kind = 'document', weak = '[]', details = '{}', lease_until = 9e9"
        connection.execute(f"UPDATE media_cache SET state = ?, {ready}", (other,))
        for n, state in enumerate(wanted):
            connection.execute("UPDATE media_cache SET state = ? WHERE id > ?", (state, others + 4 * n))
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        reader.set_progress_handler(step, 1)
        rows = await store.list(wanted)
        assert [row.state for row in rows] == [state for state in wanted for _ in range(4)]
        return steps


FEW = [[State.FAILED], [State.PENDING, State.WARMING], [State.READY], [State.WARMING, State.FAILED]]


@pytest.mark.parametrize(
    ("wanted", "other"),
    [(wanted, other) for wanted in FEW for other in State if other not in wanted],
    ids=lambda value: value if isinstance(value, State) else " or ".join(value),
)
async def test_a_page_of_few_rows_costs_the_same_however_many_others_stand_before_them(
    wanted: list[State], other: State, tmp_path: Path
) -> None:
    """It has the one connection that reads, and look-ups wait for it."""
    few = await steps_of_a_page(tmp_path / "few.db", 100, other, wanted)
    many = await steps_of_a_page(tmp_path / "many.db", 5_000, other, wanted)
    assert many < 1.2 * few


async def steps_of_pages(path: Path, rows: int, state: State, *, behind: int = 0) -> int:
    """The most that SQLite's machine does for a page of twenty of so many rows of a state, behind others."""
    async with SqliteStore(path) as store:
        reader = store._db._reader
        assert reader is not None
        await store.enqueue([job(str(n - behind)) for n in range(behind + rows)])
        columns = "handle_kind = 'document', lease_until = 9e9"
        connection_of(store).execute(
            f"UPDATE media_cache SET state = ?, {columns} WHERE id > ?", (state, behind)
        )
        steps = most = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        reader.set_progress_handler(step, 1)
        found = await store.list(state, limit=20)
        for _ in range(rows // 20):
            most, steps = max(most, steps), 0
            found += await store.list(state, after=found[-1].cursor, limit=20)
        assert [row.id.key for row in found] == [str(n) for n in range(rows)]
        return most


@pytest.mark.parametrize("state", State)
async def test_a_page_of_many_rows_costs_the_same_however_many_and_deep(state: State, tmp_path: Path) -> None:
    """They stand in order: none is sorted, none walked over again."""
    few = await steps_of_pages(tmp_path / "few.db", 60, state)
    many = await steps_of_pages(tmp_path / "many.db", 4_000, state)
    assert many < 1.2 * few


async def test_rows_that_failed_are_found_at_once_however_many_stand_before_them(tmp_path: Path) -> None:
    """They may be most of all."""
    few = await steps_of_pages(tmp_path / "few.db", 60, State.FAILED, behind=40)
    many = await steps_of_pages(tmp_path / "many.db", 3_000, State.FAILED, behind=2_000)
    assert many < 1.2 * few


async def test_pages_by_state_and_target_hold_each_row_once_in_order(tmp_path: Path) -> None:
    """Whichever of the two ways a page is found: many rows of a state, or few."""
    dice = random.Random(3)
    async with SqliteStore(tmp_path / "p.db") as store:
        for _ in range(3):
            await store.enqueue([job(secrets.token_hex(4), target=dice.choice("xyz")) for _ in range(60)])
            for state in dice.choices(list(State), k=4):
                connection_of(store).execute(
                    "UPDATE media_cache SET state = ?, handle_kind = 'document' WHERE id % 7 = ?",
                    (state, dice.randrange(7)),
                )
            everything = await store.list(limit=1000)
            for n in range(1, 5):
                for states in itertools.combinations(State, n):
                    for targets in (None, ["x"], ["y", "z"], []):
                        found: list[Row] = []
                        after = "0"
                        for _ in range(12):
                            found += await store.list(states, after=after, limit=17, targets=targets)
                            after = found[-1].cursor if found else after
                        assert [row.id for row in found] == [
                            row.id
                            for row in everything
                            if row.state in states and (targets is None or row.id.target in targets)
                        ]


async def test_lanes_are_merged_by_rank(tmp_path: Path) -> None:
    """Across targets and priorities: the time of becoming due, and a minute a step of priority."""
    clock = FakeClock()
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        order: list[tuple[float, str]] = []
        for n in range(60):
            priority, target = (7 * n) % 9 + 1, f"target {n % 3}"
            await store.enqueue([job(str(n), priority=priority, target=target)])
            order.append((clock() + priority * AGEING_SECONDS, str(n)))
            clock.advance(13)
        await store.enqueue([job("now", priority=0, target="target 1")])
        came: list[str] = []
        while turn := (await store.turn(lease=7)).leased:
            came += [lease.id.key for lease in turn]
    assert came == ["now", *(key for _, key in sorted(order))]


# ── counts ───────────────────────────────────────────────────────────────────


async def test_counts_stay_true_for_rows_that_somebody_changes_by_hand(tmp_path: Path) -> None:
    """Triggers count, not our code."""
    async with SqliteStore(tmp_path / "p.db") as store:
        await store.enqueue([job(str(n)) for n in range(5)])
        with contextlib.closing(sqlite3.connect(tmp_path / "p.db")) as shell, shell:
            shell.execute("DELETE FROM media_cache WHERE media_key = '0'")
            shell.execute("UPDATE media_cache SET state = 'failed' WHERE media_key = '1'")
        place = ("bot", MediaKind.DOCUMENT)
        assert await store.counts() == {(*place, State.PENDING): 3, (*place, State.FAILED): 1}
        assert (await store.turn()).pending == 3


async def test_requeue_and_purge_go_in_steps_and_miss_nothing(tmp_path: Path) -> None:
    """More rows than one step takes; those that are not meant are passed over."""
    clock = FakeClock()
    async with SqliteStore(tmp_path / "p.db", clock=clock) as store:
        await store.enqueue([job(f"{n}.png") for n in range(3500)])
        leases = (await store.turn(lease=4000)).leased
        await store.turn([Failed(lease, "odd" if n % 2 else "even") for n, lease in enumerate(leases)])
        assert await store.requeue(reason="odd", limit=1200) == 1200
        assert await store.requeue(reason="odd") == 550
        assert await store.requeue(reason="odd") == 0
        clock.advance(10)
        assert await store.purge(older_than=20) == 0
        assert await store.purge(older_than=5, state=State.READY) == 0
        assert await store.purge(older_than=5) == 1750
        assert {state for _, _, state in await store.counts()} == {State.PENDING}


# ── migrations ───────────────────────────────────────────────────────────────


def make_first_version(path: Path) -> None:
    """A file as the first version left it: two rows that wait, one leased, one ready, one failed."""
    columns = "target, media_key, kind, state, priority, due_at, rank, attempts, token, lease_until, handle, handle_kind, weak, details, created_at, updated_at"
    rows = [
        ("a", "1", "photo", "pending", 5, 0, 300, 0, 0, None, None, None, None, None, 0, 0),
        ("a", "2", "photo", "pending", 0, 0, -1e12, 2, 7, None, None, None, None, None, 0, 0),
        ("b", "3", "photo", "warming", 5, 0, 300, 1, 9, 9e9, None, None, None, None, 0, 0),
        ("b", "4", "photo", "ready", 5, 0, 300, 0, 4, None, "H", "photo", "[]", "{}", 0, 0),
        ("b", "5", "photo", "failed", 5, 0, 300, 6, 6, None, None, None, None, None, 0, 0),
    ]
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.executescript(load_migrations("sqlite")[0][1])
        old.execute("CREATE TABLE prewarm_migrations (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)")
        old.execute("INSERT INTO prewarm_migrations VALUES (1, 0)")
        marks = ", ".join("?" * len(rows[0]))
        old.executemany(f"INSERT INTO media_cache ({columns}) VALUES ({marks})", rows)


def catalogue(path: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2").fetchall()
        columns = [connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for _, name, _ in names]
        return [*names, columns]


async def test_an_older_file_is_brought_forward_in_place(tmp_path: Path) -> None:
    """Every row stays what it was, its lease and its token hold, and the schema is a new file's."""
    make_first_version(tmp_path / "old.db")
    async with SqliteStore(tmp_path / "old.db") as store:
        found = {row.id.key: (row.state, row.priority, row.attempts) for row in await store.list()}
        assert found == {
            "1": (State.PENDING, 5, 0),
            "2": (State.PENDING, 0, 2),
            "3": (State.WARMING, 5, 1),
            "4": (State.READY, 5, 0),
            "5": (State.FAILED, 5, 6),
        }
        assert sorted((await store.counts()).values()) == [1, 1, 1, 2]
        leases = (await store.turn(lease=9)).leased
        assert [(lease.id.key, lease.token > 9) for lease in leases] == [("2", True), ("1", True)]
        held = Lease(job("3", target="b", kind="photo").id, 9, 1, job("3", kind="photo").media)
        assert not (await store.turn([Succeeded(held, Warmed("H3"))])).lost
    async with SqliteStore(tmp_path / "new.db"):
        pass
    assert catalogue(tmp_path / "old.db") == catalogue(tmp_path / "new.db")


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one transaction: the next start tries again."""
    make_first_version(tmp_path / "old.db")
    before = catalogue(tmp_path / "old.db")
    broken = [(number, f"{sql}; SELECT no_such_function();") for number, sql in load_migrations("sqlite")]

    def given(dialect: str) -> list[tuple[int, str]]:
        return broken

    with monkeypatch.context() as patch:
        patch.setattr("prewarmkit.stores.sqlite_db.load_migrations", given)
        with pytest.raises(StoreError, match="no_such_function"):
            await SqliteStore(tmp_path / "old.db").__aenter__()
    assert catalogue(tmp_path / "old.db") == before
    async with SqliteStore(tmp_path / "old.db") as store:
        assert len(await store.list()) == 5


async def test_a_copy_from_before_an_upgrade_is_the_way_back(tmp_path: Path) -> None:
    """As docs/stores.md says: made while a process is at work, it is a store by itself."""
    async with SqliteStore(tmp_path / "p.db") as store:
        await store.enqueue([job("a"), job("b")])
        [lease] = (await store.turn(lease=1)).leased
        await store.turn([Succeeded(lease, Warmed("H"))])
        with contextlib.closing(sqlite3.connect(tmp_path / "p.db")) as shell:
            shell.execute(f"VACUUM INTO '{tmp_path}/before.db'")
        await store.enqueue([job("c")])
    assert catalogue(tmp_path / "before.db") == catalogue(tmp_path / "p.db")
    async with SqliteStore(tmp_path / "before.db") as store:
        assert [(row.id.key, row.state) for row in await store.list()] == [
            ("a", State.READY),
            ("b", State.PENDING),
        ]
        assert len((await store.turn(lease=9)).leased) == 1


# ── clocks ───────────────────────────────────────────────────────────────────


class Machine:
    """A machine whose calendar somebody sets, and that can start anew."""

    def __init__(self) -> None:
        self.calendar, self.up, self.boot = 1_800_000_000.0, 500.0, "first"

    def passes(self, seconds: float) -> None:
        self.calendar += seconds
        self.up += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr("prewarmkit.stores.clock.time.time", lambda: machine.calendar)
    for module in ("clock", "sqlite"):
        monkeypatch.setattr(f"prewarmkit.stores.{module}.boot_seconds", lambda: machine.up)
    monkeypatch.setattr("prewarmkit.stores.sqlite.boot_id", lambda: machine.boot)
    return machine


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
async def test_a_step_of_the_calendar_moves_nothing_that_is_due(
    machine: Machine, step: float, tmp_path: Path
) -> None:
    """Neither delays nor leases, and a process that starts after it measures by the same clock."""
    path = tmp_path / "p.db"
    async with SqliteStore(path) as store:
        await store.enqueue([job("held"), job("delayed", delay=30)])
        [held] = (await store.turn(lease=9)).leased
        machine.calendar += step
        async with SqliteStore(path) as other:
            for each in (store, other):
                turn = await each.turn(lease=9)
                assert (list(turn.leased), turn.next_due) == ([], 30)
            machine.passes(30)
            [delayed] = (await other.turn(lease=9)).leased
            assert delayed.id.key == "delayed"
            machine.passes(31)
            [row] = [row for row in await store.list() if row.id == held.id]
            assert row.lease_left == -1
            assert row.updated_at.timestamp() == machine.calendar - 61
            [again] = (await other.turn(lease=9)).leased
            assert (again.id, again.attempt) == (held.id, 2)


async def test_the_time_never_goes_back_over_a_restart_of_the_machine(
    machine: Machine, tmp_path: Path
) -> None:
    """A machine without a battery wakes in 1970: what was delayed waits its rest, not half a century."""
    path = tmp_path / "p.db"
    async with SqliteStore(path) as store:
        await store.enqueue([job("a", delay=30), job("b")])
        machine.passes(10)
        [lease] = (await store.turn(lease=9)).leased
        await store.turn([Succeeded(lease, Warmed("H"))])
    machine.calendar, machine.up, machine.boot = 5.0, 5.0, "second"
    async with SqliteStore(path) as store:
        assert (await store.turn(lease=9)).next_due == 20
        machine.passes(20)
        assert len((await store.turn(lease=9)).leased) == 1


async def test_an_expiry_is_a_date_and_follows_the_calendar(machine: Machine, tmp_path: Path) -> None:
    """The target gave it as one; a calendar that was set right makes it right."""
    async with SqliteStore(tmp_path / "p.db") as store:
        await store.enqueue([job("a")])
        [lease] = (await store.turn(lease=1)).leased
        expires = moment(machine.calendar + 100)
        await store.turn([Succeeded(lease, Warmed("H", expires_at=expires))])
        for seconds, is_stale in ((99, False), (2, True)):
            machine.calendar += seconds
            [row] = await store.list()
            assert row.handle is not None
            assert row.handle.stale is is_stale


async def test_a_machine_that_names_no_boot_has_its_calendar(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Elsewhere than on Linux processes have no other clock in common."""
    monkeypatch.setattr("prewarmkit.stores.sqlite.boot_id", lambda: None)
    async with SqliteStore(tmp_path / "p.db") as store:
        assert store._clock.offset is None
        moment = store._clock()
        assert moment.now == moment.wall


def test_the_boots_clock_is_told_from_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that cannot be read, or an empty one, is none."""
    assert clock_module.boot_seconds() > 0
    (tmp_path / "name").write_text("c0ffee\n")
    monkeypatch.setattr(clock_module, "_BOOT_ID", tmp_path / "name")
    has_boot_time = hasattr(time, "CLOCK_BOOTTIME")
    assert clock_module.boot_id() == ("c0ffee" if has_boot_time else None)
    monkeypatch.setattr(clock_module, "_BOOT_ID", tmp_path / "nothing")
    assert clock_module.boot_id() is None


# ── faults ───────────────────────────────────────────────────────────────────


@pytest.fixture
def wide_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_the_file_and_its_logs_are_private_whatever_the_umask(wide_umask: None, tmp_path: Path) -> None:
    """0600, all three."""
    async with SqliteStore(tmp_path / "p.db") as store:
        await store.enqueue([job("a")])
        modes = modes_in(tmp_path)
    assert modes == {"p.db": 0o600, "p.db-wal": 0o600, "p.db-shm": 0o600}


async def test_a_file_that_a_link_names_before_it_is_there_is_private_too(
    wide_umask: None, tmp_path: Path
) -> None:
    """SQLite follows the link and would make it with the umask's mode; through another link as well."""
    (tmp_path / "away").mkdir()
    (tmp_path / "p.db").symlink_to(tmp_path / "link")
    (tmp_path / "link").symlink_to(Path("away", "real.db"))
    async with SqliteStore(tmp_path / "p.db") as store:
        await store.enqueue([job("a")])
        modes = modes_in(tmp_path / "away")
    assert modes == {"real.db": 0o600, "real.db-wal": 0o600, "real.db-shm": 0o600}


@pytest.mark.parametrize("link_to", ["p.db", "nowhere/real.db"])
async def test_a_link_that_leads_nowhere_is_a_setting_to_mend(link_to: str, tmp_path: Path) -> None:
    """In a circle, or to a folder that is not there."""
    (tmp_path / "p.db").symlink_to(link_to)
    with pytest.raises(ConfigurationError, match=r"[Cc]hoose a path"):
        async with SqliteStore(tmp_path / "p.db"):
            pass


async def test_each_commit_is_flushed_to_the_disk(tmp_path: Path) -> None:
    """The policy: WAL, and synchronous=FULL on every connection."""
    async with SqliteStore(tmp_path / "p.db") as store:
        assert connection_of(store).execute("PRAGMA synchronous").fetchone()[0] == 2
        assert connection_of(store).execute("PRAGMA journal_mode").fetchone()[0] == "wal"


async def test_a_lock_that_another_process_keeps_is_told_and_nothing_is_half_done(tmp_path: Path) -> None:
    """Calls wait, then say so; look-ups go on; afterwards everything works."""
    store = SqliteStore(tmp_path / "p.db")
    store._db.busy_seconds = 0.05
    async with store:
        await store.enqueue([job("a")])
        with contextlib.closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match=r"locked for 0.05 s: another process") as busy:
                await store.enqueue([job("b"), job("c")])
            assert busy.value.is_retryable
            assert list(await store.lookup_many([job("a").id])) == [job("a").id]
        await store.enqueue([job("b")])
        assert {row.id.key for row in await store.list()} == {"a", "b"}


@pytest.mark.parametrize("deed", ["removed", "replaced"])
async def test_a_file_that_is_taken_away_is_written_to_no_more(deed: str, tmp_path: Path) -> None:
    """SQLite would go on with a file without a name, and lose all of it at the end; put back, it is used on."""
    path, aside = tmp_path / "p.db", tmp_path / "aside.db"
    async with SqliteStore(path) as store:
        await store.enqueue([job("a")])
        path.rename(aside)
        if deed == "replaced":
            path.write_bytes(b"")
        with pytest.raises(StoreError, match="removed or replaced") as gone:
            await store.enqueue([job("b")])
        assert gone.value.is_retryable
        assert list(await store.lookup_many([job("a").id])) == [job("a").id]
        aside.replace(path)
        await store.enqueue([job("c")])
    async with SqliteStore(path) as store:
        assert {row.id.key for row in await store.list()} == {"a", "c"}


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Its rows are not served as if nothing were."""
    path = tmp_path / "p.db"
    async with SqliteStore(path) as store:
        await store.enqueue([job(f"{n}-{'k' * 200}") for n in range(500)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(ConfigurationError, match="damaged: restore it"):
        async with SqliteStore(path) as store:
            await store.list(limit=1000)


READ_ONLY = """
import anyio, os, sys
from prewarmkit.errors import ConfigurationError
from prewarmkit.stores import SqliteStore
async def main():
    async with SqliteStore(sys.argv[2]):
        pass  # everything is imported
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        async with SqliteStore(sys.argv[1]):
            print("entered")
    except ConfigurationError as error:
        print(error)
anyio.run(main)
"""


async def test_a_file_that_may_not_be_written_is_a_setting_to_mend(tmp_path: Path) -> None:
    """Told when it is entered, not at the first row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.db")
        async with SqliteStore(path) as store:
            await store.enqueue([job("a")])
        os.chmod(path, 0o444)  # noqa: PTH101 - pathlib's is a blocking call to ruff, this one is not
        os.chmod(folder, 0o555)  # noqa: PTH101
        command = [sys.executable, "-c", READ_ONLY, str(path), str(tmp_path / "other.db")]
        done = await anyio.run_process(command, stderr=subprocess.STDOUT, check=False)
        os.chmod(folder, 0o755)  # noqa: PTH101
    assert b"cannot be written: choose a path that this user can write" in done.stdout, done.stdout


FULL = """
import anyio, resource, sys
from prewarmkit.errors import StoreError
from prewarmkit.stores import SqliteStore
from prewarmkit.testing.contracts.store import job
async def main():
    async with SqliteStore(sys.argv[1]) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        put = 0
        try:
            while put < 10_000:
                await store.enqueue([job(f"{put}-{'k' * 200}")])
                put += 1
        except StoreError as error:
            print("refused:", error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.enqueue([job("after")])
        print(put + 1, sum((await store.counts()).values()))
anyio.run(main)
"""


async def test_writes_that_the_system_refuses_lose_nothing_that_was_said_done(tmp_path: Path) -> None:
    """A limit of the process on file sizes stands for a disk that fails: told, rolled back, and over when it is over."""
    done = await anyio.run_process(
        [sys.executable, "-c", FULL, str(tmp_path / "p.db")], stderr=subprocess.STDOUT
    )
    told, figures = done.stdout.decode().splitlines()
    assert told.startswith("refused:")
    said, found = figures.split()
    assert said == found
    assert int(said) > 20
