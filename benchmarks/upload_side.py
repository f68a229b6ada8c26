"""One client of the benchmark of uploads: ``python upload_side.py NAME``, tasks by standard input.

The first line tells the server's address; each line after it a file, how often to send it and how many at once. Each is
answered with what it took. Names: ``ours``, ``ours-fast``, ``aiogram``, ``ptb``; each with ``-bytes`` sends what it has in memory,
else a file, as the library's documentation has it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

CHAT_ID = -1001
TOKEN = "123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
PIECE_BYTES = 64 * 1024
Send = Callable[[Path], Awaitable[None]]


class Bytes:
    """A source that has the bytes, as one has them from R2: in pieces of the size that a socket gives."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    @asynccontextmanager
    async def open(self, key: str) -> AsyncGenerator[Any]:
        """Open one."""
        yield BytesReader(key, self.objects[key])

    async def head(self, key: str) -> Any:
        """What is known of one."""
        return BytesReader(key, self.objects[key]).info

    def url(self, key: str, *, version: str | None = None) -> None:
        """No address: it is in memory."""


class BytesReader:
    """One medium's bytes."""

    def __init__(self, key: str, content: bytes) -> None:
        from prewarmkit.media import ObjectInfo

        self.info = ObjectInfo(key=key, size=len(content))
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for first in range(0, len(self._content), PIECE_BYTES):
            yield self._content[first : first + PIECE_BYTES]

    async def read(self) -> bytes:
        """All of it."""
        return self._content


async def ours(stack: AsyncExitStack, url: str, name: str) -> Send:
    """Send by `TelegramTarget`, from a folder or from memory."""
    from prewarmkit import Media
    from prewarmkit.sources import DirectorySource
    from prewarmkit.targets import TelegramTarget
    from prewarmkit.transports import FastTransport, Transport

    transport: Transport | None = None
    if "fast" in name:
        transport = await stack.enter_async_context(FastTransport())
    bot = await stack.enter_async_context(
        TelegramTarget(TOKEN, warmup_chats=[CHAT_ID], api_base=url, budget=None, transport=transport)
    )
    memory = Bytes()

    def source_of(path: Path) -> Any:
        if not name.endswith("bytes"):
            return DirectorySource(path.parent)
        memory.objects[path.name] = content_of(path)
        return memory

    sources: dict[Path, Any] = {}

    async def send(path: Path) -> None:
        source = sources.get(path) or sources.setdefault(path, source_of(path))
        warmed = await bot.warm(Media(path.name, "document"), source)
        assert warmed.handle == "F1"

    return send


@cache
def content_of(path: Path) -> bytes:
    """A file's bytes, read once."""
    return path.read_bytes()


def copy_of(path: Path) -> bytes:
    """The same as bytes of their own: media that are under way at once are not one medium."""
    return bytes(memoryview(content_of(path)))


async def aiogram(stack: AsyncExitStack, url: str, name: str) -> Send:
    """Send by aiogram's ``send_document`` with an ``FSInputFile``, or with the bytes, as one has them from R2."""
    from aiogram import Bot
    from aiogram.client.session.aiohttp import AiohttpSession
    from aiogram.client.telegram import TelegramAPIServer
    from aiogram.types import BufferedInputFile, FSInputFile

    session = AiohttpSession(api=TelegramAPIServer.from_base(url))
    bot = await stack.enter_async_context(Bot(TOKEN, session=session))

    async def send(path: Path) -> None:
        file = BufferedInputFile(copy_of(path), path.name) if name.endswith("bytes") else FSInputFile(path)
        message = await bot.send_document(CHAT_ID, file, disable_notification=True)
        assert message.document
        assert message.document.file_id == "F1"

    return send


async def ptb(stack: AsyncExitStack, url: str, name: str) -> Send:
    """Send by python-telegram-bot's ``send_document`` with a path, and as many connections as are sent at once."""
    from telegram import Bot
    from telegram.request import HTTPXRequest

    request = HTTPXRequest(connection_pool_size=64, read_timeout=60, write_timeout=60, media_write_timeout=60)
    bot = await stack.enter_async_context(
        Bot(TOKEN, base_url=f"{url}/bot", request=request, get_updates_request=request, private_key=None)
    )

    async def send(path: Path) -> None:
        file = copy_of(path) if name.endswith("bytes") else path
        message = await bot.send_document(CHAT_ID, file, filename=path.name, disable_notification=True)
        assert message.document is not None
        assert message.document.file_id == "F1"

    return send


def peak_kib(*, is_reset: bool = False) -> int:
    """The peak of this process's memory, since the last reset."""
    if is_reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


async def measured(send: Send, path: Path, count: int, at_once: int) -> dict[str, float]:
    """Send a file so often; what it took."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await send(path)

    before_kib, before, began = (
        peak_kib(is_reset=True),
        resource.getrusage(resource.RUSAGE_SELF),
        time.perf_counter(),
    )
    await asyncio.gather(*(work() for _ in range(at_once)))
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "grew_kib": peak_kib() - before_kib}


async def main(name: str) -> None:
    """Open, then do what each line asks for."""
    loop = asyncio.get_running_loop()
    url = json.loads(sys.stdin.readline())["url"]
    async with AsyncExitStack() as stack:
        makers = {"ours": ours, "aiogram": aiogram, "ptb": ptb}
        send = await makers[name.partition("-")[0]](stack, url, name)
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            took = await measured(send, Path(order["path"]), order["count"], order["at_once"])
            print(json.dumps(took), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
