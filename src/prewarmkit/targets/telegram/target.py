"""`TelegramTarget`: pushes a medium to a warmup chat once, and keeps the ``file_id``.

Owns the order of the steps. What each step knows is in the modules beside it; queues,
rows and retries are the pool's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Self, cast

from attrs import frozen

from prewarmkit.errors import (
    BadHandle,
    ConfigurationError,
    RateLimited,
    RouteUnfit,
    Transient,
    TransportError,
)
from prewarmkit.media import Handle, Media, Warmed
from prewarmkit.sources.base import MediaSource, opened
from prewarmkit.targets.base import Services, source_failures
from prewarmkit.targets.telegram.albums import Albums
from prewarmkit.targets.telegram.answers import Answer
from prewarmkit.targets.telegram.calls import BotApi, deadline_of
from prewarmkit.targets.telegram.chats import ChatPool
from prewarmkit.targets.telegram.failures import Verdict, classify, failure_of
from prewarmkit.targets.telegram.keeper import ChatKeeper, ChatResolver, checked_chats
from prewarmkit.targets.telegram.limits import RateLimits
from prewarmkit.targets.telegram.memory import Memory
from prewarmkit.targets.telegram.methods import LOCAL_MAX_BYTES, METHODS, check_size
from prewarmkit.targets.telegram.references import Finder, Lender, PublicUrl, checked_public_url
from prewarmkit.targets.telegram.routes import ROUTES
from prewarmkit.targets.telegram.slots import Slots
from prewarmkit.targets.telegram.uploads import Uploads
from prewarmkit.transports.base import Transport

__all__ = ["Sent", "TelegramTarget"]

_logger = logging.getLogger("prewarmkit.targets")
_API_BASE = "https://api.telegram.org"
_MOST_BYTES = max(method.max_bytes for method in METHODS.values())


@frozen
class Sent:
    """A delivery that arrived.

    Attributes:
        chat_id: Where.
        message_id: The message; with `chat_id` it can be edited, forwarded or deleted.
    """

    chat_id: int | str
    message_id: int


class TelegramTarget:
    """A bot that warms media by sending them to chats of its own.

    Args:
        token: As @BotFather gives it; it is kept out of every message, event and row.
        warmup_chats: Ids of chats that the bot may post to: positive for a private chat, else a
            group or channel. More chats warm more media a minute. Keep them small, and free of users.
            Or an async function that gives them; its answer holds five minutes.
        api_base: The Bot API server.
        route: How media get there. ``"auto"``: by a public address where Telegram fetches one of that kind,
            size and type, else by their bytes; what fails by its address goes by its bytes at once, and
            that address is not sent again. ``"presigned"``: the same, and presigned addresses count.
            ``"multipart"``, ``"url"``, ``"local"``: that way alone, and `RouteUnfit` where it cannot be.
        public_url: Where media are public: a base URL that keys are put under, or a function of a medium
            that gives an address or ``None``. Left out, the source is asked (`MediaSource.url`).
        local: Whether ``api_base`` is a server of one's own, started with ``--local``, that reads the files
            of this machine: files go as ``file://``, and 2000 MB may.
        forward_from: Gives another bot's handle of the same medium, or ``None``: its message is forwarded, and
            no bytes are sent. Both bots must be in that chat. Never tried against the live service.
        albums: Whether media that are warmed at the same time go as albums of up to ten, each item of which counts as
            a message. What goes wrong with an album goes on as single media.
        weak: Must be ``None``: what happens to weak handles is set in one place, ``PoolSettings.weak``.
        budget: How often to send; ``None`` sets no limits of ours. A 429 is obeyed either way.
        transport: To send by; used, never closed. ``None``: one of its own, made on entering.

    `bind` lends it a pool's shared budget; without a pool it counts for itself, from its entering on.
    """

    def __init__(
        self,
        token: str,
        *,
        warmup_chats: Iterable[int] | ChatResolver,
        api_base: str = _API_BASE,
        route: str = "auto",
        public_url: PublicUrl | None = None,
        local: bool = False,
        forward_from: Lender | None = None,
        albums: bool = False,
        weak: None = None,
        budget: RateLimits | None = RateLimits(),  # noqa: B008 - frozen
        transport: Transport | None = None,
    ) -> None:
        if route not in ROUTES:
            raise ConfigurationError(f"route {route!r} is not available: use one of {', '.join(ROUTES)}.")
        if cast("object", weak) is not None:
            raise ConfigurationError("weak must be None here: set PoolSettings.weak, the one place for it.")
        if cast("object", budget) is not None and not isinstance(cast("object", budget), RateLimits):
            raise ConfigurationError(f"budget must be RateLimits or None, not {type(budget).__name__}.")
        self._api = BotApi(token, api_base)
        if local and self._api.is_hosted:
            raise ConfigurationError(
                "local=True needs api_base: Telegram's own server reads no files of ours."
            )
        if route == "local" and not local:
            raise ConfigurationError(
                "route 'local' needs local=True, and api_base: a server started with --local."
            )
        self._route = route
        self._is_local = local
        resolver = warmup_chats if callable(warmup_chats) else None
        chats = () if callable(warmup_chats) else checked_chats(warmup_chats)
        self._slots = Slots(budget, ChatPool(chats))
        self._keeper = ChatKeeper(self.id, self._slots, resolver)
        self._memory = Memory()
        self._finder = Finder(
            route=route,
            memory=self._memory,
            public_url=checked_public_url(public_url),
            is_local=local,
            lender=forward_from,
        )
        self._uploads = Uploads(self._api, self._keeper, self._memory, local)
        self._albums = Albums(self._api, self._keeper, self._memory) if albums else None
        self._given = transport
        self._transport = transport
        self._exits: AsyncExitStack | None = None
        self._services: Services | None = None

    def __repr__(self) -> str:
        chats = len(self._slots.chats)
        return f"TelegramTarget(id={self.id!r}, warmup_chats={chats}, route={self._route!r})"

    @property
    def id(self) -> str:
        """The bot's number, which file ids belong to."""
        return self._api.bot_id

    async def __aenter__(self) -> Self:
        if self._exits is not None:
            raise RuntimeError(f"{self!r} is entered already: enter it once, and share it.")
        async with AsyncExitStack() as stack:
            if self._given is None:
                from prewarmkit.transports.direct import DirectTransport

                self._transport = await stack.enter_async_context(
                    # A server that is passing 50 MB on is silent for long; the deadline of each call bounds it.
                    DirectTransport(
                        stall_timeout=deadline_of(LOCAL_MAX_BYTES if self._is_local else _MOST_BYTES)
                    )
                )
            if self._services is None:
                # Its clock is the event loop's, and this may be another loop than last time.
                self._slots.use(self._slots.own_budget())
            self._keeper.begin()
            self._exits = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        stack, self._exits, self._transport = self._exits, None, self._given
        if stack is not None:
            await stack.aclose()

    def bind(self, services: Services) -> None:
        """Share a pool's budget, and remember in its store which chats moved, and what failed by its address."""
        self._services = services
        self._slots.use(services.budget)
        self._keeper.bind(services)
        self._memory.state = services.state

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        """Send ``media`` to a warmup chat and return its ``file_id``.

        See `prewarmkit.targets.WarmTarget.warm`.
        """
        transport = self._connected()
        await self._keeper.refresh()
        self._slots.check()
        reference = await self._finder.find(media, source)
        if reference is not None:
            try:
                async with self._slots.sending() as chat_id:
                    return await self._uploads.by_reference(transport, media, reference, chat_id=chat_id)
            except RouteUnfit:
                if self._finder.is_forced:
                    raise
        elif self._albums is not None and (album := await self._albums.warm(transport, media, source)):
            return album
        return await self._by_bytes(transport, media, source)

    async def _by_bytes(self, transport: Transport, media: Media, source: MediaSource) -> Warmed:
        warmed: Warmed | None = None
        try:
            async with AsyncExitStack() as stack:
                with source_failures(media.key):
                    reader = await stack.enter_async_context(opened(source, media))
                check_size(media, reader.info.size, is_local=self._is_local)
                async with self._slots.sending() as chat_id:
                    warmed = await self._uploads.by_bytes(transport, media, reader, chat_id=chat_id)
        except Exception as error:
            if warmed is None:
                raise
            # The message stands in the chat: raising now would lose the handle and send it again.
            _logger.warning("The source of %r could not be closed (%s).", media.key, type(error).__name__)
        if warmed is None:  # a source whose context swallows errors
            raise Transient(f"The source of {media.key!r} hid why it was not uploaded.", outcome_unknown=True)
        return warmed

    async def send(self, chat_id: int | str, handle: Handle) -> Sent:
        """Deliver a warm medium by its ``file_id``, as the kind that it was delivered as.

        Args:
            chat_id: A chat's id, or a public channel's ``@name``.
            handle: What `PrewarmPool.lookup`, `warm` or `require` gave.

        Raises:
            BadHandle: Telegram refuses the handle: pass it to `PrewarmPool.invalidate`.
            RateLimited: The chat, or the bot, takes nothing for longer than is waited here.
            ChatDead: The chat does not take messages from the bot.
            Moved: The chat has another id now.
            TargetFailure: Anything else that went wrong.
        """
        transport = self._connected()
        self._check_delivery(chat_id, handle)
        method = METHODS[handle.kind]
        await self._slots.take_in(chat_id)
        fields = {"chat_id": str(chat_id), method.field: handle.value}
        try:
            answer = await self._api.post_form(transport, method.name, fields)
        except TransportError as error:
            raise Transient(f"No answer from Telegram: {error}", error.request_sent) from error
        what = f"the handle of {handle.key!r}"
        if answer.ok:
            return _sent(answer, chat_id, what)
        if classify(answer) is Verdict.BAD_HANDLE:
            raise BadHandle(
                f"Telegram refuses {what}: pass it to pool.invalidate() ({answer.description}).", handle
            )
        failure = failure_of(answer, what=what, chat_id=chat_id)
        if isinstance(failure, RateLimited):
            await self._slots.limited(chat_id, failure.retry_after)
        raise failure

    def _connected(self) -> Transport:
        if self._transport is None:
            raise ConfigurationError(
                f"{self!r} is not entered: use `async with` before the pool enters, or give it transport=."
            )
        return self._transport

    def _check_delivery(self, chat_id: object, handle: object) -> None:
        if not isinstance(chat_id, int | str) or isinstance(chat_id, bool) or not chat_id:
            raise TypeError(f"chat_id is a chat's number or @name, not {chat_id!r}.")
        if not isinstance(handle, Handle):
            raise TypeError(f"handle is a Handle from the pool, not {type(handle).__name__}.")
        if handle.target != self.id:
            raise ValueError(
                f"handle is bot {handle.target!r}'s, and a file_id works for its own bot only: "
                f"look the medium up for target {self.id!r}."
            )
        if not handle.value:
            raise BadHandle(f"The handle of {handle.key!r} is empty: pass it to pool.invalidate().", handle)


def _sent(answer: Answer, chat_id: int | str, what: str) -> Sent:
    message = answer.message or {}
    message_id = message.get("message_id")
    if not isinstance(message_id, int):
        raise Transient(f"Telegram answered with no message for {what}.", outcome_unknown=True)
    chat = message.get("chat")
    stated = cast("dict[str, Any]", chat).get("id") if isinstance(chat, dict) else None
    return Sent(stated if isinstance(stated, int) else chat_id, message_id)
