"""`BotApiServer`: what a test holds in its hands. It owns the socket, the thread and the journal, and answers nothing itself.

The server runs in a thread with an event loop of its own, so that asyncio, trio and plain tests use it alike.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from prewarmkit.testing.botapi.exchange import Exchange
from prewarmkit.testing.botapi.faults import Fault
from prewarmkit.testing.botapi.gates import Gates, HostedGates
from prewarmkit.testing.botapi.journal import Journal
from prewarmkit.testing.botapi.limits import FloodLimits, Floods, most_in_window
from prewarmkit.testing.botapi.materials import URL_CACHE_SECONDS, Web
from prewarmkit.testing.botapi.methods import Methods
from prewarmkit.testing.botapi.sending import Sending
from prewarmkit.testing.botapi.state import State
from prewarmkit.testing.botapi.values import FAKE_BOT, Call, Fetch, Gone, Send, Upload
from prewarmkit.testing.served import HOST, Served, ServedLifespan

__all__ = ["BODY_LIMIT", "LOCAL_BODY_LIMIT", "BotApiServer"]

BODY_LIMIT = 50 * 1024 * 1024
"""Bytes of a whole request body; the proxy before the hosted server counts the form around a file too."""

LOCAL_BODY_LIMIT = 2000 * 1024 * 1024 + 1024 * 1024
"""With ``local=True``: a file of 2000 MB and its parameters."""


class BotApiServer(ServedLifespan):
    """A Bot API server on this machine, over real HTTP, that keeps what it got and can be told to fail.

    Use it as ``with`` or as ``async with``; it may be started once. It has getMe, getFile, deleteMessage(s), every ``send…``
    method of one medium, sendMediaGroup, forwardMessage and copyMessage. Media come by multipart upload, by ``file_id``, by URL
    (which this server fetches itself, from this machine only) and, with ``local``, by ``file://`` path; none can be downloaded.

    Args:
        token: The first bot's token.
        port: 0 takes a free one.
        journal: A file that uploads are appended to, and read from at the start: handles outlive the process.
        local: Behave as a server that was started with ``--local``: 2000 MB instead of 50.
        known_chats: The only chats there are (ids, or names with their ``@``); ``None``: every id is a chat.
        strict_images: Refuse a photo whose bytes are no PNG, JPEG, GIF or WebP, as the live server does. Left out, such bytes are
            answered as a photo of guessed size.
        limits: How many messages are let through; ``None``: all of them.
        gates: Hold requests back as the hosted server does for what else is in flight; never with ``local``. ``None``: do not.
        reaches: Where addresses lead that begin with a key: ``{"https://media.example.org": "http://127.0.0.1:9000/media"}``.
        url_cache_seconds: How long what was found behind a URL stays known, failures included.
        clock: Seconds, for `limits`, the caches and the journal.
        sleep: How the gates wait, in the server's own event loop.
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
        limits: FloodLimits | None = None,
        gates: HostedGates | None = None,
        reaches: Mapping[str, str] | None = None,
        url_cache_seconds: float = URL_CACHE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        chats = None if known_chats is None else frozenset(known_chats)
        self._state = State(known_chats=chats)
        self.token = token
        self.bot_id = self._state.add_bot(token)
        self._journal = None if journal is None else Journal(Path(journal))
        self._lock = threading.RLock()
        self._web = Web(clock=clock, cache_seconds=url_cache_seconds, reaches=dict(reaches or {}))
        sending = Sending(
            state=self._state,
            floods=Floods(limits=limits, clock=clock),
            record=self._record,
            dates=time.time,
            clock=clock,
            strict_images=strict_images,
            local=local,
        )
        self._exchange = Exchange(
            state=self._state,
            lock=self._lock,
            methods=Methods(sending),
            fetcher=self._web,
            limit=LOCAL_BODY_LIMIT if local else BODY_LIMIT,
            gates=Gates(limits=None if local else gates, clock=clock),
            clock=clock,
            sleep=sleep,
        )
        self._served = Served("The Bot API server", self._exchange.handle, port=port, on_end=self._web.close)

    def __repr__(self) -> str:
        return f"<BotApiServer bot_id={self.bot_id}>"

    # ── life ─────────────────────────────────────────────────────────────────

    def _prepare(self) -> None:
        if self._journal is not None:
            for upload in self._journal.open():
                self._state.keep(upload)

    def stop(self) -> None:
        """See `ServedLifespan.stop`; closes the journal."""
        try:
            super().stop()
        finally:
            if self._journal is not None:
                self._journal.close()

    # ── what a test sees and sets; any thread ────────────────────────────────

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, to be given as the API's base."""
        return f"http://{HOST}:{self._served.port}"

    @property
    def messages(self) -> list[Upload | Send]:
        """What was put into chats since the start, oldest first, each item of an album on its own: a copy."""
        with self._lock:
            return list(self._state.journal)

    @property
    def received(self) -> list[Upload]:
        """Of `messages`, those whose bytes came, by whatever route: each is an upload with its SHA-256."""
        return [entry for entry in self.messages if isinstance(entry, Upload)]

    @property
    def sends(self) -> list[Send]:
        """Of `messages`, those without bytes: by ``file_id``, forwards and copies."""
        return [entry for entry in self.messages if isinstance(entry, Send)]

    @property
    def calls(self) -> list[Call]:
        """Every answered request since the start, oldest first: a copy."""
        with self._lock:
            return list(self._state.calls)

    @property
    def fetches(self) -> list[Fetch]:
        """Every URL that was looked at since the start, oldest first, and whether its answer was known already: a copy."""
        with self._lock:
            return list(self._web.fetches)

    def most_sent(self, seconds: float, *, chat_id: int | None = None, bot_id: int | None = None) -> int:
        """The most messages that lie in any one closed window of so many seconds.

        Args:
            seconds: The window's length, by the server's clock.
            chat_id: Only of this chat.
            bot_id: Only of this bot.
        """
        return most_in_window(
            (
                entry.at
                for entry in self.messages
                if chat_id in {None, entry.chat_id} and bot_id in {None, entry.bot_id}
            ),
            seconds,
        )

    @property
    def aborted(self) -> int:
        """Requests whose client went away before the body was complete."""
        return self._exchange.aborted

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

    def kick(self, chat_id: int, why: Gone = "kicked", *, bot_id: int | None = None) -> None:
        """Answer sends to this chat with 403: the bot (every bot where none is named) is thrown out, no member, or it is no more."""
        with self._lock:
            self._state.kick(chat_id, why, bot_id)

    def invite(self, chat_id: int) -> None:
        """Undo `kick`."""
        with self._lock:
            self._state.invite(chat_id)

    def migrate(self, old: int, new: int) -> None:
        """Answer sends to `old` with 400 and ``migrate_to_chat_id``; `new` is a known chat from now on."""
        with self._lock:
            self._state.migrate(old, new)

    def clear(self) -> None:
        """Forget `messages`, `calls` and `fetches`; handles, chats, limits and faults stay."""
        with self._lock:
            for records in (self._state.journal, self._state.calls, self._web.fetches):
                records.clear()

    def _record(self, upload: Upload) -> None:
        if self._journal is not None:
            self._journal.append(upload)
