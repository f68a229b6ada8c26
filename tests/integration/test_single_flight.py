"""A medium that two processes' callers wait for at once costs one upload, and each caller hears of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CALLERS = '''
"""So many callers of `warm` for one key, from one process; prints what they got, and how long the last one waited."""
import sys, time
from pathlib import Path
import anyio
from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.stores import PostgresStore, SqliteStore
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

address, log, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

async def push(media):
    with log.open("a") as lines:
        lines.write(media.key + "\\n")
    await anyio.sleep(0.3)
    return Warmed("H:" + media.key)

async def main():
    store = PostgresStore(address) if address.startswith("postgresql:") else SqliteStore(address)
    got = []
    async with store, PrewarmPool(UnreadSource(), ScriptedTarget(act=push), store, settings=PoolSettings(concurrency=4)) as pool:
        print("ready", flush=True)
        sys.stdin.readline()

        async def call():
            got.append((await pool.warm("asked.png", timeout=20)).value)

        async with anyio.create_task_group() as group:
            for n in range(count):
                group.start_soon(call)
            await anyio.sleep(0.05)
            with anyio.move_on_after(0):  # one that leaves takes nobody with it
                await pool.warm("asked.png")
    assert set(got) == {"H:asked.png"}, set(got)
    print(len(got), flush=True)

anyio.run(main)
'''


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_thousand_callers_in_two_processes_make_one_upload(
    tmp_path: Path, request: pytest.FixtureRequest, store: str
) -> None:
    """They begin at the same moment; one process gets the lease, the other's callers hear of its end."""
    script, log = tmp_path / "callers.py", tmp_path / "pushes.log"
    script.write_text(CALLERS)
    address = str(tmp_path / "p.db")
    if store == "postgres":
        address = request.getfixturevalue("postgres_dsn")
        subprocess.run([sys.executable, "-m", "prewarmkit", "migrate", address], check=True, timeout=30)
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(log), "500"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            output, _ = process.communicate(timeout=60)
            assert (process.returncode, output) == (0, "500\n")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    assert log.read_text() == "asked.png\n"
