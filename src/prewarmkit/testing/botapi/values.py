"""What the Bot API server is told and what it remembers: frozen values, no behaviour but their checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from attrs import asdict, field, frozen

from prewarmkit.media import MediaKind

__all__ = [
    "FAKE_BOT",
    "Call",
    "Fetch",
    "Gone",
    "Route",
    "Send",
    "Upload",
    "bot_id_of",
    "upload_from_json",
    "upload_to_json",
]

Route: TypeAlias = Literal["multipart", "url", "local_path", "file_id", "forward", "copy"]
"""How a medium came into a chat; the first three brought bytes."""

Gone: TypeAlias = Literal["kicked", "not_member", "deleted"]
"""Why a chat takes nothing from a bot; of a private chat: blocked, never started, deactivated."""

FAKE_BOT = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
"""A token of the right shape that no bot has."""

_TOKEN = re.compile(r"([1-9]\d{0,15}):[A-Za-z0-9_-]{5,60}")


def bot_id_of(token: str) -> int:
    """The bot's account id, which is the part of its token before the colon.

    Raises:
        ValueError: The token has not the shape of one; the message does not repeat it.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ValueError("token must look like 110201543:AAHdqTcv…: digits, a colon, letters and digits.")
    return int(match[1])


@frozen(kw_only=True)
class Upload:
    """A file that was received whole, kept as a message and answered; its bytes were hashed and let go.

    Attributes:
        method: As the documentation spells it: ``sendPhoto``.
        bot_id: Whose it is.
        chat_id: Where it was sent.
        kind: What it became, which is not always what was asked.
        filename: As the part named it.
        content_type: As the part named it; ``None``: the part had none.
        size: Bytes.
        sha256: Hex digest of the bytes.
        file_id: The handle; of a photo, that of its heaviest size.
        file_unique_id: See the Bot API's documentation.
        message_id: Of the message, counted per chat.
        fields: The other fields of the form.
        content_length: The request's header; ``None``: the body came in chunks.
        transfer_encoding: The request's header.
        width: Pixels, 0 where the bytes did not say.
        height: Pixels, 0 where the bytes did not say.
        duration: Whole seconds, 0 where the bytes did not say.
        route: How it came.
        source: Its URL or its ``file://`` path; empty: the bytes were in the request.
        media_group_id: Of the album that it is an item of; empty: of none.
        at: When it was put into the chat, by the server's clock.
    """

    method: str
    bot_id: int
    chat_id: int
    kind: MediaKind
    filename: str
    content_type: str | None
    size: int
    sha256: str
    file_id: str
    file_unique_id: str
    message_id: int
    fields: Mapping[str, str] = field(factory=dict[str, str])
    content_length: int | None = None
    transfer_encoding: str | None = None
    width: int = 0
    height: int = 0
    duration: int = 0
    route: Route = "multipart"
    source: str = ""
    media_group_id: str = ""
    at: float = 0.0


@frozen(kw_only=True)
class Send:
    """A message without bytes: a ``file_id``, a forward or a copy; the attributes are those of `Upload`."""

    method: str
    bot_id: int
    chat_id: int
    kind: MediaKind
    file_id: str
    message_id: int
    fields: Mapping[str, str] = field(factory=dict[str, str])
    route: Route = "file_id"
    media_group_id: str = ""
    sha256: str = ""
    at: float = 0.0


@frozen(kw_only=True)
class Fetch:
    """One URL that was looked at for a client.

    Attributes:
        url: As the client named it.
        good: Whether it led to content.
        cached: Whether that was known from before, so that nobody was asked.
        at: When, by the server's clock.
    """

    url: str
    good: bool
    cached: bool
    at: float


@frozen(kw_only=True)
class Call:
    """One answered request of any kind.

    Attributes:
        method: As the documentation spells it, or as it came where it is unknown.
        bot_id: ``None``: the token was none.
        chat_id: As it came; ``None``: the request had none.
        status: HTTP status of the answer.
        at: When the answer was made, by the server's clock (``time.monotonic`` where it was given none).
    """

    method: str
    bot_id: int | None
    chat_id: str | None
    status: int
    at: float


def upload_to_json(upload: Upload) -> dict[str, Any]:
    """The upload as a line of the journal holds it."""
    return {**asdict(upload), "kind": upload.kind.value, "fields": dict(upload.fields)}


def upload_from_json(line: Mapping[str, Any]) -> Upload:
    """The upload that a line of the journal holds."""
    known: dict[str, Any] = {**line, "kind": MediaKind.parse(line["kind"])}
    return Upload(**known)
