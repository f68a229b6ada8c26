"""`Fault`: one way for a request to go wrong, told to the server by a test. Pure values and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from attrs import field, frozen

from prewarmkit.media import MediaKind

__all__ = ["Fault"]

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
        nth: The first matching request that it hits, counted from 1; those before it pass.
        times: How many matching requests it hits from there on.
        before_body: Refuse after the request's head, without reading the body, and close the connection.
        reset_after_bytes: Reset the TCP connection once so many bytes of files were read; 0 means at the head.
        reset_before_answer: Carry the request out, record it, and reset the connection instead of answering.
        substitute_kind: The answer, the handle and the record are of this kind.
        drop_unique_id: ``file_unique_id`` is empty.
        file_id_is_url: ``file_id`` is a URL, as for a file that the real server never got; of one that was sent by its URL, that.
        message_id_zero: ``message_id`` is 0, as for a video that is still being re-encoded.
        empty_photo_sizes: ``photo`` is an empty array.
        shuffle_photo_sizes: ``photo`` is not in the order of size.
        report_bytes: ``file_size`` is this number, as after a truncation.
        shuffle_album: The answer of ``sendMediaGroup`` is in another order than its request.
        fail_album_item: This item of an album, counted from 1, fails; the answer is an error, though the others landed.
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
    nth: int = 1
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
    report_bytes: int | None = None
    shuffle_album: bool = False
    fail_album_item: int | None = None
    delay_seconds: float = field(default=0.0, validator=_positive)

    def __attrs_post_init__(self) -> None:
        for name, count in (
            ("times", self.times),
            ("nth", self.nth),
            ("fail_album_item", self.fail_album_item),
        ):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be 1 or more, not {count!r}.")
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
        given = (self.substitute_kind, self.report_bytes, self.fail_album_item)
        return any(value is not None for value in given) or any(
            (
                self.drop_unique_id,
                self.file_id_is_url,
                self.message_id_zero,
                self.empty_photo_sizes,
                self.shuffle_photo_sizes,
                self.shuffle_album,
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
