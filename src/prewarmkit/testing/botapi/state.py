"""What the server knows: bots, chats, messages, files, faults. Pure: no I/O, no clock, no lock.

A change is a plain method; who calls from several threads holds a lock around it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from attrs import define, evolve, field

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi.answers import chat_object, photo_sizes
from prewarmkit.testing.botapi.faults import Fault
from prewarmkit.testing.botapi.values import Call, Gone, Send, Upload, bot_id_of

__all__ = ["ChatRefusal", "State"]


_GONE: Mapping[str, Mapping[Gone, str]] = MappingProxyType(
    {
        "private": {
            "kicked": "bot was blocked by the user",
            "not_member": "bot can't initiate conversation with a user",
            "deleted": "user is deactivated",
        },
        "group": {
            "kicked": "bot was kicked from the group chat",
            "not_member": "bot is not a member of the group chat",
            "deleted": "the group chat was deleted",
        },
        "supergroup": {
            "kicked": "bot was kicked from the supergroup chat",
            "not_member": "bot is not a member of the supergroup chat",
            "deleted": "the supergroup chat was deleted",
        },
    }
)


class ChatRefusal(Exception):
    """A chat that takes nothing from a bot: what the answer says."""

    def __init__(self, status: int, description: str, *, migrate_to_chat_id: int | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.migrate_to_chat_id = migrate_to_chat_id


@define(kw_only=True)
class State:
    """All that a server remembers.

    Attributes:
        known_chats: The only chats there are; ``None``: every id is a chat.
        journal: What was put into chats since the start, oldest first.
        calls: Every answered request since the start, oldest first.
    """

    known_chats: frozenset[int | str] | None = None
    journal: list[Upload | Send] = field(factory=list["Upload | Send"])
    calls: list[Call] = field(factory=list[Call])
    _tokens: dict[str, int] = field(factory=dict[str, int])
    _revoked: set[str] = field(factory=set[str])
    _gone: dict[tuple[int, int | None], Gone] = field(factory=dict[tuple[int, "int | None"], Gone])
    _moved: dict[int, int] = field(factory=dict[int, int])
    _files: dict[str, Upload] = field(factory=dict[str, Upload])
    _messages: dict[tuple[int, int], Upload] = field(factory=dict[tuple[int, int], Upload])
    _last_message: dict[int, int] = field(factory=dict[int, int])
    _albums: int = 0
    _faults: list[Fault] = field(factory=list[Fault])

    # ── bots ─────────────────────────────────────────────────────────────────

    def add_bot(self, token: str) -> int:
        """Know a bot, or know it again after `revoke`; returns its id."""
        bot_id = bot_id_of(token)
        self._tokens[token] = bot_id
        self._revoked.discard(token)
        return bot_id

    def revoke(self, token: str) -> None:
        """Refuse a token from now on."""
        if token not in self._tokens:
            raise ValueError("This server has no bot with that token: add_bot(token) first.")
        self._revoked.add(token)

    def bot(self, token: str) -> int | None:
        """The id of the bot whose token this is, ``None`` if it is nobody's or revoked."""
        return None if token in self._revoked else self._tokens.get(token)

    # ── chats ────────────────────────────────────────────────────────────────

    def kick(self, chat_id: int, why: Gone, bot_id: int | None) -> None:
        """A bot, or every bot, is out of that chat."""
        self._gone[chat_id, bot_id] = why

    def invite(self, chat_id: int) -> None:
        """Every bot is in that chat again."""
        self._gone = {key: why for key, why in self._gone.items() if key[0] != chat_id}

    def migrate(self, old: int, new: int) -> None:
        """The group has become a supergroup with another id."""
        self._moved[old] = new

    def chat(self, given: str, bot_id: int) -> int:
        """The id of the chat that a bot's request names.

        Raises:
            ChatRefusal: There is none, or it takes nothing.
        """
        if not given:
            raise ChatRefusal(400, "Bad Request: chat_id is empty")
        chat_id = self._chat_id(given)
        if chat_id in self._moved:
            raise ChatRefusal(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                migrate_to_chat_id=self._moved[chat_id],
            )
        why = self._gone.get((chat_id, None)) or self._gone.get((chat_id, bot_id))
        if why is not None:
            raise ChatRefusal(403, f"Forbidden: {_GONE[chat_object(chat_id)['type']][why]}")
        return chat_id

    def _chat_id(self, given: str) -> int:
        name: int | str
        if given.startswith("@"):
            name = given
            chat_id = -1_000_000_000_000 - zlib.crc32(given.encode())
        else:
            try:
                name = chat_id = int(given)
            except ValueError:
                raise ChatRefusal(400, "Bad Request: chat not found") from None
        known = self.known_chats is None or name in self.known_chats or name in self._moved.values()
        if not known or chat_id == 0:
            raise ChatRefusal(400, "Bad Request: chat not found")
        return chat_id

    # ── messages and files ───────────────────────────────────────────────────

    def next_message(self, chat_id: int) -> int:
        """The id of a new message in that chat."""
        message_id = self._last_message.get(chat_id, 0) + 1
        self._last_message[chat_id] = message_id
        return message_id

    def next_album(self) -> str:
        """The id of a new album."""
        self._albums += 1
        return str(10_000_000_000_000_000 + self._albums)

    def message(self, bot_id: int, chat_id: int, message_id: int) -> Upload | None:
        """The message that this bot sees there: of a private chat, only its own."""
        found = self._messages.get((chat_id, message_id))
        return None if found is None or (chat_id > 0 and found.bot_id != bot_id) else found

    def delete_message(self, chat_id: int, message_id: int) -> bool:
        """Whether there was such a message; its file stays usable, as on the live server."""
        return self._messages.pop((chat_id, message_id), None) is not None

    def keep(self, upload: Upload) -> None:
        """Make an upload's ids valid and its message known."""
        if upload.kind is MediaKind.PHOTO:
            for size in photo_sizes(upload):
                ids = {"file_id": size["file_id"], "file_unique_id": size["file_unique_id"]}
                self._files[size["file_id"]] = evolve(upload, **ids)
        else:
            self._files[upload.file_id] = upload
        if upload.message_id:
            self._messages[upload.chat_id, upload.message_id] = upload
            last = self._last_message.get(upload.chat_id, 0)
            self._last_message[upload.chat_id] = max(last, upload.message_id)

    def file(self, bot_id: int, file_id: str) -> Upload | None:
        """The upload behind an id that this bot may use."""
        upload = self._files.get(file_id)
        return upload if upload is not None and upload.bot_id == bot_id else None

    # ── faults ───────────────────────────────────────────────────────────────

    def fail(self, faults: Iterable[Fault]) -> None:
        """Queue faults; each request takes the first that matches it."""
        self._faults.extend(faults)

    @property
    def pending_faults(self) -> tuple[Fault, ...]:
        """Those that no request has met yet, with the ``times`` that are left."""
        return tuple(self._faults)

    def take_fault(self, method: str, *, sends_media: bool, chat_id: str | None) -> Fault | None:
        """The fault that this request meets, if any.

        Args:
            method: The request's.
            sends_media: Whether a fault without a method means it too.
            chat_id: ``None`` before the body was read: then a fault that names a chat, and all behind it, wait.
        """
        passed: list[int] = []
        for index, fault in enumerate(self._faults):
            if not _matches(fault, method, sends_media=sends_media):
                continue
            if fault.chat_id is not None:
                if chat_id is None:
                    return None
                if str(fault.chat_id) != chat_id:
                    continue
            if fault.nth > 1:
                passed.append(index)
                continue
            self._let_pass(passed)
            if fault.times > 1:
                self._faults[index] = evolve(fault, times=fault.times - 1)
            else:
                del self._faults[index]
            return fault
        if chat_id is not None:  # else the same request is asked for again when its body was read
            self._let_pass(passed)
        return None

    def _let_pass(self, passed: Iterable[int]) -> None:
        for index in passed:
            self._faults[index] = evolve(self._faults[index], nth=self._faults[index].nth - 1)


def _matches(fault: Fault, method: str, *, sends_media: bool) -> bool:
    if fault.method is None:
        return sends_media
    return fault.method == "*" or fault.method.lower() == method.lower()
