"""What the Bot API server is told and what it remembers: frozen values, no behaviour but their checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from attrs import asdict, field, frozen

from prewarmkit.media import MediaKind

__all__ = ["FAKE_BOT", "Call", "Fault", "Send", "Upload", "bot_id_of", "upload_from_json", "upload_to_json"]

FAKE_BOT = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
"""A token of the right shape that no bot has."""

_TOKEN = re.compile(r"([1-9]\d{0,15}):[A-Za-z0-9_-]{5,60}")

_DESCRIPTIONS: Mapping[int, str] = MappingProxyType(
    {
        400: "Bad Request: refused by a fault of the test",
        401: "Unauthorized",
        403: "Forbidden: bot was kicked from the supergroup chat",
        404: "Not Found",
        409: "Conflict: terminated by other getUpdates request",
        413: "Request Entity Too Large",
        429: "Too Many Requests",
        500: "Internal Server Error",
        502: "Bad Gateway",
        503: "Service Unavailable",
        504: "Gateway Timeout",
    }
)


def bot_id_of(token: str) -> int:
    """The bot's account id, which is the part of its token before the colon.

    Raises:
        ValueError: The token has not the shape of one; the message does not repeat it.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ValueError("token must look like 110201543:AAHdqTcv…: digits, a colon, letters and digits.")
    return int(match[1])


def _positive(_instance: object, attribute: Any, value: float) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must be 0 or more, not {value!r}.")


def _kind(value: MediaKind | str | None) -> MediaKind | None:
    return None if value is None else MediaKind.parse(value)


@frozen(kw_only=True)
class Fault:
    """One way for the next matching request to go wrong.

    A fault either *refuses* (``status``, ``retry_after``, ``migrate_to_chat_id`` or ``html`` is set), *breaks the
    connection* (``reset_…``), or *alters* the answer of a request that is otherwise carried out.
    ``delay_seconds`` goes with any of them or stands alone.

    Attributes:
        status: HTTP status, and ``error_code`` of the JSON. Left out: 429 with ``retry_after``, 400 with
            ``retry_after_in="text"`` or ``migrate_to_chat_id``, 502 with ``html``.
        description: Left out: the usual one of that status.
        retry_after: Whole seconds to be told to the client.
        retry_after_in: ``"body"``: as the real server does, in ``parameters``, in the ``Retry-After`` header and in the
            description; ``"header"``: only in the header; ``"text"``: only in the description.
        migrate_to_chat_id: ``parameters.migrate_to_chat_id``.
        html: Answer with a page instead of JSON: ``True`` for nginx's own, or the page.
        method: Only requests of this method (``"sendPhoto"``, case ignored); ``None``: every method that sends media;
            ``"*"``: every request.
        chat_id: Only requests to this chat, which is known after the body was read.
        times: How many matching requests it hits.
        before_body: Refuse after the request's head, without reading the body, and close the connection.
        reset_after_bytes: Reset the TCP connection once so many bytes of files were read; 0 means at the head.
        reset_before_answer: Carry the request out, record it, and reset the connection instead of answering.
        substitute_kind: The answer, the handle and the record are of this kind.
        drop_unique_id: ``file_unique_id`` is empty.
        file_id_is_url: ``file_id`` is a URL, as for a file that the real server never got.
        message_id_zero: ``message_id`` is 0, as for a video that is still being re-encoded.
        empty_photo_sizes: ``photo`` is an empty array.
        shuffle_photo_sizes: ``photo`` is not in the order of size.
        delay_seconds: Wait so long before answering, after the body was read.
    """

    status: int | None = None
    description: str | None = None
    retry_after: int | None = None
    retry_after_in: Literal["body", "header", "text"] = "body"
    migrate_to_chat_id: int | None = None
    html: bool | str | None = None
    method: str | None = None
    chat_id: int | str | None = None
    times: int = 1
    before_body: bool = False
    reset_after_bytes: int | None = None
    reset_before_answer: bool = False
    substitute_kind: MediaKind | None = field(default=None, converter=_kind)
    drop_unique_id: bool = False
    file_id_is_url: bool = False
    message_id_zero: bool = False
    empty_photo_sizes: bool = False
    shuffle_photo_sizes: bool = False
    delay_seconds: float = field(default=0.0, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times must be 1 or more, not {self.times!r}.")
        if self.status is not None and not 400 <= self.status <= 599:  # noqa: PLR2004 - HTTP's own bounds
            raise ValueError(f"status must be one of an error (400 to 599), not {self.status!r}.")
        if self.retry_after_in not in {"body", "header", "text"}:
            raise ValueError(f"retry_after_in is body, header or text, not {self.retry_after_in!r}.")
        if self.before_body and not self.refuses:
            raise ValueError("before_body needs something to answer: set status, retry_after or html.")
        if self.chat_id is not None and (self.before_body or self.reset_after_bytes is not None):
            raise ValueError("The chat is not known before the body was read: leave chat_id out.")
        if not (self.refuses or self.breaks or self.alters or self.delay_seconds):
            raise ValueError("This fault does nothing: set status, a reset, a change or delay_seconds.")

    @property
    def refuses(self) -> bool:
        """Whether the request is answered by an error and not carried out."""
        given = (self.status, self.retry_after, self.migrate_to_chat_id)
        return any(value is not None for value in given) or bool(self.html)

    @property
    def breaks(self) -> bool:
        """Whether the connection is reset."""
        return self.reset_after_bytes is not None or self.reset_before_answer

    @property
    def alters(self) -> bool:
        """Whether a successful answer is changed."""
        return self.substitute_kind is not None or any(
            (
                self.drop_unique_id,
                self.file_id_is_url,
                self.message_id_zero,
                self.empty_photo_sizes,
                self.shuffle_photo_sizes,
            )
        )

    @property
    def error_status(self) -> int:
        """The status of a fault that refuses."""
        if self.status is not None:
            return self.status
        if self.html:
            return 502
        if self.retry_after is not None and self.retry_after_in != "text":
            return 429
        return 400

    @property
    def error_description(self) -> str:
        """The description of a fault that refuses."""
        if self.description is not None:
            return self.description
        if self.migrate_to_chat_id is not None:
            return "Bad Request: group chat was upgraded to a supergroup chat"
        if self.retry_after is not None and self.retry_after_in != "header":
            prefix = "" if self.error_status == 429 else "Bad Request: "  # noqa: PLR2004 - HTTP's own
            return f"{prefix}Too Many Requests: retry after {self.retry_after}"
        return _DESCRIPTIONS.get(self.error_status, f"Error {self.error_status}")


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


@frozen(kw_only=True)
class Send:
    """A file that was sent by its ``file_id``, without bytes; the attributes are those of `Upload`."""

    method: str
    bot_id: int
    chat_id: int
    kind: MediaKind
    file_id: str
    message_id: int
    fields: Mapping[str, str] = field(factory=dict[str, str])


@frozen(kw_only=True)
class Call:
    """One answered request of any kind.

    Attributes:
        method: As the documentation spells it, or as it came where it is unknown.
        bot_id: ``None``: the token was none.
        chat_id: As it came; ``None``: the request had none.
        status: HTTP status of the answer.
        at: When the answer was made, in seconds of ``time.monotonic``.
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
