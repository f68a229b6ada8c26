"""Processes of one bot on one store: each is told what to do, waits for the word, and tells what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Self

__all__ = ["TelegramWorkers"]

_PROCESS = """
import json, sys
import anyio
from prewarmkit import Media, PoolSettings, PrewarmPool
from prewarmkit.stores import PostgresStore, SqliteStore
from prewarmkit.targets import RateLimits, TelegramTarget
from prewarmkit.testing.contracts.target import MemorySource

told = json.loads(sys.argv[1])

async def main():
    address, limits = told["address"], told.get("limits")
    store = PostgresStore(address) if address.startswith("postgresql:") else SqliteStore(address)
    target = TelegramTarget(
        told["token"], warmup_chats=told["chats"], api_base=told["url"], public_url=told.get("public_url"),
        budget=None if limits is None else RateLimits(**limits),
    )
    source = MemorySource({key: text.encode() for key, text in told["objects"].items()})
    settings = PoolSettings(autostart=False, poll_interval_seconds=0.1, **told.get("settings", {}))
    held, handles = anyio.Event(), []

    def heard(event):
        if type(event).__name__ == "ChatHeld":
            held.set()

    async def call(pool, key):
        handles.append((await pool.warm(Media(key, sha256=told.get("sha256")), timeout=30)).value)

    async with store, target, PrewarmPool(source, target, store, settings=settings, on_event=heard) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        await pool.start()
        async with anyio.create_task_group() as tasks:
            for _ in range(told.get("callers", 0)):
                tasks.start_soon(call, pool, *told["objects"])
        if told.get("leaves_when_held"):
            await held.wait()
        else:
            await pool.join()
        stats = pool.stats()
    print(json.dumps({"succeeded": stats.succeeded, "failed": stats.failed, "handles": handles}), flush=True)

anyio.run(main)
"""


class TelegramWorkers:
    """Some of them; whoever still runs at the end is killed.

    What all are told: ``address`` of the store, ``url``, ``token`` and ``chats`` of the bot, ``objects`` (text by key). Optional:
    ``limits``, ``settings``, ``public_url``; ``leaves_when_held``: goes once a chat is closed by a 429; ``callers``: so
    many `PrewarmPool.warm` of the one object, with ``sha256``.
    """

    def __init__(self, **told: Any) -> None:
        self._told = told
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def start(self, count: int = 1, **told: Any) -> None:
        """Start some, until they wait for the word."""
        command = [sys.executable, "-c", _PROCESS, json.dumps({**self._told, **told})]
        pipe = subprocess.PIPE
        started = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
            for _ in range(count)
        ]
        self._processes += started
        for process in started:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "ready\n", line + process.stdout.read()

    def go(self) -> list[dict[str, Any]]:
        """Give all that wait the word at once; what each told at its end."""
        waiting, self._processes = self._processes, []
        ended: list[dict[str, Any]] = []
        for process in waiting:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        try:
            for process in waiting:
                out, _ = process.communicate(timeout=60)
                assert process.returncode == 0, out
                ended.append(json.loads(out.splitlines()[-1]))  # the lines before it are warnings
        finally:
            self._processes = [process for process in waiting if process.poll() is None]
        return ended
