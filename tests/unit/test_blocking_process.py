"""The blocking pool and its process: forks, and an interpreter that ends inside the block.

Each test is a script of its own, in a process of its own, that must end by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prewarmkit import PoolSettings
from prewarmkit.blocking import PrewarmPool
from prewarmkit.stores import SqliteStore, State
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

PREAMBLE = """
import atexit, os, signal, sys, threading, time
import anyio
from prewarmkit import PoolClosed
from prewarmkit.blocking import PrewarmPool
from prewarmkit.blocking import loop
from prewarmkit.stores import MemoryStore, SqliteStore
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

path = sys.argv[1]
source, target = UnreadSource(), ScriptedTarget()

def until(is_so):
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)

def wait_for(child):
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)

"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(script: str, path: Path, *, code: int = 0) -> str:
    """Run a script to its end; give what it printed. It must not say a word on stderr."""
    done = subprocess.run(
        # 3.12 warns at every fork of a process with threads; that is what is tested here.
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            PREAMBLE + script,
            str(path),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    return done.stdout


def rows(path: Path) -> list[tuple[str, State, int]]:
    """What the file says of rows that are not done."""
    with PrewarmPool(
        UnreadSource(), ScriptedTarget(), SqliteStore(path), settings=PoolSettings(autostart=False)
    ) as pool:
        return [(row.id.key, row.state, row.attempts) for row in pool.queue_items()]


# ── forks ────────────────────────────────────────────────────────────────────


@needs_fork
@pytest.mark.parametrize("store", ["MemoryStore()", "SqliteStore(path)"])
def test_a_child_is_told_to_make_its_own_and_the_parents_goes_on(tmp_path: Path, store: str) -> None:
    """Every use is refused at once, figures too; leaving is no use, and does not disturb the exception that leaves."""
    script = f"""
pool = PrewarmPool(source, target, {store})
with pool:
    pool.warm("a.png", timeout=5)
    child = os.fork()
    if not child:
        uses = [
            lambda: pool.lookup("a.png"), lambda: pool.enqueue("b.png"), lambda: pool.warm("a.png"),
            lambda: pool.stop(), lambda: pool.call(print, "no"), pool.stats, pool.pause, pool.__enter__,
        ]
        for use in uses:
            try:
                use()
            except RuntimeError as error:
                assert "in each worker process" in str(error) and "post_fork" in str(error), error
            else:
                raise AssertionError("it was not refused")
        assert "of another process" in repr(pool)
        sys.exit(7)
    assert wait_for(child) == 7
    assert pool.lookup("a.png").value == "H:a.png:1"
    assert pool.warm("b.png", timeout=5).value == "H:b.png:1"
print("done", pool.stats().succeeded)
"""
    assert run(script, tmp_path / "p.db") == "done 2\n"


@needs_fork
def test_a_child_may_have_pools_of_its_own(tmp_path: Path) -> None:
    """One that was made before the fork and entered after it, and one that was made after it."""
    script = """
made = PrewarmPool(source, target, SqliteStore(path))
with PrewarmPool(source, ScriptedTarget()) as parents:
    parents.warm("a.png", timeout=5)
    child = os.fork()
    if not child:
        with made, PrewarmPool(source, ScriptedTarget("two")) as beside:
            assert made.warm("b.png", timeout=5).value == "H:b.png:1"
            assert beside.warm("b.png", timeout=5).target == "two"
        sys.exit(0)
    assert wait_for(child) == 0
    parents.warm("b.png", timeout=5)
print("done")
"""
    assert run(script, tmp_path / "p.db") == "done\n"


@needs_fork
def test_a_child_forked_amid_calls_is_told_all_the_same(tmp_path: Path) -> None:
    """Whatever locks other threads held at that moment stay held in the child for ever; none of them is asked for."""
    script = """
def hammer():
    try:
        while True:
            pool.lookup("a.png")
    except PoolClosed:
        pass

with PrewarmPool(source, target) as pool:
    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        child = os.fork()
        if not child:
            signal.alarm(5)
            try:
                pool.lookup("a.png")
            except RuntimeError:
                pool.__exit__(None, None, None)
                os._exit(3)
            os._exit(4)
        assert wait_for(child) == 3
for thread in threads:
    thread.join()
print("done")
"""
    assert run(script, tmp_path / "p.db") == "done\n"


# ── the end of the interpreter ───────────────────────────────────────────────


@pytest.mark.parametrize("store", ["MemoryStore()", "SqliteStore(path)"])
@pytest.mark.parametrize("ending", ["", "sys.exit(0)"])
def test_a_script_that_never_leaves_its_pool_ends(tmp_path: Path, store: str, ending: str) -> None:
    """And its components are closed."""
    script = f"""
class Transport:
    async def __aenter__(self):
        return self

    async def __aexit__(self, exc_type, *rest):
        print("closed by", exc_type.__name__)

pool = PrewarmPool(source, target, {store}, resources=[Transport()])
pool.__enter__()
print(pool.warm("a.png", timeout=5).value)
{ending}
"""
    assert run(script, tmp_path / "p.db") == "H:a.png:1\nclosed by SystemExit\n"


def test_what_was_being_warmed_then_is_given_back(tmp_path: Path) -> None:
    """As by an exception: it costs no attempt, and the next process need not wait for a lease to run out."""
    script = """
target.gate = anyio.Event()
pool = PrewarmPool(source, target, SqliteStore(path))
pool.__enter__()
pool.enqueue_many(["a.png", "b.png"])
until(lambda: target.running == 2)
"""
    run(script, tmp_path / "p.db")
    assert sorted(rows(tmp_path / "p.db")) == [
        ("a.png", State.PENDING, 0),
        ("b.png", State.PENDING, 0),
    ]


def test_a_host_may_end_it_at_exit_in_its_own_way(tmp_path: Path) -> None:
    """Its own atexit comes first: here it lets the workers finish."""
    script = """
target.seconds = 0.2
pool = PrewarmPool(source, target, SqliteStore(path))
pool.__enter__()

@atexit.register
def leave():
    pool.__exit__(None, None, None)
    print(pool.stats().succeeded)

pool.enqueue("a.png")
until(lambda: target.running)
"""
    assert run(script, tmp_path / "p.db") == "1\n"


def test_threads_that_still_call_then_are_told(tmp_path: Path) -> None:
    """A daemon thread may be in the middle of a call."""
    script = """
def wait():
    try:
        pool.call(anyio.sleep_forever)
    except PoolClosed:
        print("told", flush=True)

pool = PrewarmPool(source, target, SqliteStore(path))
pool.__enter__()
thread = threading.Thread(target=wait, daemon=True)
thread.start()
until(lambda: pool._thread._calls._under_way)

@atexit.register
def look():
    loop._end_all()  # which would be next
    thread.join(10)
"""
    assert run(script, tmp_path / "p.db") == "told\n"


def test_a_daemon_thread_that_lets_workers_finish_then_is_hurried(tmp_path: Path) -> None:
    """The interpreter does not wait for the grace of a stop that is under way."""
    script = """
def serve():
    with pool:
        pool.enqueue("a.png")
        until(lambda: target.running)

target.gate = anyio.Event()
pool = PrewarmPool(source, target, SqliteStore(path))
threading.Thread(target=serve, daemon=True).start()
until(lambda: pool._thread and pool._thread._exc_info)
"""
    run(script, tmp_path / "p.db")
    assert rows(tmp_path / "p.db") == [("a.png", State.PENDING, 0)]


@pytest.mark.parametrize("stuck", ["time.sleep(3600)", "await anyio.to_thread.run_sync(time.sleep, 3600)"])
def test_what_cannot_be_ended_holds_the_interpreter_for_a_bounded_time(tmp_path: Path, stuck: str) -> None:
    """A target that blocks the loop, and one whose thread never comes back."""
    script = f"""
import logging
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message).40s", level="WARNING")

async def push(media):
    began.set()
    {stuck}

began = threading.Event()
loop._LAST_SECONDS = 0.2
target.act = push
pool = PrewarmPool(source, target, SqliteStore(path))
pool.__enter__()
pool.enqueue("a.png")
began.wait()
"""
    assert run(script, tmp_path / "p.db") == "WARNING pool prewarm did not end within 0.2 s, a\n"


@needs_fork
def test_a_forked_child_that_ends_leaves_the_parents_pool_alone(tmp_path: Path) -> None:
    """What runs at exit is inherited with everything else."""
    script = """
pool = PrewarmPool(source, target, SqliteStore(path))
pool.__enter__()
child = os.fork()
if child:
    assert wait_for(child) == 0
    print(pool.warm("a.png", timeout=5).value)
"""
    assert run(script, tmp_path / "p.db") == "H:a.png:1\n"
