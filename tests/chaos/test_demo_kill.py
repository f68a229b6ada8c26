"""Kill -9 of the demo's processes while it warms: nothing is lost, and nobody outlives the demo."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import define, field
from psycopg import sql

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal of POSIX"),
    pytest.mark.timeout(120),
]

WORKER = re.compile(r"worker (\d+) warms them")


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def parents() -> dict[int, int]:
    """Every process that is not dead yet, and its parent."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split() for line in listed.splitlines())
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def descendants(pid: int) -> set[int]:
    """Children, their children, and so on."""
    found: set[int] = set()
    tree = parents()
    edge = {pid}
    while edge := {child for child, parent in tree.items() if parent in edge} - found:
        found |= edge
    return found


@define
class Demo:
    """A demo that runs, its progress going to a file; with an address its table is in PostgreSQL."""

    folder: Path
    dsn: str | None = None
    process: subprocess.Popen[str] = field(init=False)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "progress.txt"

    def start(self, *arguments: object) -> None:
        """Start it; JSON to a pipe, progress to the file, made anew."""
        with self.log.open("w") as progress:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "prewarmkit",
                    "demo",
                    "--json",
                    "--data",
                    self.data,
                    *(() if self.dsn is None else ("--store", "postgres", "--dsn", self.dsn)),
                    *map(str, arguments),
                ],
                stdout=subprocess.PIPE,
                stderr=progress,
                text=True,
            )

    def workers(self) -> list[int]:
        """Every worker so far."""
        return [int(pid) for pid in WORKER.findall(self.log.read_text())]

    def counts(self) -> Mapping[str, int]:
        """Rows by state, as the table has them now."""
        if self.dsn is not None:
            return self._counts_in_postgresql(self.dsn)
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(
                sqlite3.connect(f"file:{self.data / 'prewarm.db'}?mode=ro", uri=True)
            ) as connection,
        ):
            rows = connection.execute("SELECT state, count(*) FROM media_cache GROUP BY state")
            return dict(rows.fetchall())
        return {}

    def _counts_in_postgresql(self, dsn: str) -> Mapping[str, int]:
        plan = self.data / "demo.json"
        if not plan.exists():
            return {}
        schema = sql.Identifier(json.loads(plan.read_text())["schema"])
        query = sql.SQL("SELECT state, count(*) FROM {}.media_cache GROUP BY state").format(schema)
        with (
            contextlib.suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName),
            psycopg.connect(dsn) as connection,
        ):
            return dict(connection.execute(query).fetchall())
        return {}

    def wait_until_ready(self, count: int) -> None:
        """Return in the middle of things: so many media are ready, and not all."""
        assert eventually(lambda: self.counts().get("ready", 0) >= count), self.log.read_text()

    def wait_for_workers(self, count: int) -> None:
        """Return once so many workers have been started."""
        assert eventually(lambda: len(self.workers()) >= count), self.log.read_text()

    def finish(self) -> Any:
        """What it printed, once it has ended; it must have ended well."""
        out, _ = self.process.communicate(timeout=90)
        said = self.log.read_text()
        assert self.process.returncode == 0, said
        assert "Traceback" not in said
        return json.loads(out)


@contextlib.contextmanager
def ended(running: Demo) -> Generator[Demo]:
    """Whatever the test does, it does not outlive it."""
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with ended(Demo(tmp_path)) as running:
        yield running


@pytest.fixture
def postgres_demo(tmp_path: Path, postgres_dsn: str) -> Iterator[Demo]:
    with ended(Demo(tmp_path, postgres_dsn)) as running:
        yield running


def all_ready(demo: Demo, told: Any, count: int) -> None:
    assert told["ok"] is True
    assert told["media"] == told["lookup"]["hits"] == count
    assert demo.counts() == {"ready": count}


def test_a_killed_worker_is_followed_by_another_and_nothing_is_lost(demo: Demo) -> None:
    demo.start("--s3", "rclone", "--count", 40, "--lease", 1)
    demo.wait_until_ready(5)
    [worker] = demo.workers()
    os.kill(worker, signal.SIGKILL)
    told = demo.finish()
    all_ready(demo, told, 40)
    assert told["worker"]["killed"] == 1
    assert told["worker"]["survival"] == 1.0
    assert f"worker {worker} was killed by SIGKILL" in demo.log.read_text()
    assert len(demo.workers()) == 2


def test_with_postgresql_a_killed_worker_and_a_killed_demo_lose_nothing_either(postgres_demo: Demo) -> None:
    """The worker first, then the demo and its children; the next one goes on where they were."""
    postgres_demo.start("--s3", "rclone", "--count", 40, "--lease", 1)
    postgres_demo.wait_until_ready(5)
    os.kill(postgres_demo.workers()[0], signal.SIGKILL)
    postgres_demo.wait_for_workers(2)
    children = descendants(postgres_demo.process.pid)
    postgres_demo.process.kill()
    postgres_demo.process.communicate()
    assert eventually(lambda: not children & set(parents())), "some child outlived the demo"
    before = postgres_demo.counts().get("ready", 0)
    assert 5 <= before < 40
    postgres_demo.start("--lease", 1)
    told = postgres_demo.finish()
    all_ready(postgres_demo, told, 40)
    assert told["warming"]["warmed"] == 40 - before


def test_a_killed_demo_takes_its_children_along_and_goes_on_where_it_was(demo: Demo) -> None:
    demo.start("--s3", "rclone", "--count", 40, "--lease", 1)
    demo.wait_until_ready(5)
    children = descendants(demo.process.pid)
    assert len(children) >= 4  # the worker, the Bot API server, rclone and its guard
    demo.process.kill()
    demo.process.communicate()
    assert eventually(lambda: not children & set(parents())), "some child outlived the demo"
    before = demo.counts().get("ready", 0)
    assert 5 <= before < 40
    demo.start("--lease", 1)
    told = demo.finish()
    all_ready(demo, told, 40)
    assert told["warming"]["warmed"] == 40 - before, "what was ready stays ready"


def test_a_demo_that_is_killed_before_it_has_queued_anything_begins_anew(demo: Demo) -> None:
    demo.start("--s3", "rclone", "--count", 40)
    manifest = demo.data / "uploaded.jsonl"
    assert eventually(lambda: manifest.exists() and manifest.stat().st_size > 500)
    demo.process.kill()
    demo.process.communicate()
    with manifest.open("a") as torn:
        torn.write('\n{"key": "photos/00')
    demo.start("--no-budget")
    all_ready(demo, demo.finish(), 40)


def test_workers_that_are_killed_again_and_again_are_given_up(demo: Demo) -> None:
    """Somebody, or the kernel for want of memory, kills each before it has warmed anything."""
    demo.start("--s3", "rclone", "--count", 12)
    killed: set[int] = set()

    def kill_the_next() -> bool:
        for worker in set(demo.workers()) - killed:
            killed.add(worker)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        return demo.process.poll() is not None

    assert eventually(kill_the_next)
    out, _ = demo.process.communicate()
    assert demo.process.returncode == 1
    assert "5 workers in a row were killed" in json.loads(out)["error"]
    assert json.loads(out)["queued"] == 12


@pytest.mark.slow
def test_the_whole_demo_survives_three_killed_workers_and_its_own_death(demo: Demo) -> None:
    """The short forms are above."""
    demo.start()
    for kills, ready in enumerate((40, 110, 180), start=1):
        demo.wait_until_ready(ready)
        os.kill(demo.workers()[-1], signal.SIGKILL)
        demo.wait_for_workers(kills + 1)
    demo.wait_until_ready(240)
    children = descendants(demo.process.pid)
    demo.process.kill()
    demo.process.communicate()
    assert eventually(lambda: not children & set(parents()))
    demo.start()
    all_ready(demo, demo.finish(), 300)
