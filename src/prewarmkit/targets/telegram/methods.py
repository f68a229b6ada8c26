"""Which Bot API method sends which kind, under which name and type, up to which size.

Tables and pure functions over them. Knows neither framing nor answers.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from attrs import frozen

from prewarmkit.errors import MediaUnfit, TooLarge
from prewarmkit.media import Media, MediaKind, ObjectInfo

__all__ = [
    "LOCAL_MAX_BYTES",
    "METHODS",
    "TYPE_BY_EXTENSION",
    "Method",
    "check_size",
    "content_type_of",
    "filename_of",
    "max_bytes_of",
]

_MIB = 1024 * 1024
_HOSTED_MAX_BYTES = 50 * _MIB
LOCAL_MAX_BYTES = 2000 * _MIB
"""The largest upload that a Bot API server of one's own takes, where its kind has no bound of its own."""


@frozen
class Method:
    """How one kind is sent.

    Attributes:
        name: The method of the Bot API.
        field: The parameter that takes the file, or its ``file_id``.
        extension: What a name without one gets; empty: it is left as it is.
        content_type: What a file of unknown type is sent as.
        max_bytes: The largest upload that the hosted Bot API takes.
        options: Parameters that every upload carries.
    """

    name: str
    field: str
    extension: str
    content_type: str
    max_bytes: int = _HOSTED_MAX_BYTES
    options: tuple[tuple[str, str], ...] = ()


METHODS: Mapping[MediaKind, Method] = MappingProxyType(
    {
        MediaKind.PHOTO: Method("sendPhoto", "photo", ".jpg", "image/jpeg", 10 * _MIB),
        MediaKind.VIDEO: Method(
            "sendVideo", "video", ".mp4", "video/mp4", options=(("supports_streaming", "true"),)
        ),
        MediaKind.ANIMATION: Method("sendAnimation", "animation", ".mp4", "video/mp4"),
        MediaKind.AUDIO: Method("sendAudio", "audio", ".mp3", "audio/mpeg"),
        MediaKind.VOICE: Method("sendVoice", "voice", ".ogg", "audio/ogg"),
        MediaKind.VIDEO_NOTE: Method("sendVideoNote", "video_note", ".mp4", "video/mp4", 12 * _MIB),
        MediaKind.STICKER: Method("sendSticker", "sticker", ".webp", "image/webp"),
        # Without the option the server may turn a GIF into an animation and an MP4 into a video.
        MediaKind.DOCUMENT: Method(
            "sendDocument",
            "document",
            "",
            "application/octet-stream",
            options=(("disable_content_type_detection", "true"),),
        ),
    }
)
"""One method a kind; the sizes are those of the hosted Bot API."""

# Our own table: `mimetypes` answers differently from machine to machine.
TYPE_BY_EXTENSION: Mapping[str, str] = MappingProxyType(
    {
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".png": "image/png",
        ".webp": "image/webp",
        ".heic": "image/heic",
        ".avif": "image/avif",
        ".gif": "image/gif",
        ".mp4": "video/mp4",
        ".m4v": "video/x-m4v",
        ".mov": "video/quicktime",
        ".webm": "video/webm",
        ".mkv": "video/x-matroska",
        ".avi": "video/x-msvideo",
        ".mp3": "audio/mpeg",
        ".m4a": "audio/mp4",
        ".aac": "audio/aac",
        ".flac": "audio/flac",
        ".wav": "audio/wav",
        ".ogg": "audio/ogg",
        ".oga": "audio/ogg",
        ".opus": "audio/ogg",
        ".tgs": "application/x-tgsticker",
        ".pdf": "application/pdf",
        ".zip": "application/zip",
        ".json": "application/json",
        ".txt": "text/plain",
    }
)
"""Every extension that says a type here, in lower case and with its dot."""

_EXTENSION_BY_TYPE: Mapping[str, str] = MappingProxyType(
    # The first of a type wins: .jpg, not .jpeg.
    {type_: extension for extension, type_ in reversed(list(TYPE_BY_EXTENSION.items()))}
)
_TYPE = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_SAYS_NOTHING = frozenset({"application/octet-stream", "binary/octet-stream"})


def _stated_type(media: Media, info: ObjectInfo) -> str | None:
    for stated in (media.content_type, info.content_type):
        bare = (stated or "").partition(";")[0].strip().lower()
        # It becomes a header line and comes from outside: only what looks like a type passes.
        if bare not in _SAYS_NOTHING and _TYPE.fullmatch(bare):
            return bare
    return None


def filename_of(media: Media, info: ObjectInfo) -> str:
    """The name to send: the host's own, else the key's last part, with an extension that fits.

    Telegram goes by the extension, so a name without one that says a type gets that of the
    stated content type, else the kind's. A document keeps its extension whatever it is, and
    a bare name if its type is not known.
    """
    name = posixpath.basename((media.filename or media.key).rstrip("/")) or media.kind.value
    extension = posixpath.splitext(name)[1].lower()
    if extension in TYPE_BY_EXTENSION or (extension and media.kind is MediaKind.DOCUMENT):
        return name
    stated = _stated_type(media, info)
    return name + (_EXTENSION_BY_TYPE.get(stated or "") or METHODS[media.kind].extension)


def content_type_of(media: Media, info: ObjectInfo) -> str:
    """The type to send: as stated by the host or the source, else by the extension, else the kind's."""
    stated = _stated_type(media, info)
    if stated is not None:
        return stated
    extension = posixpath.splitext(filename_of(media, info))[1].lower()
    return TYPE_BY_EXTENSION.get(extension) or METHODS[media.kind].content_type


def max_bytes_of(kind: MediaKind, *, is_local: bool = False) -> int:
    """The largest upload of that kind; a local server lifts the hosted one's bound, not those of a kind."""
    most = METHODS[kind].max_bytes
    return LOCAL_MAX_BYTES if is_local and most == _HOSTED_MAX_BYTES else most


def check_size(media: Media, size: int, *, is_local: bool = False) -> None:
    """Refuse what the Bot API would refuse, before a byte is sent.

    Args:
        media: What is sent.
        size: Its bytes, as its source says.
        is_local: Whether a Bot API server of one's own takes it.

    Raises:
        TypeError: The source does not say how large it is.
        MediaUnfit: There is nothing in it.
        TooLarge: It is over what its kind may be; `TooLarge.limit` has the number.
    """
    most = max_bytes_of(media.kind, is_local=is_local)
    if not isinstance(cast("object", size), int) or size < 0:
        raise TypeError(
            f"The source gave {media.key!r} the size {size!r}: ObjectInfo.size is a number of bytes."
        )
    if size == 0:
        raise MediaUnfit(f"{media.key!r} is empty, and Telegram takes no empty file: store it again.")
    if size > most:
        hint = (
            "; send it as a document" if media.kind is MediaKind.PHOTO else "; make it smaller, or split it"
        )
        raise TooLarge(
            f"{media.key!r} has {size} bytes, and {METHODS[media.kind].name} takes {most} at most{hint}.",
            most,
        )
