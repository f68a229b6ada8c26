"""What docs/blocking.md shows: its module serves forked workers, and its code is code."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prewarmkit.testing.botapi import BotApiServer
from prewarmkit.testing.media import make_media

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "blocking.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
CHAT = -1001


def block_with(text: str) -> str:
    [block] = [each for each in BLOCKS if text in each]
    return str(block)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_python_and_names_what_there_is(block: str) -> None:
    compile(block, "blocking.md", "exec")
    for module, names in re.findall(r"^from (prewarmkit\S*) import (.+)$", block, re.MULTILINE):
        assert set(names.split(", ")) <= set(dir(importlib.import_module(module)))


def run(code: str, place: Path, server: BotApiServer) -> str:
    """Run code that imports the page's module as ``myapp.media``, in a process of its own."""
    myapp = place / "myapp"
    myapp.mkdir()
    (myapp / "media.py").write_text((DOCS / "examples" / "blocking_media.py").read_text())
    (place / "files").mkdir()
    (place / "files" / "cat.png").write_bytes(make_media("photo", 5_000))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(place), *filter(None, sys.path)]),
            "MEDIA_ROOT": str(place / "files"),
            "PREWARM_DB": str(place / "prewarm.db"),
            "BOT_TOKEN": server.token,
            "BOT_API": server.url,
            "WARMUP_CHAT": str(CHAT),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


# What gunicorn does with --preload: import in the parent, fork, call the hook, serve, exit by SystemExit.
PRE_FORK = """
import os, sys, time
{hook}
workers = []
for number in range(2):
    worker = os.fork()
    if not worker:
        post_fork(None, None)
        deadline = time.monotonic() + 20
        while media.deliver(42, "cat.png") is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sys.exit(0)
    workers.append(worker)
print([os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_two_forked_workers_deliver_one_medium_that_was_uploaded_once(tmp_path: Path) -> None:
    with BotApiServer() as server:
        assert run(PRE_FORK.format(hook=block_with("post_fork")), tmp_path, server) == "[0, 0]\n"
        uploads = [each for each in server.received if each.chat_id == CHAT]
        assert len(uploads) == 1


@pytest.mark.skipif(not hasattr(signal, "sigwait"), reason="this system has no sigwait")
def test_a_worker_process_warms_until_it_is_told_to_end(tmp_path: Path) -> None:
    """Here by itself, in the middle of an upload, which it ends."""
    told = block_with("sigwait").replace(
        "    signal.sigwait", "    Thread(target=work_and_end).start()\n    signal.sigwait"
    )
    code = f"""
import os
from threading import Thread

def work_and_end():
    media.pool.enqueue("cat.png")
    while not media.pool.stats().processing:
        pass
    os.kill(os.getpid(), signal.SIGTERM)

{told}
print(media.pool.stats().succeeded, "warmed")
"""
    with BotApiServer() as server:
        assert run(code, tmp_path, server) == "1 warmed\n"
