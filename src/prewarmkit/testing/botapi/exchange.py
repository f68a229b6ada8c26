"""One HTTP request to the Bot API server and its answer: limits, faults, bodies, addresses, and then the method.

It owns the lock around the state; it knows no Bot API method and no socket but the one that a fault resets. The token is part
of every path, so no request line is ever logged.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import ClientError, web
from attrs import define, field

from prewarmkit.testing.botapi.answers import Answer, error, nginx_page, refusal
from prewarmkit.testing.botapi.faults import Fault
from prewarmkit.testing.botapi.forms import BadForm, BodyTooLarge, Form, ReceivedFile, read_form
from prewarmkit.testing.botapi.gates import PAUSE_SECONDS, Gates
from prewarmkit.testing.botapi.limits import FloodWait
from prewarmkit.testing.botapi.materials import Web, is_local_path, read_local
from prewarmkit.testing.botapi.methods import Methods
from prewarmkit.testing.botapi.query import Query, canonical, references, sends_media
from prewarmkit.testing.botapi.state import State
from prewarmkit.testing.botapi.urls import CURL_FAILED, is_url, why_not_asked
from prewarmkit.testing.botapi.values import Call
from prewarmkit.testing.served import reset

__all__ = ["Exchange"]


class _Reset(Exception):
    """A fault resets the connection here."""


@define(kw_only=True, eq=False)
class Exchange:
    """How requests are answered.

    Attributes:
        state: What is known; touched under `lock` only.
        lock: Held by whoever looks at the state or changes it.
        methods: What the methods do.
        fetcher: What lies behind addresses.
        limit: Bytes of a whole request body.
        gates: What is held back because of what else is in flight.
        clock: Seconds, for the journal.
        sleep: How the gates wait.
        aborted: Requests whose client went away before the body was complete.
    """

    state: State
    lock: threading.RLock
    methods: Methods
    fetcher: Web
    limit: int
    gates: Gates
    clock: Callable[[], float] = field(repr=False)
    sleep: Callable[[float], Awaitable[object]] = field(repr=False)
    aborted: int = field(default=0, init=False)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        try:
            answer = await self._answer(request)
        except _Reset:
            return _reset(request)
        except (ClientError, ConnectionError):
            self.aborted += 1  # nobody is left to answer; the request had no effect
            return web.Response(status=400)  # goes nowhere, and quietly
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
        if request.content_length is not None and request.content_length > self.limit:
            return self._called(method, token, None, nginx_page(413))
        with self.lock:
            fault = self.state.take_fault(method, sends_media=sends_media(method), chat_id=None)
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
        if fault is None:
            chat_id = form.fields.get("chat_id", "")
            with self.lock:
                fault = self.state.take_fault(method, sends_media=sends_media(method), chat_id=chat_id)
        return await self._read(request, method, token, form, fault)

    async def _read(
        self, request: web.Request, method: str, token: str, form: Form, fault: Fault | None
    ) -> Answer:
        """Go on with a request whose body is here: through the gates, with what lies behind its addresses."""
        with self.lock:
            bot_id = self.state.bot(token)
        if bot_id is None:
            return self._carried_out(request, method, token, form, fault, {})
        size = sum(file.size for file in form.files.values())
        chat_id = form.fields.get("chat_id")
        try:
            with self.lock:
                self.gates.enter(bot_id, size)
        except FloodWait as flood:
            await self.sleep(PAUSE_SECONDS)
            return self._called(method, token, chat_id, self.methods.flooded(flood))
        try:
            if fault is not None:
                await asyncio.sleep(fault.delay_seconds)
            if fault is not None and fault.refuses:
                return self._carried_out(request, method, token, form, fault, {})
            with self.lock:
                seconds = self.gates.brake(bot_id, size)
            if seconds:
                await self.sleep(seconds)
            materials = await self._materials(method, form)
            return await self._patiently(
                lambda: self._carried_out(request, method, token, form, fault, materials)
            )
        except FloodWait as flood:
            answer = self._called(method, token, chat_id, self.methods.flooded(flood))
            if fault is not None and fault.reset_before_answer:
                raise _Reset from None
            return answer
        finally:
            with self.lock:
                self.gates.leave(bot_id, size)

    async def _patiently(self, carry_out: Callable[[], Answer]) -> Answer:
        """Sit a short flood out, as the server does for bots."""
        limits = self.methods.sending.floods.limits
        patience = 0.0 if limits is None else limits.patience_seconds
        while True:
            try:
                return carry_out()
            except FloodWait as flood:
                if flood.wait > patience:
                    raise
                patience -= flood.wait
                wait = flood.wait
            await self.sleep(wait)

    async def _form(self, request: web.Request, fault: Fault | None) -> Form:
        breaks_at = None if fault is None else fault.reset_after_bytes

        def watch(total: int) -> None:
            if breaks_at is not None and total >= breaks_at:
                raise _Reset

        watch(0)
        form = await read_form(request, limit=self.limit, on_file_bytes=watch)
        if breaks_at is not None:
            raise _Reset  # the file was shorter than that
        return form

    async def _materials(self, method: str, form: Form) -> dict[str, ReceivedFile | str]:
        """What lies behind the addresses and paths of a request."""
        found: dict[str, ReceivedFile | str] = {}
        for asked, reference in references(method, form):
            if is_url(reference):
                why = why_not_asked(asked, reference)
                found[reference] = why or await self.fetcher.fetch(reference) or CURL_FAILED
            elif is_local_path(reference) and self.methods.sending.local:
                found[reference] = await asyncio.to_thread(read_local, reference)
        return found

    def _carried_out(
        self,
        request: web.Request,
        method: str,
        token: str,
        form: Form,
        fault: Fault | None,
        materials: Mapping[str, ReceivedFile | str],
    ) -> Answer:
        """What the request leads to once all of it is here; nothing of it is undone by a lost client."""
        chat_id = form.fields.get("chat_id")
        with self.lock:
            bot_id = self.state.bot(token)
            if bot_id is None:
                return self._called(method, token, chat_id, error(401, "Unauthorized"))
            if fault is not None and fault.refuses:
                answer = refusal(fault)
            else:
                query = Query(
                    method=canonical(method),
                    bot_id=bot_id,
                    form=form,
                    materials=materials,
                    content_length=request.content_length,
                    transfer_encoding=request.headers.get("Transfer-Encoding"),
                    fault=fault,
                )
                answer = self.methods.answer(query)
            if fault is not None and fault.reset_before_answer:
                raise _Reset
            return self._called(method, token, chat_id, answer)

    def _called(self, method: str, token: str, chat_id: str | None, answer: Answer) -> Answer:
        with self.lock:
            call = Call(
                method=canonical(method),
                bot_id=self.state.bot(token),
                chat_id=chat_id,
                status=answer.status,
                at=self.clock(),
            )
            self.state.calls.append(call)
        return answer


def _target(path: str) -> tuple[str, str] | tuple[None, str]:
    """The token and the method of a path."""
    if not path.startswith("/bot"):
        return None, ""
    token, slash, method = path.removeprefix("/bot").partition("/")
    return (token, method.strip("/")) if slash and method else (None, "")


def _reset(request: web.Request) -> web.StreamResponse:
    reset(request)
    return web.Response(status=500)  # goes nowhere
