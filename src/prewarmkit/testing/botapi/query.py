"""A request as the methods see it: what it says, what came with it, and the ways in which it can be refused. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

from attrs import field, frozen

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi.faults import Fault
from prewarmkit.testing.botapi.forms import Form, ReceivedFile

__all__ = [
    "SENDS",
    "TRUE",
    "Query",
    "Refused",
    "album_items",
    "canonical",
    "numbers",
    "references",
    "sends_media",
]

SENDS: Mapping[str, MediaKind] = MappingProxyType(
    {
        "sendPhoto": MediaKind.PHOTO,
        "sendVideo": MediaKind.VIDEO,
        "sendAnimation": MediaKind.ANIMATION,
        "sendAudio": MediaKind.AUDIO,
        "sendVoice": MediaKind.VOICE,
        "sendVideoNote": MediaKind.VIDEO_NOTE,
        "sendSticker": MediaKind.STICKER,
        "sendDocument": MediaKind.DOCUMENT,
    }
)
"""The methods that send one medium."""

_OTHER_SENDS = ("sendMediaGroup", "forwardMessage", "copyMessage")
_NAMES = {
    name.lower(): name
    for name in (*SENDS, *_OTHER_SENDS, "getMe", "getFile", "deleteMessage", "deleteMessages")
}
TRUE = frozenset({"true", "True", "yes", "1"})


def canonical(method: str) -> str:
    """The method as the documentation spells it; an unknown one as it came."""
    return _NAMES.get(method.lower(), method)


def sends_media(method: str) -> bool:
    """Whether this is one of the methods that put a medium into a chat."""
    return canonical(method) in {*SENDS, *_OTHER_SENDS}


class Refused(Exception):
    """The request cannot be carried out; the server's word for it is kept without "Bad Request"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen(kw_only=True)
class Query:
    """One request of a bot whose token was good.

    Attributes:
        method: In its canonical spelling.
        bot_id: Whose it is.
        form: Parameters and files.
        materials: What was found behind the addresses and paths that it names: a file, or why there is none.
        content_length: The request's header.
        transfer_encoding: The request's header.
        fault: A fault that alters the answer.
    """

    method: str
    bot_id: int
    form: Form
    materials: Mapping[str, ReceivedFile | str] = field(factory=dict[str, "ReceivedFile | str"])
    content_length: int | None = None
    transfer_encoding: str | None = None
    fault: Fault | None = None

    def text(self, name: str) -> str:
        """A parameter, empty where it is not given."""
        return self.form.fields.get(name, "")

    def number(self, name: str) -> int:
        """A message's number.

        Raises:
            Refused: It is none.
        """
        try:
            return int(self.text(name))
        except ValueError:
            raise Refused("message identifier is not specified") from None


def numbers(query: Query, name: str) -> list[int]:
    """A list of messages' numbers.

    Raises:
        Refused: It is none.
    """
    try:
        return [int(number) for number in json.loads(query.text(name))]
    except (ValueError, TypeError):
        raise Refused("message identifiers are not specified") from None


def album_items(form: Form) -> list[dict[str, str]]:
    """The items of a ``sendMediaGroup``, each with its parameters as text.

    Raises:
        Refused: They cannot be read.
    """
    try:
        parsed: Any = json.loads(form.fields.get("media", "") or "[]") or []
    except ValueError:
        raise Refused("can't parse media JSON object") from None
    if not isinstance(parsed, list):
        raise Refused("expected an Array of InputMedia")
    items: list[dict[str, str]] = []
    for item in cast("list[object]", parsed):
        if not isinstance(item, dict):
            raise Refused("can't parse InputMedia: expected an Object")
        given = cast("dict[str, Any]", item)
        items.append(
            {
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in given.items()
                if value is not None
            }
        )
    return items


def references(method: str, form: Form) -> Iterator[tuple[MediaKind, str]]:
    """What a request names as media, each with the kind that is asked: file_ids, addresses, paths, attachments."""
    name = canonical(method)
    if name in SENDS:
        yield SENDS[name], form.fields.get(SENDS[name].value, "")
    elif name == "sendMediaGroup":
        try:
            items = album_items(form)
        except Refused:
            return
        kinds = {kind.value: kind for kind in MediaKind}
        for item in items:
            kind = kinds.get(item.get("type", ""))
            if kind is not None:
                yield kind, item.get("media", "")
