"""Picking the handle out of the message that an upload became, and judging it.

Pure. Owns the rules of which object of a message is the truth about its kind, which size
of a photo counts, and what makes a handle weak.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

from attrs import frozen

from prewarmkit.media import MediaKind, Warmed

__all__ = ["WeakReason", "pick"]


class WeakReason(StrEnum):
    """Why a handle is not to be trusted in full."""

    NO_MEDIA = "no_media"
    """The message has no file at all, so there is no handle."""
    NO_FILE_ID = "no_file_id"
    """The file has no ``file_id``, so there is no handle."""
    NO_PHOTO_SIZE = "no_photo_size"
    """The photo has no sizes, so there is no handle."""
    NO_UNIQUE_ID = "no_unique_id"
    """The server knows the file only by where it came from."""
    URL_HANDLE = "url_handle"
    """The ``file_id`` is an address: the server never got a file of its own."""
    SCHEDULED = "scheduled"
    """Message id 0: the message waits until the video is re-encoded."""
    KIND_CHANGED = "kind_changed"
    """It was delivered as another kind than it was asked to be."""
    SIZE_CHANGED = "size_changed"
    """Telegram reports another size than was sent, for a kind whose bytes it keeps."""


# A message with an animation has a copy under `document` for old clients, so that comes last.
_ORDER = (
    MediaKind.ANIMATION,
    MediaKind.VIDEO,
    MediaKind.VIDEO_NOTE,
    MediaKind.VOICE,
    MediaKind.AUDIO,
    MediaKind.STICKER,
    MediaKind.PHOTO,
    MediaKind.DOCUMENT,
)
_KEEPS_BYTES = frozenset({MediaKind.DOCUMENT, MediaKind.AUDIO})
_FACTS = ("width", "height", "duration", "length")


@frozen
class _Found:
    kind: MediaKind | None = None
    file: dict[str, Any] | None = None
    variants: tuple[dict[str, Any], ...] = ()


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [cast("dict[str, Any]", item) for item in cast("list[object]", value) if isinstance(item, dict)]


def _largest(sizes: list[dict[str, Any]]) -> dict[str, Any] | None:
    # The server sorts by bytes first, so its last is the heaviest and not always the largest picture.
    ranked = [
        (_whole(size.get("width")) * _whole(size.get("height")), _whole(size.get("file_size")), place)
        for place, size in enumerate(sizes)
    ]
    return sizes[max(ranked)[2]] if ranked else None


def _find(message: dict[str, Any]) -> _Found:
    for kind in _ORDER:
        value = message.get(kind.value)
        if kind is MediaKind.PHOTO and value is not None:
            sizes = _objects(value)
            return _Found(kind, _largest(sizes), tuple(sizes))
        if isinstance(value, dict):
            return _Found(kind, cast("dict[str, Any]", value))
    return _Found()


def _text(file: dict[str, Any] | None, name: str) -> str:
    value = (file or {}).get(name)
    return value if isinstance(value, str) else ""


def _weaknesses(found: _Found, message: dict[str, Any], asked: MediaKind, size: int) -> list[WeakReason]:
    reasons: list[WeakReason] = []
    handle = _text(found.file, "file_id")
    if found.kind is None:
        reasons.append(WeakReason.NO_MEDIA)
    elif found.file is None:
        reasons.append(WeakReason.NO_PHOTO_SIZE)
    elif not handle:
        reasons.append(WeakReason.NO_FILE_ID)
    elif not _text(found.file, "file_unique_id"):
        reasons.append(WeakReason.NO_UNIQUE_ID)
    if "://" in handle:
        reasons.append(WeakReason.URL_HANDLE)
    if _whole(message.get("message_id")) == 0:
        reasons.append(WeakReason.SCHEDULED)
    if found.kind is not None and found.kind is not asked:
        reasons.append(WeakReason.KIND_CHANGED)
    reported = (found.file or {}).get("file_size")
    if found.kind in _KEEPS_BYTES and size and reported is not None and reported != size:
        reasons.append(WeakReason.SIZE_CHANGED)
    return reasons


def _variant(size: dict[str, Any]) -> dict[str, Any]:
    names = ("file_id", "file_unique_id", "width", "height", "file_size")
    return {name: size[name] for name in names if name in size}


def pick(
    message: dict[str, Any],
    *,
    asked: MediaKind,
    sent: int,
    source: Mapping[str, str | None],
    route: str = "multipart",
    size: int | None = None,
    rate_cost: int = 1,
) -> Warmed:
    """The handle in ``message``, with the reasons not to trust it.

    A message without a file gives an empty handle and a reason that says so: it was sent,
    and sending it again would only send it twice.

    Args:
        message: The ``Message`` object that was answered.
        asked: The kind that was asked for.
        sent: Bytes of the file that were sent.
        source: What is known of where they came from: ``etag``, ``sha256``.
        route: How it got there: ``multipart``, ``url``, ``local`` or ``forward``.
        size: The file's bytes, where others than we moved them; 0: not known.
        rate_cost: Messages that were sent for it, those that failed included.
    """
    found = _find(message)
    file = found.file or {}
    group = message.get("media_group_id")
    chat = message.get("chat")
    details: dict[str, Any] = {
        "route": route,
        "rate_cost": rate_cost,
        "kind_requested": asked.value,
        "message_id": _whole(message.get("message_id")),
        "chat_id": cast("dict[str, Any]", chat).get("id") if isinstance(chat, dict) else None,
        **{f"source_{name}": fact for name, fact in source.items() if fact is not None},
        "bytes_sent": sent,
        "bytes_reported": file.get("file_size"),
        "mime_reported": file.get("mime_type"),
        **{name: file[name] for name in _FACTS if name in file},
    }
    if isinstance(group, str):
        details["media_group_id"] = group
    if found.variants:
        details["variants"] = [_variant(size) for size in found.variants]
    return Warmed(
        _text(file, "file_id"),
        kind=found.kind or asked,
        unique_id=_text(file, "file_unique_id") or None,
        weak=tuple(_weaknesses(found, message, asked, sent if size is None else size)),
        details=details,
    )
