"""How ``file_id`` and ``file_unique_id`` are made, so that the same upload has the same ids in every process.

The real ones are opaque; these have their look (base64 for URLs, a kind in the first byte, lengths as measured)
and the properties that the documentation promises: a ``file_id`` is one bot's own, a ``file_unique_id`` is
the same for all bots and cannot be sent.
"""

from __future__ import annotations

import base64
import hashlib

from prewarmkit.media import MediaKind

__all__ = ["file_id", "file_unique_id"]

_TYPE = {
    MediaKind.PHOTO: 2,
    MediaKind.VOICE: 3,
    MediaKind.VIDEO: 4,
    MediaKind.DOCUMENT: 5,
    MediaKind.STICKER: 8,
    MediaKind.AUDIO: 9,
    MediaKind.ANIMATION: 10,
    MediaKind.VIDEO_NOTE: 13,
}
_ID_BYTES = 49  # with the four in front: 71 characters
_UNIQUE_PHOTO_BYTES = 9  # with the three in front: 16 characters
_UNIQUE_OTHER_BYTES = 8  # 15 characters


def _text(head: bytes, tail: bytes) -> str:
    return base64.urlsafe_b64encode(head + tail).rstrip(b"=").decode("ascii")


def _digest(*parts: object) -> bytes:
    return hashlib.sha512("\0".join(map(str, parts)).encode()).digest()


def file_id(bot_id: int, kind: MediaKind, sha256: str, *, variant: str = "") -> str:
    """The handle that one bot has for this content as this kind; `variant` tells a photo's sizes apart."""
    return _text(bytes((_TYPE[kind], 0, 2, 2)), _digest("id", bot_id, kind, sha256, variant)[:_ID_BYTES])


def file_unique_id(kind: MediaKind, sha256: str, *, variant: str = "") -> str:
    """What recognises this content for every bot."""
    if kind is MediaKind.PHOTO:
        return _text(b"\x01\x00\x03", _digest("unique", "photo", sha256, variant)[:_UNIQUE_PHOTO_BYTES])
    return _text(b"\x02\x00\x03", _digest("unique", "document", sha256)[:_UNIQUE_OTHER_BYTES])
