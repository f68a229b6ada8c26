"""What processes share through a durable store beside its rows: rate budgets, holds, small facts.

Real processes, on a SQLite file and on a PostgreSQL server.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prewarmkit.budget import Window
from prewarmkit.stores import PostgresStore, SqliteStore

pytestmark = pytest.mark.anyio

PROCESS = '''
"""Does one deed on a store, with a budget of the name `bot`; prints what came of it."""
import os, sys, time
import anyio
from prewarmkit.budget import Window
from prewarmkit.stores import PostgresStore, SqliteStore

address, deed, *given = sys.argv[1:]

async def race(store, calls, seconds, span):
    """Spend as fast as it goes for `span` seconds: when each call was begun and ended."""
    budget, end = store.budget("bot"), time.monotonic() + float(span)
    limits = {"bot": [Window(int(calls), float(seconds))], f"chat:{os.getpid()}": [Window(1000, 1)]}
    while (began := time.monotonic()) < end:
        if (wait := await budget.take(limits)) == 0:
            print(began, time.monotonic(), flush=True)
        elif began + wait > end:
            break
        else:
            await anyio.sleep(min(wait, 0.01))

async def die_holding(store, seconds):
    """Obey a 429, note a fact, and die."""
    await store.budget("bot").take({"bot": [Window(20, 3600)]}, cost=20)
    await store.budget("bot").hold("chat:1", float(seconds))
    await store.state("bot").put("moved", "-100")
    os.kill(os.getpid(), 9)

async def ask(store):
    """What another process finds."""
    budget = store.budget("bot")
    print(await budget.take({"bot": [Window(20, 3600)]}))
    print(await budget.take({"chat:1": []}))
    print(await store.state("bot").get("moved"))

async def main():
    store = PostgresStore(address) if address.startswith("postgresql:") else SqliteStore(address)
    async with store:
        print("ready", flush=True)
        sys.stdin.readline()
        await globals()[deed](store, *given)

anyio.run(main)
'''


@pytest.fixture
def anyio_backend() -> str:
    """The loops under test are in the processes."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
async def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the store is; its tables are made."""
    if request.param == "sqlite":
        async with SqliteStore(tmp_path / "p.db"):
            return str(tmp_path / "p.db")
    dsn = str(request.getfixturevalue("postgres_dsn"))
    async with PostgresStore(dsn, auto_migrate=True):
        return dsn


class Crew:
    """Processes on one store."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, deed: str, *given: object) -> subprocess.Popen[str]:
        """One more, which waits for the word."""
        command = [sys.executable, "-c", PROCESS, self._address, deed, *map(str, given)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", line + process.stdout.read()
        return process

    def go(self) -> None:
        """Give all the word."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def told(self, process: subprocess.Popen[str]) -> list[list[str]]:
        """What one has printed at its end, in words."""
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0, out
        return [line.split() for line in out.splitlines()]


@pytest.fixture
def crew(address: str) -> Iterator[Crew]:
    crew = Crew(address)
    yield crew
    for process in crew.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def calls_of(crew: Crew) -> list[tuple[float, float]]:
    """When each call of all processes was begun and ended, by the machine's clock."""
    return [(float(began), float(ended)) for process in crew.processes for began, ended in crew.told(process)]


async def test_processes_that_hurry_spend_a_window_together_once(crew: Crew) -> None:
    """Three of them, forty calls: forty are made."""
    for _ in range(3):
        crew.start("race", 40, 3600, 20)
    crew.go()
    assert len(calls_of(crew)) == 40


async def test_no_window_ever_holds_more_calls_of_all_processes_than_its_limit(crew: Crew) -> None:
    """Nor less than it might, when they ask again and again."""
    limit, seconds, span = 8, 0.5, 2.0
    for _ in range(3):
        crew.start("race", limit, seconds, span)
    crew.go()
    calls = calls_of(crew)
    began, ended = sorted(call[0] for call in calls), sorted(call[1] for call in calls)
    for first, beyond in zip(began, ended[limit:], strict=False):
        assert beyond - first > seconds
    assert 2 * limit <= len(calls) <= (span / seconds + 1) * limit


async def test_a_process_that_dies_leaves_its_calls_its_hold_and_its_facts_to_the_others(crew: Crew) -> None:
    """By kill -9, to one that runs already and to one that starts later."""
    dying, running = crew.start("die_holding", 100), crew.start("ask")
    assert dying.stdin is not None
    dying.stdin.write("\n")
    dying.communicate(timeout=30)
    assert dying.returncode == -signal.SIGKILL
    crew.processes.remove(dying)
    later = crew.start("ask")
    crew.go()
    for process in (running, later):
        [spent], [held], [fact] = crew.told(process)
        assert 3500 < float(spent) <= 3600.001
        assert 50 < float(held) <= 100
        assert fact == "-100"


async def test_a_fact_that_one_store_forgets_is_forgotten_for_all(address: str) -> None:
    def opened() -> PostgresStore | SqliteStore:
        return PostgresStore(address) if address.startswith("postgresql:") else SqliteStore(address)

    async with opened() as a, opened() as b:
        await a.state("bot").put("moved", "-100")
        assert await b.state("bot").get("moved") == "-100"
        await b.state("bot").put("moved", None)
        assert await a.state("bot").get("moved") is None
        assert await b.budget("bot").take({"bot": [Window(1, 60)]}) == 0.0
        assert await a.budget("bot").take({"bot": [Window(1, 60)]}) > 0
