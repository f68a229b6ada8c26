"""Processes die by kill -9 while they warm from a file: nothing is lost, nothing stays warming, no late word counts.

A trigger keeps a diary of every move of every row: who made it, when, under which token. The
figures of each long run are printed (`pytest -s`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest
from diary import Move, Story, check_story, lines_of, story_of, until_noted
from kills import kill_and_go_on
from workers import finish, start

from prewarmkit.stores import SqliteStore, State
from prewarmkit.testing.contracts.store import job

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The loop under test is in the processes; one is enough here."""
    return "asyncio"


def stop_between_transactions(process: subprocess.Popen[bytes], database: Path) -> None:
    """Stop a process while it holds no lock: with SQLite one that is stopped inside a transaction stops all."""
    for _ in range(100):
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)  # until then it may still take the lock
        with contextlib.closing(sqlite3.connect(database, timeout=0.05, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(process.pid, signal.SIGCONT)
                continue
            connection.execute("ROLLBACK")
            return
    pytest.fail("the process was never met outside a transaction")


# ── the diary ────────────────────────────────────────────────────────────────

DIARY = """
CREATE TABLE diary (n INTEGER PRIMARY KEY, at REAL, who TEXT, key TEXT, was TEXT, state TEXT, token INTEGER,
                    lease_until REAL, handle TEXT);
CREATE TRIGGER note_move AFTER UPDATE ON media_cache
WHEN new.state <> old.state OR new.handle IS NOT old.handle OR new.token <> old.token BEGIN
    INSERT INTO diary (at, who, key, was, state, token, lease_until, handle)
    VALUES (new.updated_at, who(), new.media_key, old.state, new.state, new.token, old.lease_until, new.handle);
END"""


async def begin_diary(store: SqliteStore) -> None:
    """`who` is a function of each connection: a worker's tells its process."""
    connection = store._db._writer  # pyright: ignore[reportPrivateUsage] - a trigger asks it who writes
    assert connection is not None
    connection.create_function("who", 0, lambda: "test")
    connection.executescript(DIARY)


def read_diary(database: Path) -> Story:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT at, who, key, was, state, token, lease_until, handle FROM diary ORDER BY n"
        )
        return story_of(Move(*row) for row in rows)


# ── kill -9 ──────────────────────────────────────────────────────────────────


async def kill_with_a_diary(script: Path, folder: Path, *, kills: int, media_a_kill: int) -> None:
    """The same as for PostgreSQL, and the same proof."""
    database, log = folder / "p.db", folder / "log"
    async with SqliteStore(database) as store:
        await begin_diary(store)
        run = await kill_and_go_on(
            store, lambda: start(script, database, log, "-", 1000), kills=kills, media_a_kill=media_a_kill
        )
    print(check_story(read_diary(database), lines_of(log), run))  # noqa: T201


async def test_killed_processes_lose_nothing(worker_script: Path, tmp_path: Path) -> None:
    """Short form: three processes share a table, one of them is killed, four times."""
    await kill_with_a_diary(worker_script, tmp_path, kills=4, media_a_kill=250)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_processes_lose_nothing_a_hundred_times(worker_script: Path, tmp_path: Path) -> None:
    """Long form of the same."""
    await kill_with_a_diary(worker_script, tmp_path, kills=100, media_a_kill=400)


async def test_a_medium_that_kills_its_process_is_failed_after_its_attempts(
    worker_script: Path, tmp_path: Path
) -> None:
    """The attempt counts when it is claimed, so the poison runs out of them."""
    database, log = tmp_path / "p.db", tmp_path / "log"
    async with SqliteStore(database) as store:
        await store.enqueue([job("good"), job("poison", delay=0.5)])
    for _ in range(3):
        process = start(worker_script, database, log, "poison", 3)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
    finish(start(worker_script, database, log, "poison", 3))
    async with SqliteStore(database) as store:
        [row] = await store.list(State.FAILED)
        assert (row.id.key, (row.reason or "").partition(":")[0]) == ("poison", "crash")
        assert [row.id.key for row in await store.list(State.READY)] == ["good"]
        assert await store.requeue(reason="crash") == 1


async def test_a_poison_takes_what_is_beside_it_with_it_once(worker_script: Path, tmp_path: Path) -> None:
    """Rows whose lease ran out pass one by one, so only the one that kills is claimed until its attempts are spent."""
    database, log, deaths = tmp_path / "p.db", tmp_path / "log", 0
    async with SqliteStore(database) as store:
        await store.enqueue([job("poison" if n == 20 else str(n)) for n in range(40)])
    command = [sys.executable, str(worker_script), str(database), str(log), "poison", "3"]
    while (code := (await anyio.run_process(command, check=False)).returncode) != 0:
        assert code == -signal.SIGKILL
        deaths += 1
    assert deaths == 3
    async with SqliteStore(database) as store:
        assert [row.id.key for row in await store.list(State.FAILED)] == ["poison"]
        assert len(await store.list(State.READY)) == 39
    begun = Counter(line for line in log.read_text().splitlines() if line.startswith("begin"))
    assert begun.pop("begin poison") == 3
    assert max(begun.values()) <= 2


async def test_a_stopped_process_comes_back_to_a_lost_lease(worker_script: Path, tmp_path: Path) -> None:
    """SIGSTOP beyond the lease, then SIGCONT: it tells its outcomes, and what the other did stands."""
    database, log = tmp_path / "p.db", tmp_path / "log"
    async with SqliteStore(database) as store:
        await begin_diary(store)
        await store.enqueue([job(str(n)) for n in range(400)])
        sleeper = start(worker_script, database, log, "-", 1000)
        await anyio.sleep(0.15)
        stop_between_transactions(sleeper, database)
        try:
            finish(start(worker_script, database, log, "-", 1000))
            before = {row.id: row.handle for row in await store.list(State.READY, limit=1000)}
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        finish(sleeper)
        assert len(before) == 400
        assert {row.id: row.handle for row in await store.list(State.READY, limit=1000)} == before
    assert read_diary(database).swept >= 1, "it slept without a lease"


async def test_a_late_word_does_not_count_while_another_is_at_work_on_the_row(
    worker_script: Path, tmp_path: Path
) -> None:
    """The row is warming then as it was before: only the token tells whose it is."""
    database, log = tmp_path / "p.db", tmp_path / "log"
    async with SqliteStore(database) as store:
        await begin_diary(store)
        await store.enqueue([job(str(n)) for n in range(8)])
        sleeper = start(worker_script, database, log, "-", 1000, push_seconds=0.4)  # less than a lease
        await until_noted(log, 8)
        stop_between_transactions(sleeper, database)
        try:
            # One at least of the rows is begun by the other before the sleeper wakes, and ended after that.
            other = start(worker_script, database, log, "-", 1000, push_seconds=1.5)
            await until_noted(log, 9)
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        finish(sleeper)
        finish(other)
        counts = await store.counts()
    assert {state: rows for (_, _, state), rows in counts.items()} == {State.READY: 8}
    story = read_diary(database)
    late = {words[2] for words in lines_of(log) if words[0] == "end"} - set(story.handles.values())
    assert any(handle.split(":")[2] == str(sleeper.pid) for handle in late), "the sleeper had no late word"
