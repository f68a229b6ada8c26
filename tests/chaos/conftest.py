"""The script of a process that is killed, and started again."""

from __future__ import annotations

from pathlib import Path

import pytest

WORKER = '''
"""A pool over one SQLite file; each push leaves a line in a log before and after it."""
import os, random, sys
from pathlib import Path
import anyio
from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.stores import SqliteStore
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

database, log, poison = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
dice = random.Random()

def note(text: str) -> None:
    with log.open("a") as lines:
        lines.write(text + "\\n")

async def push(media):
    note(f"begin {media.key}")
    if media.key == poison:
        os.kill(os.getpid(), 9)
    await anyio.sleep(dice.uniform(0.001, 0.02))
    note(f"end {media.key}")
    return Warmed(f"H:{media.key}:{os.getpid()}")

async def main():
    settings = PoolSettings(concurrency=8, lease_seconds=0.5, poll_interval_seconds=0.1, max_attempts=int(sys.argv[4]))
    async with SqliteStore(database) as store, PrewarmPool(
        UnreadSource(), ScriptedTarget(act=push), store, settings=settings
    ) as pool:
        print("ready", flush=True)
        await pool.join()
        print("done", flush=True)

anyio.run(main)
'''


@pytest.fixture
def worker_script(tmp_path: Path) -> Path:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return script
