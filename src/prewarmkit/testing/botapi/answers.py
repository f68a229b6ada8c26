"""The JSON that the Bot API answers with: media objects, messages, errors. Pure.

Shapes and field names are those of the Bot API's documentation (10.1); it never knows who asked or why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import ids
from prewarmkit.testing.botapi.faults import Fault
from prewarmkit.testing.botapi.values import Upload

__all__ = [
    "Answer",
    "altered",
    "chat_object",
    "error",
    "identified",
    "media_fields",
    "nginx_page",
    "ok",
    "photo_sizes",
    "refusal",
    "shuffled",
    "user_object",
]

_PHOTO_BOXES = (("s", 90), ("m", 320), ("x", 800), ("y", 1280), ("w", 2560))
"""The sizes that a photo is kept in, by the longer side."""

_GUESSED_PIXELS = (1280, 720)

_T = TypeVar("_T")


@frozen
class Answer:
    """An HTTP answer, ready to be written.

    Attributes:
        status: HTTP status.
        body: The whole body.
        content_type: Of the body.
        headers: Further ones.
        closes: Whether the connection ends with it.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict[str, str])
    closes: bool = False


def ok(result: Any) -> Answer:
    """A success."""
    return Answer(200, json.dumps({"ok": True, "result": result}).encode())


def error(status: int, description: str, parameters: Mapping[str, Any] | None = None) -> Answer:
    """An error, in JSON as the Bot API server writes it."""
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    if parameters:
        body["parameters"] = dict(parameters)
    return Answer(status, json.dumps(body).encode())


# Python's table follows newer RFCs: from 3.13 on it has another word for 413.
_NGINX_PHRASES: Mapping[int, str] = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Request Entity Too Large"}


def nginx_page(status: int) -> Answer:
    """The page of the proxy before the Bot API server, which knows no JSON."""
    line = f"{status} {_NGINX_PHRASES.get(status) or HTTPStatus(status).phrase}"
    page = (
        f"<html>\r\n<head><title>{line}</title></head>\r\n<body>\r\n<center><h1>{line}</h1></center>\r\n"
        f"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Answer(status, page.encode(), "text/html", closes=True)


def refusal(fault: Fault) -> Answer:
    """The answer of a fault that refuses."""
    headers: dict[str, str] = {}
    if fault.retry_after is not None and fault.retry_after_in != "text":
        headers["Retry-After"] = str(fault.retry_after)
    if fault.html:
        page = nginx_page(fault.error_status)
        body = page.body if fault.html is True else fault.html.encode()
        return Answer(page.status, body, page.content_type, headers, closes=True)
    parameters: dict[str, int] = {}
    if fault.retry_after is not None and fault.retry_after_in == "body":
        parameters["retry_after"] = fault.retry_after
    if fault.migrate_to_chat_id is not None:
        parameters["migrate_to_chat_id"] = fault.migrate_to_chat_id
    plain = error(fault.error_status, fault.error_description, parameters)
    return Answer(plain.status, plain.body, headers=headers, closes=fault.before_body)


def user_object(bot_id: int) -> dict[str, Any]:
    """The ``User`` that a bot is."""
    return {
        "id": bot_id,
        "is_bot": True,
        "first_name": f"Test bot {bot_id}",
        "username": f"prewarm_{bot_id}_bot",
    }


def chat_object(chat_id: int) -> dict[str, Any]:
    """The ``Chat`` of an id: positive is private, -100… a supergroup, another negative one a group."""
    if chat_id > 0:
        return {"id": chat_id, "type": "private", "first_name": f"User {chat_id}"}
    kind = "supergroup" if str(chat_id).startswith("-100") else "group"
    return {"id": chat_id, "type": kind, "title": f"Chat {chat_id}"}


def photo_sizes(upload: Upload) -> list[dict[str, Any]]:
    """A photo's sizes as the server sorts them: by bytes, then by pixels."""
    width, height = (upload.width, upload.height) if upload.width and upload.height else _GUESSED_PIXELS
    sizes: list[dict[str, Any]] = []
    for variant, box in _PHOTO_BOXES:
        scale = min(1.0, box / max(width, height))
        pixels = (max(1, round(width * scale)), max(1, round(height * scale)))
        share = pixels[0] * pixels[1] / (width * height)
        sizes.append(
            {
                "file_id": ids.file_id(upload.bot_id, upload.kind, upload.sha256, variant=variant),
                "file_unique_id": ids.file_unique_id(upload.kind, upload.sha256, variant=variant),
                "file_size": max(1, round(upload.size * share)),
                "width": pixels[0],
                "height": pixels[1],
            }
        )
        if scale == 1.0:
            break
    return sorted(sizes, key=lambda size: (size["file_size"], size["width"] * size["height"]))


def media_fields(upload: Upload) -> dict[str, Any]:  # noqa: PLR0911 - a table
    """The fields that a message has for its medium: one, two for an animation (the second is a document)."""
    identity = {
        "file_id": upload.file_id,
        "file_unique_id": upload.file_unique_id,
        "file_size": upload.size,
    }
    named = {"file_name": upload.filename, "mime_type": upload.content_type or "application/octet-stream"}
    pixels = {"width": upload.width or 320, "height": upload.height or 320}
    duration = {"duration": upload.duration}
    match upload.kind:
        case MediaKind.PHOTO:
            return {"photo": photo_sizes(upload)}
        case MediaKind.ANIMATION:
            if named["mime_type"] == "image/gif":  # kept as a film
                named = {"file_name": f"{upload.filename}.mp4", "mime_type": "video/mp4"}
            return {
                "animation": {**named, **duration, **pixels, **identity},
                "document": {**named, **identity},
            }
        case MediaKind.VIDEO:
            return {"video": {**duration, **pixels, **named, **identity}}
        case MediaKind.AUDIO:
            return {"audio": {**duration, **named, **identity}}
        case MediaKind.VOICE:
            return {"voice": {**duration, "mime_type": named["mime_type"], **identity}}
        case MediaKind.VIDEO_NOTE:
            return {"video_note": {**duration, "length": pixels["width"], **identity}}
        case MediaKind.STICKER:
            moving = {
                "is_animated": upload.filename.endswith(".tgs"),
                "is_video": upload.filename.endswith(".webm"),
            }
            return {"sticker": {**pixels, "type": "regular", **moving, **identity}}
        case MediaKind.DOCUMENT:
            return {"document": {**named, **identity}}


def identified(upload: Upload) -> Upload:
    """The upload with the ids that its bot has for this content as this kind."""
    upload = evolve(
        upload,
        file_id=ids.file_id(upload.bot_id, upload.kind, upload.sha256),
        file_unique_id=ids.file_unique_id(upload.kind, upload.sha256),
    )
    if upload.kind is not MediaKind.PHOTO:
        return upload
    heaviest = photo_sizes(upload)[-1]
    return evolve(upload, file_id=heaviest["file_id"], file_unique_id=heaviest["file_unique_id"])


def shuffled(items: Sequence[_T]) -> list[_T]:
    """The same in another order, always the same other one; a single item has none."""
    return [*items[1::2], *reversed(items[::2])]


def altered(medium: dict[str, Any], fault: Fault, *, source: str = "") -> dict[str, Any]:
    """The medium as a fault would have it; `source` is the address that it came from, if it came from one."""
    if "photo" in medium:
        if fault.empty_photo_sizes:
            return {"photo": []}
        if fault.shuffle_photo_sizes:
            medium = {"photo": shuffled(medium["photo"])}
    return {name: _altered_object(value, fault, source) for name, value in medium.items()}


def _altered_object(value: Any, fault: Fault, source: str) -> Any:
    if isinstance(value, list):
        return [_altered_object(item, fault, source) for item in value]  # pyright: ignore[reportUnknownVariableType] - JSON
    changed = dict(value)
    if fault.drop_unique_id:
        changed["file_unique_id"] = ""
    if fault.file_id_is_url:
        changed["file_id"] = source or "https://example.org/never-became-a-file"
    if fault.report_bytes is not None:
        changed["file_size"] = fault.report_bytes
    return changed
