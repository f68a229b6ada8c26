"""`TelegramTarget`: pushes a medium to a warmup chat once, and keeps the ``file_id``.

Owns the order of the steps. What each step knows is in the modules beside it; queues,
rows and retries are the pool's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Self, cast

from attrs import frozen

from prewarmkit.errors import (
    BadHandle,
    ChatDead,
    ConfigurationError,
    Moved,
    RateLimited,
    TargetDown,
    TargetFailure,
    Transient,
    TransportError,
)
from prewarmkit.media import Handle, Media, Warmed
from prewarmkit.sources.base import MediaReader, MediaSource
from prewarmkit.targets.base import Services, source_failures
from prewarmkit.targets.telegram.answers import Answer
from prewarmkit.targets.telegram.body import UploadBody
from prewarmkit.targets.telegram.calls import BotApi, deadline_of
from prewarmkit.targets.telegram.chats import DEAD_CHAT_REST_SECONDS, ChatPool
from prewarmkit.targets.telegram.events import ChatHeld, ChatLeft, ChatMoved
from prewarmkit.targets.telegram.failures import Verdict, classify, failure_of
from prewarmkit.targets.telegram.handles import pick
from prewarmkit.targets.telegram.limits import RateLimits
from prewarmkit.targets.telegram.methods import METHODS, check_size, content_type_of, filename_of
from prewarmkit.targets.telegram.multipart import frame
from prewarmkit.targets.telegram.slots import Slots
from prewarmkit.transports.base import Transport

__all__ = ["Sent", "TelegramTarget"]

_logger = logging.getLogger("prewarmkit.targets")
_API_BASE = "https://api.telegram.org"
_ROUTES = ("auto", "multipart")
_MOST_MOVES = 16
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
        api_base: The Bot API server.
        route: How bytes get there: ``"multipart"``, or ``"auto"``, which picks a way that fits.
        weak: Must be ``None``: what happens to weak handles is set in one place, ``PoolSettings.weak``.
        budget: How often to send; ``None`` sets no limits of ours. A 429 is obeyed either way.
        transport: To send by; used, never closed. ``None``: one of its own, made on entering.

    `bind` lends it a pool's shared budget; without a pool it counts for itself, from its entering on.
    """

    def __init__(
        self,
        token: str,
        *,
        warmup_chats: Iterable[int],
        api_base: str = _API_BASE,
        route: str = "auto",
        weak: None = None,
        budget: RateLimits | None = RateLimits(),  # noqa: B008 - frozen
        transport: Transport | None = None,
    ) -> None:
        if route not in _ROUTES:
            raise ConfigurationError(f"route {route!r} is not available: use one of {', '.join(_ROUTES)}.")
        if cast("object", weak) is not None:
            raise ConfigurationError("weak must be None here: set PoolSettings.weak, the one place for it.")
        if cast("object", budget) is not None and not isinstance(cast("object", budget), RateLimits):
            raise ConfigurationError(f"budget must be RateLimits or None, not {type(budget).__name__}.")
        self._api = BotApi(token, api_base)
        self._route = route
        self._slots = Slots(budget, ChatPool(_checked_chats(warmup_chats)))
        self._given = transport
        self._transport = transport
        self._exits: AsyncExitStack | None = None
        self._services: Services | None = None
        self._moves_are_read = False

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
                    DirectTransport(stall_timeout=deadline_of(_MOST_BYTES))
                )
            if self._services is None:
                # Its clock is the event loop's, and this may be another loop than last time.
                self._slots.use(self._slots.own_budget())
            self._exits = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        stack, self._exits, self._transport = self._exits, None, self._given
        if stack is not None:
            await stack.aclose()

    def bind(self, services: Services) -> None:
        """Share a pool's budget, and remember moved chats in its store."""
        self._services = services
        self._slots.use(services.budget)
        self._moves_are_read = False

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        """Upload ``media`` to a warmup chat and return its ``file_id``.

        See `prewarmkit.targets.WarmTarget.warm`.
        """
        transport = self._connected()
        await self._read_moves()
        self._slots.check()
        warmed: Warmed | None = None
        try:
            async with AsyncExitStack() as stack:
                with source_failures(media.key):
                    reader = await stack.enter_async_context(source.open(media.key))
                check_size(media, reader.info.size)
                chat_id = await self._slots.take()
                warmed = await self._upload(transport, media, reader, chat_id)
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

    async def _upload(self, transport: Transport, media: Media, reader: MediaReader, chat_id: int) -> Warmed:
        method = METHODS[media.kind]
        info = reader.info
        framing = frame(
            [("chat_id", str(chat_id)), ("disable_notification", "true"), *method.options],
            file_field=method.field,
            filename=filename_of(media, info),
            content_type=content_type_of(media, info),
            boundary=f"prewarmkit-{secrets.token_hex(16)}",
        )
        body = UploadBody(framing, reader, key=media.key, size=info.size, sha256=media.sha256)
        answer, fault = await self._post(transport, method.name, body, framing.content_type)
        if body.failure is not None:
            raise body.failure
        if answer is None or (answer.ok and not body.tail_sent):
            said = "an answer before the upload was whole" if answer else f"no answer from Telegram: {fault}"
            raise Transient(f"{media.key!r}: {said}.", body.tail_sent)
        if not answer.ok:
            raise await self._refused(answer, media, chat_id, may_be_done=body.tail_sent)
        if answer.message is None:
            raise Transient(f"{media.key!r}: Telegram answered with no message.", outcome_unknown=True)
        source = {"etag": info.etag, "sha256": body.sha256}
        return pick(answer.message, asked=media.kind, sent=body.sent, source=source)

    async def _post(
        self, transport: Transport, method: str, body: UploadBody, content_type: str
    ) -> tuple[Answer | None, TransportError | None]:
        try:
            answer = await self._api.post(
                transport, method, body, content_type=content_type, content_length=body.content_length
            )
        except TransportError as error:
            return None, error
        except Exception:
            # The source's own failure, as it was or wrapped by the transport: the caller looks at it.
            if body.failure is None:
                raise
            return None, None
        else:
            return answer, None
        finally:
            await body.aclose()

    async def _refused(
        self, answer: Answer, media: Media, chat_id: int, *, may_be_done: bool
    ) -> TargetFailure:
        failure = failure_of(
            answer,
            what=f"{media.key!r} as {media.kind}",
            chat_id=chat_id,
            limit=METHODS[media.kind].max_bytes,
            may_be_done=may_be_done,
        )
        if isinstance(failure, RateLimited):
            return await self._limited(failure, chat_id)
        if isinstance(failure, Moved):
            await self._moved(chat_id, int(failure.new_id))
        elif isinstance(failure, ChatDead):
            left = self._slots.dead(chat_id)
            self._emit(ChatLeft(target=self.id, chat_id=chat_id, left=left))
            if not left:
                return TargetDown(f"{failure} It was the last warmup chat.", DEAD_CHAT_REST_SECONDS)
        return failure

    async def _limited(self, failure: RateLimited, chat_id: int) -> RateLimited:
        seconds = failure.retry_after
        wait, whole_bot = await self._slots.limited(chat_id, seconds)
        self._emit(ChatHeld(target=self.id, chat_id=chat_id, seconds=seconds, whole_bot=whole_bot))
        # With another chat open the job goes there at once, and the target goes on.
        return RateLimited(str(failure), wait, "target" if whole_bot or wait > 0 else "chat")

    async def _moved(self, old: int, new: int) -> None:
        if self._slots.chats.move(old, new):
            self._emit(ChatMoved(target=self.id, old_id=old, new_id=new))
        if self._services is not None:
            await self._services.state.put(_moved_key(old), str(new))

    async def _read_moves(self) -> None:
        # A migration that any process met holds for all, and after a restart too.
        if self._moves_are_read or self._services is None:
            return
        state = self._services.state
        for first in self._slots.chats.ids:
            chat_id = first
            for _ in range(_MOST_MOVES):
                moved = await state.get(_moved_key(chat_id))
                if moved is None:
                    break
                self._slots.chats.move(chat_id, int(moved))
                chat_id = int(moved)
        self._moves_are_read = True

    def _emit(self, event: object) -> None:
        if self._services is not None:
            self._services.emit(event)


def _moved_key(chat_id: int) -> str:
    return f"moved:{chat_id}"


def _checked_chats(warmup_chats: Iterable[int]) -> tuple[int, ...]:
    if isinstance(warmup_chats, str | bytes) or not isinstance(cast("object", warmup_chats), Iterable):
        raise ConfigurationError(f"warmup_chats must be a list of chat ids, not {warmup_chats!r}.")
    chats = tuple(dict.fromkeys(warmup_chats))
    if not chats:
        raise ConfigurationError("warmup_chats is empty: name at least one chat that the bot may post to.")
    for chat in cast("tuple[object, ...]", chats):
        if not isinstance(chat, int) or isinstance(chat, bool) or chat == 0:
            raise ConfigurationError(f"warmup_chats must hold chat ids (whole numbers), not {chat!r}.")
    return chats


def _sent(answer: Answer, chat_id: int | str, what: str) -> Sent:
    message = answer.message or {}
    message_id = message.get("message_id")
    if not isinstance(message_id, int):
        raise Transient(f"Telegram answered with no message for {what}.", outcome_unknown=True)
    chat = message.get("chat")
    stated = cast("dict[str, Any]", chat).get("id") if isinstance(chat, dict) else None
    return Sent(stated if isinstance(stated, int) else chat_id, message_id)
