"""`BotApiServer`: the HTTP side. It owns the socket, the thread, the lock and the limits, and knows no Bot API method.

The server runs in a thread with an event loop of its own, so that asyncio, trio and plain tests use it alike. The token is
part of every path, so no request line is ever logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

from aiohttp import ClientError, web

from prewarmkit.testing.botapi.answers import Answer, error, nginx_page, refusal
from prewarmkit.testing.botapi.forms import BadForm, BodyTooLarge, Form, read_form
from prewarmkit.testing.botapi.journal import Journal
from prewarmkit.testing.botapi.methods import Methods, Query, canonical, sends_media
from prewarmkit.testing.botapi.state import State
from prewarmkit.testing.botapi.values import FAKE_BOT, Call, Fault, Send, Upload
from prewarmkit.testing.lifespan import Lifespan

__all__ = ["BODY_LIMIT", "LOCAL_BODY_LIMIT", "BotApiServer"]

BODY_LIMIT = 50 * 1024 * 1024
"""Bytes of a whole request body; the proxy before the hosted server counts the form around a file too."""

LOCAL_BODY_LIMIT = 2000 * 1024 * 1024 + 1024 * 1024
"""With ``local=True``: a file of 2000 MB and its parameters."""

_HOST = "127.0.0.1"
_STOP_SECONDS = 10


class _Reset(Exception):
    """A fault resets the connection here."""


class BotApiServer(Lifespan):
    """A Bot API server on this machine, over real HTTP, that keeps what it got and can be told to fail.

    Use it as ``with`` or as ``async with``; it may be started once. It has getMe, getFile, deleteMessage(s) and every
    ``send…`` method of one medium, by multipart upload and by ``file_id``; no URL can be fetched, no file downloaded.

    Args:
        token: The first bot's token.
        port: 0 takes a free one.
        journal: A file that uploads are appended to, and read from at the start: handles outlive the process.
        local: Behave as a server that was started with ``--local``: 2000 MB instead of 50.
        known_chats: The only chats there are (ids, or names with their ``@``); ``None``: every id is a chat.
        strict_images: Refuse a photo whose bytes are no PNG, JPEG, GIF or WebP, as the live server does. Left out, such bytes are
            answered as a photo of guessed size.
    """

    def __init__(
        self,
        *,
        token: str = FAKE_BOT,
        port: int = 0,
        journal: Path | str | None = None,
        local: bool = False,
        known_chats: Iterable[int | str] | None = None,
        strict_images: bool = False,
    ) -> None:
        chats = None if known_chats is None else frozenset(known_chats)
        self._state = State(known_chats=chats)
        self.token = token
        self.bot_id = self._state.add_bot(token)
        self._port = port
        self._limit = LOCAL_BODY_LIMIT if local else BODY_LIMIT
        self._journal = None if journal is None else Journal(Path(journal))
        self._methods = Methods(
            state=self._state, record=self._record, clock=time.time, strict_images=strict_images
        )
        self._lock = threading.RLock()
        self._ready: Future[int] = Future()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._bug: Exception | None = None
        self._aborted = 0

    def __repr__(self) -> str:
        return f"<BotApiServer bot_id={self.bot_id}>"

    # ── life ─────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Read the journal, bind the port, and return when requests are served."""
        if self._thread is not None:
            raise RuntimeError("A BotApiServer is started once: make another.")
        if self._journal is not None:
            for upload in self._journal.open():
                self._state.keep(upload)
        self._thread = threading.Thread(target=self._run, name="bot-api-server", daemon=True)
        self._thread.start()
        try:
            self._port = self._ready.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close every connection and the port, and end the thread.

        Raises:
            Exception: A request met a bug of this server; it was answered by 500, and is raised here.
        """
        if self._loop is not None and self._stop is not None:
            # The loop is closed already where the thread failed on its own.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                raise RuntimeError(f"The Bot API server did not stop within {_STOP_SECONDS} seconds.")
        if self._journal is not None:
            self._journal.close()
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug

    def _open(self) -> None:
        self.start()

    def _close(self) -> None:
        self.stop()

    # ── what a test sees and sets; any thread ────────────────────────────────

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, to be given as the API's base."""
        if not self._ready.done():
            raise RuntimeError("The Bot API server has no address yet: enter it first.")
        return f"http://{_HOST}:{self._port}"

    @property
    def received(self) -> list[Upload]:
        """Uploads that were received whole and carried out since the start, oldest first: a copy."""
        with self._lock:
            return list(self._state.received)

    @property
    def sends(self) -> list[Send]:
        """Sends by ``file_id`` since the start, oldest first: a copy."""
        with self._lock:
            return list(self._state.sends)

    @property
    def calls(self) -> list[Call]:
        """Every answered request since the start, oldest first: a copy."""
        with self._lock:
            return list(self._state.calls)

    @property
    def aborted(self) -> int:
        """Requests whose client went away before the body was complete."""
        return self._aborted

    @property
    def pending_faults(self) -> tuple[Fault, ...]:
        """Faults that no request has met yet."""
        with self._lock:
            return self._state.pending_faults

    def fail(self, *faults: Fault) -> None:
        """Queue faults: each request takes the first that matches it."""
        with self._lock:
            self._state.fail(faults)

    def add_bot(self, token: str) -> int:
        """Know another bot, or one again whose token was revoked; returns its id."""
        with self._lock:
            return self._state.add_bot(token)

    def revoke(self, token: str | None = None) -> None:
        """Answer this token (the first bot's where none is given) with 401 from now on."""
        with self._lock:
            self._state.revoke(self.token if token is None else token)

    def kick(self, chat_id: int) -> None:
        """Answer sends to this chat with 403."""
        with self._lock:
            self._state.kick(chat_id)

    def invite(self, chat_id: int) -> None:
        """Undo `kick`."""
        with self._lock:
            self._state.invite(chat_id)

    def migrate(self, old: int, new: int) -> None:
        """Answer sends to `old` with 400 and ``migrate_to_chat_id``; `new` is a known chat from now on."""
        with self._lock:
            self._state.migrate(old, new)

    def clear(self) -> None:
        """Forget `received`, `sends` and `calls`; handles, messages and faults stay."""
        with self._lock:
            for records in (self._state.received, self._state.sends, self._state.calls):
                records.clear()

    # ── the thread ───────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - handed to whoever waits for the start
            if self._ready.done():
                self._bug = self._bug or RuntimeError(f"The Bot API server's thread died: {failure!r}")
            else:
                self._ready.set_exception(failure)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, _HOST, self._port).start()
            self._ready.set_result(runner.addresses[0][1])
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def _record(self, upload: Upload) -> None:
        if self._journal is not None:
            self._journal.append(upload)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            answer = await self._answer(request)
        except _Reset:
            return _reset(request)
        except (ClientError, ConnectionError):
            self._aborted += 1  # nobody is left to answer; the request had no effect
            return web.Response(status=400)  # goes nowhere, and quietly
        except Exception as bug:
            self._bug = self._bug or bug
            raise
        response = web.Response(
            status=answer.status,
            body=answer.body,
            headers={"Content-Type": answer.content_type, **answer.headers},
        )
        if answer.closes:
            response.force_close()
        return response

    async def _answer(self, request: web.Request) -> Answer:
        token, method = _target(request.path)
        if token is None:
            return error(404, "Not Found")
        if request.content_length is not None and request.content_length > self._limit:
            return self._called(method, token, None, nginx_page(413))
        with self._lock:
            fault = self._state.take_fault(method, sends_media=sends_media(method), chat_id=None)
        if fault is not None and fault.before_body:
            await asyncio.sleep(fault.delay_seconds)
            return self._called(method, token, None, refusal(fault))
        try:
            form = await self._form(request, fault)
        except BodyTooLarge:
            return self._called(method, token, None, nginx_page(413))
        except BadForm as bad:
            closing = error(400, str(bad))
            return self._called(method, token, None, Answer(400, closing.body, closes=True))
        chat_id = form.fields.get("chat_id")
        if fault is None:
            with self._lock:
                fault = self._state.take_fault(method, sends_media=sends_media(method), chat_id=chat_id or "")
        if fault is not None:
            await asyncio.sleep(fault.delay_seconds)
        return self._carried_out(request, method, token, form, fault)

    async def _form(self, request: web.Request, fault: Fault | None) -> Form:
        breaks_at = None if fault is None else fault.reset_after_bytes

        def watch(total: int) -> None:
            if breaks_at is not None and total >= breaks_at:
                raise _Reset

        watch(0)
        return await read_form(request, limit=self._limit, on_file_bytes=watch)

    def _carried_out(
        self, request: web.Request, method: str, token: str, form: Form, fault: Fault | None
    ) -> Answer:
        """What the request leads to once all of it is here; nothing of it is undone by a lost client."""
        if fault is not None and fault.reset_after_bytes is not None:
            raise _Reset  # the file was shorter than that
        chat_id = form.fields.get("chat_id")
        with self._lock:
            bot_id = self._state.bot(token)
            if bot_id is None:
                return self._called(method, token, chat_id, error(401, "Unauthorized"))
            if fault is not None and fault.refuses:
                answer = refusal(fault)
            else:
                query = Query(
                    method=canonical(method),
                    bot_id=bot_id,
                    form=form,
                    content_length=request.content_length,
                    transfer_encoding=request.headers.get("Transfer-Encoding"),
                    fault=fault,
                )
                answer = self._methods.answer(query)
            if fault is not None and fault.reset_before_answer:
                raise _Reset
            return self._called(method, token, chat_id, answer)

    def _called(self, method: str, token: str, chat_id: str | None, answer: Answer) -> Answer:
        with self._lock:
            call = Call(
                method=canonical(method),
                bot_id=self._state.bot(token),
                chat_id=chat_id,
                status=answer.status,
                at=time.monotonic(),
            )
            self._state.calls.append(call)
        return answer


def _target(path: str) -> tuple[str, str] | tuple[None, str]:
    """The token and the method of a path."""
    if not path.startswith("/bot"):
        return None, ""
    token, slash, method = path.removeprefix("/bot").partition("/")
    return (token, method.strip("/")) if slash and method else (None, "")


def _reset(request: web.Request) -> web.StreamResponse:
    """Break the connection off so that the client sees a reset, not an end."""
    transport = request.transport
    if transport is not None:
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)  # goes nowhere
