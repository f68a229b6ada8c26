"""The frozen values that every room passes round: media, their kinds, their handles.

This module knows no I/O and no other room but the errors.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, cast

from attrs import field, frozen

__all__ = [
    "KIND_BY_EXTENSION",
    "Handle",
    "Media",
    "MediaKind",
    "ObjectInfo",
    "Warmed",
    "kind_of",
    "seconds_of",
]


class MediaKind(StrEnum):
    """What a medium is asked to be. The names are those of Telegram's methods."""

    PHOTO = "photo"
    VIDEO = "video"
    ANIMATION = "animation"
    AUDIO = "audio"
    VOICE = "voice"
    VIDEO_NOTE = "video_note"
    STICKER = "sticker"
    DOCUMENT = "document"

    # Equal to its text, and so alike in a dict; Enum's own hash is a call in Python, in each look-up of a row.
    __hash__ = str.__hash__

    @classmethod
    def parse(cls, value: MediaKind | str) -> MediaKind:
        """The kind of that name.

        Raises:
            ValueError: The name is no kind; the message lists those that are.
        """
        try:
            return cls(value)
        except ValueError:
            known = ", ".join(kind.value for kind in cls)
            raise ValueError(f"Unknown kind {value!r}: use one of {known}.") from None


KIND_BY_EXTENSION: Mapping[str, MediaKind] = MappingProxyType(
    {
        **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".heic", ".avif"), MediaKind.PHOTO),
        **dict.fromkeys((".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"), MediaKind.VIDEO),
        ".gif": MediaKind.ANIMATION,
        **dict.fromkeys((".mp3", ".m4a", ".aac", ".flac", ".wav"), MediaKind.AUDIO),
        **dict.fromkeys((".ogg", ".oga", ".opus"), MediaKind.VOICE),
        ".tgs": MediaKind.STICKER,
    }
)
"""The fixed table that gives a bare key its kind; an extension that is not here is a document.

The table never grows a guess: a ``.webp`` may be a sticker and an ``.mp4`` a video note,
so who means these says so with ``kind=``.
"""


def kind_of(key: str) -> MediaKind:
    """The kind of a key by its extension alone, case ignored; the source is never asked."""
    extension = posixpath.splitext(key)[1].lower()
    return KIND_BY_EXTENSION.get(extension, MediaKind.DOCUMENT)


def _check_key(_instance: object, _attribute: object, key: Any) -> None:
    if not isinstance(key, str):
        raise TypeError(f"A media key is a str, not {type(key).__name__}.")
    if not key:
        raise ValueError("A media key must not be empty.")
    _check_text("A media key", key)


def _check_fact(_instance: object, attribute: Any, fact: Any) -> None:
    if fact is None:
        return
    if not isinstance(fact, str):
        raise TypeError(f"{attribute.name} is a str or None, not {type(fact).__name__}.")
    _check_text(attribute.name, fact)


def _check_text(what: str, text: str) -> None:
    """Text that every store can keep."""
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be valid Unicode; {text!a} has a lone surrogate.") from None
    if b"\0" in encoded:
        raise ValueError(f"{what} must not have a NUL character: {text!a}.")


def _kind(kind: MediaKind | str | None) -> MediaKind:
    # None stands until __attrs_post_init__, which has the key.
    return cast("MediaKind", None) if kind is None else MediaKind.parse(kind)


def _parsed(kind: MediaKind | str) -> MediaKind:
    return MediaKind.parse(kind)


def _kind_or_none(kind: MediaKind | str | None) -> MediaKind | None:
    return None if kind is None else MediaKind.parse(kind)


def _reasons(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _check_size(_instance: object, _attribute: object, size: Any) -> None:
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63):
        raise ValueError(f"size is a number of bytes or None, not {size!r}.")


@frozen
class Media:
    """A medium to warm: a key, a kind, and what is already known of it.

    Attributes:
        key: The object's key in the source.
        kind: What it is asked to be; ``None`` at construction means by the key's extension.
        size: Bytes, a hint: it sorts small media first. ``None``: not known.
        etag: A version of the content: a different one makes a ready row due again. ``None`` says nothing.
        sha256: Hex digest, a version too: rows of one target, kind and digest share one upload.
        content_type: A hint for the target.
        filename: The name that the target shows; ``None`` is the key's last part.
    """

    key: str = field(validator=_check_key)
    kind: MediaKind = field(default=None, converter=_kind)
    size: int | None = field(default=None, kw_only=True, validator=_check_size)
    etag: str | None = field(default=None, kw_only=True, validator=_check_fact)
    sha256: str | None = field(default=None, kw_only=True, validator=_check_fact)
    content_type: str | None = field(default=None, kw_only=True, validator=_check_fact)
    filename: str | None = field(default=None, kw_only=True, validator=_check_fact)

    def __attrs_post_init__(self) -> None:
        if cast("MediaKind | None", self.kind) is None:
            object.__setattr__(self, "kind", kind_of(self.key))


@frozen
class ObjectInfo:
    """What a source knows of an object without reading it.

    Attributes:
        key: The object's key.
        size: Bytes.
        etag: The entity tag without its quotes, ``None`` where the source has none.
        content_type: As stored, ``None`` where the source has none.
        last_modified: An aware datetime, in UTC.
        metadata: The object's own metadata, names in lower case.
        version: The version id, where the service keeps versions.
        storage_class: Such as ``STANDARD``.
    """

    key: str
    size: int
    etag: str | None = None
    content_type: str | None = None
    last_modified: datetime | None = None
    metadata: Mapping[str, str] = field(factory=dict[str, str], hash=False)
    version: str | None = None
    storage_class: str | None = None


@frozen
class Warmed:
    """What a target returns when a medium was pushed.

    Attributes:
        handle: The reusable handle: a ``file_id``, a URL. Empty only beside reasons in `weak`: the
            push went through and gave nothing to keep.
        kind: The kind that was delivered; ``None``: the one asked for.
        unique_id: Recognises the same file elsewhere (``file_unique_id``, an ETag); not usable as a handle.
        weak: Reasons not to trust the handle; empty when it is good. One with a true ``is_final`` (of an enum
            of strings) is not tried again.
        expires_at: When the handle stops being good, an aware datetime; ``None``: never.
        details: Small facts kept for audit (chat and message id, sizes); JSON values only, no secrets.
    """

    handle: str
    kind: MediaKind | None = field(default=None, converter=_kind_or_none)
    unique_id: str | None = None
    weak: tuple[str, ...] = field(default=(), converter=_reasons)
    expires_at: datetime | None = None
    details: Mapping[str, Any] = field(factory=dict[str, Any], hash=False)


@frozen
class Handle:
    """A warm medium, ready to be delivered by value.

    Attributes:
        value: The ``file_id`` or URL.
        kind: The kind that was delivered, which is the one to send it as.
        target: The target's id.
        key: The medium's key.
        unique_id: See `Warmed.unique_id`.
        weak: Why the handle is not to be trusted in full; empty when it is good.
        stale: Whether a newer one is being made; this one may still work.
        warmed_at: When it was made, an aware datetime.
        expires_at: When it stops being good; ``None``: never.
        details: See `Warmed.details`.
    """

    value: str
    kind: MediaKind = field(converter=_parsed)
    target: str
    key: str
    unique_id: str | None = None
    weak: tuple[str, ...] = field(default=(), converter=_reasons)
    stale: bool = False
    warmed_at: datetime | None = None
    expires_at: datetime | None = None
    details: Mapping[str, Any] = field(factory=dict[str, Any], hash=False)


def seconds_of(duration: float | timedelta, name: str = "duration") -> float:
    """Seconds from seconds or a ``timedelta``.

    Raises:
        TypeError: It is neither a number nor a timedelta; the message names it.
        ValueError: It is negative or NaN.
    """
    if isinstance(duration, timedelta):
        return seconds_of(duration.total_seconds(), name)
    given: object = duration  # callers are not all typed
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"{name} is seconds or a timedelta, not {given!r}.")
    seconds = float(duration)
    if not seconds >= 0:  # also refuses NaN
        raise ValueError(f"{name} must be 0 or more seconds, not {duration!r}.")
    return seconds
