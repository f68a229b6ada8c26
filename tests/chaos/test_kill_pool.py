"""Processes die by kill -9 while they warm: nothing is lost, nothing stays warming, no late word counts."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest
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


async def kill_and_go_on(script: Path, folder: Path, *, media: int, kills: int, processes: int) -> None:
    """Kill one of several processes again and again; then let one finish."""
    database, log, dice = folder / "p.db", folder / "log", random.Random(4)
    async with SqliteStore(database) as store:
        await store.enqueue([job(str(n)) for n in range(media)])
    running = [start(script, database, log, "-", 1000) for _ in range(processes)]
    for _ in range(kills):
        await anyio.sleep(dice.uniform(0.02, 0.25))
        victim = running.pop(0)
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate(timeout=10)
        running.append(start(script, database, log, "-", 1000))
    for process in running:
        finish(process)
    async with SqliteStore(database) as store:
        counts = await store.counts()
        assert {state: rows for (_, _, state), rows in counts.items()} == {State.READY: media}
    lines = log.read_text().splitlines()
    ended = {line.split()[1] for line in lines if line.startswith("end")}
    assert ended == {str(n) for n in range(media)}
    # At least once, and not much more: only what a victim had in hand is done again.
    assert lines.count("begin 0") <= 1 + kills
    assert sum(line.startswith("begin") for line in lines) <= media + kills * 16


async def test_killed_processes_lose_nothing(worker_script: Path, tmp_path: Path) -> None:
    """Short form: two processes share a table, one is killed four times."""
    await kill_and_go_on(worker_script, tmp_path, media=300, kills=4, processes=2)


@pytest.mark.slow
async def test_killed_processes_lose_nothing_a_hundred_times(worker_script: Path, tmp_path: Path) -> None:
    """Long form: three processes, a hundred kills."""
    await kill_and_go_on(worker_script, tmp_path, media=8000, kills=100, processes=3)


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
    """SIGSTOP beyond the lease, then SIGCONT: what the other did stands."""
    database, log = tmp_path / "p.db", tmp_path / "log"
    async with SqliteStore(database) as store:
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
