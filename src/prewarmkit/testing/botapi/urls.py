"""What may be sent by URL, as which kind: the documentation's "Sending files" and its notes on each method. Pure.

Sizes are read as binary megabytes, as the server reads its other limits. Where the documentation names a type ("GIF, PDF
and ZIP", "audio/mpeg"), nothing else is taken: whether the live service is more generous is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from urllib.parse import urlsplit

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi.forms import ReceivedFile
from prewarmkit.testing.botapi.kinds import becomes
from prewarmkit.testing.botapi.probe import Facts, has_known_extension

__all__ = [
    "CURL_FAILED",
    "MEDIA_EMPTY",
    "NO_UPLOAD_BY_URL",
    "PHOTO_URL_LIMIT",
    "URL_LIMIT",
    "VOICE_URL_LIMIT",
    "WRONG_URL",
    "becomes_by_url",
    "is_url",
    "why_not_asked",
]

PHOTO_URL_LIMIT = 5 * 1024 * 1024
URL_LIMIT = 20 * 1024 * 1024
VOICE_URL_LIMIT = 1024 * 1024

CURL_FAILED = "WEBPAGE_CURL_FAILED"
MEDIA_EMPTY = "WEBPAGE_MEDIA_EMPTY"
WRONG_URL = "wrong HTTP URL specified"
NO_UPLOAD_BY_URL = "can't upload file by URL"

_TYPES: Mapping[MediaKind, AbstractSet[str]] = MappingProxyType(
    {
        MediaKind.PHOTO: frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"}),
        MediaKind.VIDEO: frozenset({"video/mp4"}),
        MediaKind.ANIMATION: frozenset({"image/gif", "video/mp4"}),
        MediaKind.AUDIO: frozenset({"audio/mpeg"}),
        MediaKind.VOICE: frozenset({"audio/ogg"}),
        MediaKind.STICKER: frozenset({"image/webp"}),
        MediaKind.DOCUMENT: frozenset({"image/gif", "application/pdf", "application/zip"}),
    }
)


def is_url(reference: str) -> bool:
    """Whether a client that names this means an address."""
    return reference.lower().startswith(("http://", "https://"))


def why_not_asked(asked: MediaKind, url: str) -> str | None:
    """Why an address is not even looked at; ``None``: it is."""
    if asked is MediaKind.VIDEO_NOTE:
        return NO_UPLOAD_BY_URL
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    return None if host else WRONG_URL


def becomes_by_url(asked: MediaKind, file: ReceivedFile, facts: Facts) -> MediaKind | str:
    """The kind of the message, or Telegram's word for why there is none."""
    if file.size > (PHOTO_URL_LIMIT if asked is MediaKind.PHOTO else URL_LIMIT):
        return CURL_FAILED
    mime = (file.content_type or "").partition(";")[0].strip().lower()
    if not file.size or mime not in _TYPES.get(asked, ()) or not has_known_extension(file.filename):
        return MEDIA_EMPTY
    if asked is MediaKind.VOICE and file.size > VOICE_URL_LIMIT:
        return MediaKind.DOCUMENT
    return becomes(asked, facts, size=file.size)
