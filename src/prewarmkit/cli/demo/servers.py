"""The two servers that the demo runs against, and the child processes that talk by lines.

Owns starting and stopping. A child gets its standard input as a lifeline: it ends when that
ends, which the death of this process brings about too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import define, field, frozen

from prewarmkit import Credentials, PrewarmKitError
from prewarmkit.cli.demo.place import Place, last_words
from prewarmkit.testing.botapi import FAKE_BOT
from prewarmkit.testing.processes import ServerFailed, binary
from prewarmkit.testing.s3 import RcloneServer, S3Server, SeaweedServer

__all__ = ["Child", "Servers", "start_child", "start_servers"]

_LONGEST_LINE = 1 << 24
_GRACE_SECONDS = 1.5
_START_SECONDS = 30.0
_LOOK_SECONDS = 0.5


@define
class Child:
    """A Python process that prints lines and lives no longer than this one."""

    _process: Process
    _lines: BufferedByteReceiveStream = field(init=False)

    def __attrs_post_init__(self) -> None:
        assert self._process.stdout is not None
        self._lines = BufferedByteReceiveStream(self._process.stdout)

    @property
    def pid(self) -> int:
        """The number to kill it by."""
        return self._process.pid

    async def tell(self, line: bytes) -> None:
        """Write to its standard input; that it is dead already shows elsewhere."""
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send(line)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    async def line(self) -> bytes | None:
        """The next line that it prints; ``None``: it prints no more."""
        try:
            return await self._lines.receive_until(b"\n", _LONGEST_LINE)
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            return None

    async def lines(self) -> AsyncIterator[bytes]:
        """Every line until it prints no more."""
        while (line := await self.line()) is not None:
            yield line

    async def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End its standard input, and it, if it does not go by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with anyio.CancelScope(shield=True):
            await self._process.stdin.aclose()
            with anyio.move_on_after(_GRACE_SECONDS):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            await self._process.stdout.aclose()


@asynccontextmanager
async def start_child(module: str, arguments: Sequence[str], *, log: Path) -> AsyncGenerator[Child]:
    """Run a module in a process of its own, its last words going to ``log``."""
    with log.open("ab") as errors:
        process = await anyio.open_process(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the supervisor, which ends its children in order
        )
    child = Child(process)
    try:
        yield child
    finally:
        await child.stop()


@frozen(kw_only=True)
class Servers:
    """Both servers, running.

    Attributes:
        s3_name: Which S3 server it is.
        endpoint: Of the S3 server.
        credentials: The only ones that it takes.
        api_base: Of the Bot API server.
        token: Of the only bot that it knows.
        s3: The S3 server itself.
        bot_api: The Bot API server's process.
    """

    s3_name: str
    endpoint: str
    credentials: Credentials
    api_base: str
    token: str = field(repr=False)
    s3: S3Server
    bot_api: Child

    async def watch(self) -> None:
        """Return never, unless a server ends.

        Raises:
            ServerFailed: One did.
        """
        while self.s3.child.is_running:
            with anyio.move_on_after(_LOOK_SECONDS):
                await self.bot_api.wait()
                raise ServerFailed("The Bot API server has ended, which nobody asked for.")
        raise ServerFailed(f"The S3 server ({self.s3_name}) has ended, which nobody asked for.")


@asynccontextmanager
async def start_servers(place: Place) -> AsyncGenerator[Servers]:
    """Start both on free ports; the S3 server gets fresh credentials, which are never stored.

    Raises:
        PrewarmKitError: One did not start; the message holds its last words.
    """
    arguments = ["--port", "0", "--token", FAKE_BOT, "--journal", str(place.journal)]
    async with (
        start_child("prewarmkit.testing.botapi", arguments, log=place.server_log) as bot_api,
        _s3_server(place) as s3,
    ):
        yield Servers(
            s3_name=s3.name,
            endpoint=s3.endpoint,
            credentials=s3.credentials,
            api_base=await _address(bot_api, place),
            token=FAKE_BOT,
            s3=s3,
            bot_api=bot_api,
        )


def _s3_server(place: Place) -> S3Server:
    # Each has a folder of its own: neither can read what the other keeps.
    match place.plan.s3 or ("seaweedfs" if binary("weed") else "rclone"):
        case "seaweedfs":
            return SeaweedServer(place.path / "s3-seaweedfs")
        case _:
            return RcloneServer(place.path / "s3-rclone")


async def _address(bot_api: Child, place: Place) -> str:
    line = None
    with anyio.move_on_after(_START_SECONDS):
        line = await bot_api.line()
    if line is None:
        raise PrewarmKitError(f"The Bot API server did not start: {last_words(place.server_log)}")
    return str(json.loads(line)["url"])
