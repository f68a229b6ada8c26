"""The script of a process that is killed, and started again; a PostgreSQL server to do it on."""

from __future__ import annotations

from pathlib import Path

import pytest

from prewarmkit.testing.pytest import postgres_dsn, postgres_server

__all__ = ["postgres_dsn", "postgres_server"]

WORKER = '''
"""A pool over one table; each push leaves a line in a log before and after it."""
import itertools, logging, os, random, sys
from pathlib import Path
import anyio
from psycopg.conninfo import make_conninfo
from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.stores import PostgresStore, SqliteStore
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

address, log, poison = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
dice, numbers = random.Random(), itertools.count()
pace = float(os.environ.get("PUSH_SECONDS", "0"))

def note(text: str) -> None:
    with log.open("a") as lines:
        lines.write(text + "\\n")

async def push(media):
    note(f"begin {media.key}")
    if media.key == poison:
        await ready.wait()  # whoever started this process waits for the word
        await anyio.sleep(0.1)
        os.kill(os.getpid(), 9)
    await anyio.sleep(pace or dice.uniform(0.001, 0.02))
    handle = f"H:{media.key}:{os.getpid()}:{next(numbers)}"
    note(f"end {media.key} {handle}")
    return Warmed(handle)

def open_store():
    if address.startswith("postgresql:"):
        return PostgresStore(make_conninfo(address, application_name=f"worker {os.getpid()}"))
    return SqliteStore(address)

def introduce(store):
    """For a diary that asks who writes; in PostgreSQL the connection says it by itself."""
    if isinstance(store, SqliteStore):
        store._db._writer.create_function("who", 0, lambda: str(os.getpid()))

# Lost leases and a poison that failed are what the tests make; anything worse is shown.
logging.getLogger("prewarmkit").setLevel(logging.ERROR)

async def main():
    global ready
    ready = anyio.Event()
    settings = PoolSettings(concurrency=8, lease_seconds=0.5, poll_interval_seconds=0.1, max_attempts=int(sys.argv[4]))
    async with open_store() as store:
        introduce(store)
        async with PrewarmPool(UnreadSource(), ScriptedTarget(act=push), store, settings=settings) as pool:
            print("ready", flush=True)
            ready.set()
            await pool.join()
            print("done", flush=True)

anyio.run(main)
'''


@pytest.fixture
def worker_script(tmp_path: Path) -> Path:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return script
