"""PostgresStore while processes die by kill -9 and the server goes away: nothing is lost, no late word counts.

A trigger keeps a diary of every move of every row: who made it, when, under which token. The
figures of each long run are printed (`pytest -s`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from diary import Move, Story, check_story, lines_of, story_of, until_noted
from kills import kill_and_go_on
from psycopg.rows import class_row
from workers import finish, start

from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.stores import PostgresStore, State
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

BACK_SECONDS = 5.0
BACKLOG = 1500


@pytest.fixture
def anyio_backend() -> str:
    """The loop under test is in the processes, and psycopg has one only."""
    return "asyncio"


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    monkeypatch.delenv("PREWARMKIT_TEST_DSN", raising=False)
    with PostgresServer() as server:
        yield server


# ── the diary ────────────────────────────────────────────────────────────────

DIARY = """
CREATE TABLE diary (n bigserial, at timestamptz, who text, key text, was text, state text, token bigint,
                    lease_until timestamptz, handle text);
CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> OLD.state OR NEW.handle IS DISTINCT FROM OLD.handle OR NEW.token IS DISTINCT FROM OLD.token THEN
        INSERT INTO diary (at, who, key, was, state, token, lease_until, handle)
        VALUES (statement_timestamp(), current_setting('application_name'), NEW.media_key, OLD.state, NEW.state,
                NEW.token, OLD.lease_until, NEW.handle);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_move AFTER UPDATE ON media_cache FOR EACH ROW EXECUTE FUNCTION note_move()"""


async def begin_diary(store: PostgresStore, dsn: str) -> None:
    await store.migrate()
    with psycopg.connect(dsn) as connection:
        connection.execute(DIARY.encode())


def read_diary(dsn: str) -> Story:
    query = """SELECT extract(epoch FROM at)::float8 AS at, who, key, was, state, token,
        extract(epoch FROM lease_until)::float8 AS lease_until, handle FROM diary ORDER BY n"""
    with psycopg.connect(dsn) as connection:
        return story_of(connection.cursor(row_factory=class_row(Move)).execute(query))


# ── kill -9 ──────────────────────────────────────────────────────────────────


async def kill_with_a_diary(script: Path, dsn: str, log: Path, *, kills: int, media_a_kill: int) -> None:
    """The same as for SQLite, and the same proof."""
    async with PostgresStore(dsn) as store:
        await begin_diary(store, dsn)
        run = await kill_and_go_on(
            store, lambda: start(script, dsn, log, "-", 1000), kills=kills, media_a_kill=media_a_kill
        )
    print(check_story(read_diary(dsn), lines_of(log), run))  # noqa: T201


async def test_killed_processes_lose_nothing(worker_script: Path, postgres_dsn: str, tmp_path: Path) -> None:
    """Short form: three processes share a table, one of them is killed, four times."""
    await kill_with_a_diary(worker_script, postgres_dsn, tmp_path / "log", kills=4, media_a_kill=250)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_processes_lose_nothing_a_hundred_times(
    worker_script: Path, postgres_dsn: str, tmp_path: Path
) -> None:
    """Long form of the same."""
    await kill_with_a_diary(worker_script, postgres_dsn, tmp_path / "log", kills=100, media_a_kill=400)


async def test_a_medium_that_kills_its_process_is_failed_after_its_attempts(
    worker_script: Path, postgres_dsn: str, tmp_path: Path
) -> None:
    """The attempt counts when it is claimed, so the poison runs out of them; its neighbours become ready."""
    log = tmp_path / "log"
    neighbours = [f"neighbour-{n}" for n in range(40)]
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        # Last in the queue: what is at work beside it when it kills is cut off with it.
        await store.enqueue([*(job(key) for key in neighbours), job("poison", priority=9, delay=0.3)])
        for _ in range(3):
            process = start(worker_script, postgres_dsn, log, "poison", 3)
            process.communicate(timeout=30)
            assert process.returncode == -signal.SIGKILL
        finish(start(worker_script, postgres_dsn, log, "poison", 3))
        [row] = await store.list(State.FAILED)
        assert (row.id.key, (row.reason or "").partition(":")[0]) == ("poison", "crash")
        assert lines_of(log).count(["begin", "poison"]) == 3
        assert {row.id.key for row in await store.list(State.READY)} == set(neighbours)
        assert await store.requeue(reason="crash") == 1


def run_to_its_end(script: Path, dsn: str, log: Path) -> int:
    """One worker on a table with a poison in it; how it ended."""
    process = start(script, dsn, log, "poison", 3, push_seconds=0.2)
    process.communicate(timeout=30)
    return process.returncode


async def test_a_poison_takes_what_is_beside_it_with_it_once(
    worker_script: Path, postgres_dsn: str, tmp_path: Path
) -> None:
    """Rows whose lease ran out pass one by one, so only the one that kills is claimed until its attempts are spent."""
    log, deaths = tmp_path / "log", 0
    async with PostgresStore(postgres_dsn, auto_migrate=True) as store:
        await store.enqueue([job("poison" if n == 20 else str(n)) for n in range(40)])
        while (code := run_to_its_end(worker_script, postgres_dsn, log)) != 0:
            assert code == -signal.SIGKILL
            deaths += 1
        assert deaths == 3
        assert [row.id.key for row in await store.list(State.FAILED)] == ["poison"]
        assert len(await store.list(State.READY)) == 39
    begun = Counter(words[1] for words in lines_of(log) if words[0] == "begin")
    assert begun.pop("poison") == 3
    assert max(begun.values()) == 2, "the poison was alone"


def stop_between_transactions(process: subprocess.Popen[bytes], dsn: str) -> None:
    """Stop a process while it holds no lock: rows that it has locked are passed over as long as it sleeps."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state <> 'idle'"
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(100):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.05)  # what the server is doing for it now comes to its end
            row = connection.execute(busy, [f"worker {process.pid}"]).fetchone()
            if row == (0,):
                return
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.01)
    pytest.fail("the process was never met outside a transaction")


async def test_a_stopped_process_comes_back_to_a_lost_lease(
    worker_script: Path, postgres_dsn: str, tmp_path: Path
) -> None:
    """SIGSTOP beyond the lease, then SIGCONT: it tells its outcomes, and what the other did stands."""
    log = tmp_path / "log"
    async with PostgresStore(postgres_dsn) as store:
        await begin_diary(store, postgres_dsn)
        await store.enqueue([job(str(n)) for n in range(600)])
        sleeper = start(worker_script, postgres_dsn, log, "-", 1000)
        await anyio.sleep(0.15)
        stop_between_transactions(sleeper, postgres_dsn)
        try:
            finish(start(worker_script, postgres_dsn, log, "-", 1000))
            before = {row.id: row.handle for row in await store.list(State.READY, limit=1000)}
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        finish(sleeper)
        assert len(before) == 600
        assert {row.id: row.handle for row in await store.list(State.READY, limit=1000)} == before
    story = read_diary(postgres_dsn)
    assert story.swept >= 1, "it slept without a lease"


async def test_a_late_word_does_not_count_while_another_is_at_work_on_the_row(
    worker_script: Path, postgres_dsn: str, tmp_path: Path
) -> None:
    """The row is warming then as it was before: only the token tells whose it is."""
    log = tmp_path / "log"
    async with PostgresStore(postgres_dsn) as store:
        await begin_diary(store, postgres_dsn)
        await store.enqueue([job(str(n)) for n in range(8)])
        sleeper = start(worker_script, postgres_dsn, log, "-", 1000, push_seconds=0.4)  # less than a lease
        await until_noted(log, 8)
        stop_between_transactions(sleeper, postgres_dsn)
        try:
            # One at least of the rows is begun by the other before the sleeper wakes, and ended after that.
            other = start(worker_script, postgres_dsn, log, "-", 1000, push_seconds=1.5)
            await until_noted(log, 9)
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        finish(sleeper)
        finish(other)
        counts = await store.counts()
    assert {state: rows for (_, _, state), rows in counts.items()} == {State.READY: 8}
    story = read_diary(postgres_dsn)
    late = {words[2] for words in lines_of(log) if words[0] == "end"} - set(story.handles.values())
    assert any(handle.split(":")[2] == str(sleeper.pid) for handle in late), "the sleeper had no late word"


# ── the server goes away ─────────────────────────────────────────────────────


def terminate_all(dsn: str) -> None:
    """End every connection to the database but this one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def faults_of(server: PostgresServer, dsn: str) -> list[tuple[str, Callable[[], None]]]:
    """What happens to the server, each in its turn; it is back when the call returns."""

    def restart() -> None:
        server.stop()
        server.start()

    def crash() -> None:
        server.kill()
        server.start()

    return [("crashed", crash), ("terminated", lambda: terminate_all(dsn)), ("restarted", restart)]


def value(dsn: str, query: str, *values: Any) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode(), values).fetchone()
        assert row is not None
        return row[0]


DONE = (
    "SELECT count(*) FROM media_cache WHERE warmed_at > greatest(clock_timestamp() - interval '1 second', %s)"
)


async def done_in_a_second(dsn: str, since: datetime | None = None) -> int:
    """Rows that became ready within the last second, and after ``since``."""
    return int(await anyio.to_thread.run_sync(value, dsn, DONE, since))


async def seconds_until_back(dsn: str, rate: float) -> float:
    """How long until so many rows were done within one second that began after now."""
    since = await anyio.to_thread.run_sync(value, dsn, "SELECT clock_timestamp()")
    began = time.monotonic()
    while await done_in_a_second(dsn, since) < rate:
        seconds = time.monotonic() - began
        assert seconds < BACK_SECONDS + 1, f"not back at {rate:.0f} rows a second"
        await anyio.sleep(0.1)
    return time.monotonic() - began - 1


async def go_on_through_faults(server: PostgresServer, count: int) -> None:
    """A pool at work, and a fault every few seconds; then all is done, and each row was done once."""
    dsn, put_in, concurrency = server.create_database(), 0, 8
    target = ScriptedTarget(seconds=0.02)
    settings = PoolSettings(
        concurrency=concurrency, lease_seconds=3, poll_interval_seconds=0.2, max_attempts=1000
    )
    lines: list[str] = []
    async with PostgresStore(dsn) as store:
        await begin_diary(store, dsn)
        async with PrewarmPool(UnreadSource(), target, store, settings=settings) as pool:
            for nth in range(count):
                name, fault = faults_of(server, dsn)[nth % 3]
                more = BACKLOG - sum(
                    rows for (_, _, state), rows in (await store.counts()).items() if state is State.PENDING
                )
                await store.enqueue([job(f"{put_in + n}") for n in range(more)])
                put_in += more
                await anyio.sleep(1.2)
                before = await done_in_a_second(dsn)
                await anyio.to_thread.run_sync(fault)
                back = await seconds_until_back(dsn, 0.9 * before)
                lines.append(f"{name}: {before} rows a second, back at 90 % after {max(0.0, back):.1f} s")
            await pool.join(timeout=60)
            assert pool.stats().failed == 0
        counts = await store.counts()
    assert {state: rows for (_, _, state), rows in counts.items()} == {State.READY: put_in}
    story = read_diary(dsn)
    assert len(story.handles) == put_in
    pushes = Counter(target.calls)
    assert all(pushes[key] <= leases for key, leases in story.leases.items()), "a push without a lease"
    # A turn that was cut off leased up to twice the concurrency without anybody knowing.
    assert pushes.total() <= put_in + count * 2 * concurrency
    lines.append(f"{put_in} media, {pushes.total() - put_in} pushes made again, {story.swept} leases swept")
    print("\n" + "\n".join(lines))  # noqa: T201


async def test_the_pump_is_back_after_the_server_went_away(own_server: PostgresServer) -> None:
    """Short form: a crash, and the end of all connections."""
    await go_on_through_faults(own_server, 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_the_pump_is_back_after_the_server_went_away_twenty_times(own_server: PostgresServer) -> None:
    """Long form: crashes, ends of all connections and restarts in turn."""
    await go_on_through_faults(own_server, 20)
