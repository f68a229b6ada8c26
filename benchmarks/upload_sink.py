"""A Bot API server that takes uploads of any size and costs next to nothing: ``python upload_sink.py``.

It reads a request's body without keeping it, counts the bytes, and answers as if they were a document; a body that is
not as long as it said, or whose last boundary is missing, is never answered. It prints its address once it
serves, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

_ROOM = 256 * 1024
_BOT = {"id": 123456, "is_bot": True, "first_name": "bot", "username": "a_bot"}
_FILE = {
    "file_id": "F1",
    "file_unique_id": "U1",
    "file_name": "a.bin",
    "mime_type": "application/octet-stream",
}
_MESSAGE = {
    "message_id": 7,
    "date": int(time.time()),
    "chat": {"id": -1001, "type": "supergroup", "title": "warm-up"},
    "from": _BOT,
    "document": _FILE,
}


def _answer(result: object) -> bytes:
    body = json.dumps({"ok": True, "result": result}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_SENT, _ME = _answer(_MESSAGE), _answer(_BOT)


class Connection(asyncio.BufferedProtocol):
    """A client's connection: one request after another, with a Content-Length or in chunks."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._room = bytearray(_ROOM)
        self._view = memoryview(self._room)
        self._head = b""
        self._left = 0  # of a body with a length
        self._is_chunked = False
        self._is_upload = True
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The same room each time: nothing is kept."""
        del sizehint
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Count what came."""
        data = self._view[:nbytes]
        if not self._left and not self._is_chunked:
            self._head += bytes(data)
            head, mark, rest = self._head.partition(b"\r\n\r\n")
            if not mark:
                return
            self._head = b""
            self._begin(head.lower())
            data = memoryview(rest)
        self._count(data)

    def _begin(self, head: bytes) -> None:
        _, _, length = head.partition(b"content-length:")
        self._is_chunked = b"transfer-encoding: chunked" in head
        self._left = 0 if self._is_chunked else int(length.partition(b"\r\n")[0] or 0)
        self._tail = b""
        self._is_upload = b"/getme " not in head

    def _count(self, data: memoryview) -> None:
        assert self._transport is not None
        self._tail = (self._tail + bytes(data[-16:]))[-16:]
        if self._is_chunked:
            if self._tail.endswith(b"\r\n0\r\n\r\n"):
                self._is_chunked = False
                self._transport.write(_SENT)
            return
        self._left -= len(data)
        if not self._is_upload and not self._left:
            self._transport.write(_ME)
        elif not self._left and self._tail.rstrip(b"\r\n").endswith(b"--"):
            self._transport.write(_SENT)


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
