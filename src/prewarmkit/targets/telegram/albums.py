"""Albums: several media in one message group, and how a handle finds its own medium again.

Owns the gathering of media that are warmed at the same time, and the rule that an album is never
the only way to a handle: whatever goes wrong with one, each of its media goes on alone.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from types import MappingProxyType
from typing import cast

import anyio
from attrs import define, field

from prewarmkit.errors import PrewarmKitError, TargetDown, TransportError
from prewarmkit.media import Media, MediaKind, ObjectInfo, Warmed
from prewarmkit.sources.base import MediaReader, MediaSource, opened
from prewarmkit.targets.base import source_failures
from prewarmkit.targets.telegram.answers import Answer
from prewarmkit.targets.telegram.body import UploadBody
from prewarmkit.targets.telegram.calls import BotApi
from prewarmkit.targets.telegram.failures import failure_of
from prewarmkit.targets.telegram.handles import pick
from prewarmkit.targets.telegram.keeper import ChatKeeper
from prewarmkit.targets.telegram.memory import Memory
from prewarmkit.targets.telegram.methods import METHODS, content_type_of, filename_of, max_bytes_of
from prewarmkit.targets.telegram.multipart import frame_end, frame_fields, frame_part
from prewarmkit.transports.base import Transport

__all__ = ["GATHER_SECONDS", "MOST_BYTES", "MOST_ITEMS", "AlbumBody", "Albums"]

GATHER_SECONDS = 0.05
"""How long the first medium of an album waits for others."""

MOST_ITEMS = 10
MOST_BYTES = 50 * 1024 * 1024 - 64 * 1024
"""Of all files together: the hosted server's bound is on the whole body, framing included."""

_logger = logging.getLogger("prewarmkit.targets")

# Photos and videos mix; documents and audio keep to themselves; nothing else is taken.
_ROOMS: Mapping[MediaKind, str] = MappingProxyType(
    {
        MediaKind.PHOTO: "seen",
        MediaKind.VIDEO: "seen",
        MediaKind.DOCUMENT: "documents",
        MediaKind.AUDIO: "audio",
    }
)


@define(eq=False)
class _Item:
    media: Media
    source: MediaSource
    size: int
    tag: str  # its caption: answers come in the order of completion, so nothing else tells whose one is
    warmed: Warmed | None = None
    down: TargetDown | None = None


@define(eq=False)
class _Group:
    most: int
    items: list[_Item] = field(factory=list[_Item])
    is_sealed: bool = False  # takes no more; one that is full is sealed
    full: anyio.Event = field(factory=anyio.Event)
    done: anyio.Event = field(factory=anyio.Event)

    def takes(self, item: _Item) -> bool:
        total = sum(each.size for each in self.items) + item.size
        return not self.is_sealed and total <= MOST_BYTES

    def seal(self) -> None:
        self.is_sealed = True
        self.full.set()


@define(eq=False)
class AlbumBody:
    """An async iterator of an album's bytes, readable once.

    Attributes:
        parts: The files, each with its framing.
        failure: Why one of them could not be read on.
        is_whole: Whether the last byte was handed over.
    """

    head: bytes
    parts: Sequence[UploadBody]
    end: bytes
    failure: Exception | None = field(init=False, default=None)
    is_whole: bool = field(init=False, default=False)
    _at: int = field(init=False, default=-1)

    @property
    def content_length(self) -> int:
        """Bytes in the whole body."""
        return len(self.head) + sum(part.content_length for part in self.parts) + len(self.end)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._at < 0:
            self._at = 0
            return self.head
        while self._at < len(self.parts):
            try:
                return await anext(self.parts[self._at])
            except StopAsyncIteration:
                self._at += 1
            except Exception as error:
                self.failure = error
                raise
        if self.is_whole:
            raise StopAsyncIteration
        self.is_whole = True
        return self.end

    async def aclose(self) -> None:
        """Let go of the sources' iterators."""
        for part in self.parts:
            await part.aclose()


@define(eq=False)
class Albums:
    """Gathers media that are warmed at once, and sends them as albums."""

    api: BotApi
    keeper: ChatKeeper
    memory: Memory
    _open: dict[str, _Group] = field(init=False, factory=dict[str, _Group])

    async def warm(self, transport: Transport, media: Media, source: MediaSource) -> Warmed | None:
        """Warm ``media`` beside others.

        Returns:
            ``None``: it is to go alone; nothing of it is known to have arrived.

        Raises:
            TargetFailure: The source has no such object, or the bot as a whole was refused.
        """
        room = _ROOMS.get(media.kind)
        if room is None or self.memory.goes_alone(media):
            return None
        with source_failures(media.key):
            info = await source.head(media.key)
        if not _fits(media, info):
            return None  # what is wrong with it is said where it goes alone
        item = _Item(media, source, info.size, f"prewarmkit-{secrets.token_hex(16)}")
        group = self._open.get(room)
        is_first = group is None or not group.takes(item)
        if group is None or is_first:
            if group is not None:
                group.seal()
            group = self._open[room] = _Group(self._most_items())
        group.items.append(item)
        if len(group.items) == group.most:
            group.seal()
        await (self._lead(transport, room, group) if is_first else self._follow(group, item))
        if item.down is not None:
            raise TargetDown(str(item.down), item.down.retry_after)
        return item.warmed

    def _most_items(self) -> int:
        limits = self.keeper.slots.limits
        return MOST_ITEMS if limits is None else min(MOST_ITEMS, limits.album_items())

    async def _follow(self, group: _Group, item: _Item) -> None:
        try:
            await group.done.wait()
        finally:
            if not group.is_sealed:  # cancelled before it was sent: nobody waits for its handle
                group.items.remove(item)

    async def _lead(self, transport: Transport, room: str, group: _Group) -> None:
        try:
            with anyio.move_on_after(GATHER_SECONDS):
                await group.full.wait()
            group.seal()
            if len(group.items) > 1:
                await self._send(transport, group.items)
        except Exception as error:
            # What is no known failure may be a bug, and nobody else would ever see it.
            told = None if isinstance(error, PrewarmKitError) else error
            _logger.log(
                logging.INFO if told is None else logging.WARNING,
                "An album of %d media was not sent (%s): they go alone.",
                len(group.items),
                type(error).__name__,
                exc_info=told,
            )
        finally:
            group.seal()
            if self._open.get(room) is group:
                del self._open[room]
            group.done.set()

    async def _send(self, transport: Transport, items: Sequence[_Item]) -> None:
        async with AsyncExitStack() as stack:
            # All before the first byte: opened between two, they would be nested into the transport's time limits.
            readers = [await stack.enter_async_context(opened(each.source, each.media)) for each in items]
            chat_id = await stack.enter_async_context(self.keeper.slots.sending(items=len(items)))
            costs = [self.memory.spend(item.media) for item in items]
            body, content_type = _framed(items, readers, chat_id)
            answer = await self._post(transport, body, content_type)
            if answer is None:
                return
            if not answer.ok:
                await self._refused(answer, items, chat_id, may_be_done=body.is_whole)
            elif body.is_whole:
                self._handed_out(answer, items, readers, body, costs)

    async def _post(self, transport: Transport, body: AlbumBody, content_type: str) -> Answer | None:
        try:
            return await self.api.post(
                transport,
                "sendMediaGroup",
                body,
                content_type=content_type,
                content_length=body.content_length,
            )
        except TransportError as error:
            _logger.info("No answer to an album (%s).", error)
            return None
        finally:
            await body.aclose()

    async def _refused(
        self, answer: Answer, items: Sequence[_Item], chat_id: int, *, may_be_done: bool
    ) -> None:
        failure = failure_of(
            answer, what=f"an album of {len(items)} media", chat_id=chat_id, may_be_done=may_be_done
        )
        _logger.info("%s Its media go alone.", failure)
        noted = await self.keeper.note(failure, chat_id)
        # What is wrong with the bot as a whole is not asked again by each of them; a server without this method may be.
        if isinstance(noted, TargetDown) and answer.status != HTTPStatus.NOT_FOUND:
            for item in items:
                item.down = noted

    def _handed_out(
        self,
        answer: Answer,
        items: Sequence[_Item],
        readers: Sequence[MediaReader],
        body: AlbumBody,
        costs: Sequence[int],
    ) -> None:
        by_tag = {message.get("caption"): message for message in answer.messages}
        for item, reader, part, cost in zip(items, readers, body.parts, costs, strict=True):
            message = by_tag.get(item.tag)
            if message is None:
                continue
            source = {"etag": reader.info.etag, "sha256": part.sha256}
            warmed = pick(message, asked=item.media.kind, sent=part.sent, source=source, rate_cost=cost)
            if warmed.weak:
                self.memory.send_alone(item.media)
            else:
                self.memory.settle(item.media)
            item.warmed = warmed


def _fits(media: Media, info: ObjectInfo) -> bool:
    most = min(max_bytes_of(media.kind), MOST_BYTES)
    return isinstance(cast("object", info.size), int) and 0 < info.size <= most


def _framed(items: Sequence[_Item], readers: Sequence[MediaReader], chat_id: int) -> tuple[AlbumBody, str]:
    boundary = f"prewarmkit-{secrets.token_hex(16)}"
    listed: list[dict[str, object]] = []
    parts: list[UploadBody] = []
    for place, (item, reader) in enumerate(zip(items, readers, strict=True)):
        media, info = item.media, reader.info
        options = {name: value == "true" for name, value in METHODS[media.kind].options}
        listed.append(
            {"type": media.kind.value, "media": f"attach://f{place}", "caption": item.tag, **options}
        )
        framing = frame_part(
            file_field=f"f{place}",
            filename=filename_of(media, info),
            content_type=content_type_of(media, info),
            boundary=boundary,
        )
        parts.append(UploadBody(framing, reader, key=media.key, size=info.size, sha256=media.sha256))
    fields = [("chat_id", str(chat_id)), ("disable_notification", "true"), ("media", json.dumps(listed))]
    body = AlbumBody(frame_fields(fields, boundary=boundary), parts, frame_end(boundary))
    return body, f"multipart/form-data; boundary={boundary}"
