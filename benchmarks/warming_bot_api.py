"""A Bot API server that costs next to nothing: ``python warming_bot_api.py`` (what there will be, as JSON).

The project's own one takes a form apart as it comes, hashes it, remembers every call and can fail on
demand: some 2 ms of CPU an upload, on the two cores that it shares with its clients, so it would be the bound of
the faster side. This one reads a whole request into one buffer, compares the file with the medium that its name
says, and answers what the other would answer, made beforehand. Other bytes get a 400.

It prints its address once it serves, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import warming_side as side
from warming_media import upload_of

from prewarmkit.testing.botapi.answers import chat_object, media_fields, user_object

ROOM = 1024 * 1024
_HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_REFUSAL = (
    b'{"ok":false,"error_code":400,"description":"Bad Request: these are not the bytes of that medium"}'
)


def answers(orders: list[side.Order]) -> dict[bytes, tuple[bytes, bytes]]:
    """By file name: the key, and the answer with a place for the message's number."""
    found: dict[bytes, tuple[bytes, bytes]] = {}
    for order in orders:
        for keys in order.slices():
            for key in keys:
                upload = upload_of(key)
                message = {
                    "message_id": 0,
                    "from": user_object(upload.bot_id),
                    "chat": chat_object(upload.chat_id),
                    "date": int(time.time()),
                    **media_fields(upload),
                }
                text = json.dumps({"ok": True, "result": message}).encode()
                assert b"%" not in text
                text = text.replace(b'"message_id": 0', b'"message_id": %d', 1)
                found[upload.filename.encode()] = key.encode(), text
    return found


class Connection(asyncio.BufferedProtocol):
    """A client's connection: one request after another, each read whole."""

    messages = 0

    def __init__(self, known: dict[bytes, tuple[bytes, bytes]]) -> None:
        self._known = known
        self._transport: asyncio.Transport | None = None
        self._room = bytearray(ROOM)
        self._view = memoryview(self._room)
        self._filled = 0
        self._begin()

    def _begin(self) -> None:
        self._filled = 0
        self._body_at = 0  # 0: the head is not whole
        self._end = 0  # 0: not known yet
        self._chunk_at = 0  # where the next chunk's size is; 0: it comes in one piece
        self._chunks: list[memoryview] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """All the room that is left."""
        del sizehint
        # Empty for a request that is too large, which ends the connection.
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """See how far the request has come."""
        self._filled += nbytes
        if not self._body_at:
            self._read_head()
        if self._chunk_at:
            self._read_chunks()
        if self._end and self._filled >= self._end:
            self._answer()

    def _read_head(self) -> None:
        at = self._room.find(b"\r\n\r\n", 0, self._filled)
        if at < 0:
            return
        self._body_at = at + 4
        for line in self._room[:at].lower().split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name == b"content-length":
                self._end = self._body_at + int(value)
            elif name == b"transfer-encoding":
                self._chunk_at = self._body_at

    def _read_chunks(self) -> None:
        while not self._end:
            at = self._room.find(b"\r\n", self._chunk_at, self._filled)
            if at < 0:
                return
            begin = at + 2
            end = begin + int(self._room[self._chunk_at : at], 16)
            if self._filled < end + 2:
                return
            if begin == end:
                self._end = end + 2
                return
            self._chunks.append(self._view[begin:end])
            self._chunk_at = end + 2

    def _answer(self) -> None:
        # A piece that came whole is compared where it lies; chunks are put together first.
        body = bytearray().join(self._chunks) if self._chunks else self._room
        text = self._judged(body, 0 if self._chunks else self._body_at)
        status, text = (b"200 OK", text) if text else (b"400 Bad Request", _REFUSAL)
        assert self._transport is not None
        self._transport.write(_HEAD % (status, len(text), text))
        self._begin()

    def _judged(self, body: bytearray, at: int) -> bytes | None:
        """The answer to this form, if its file is what its name says."""
        boundary = body[at : body.index(b"\r\n", at)]
        name_at = body.index(b'filename="', at) + 10
        known = self._known.get(bytes(body[name_at : body.index(b'"', name_at)]))
        if known is None:
            return None
        key, text = known
        content = side.content_of(key.decode())
        file_at = body.index(b"\r\n\r\n", name_at) + 4
        if not body.startswith(content, file_at) or not body.startswith(
            b"\r\n" + boundary, file_at + len(content)
        ):
            return None
        Connection.messages += 1
        return text % Connection.messages


async def serve(known: dict[bytes, tuple[bytes, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(known), "127.0.0.1", 0)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(answers([side.Order(**order) for order in json.loads(sys.argv[1])])))
