"""What the Bot API servers of the end-to-end benchmark make of its media: kinds, and the handles that must come back."""

from __future__ import annotations

import hashlib

import warming_side as side

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import FAKE_BOT, Upload
from prewarmkit.testing.botapi.answers import photo_sizes
from prewarmkit.testing.botapi.ids import file_id, file_unique_id
from prewarmkit.testing.botapi.values import bot_id_of

__all__ = ["handle_of", "upload_of"]

_KINDS = {"jpg": MediaKind.PHOTO, "mp4": MediaKind.VIDEO, "pdf": MediaKind.DOCUMENT}


def upload_of(key: str) -> Upload:
    """The upload of a medium, as the project's own server would remember it."""
    bot_id, kind, content = bot_id_of(FAKE_BOT), _KINDS[key.rpartition(".")[2]], side.content_of(key)
    digest = hashlib.sha256(content).hexdigest()
    return Upload(
        method="",
        bot_id=bot_id,
        chat_id=side.CHAT_ID,
        kind=kind,
        filename=key.rpartition("/")[2],
        content_type=None,
        size=len(content),
        sha256=digest,
        file_id=file_id(bot_id, kind, digest),
        file_unique_id=file_unique_id(kind, digest),
        message_id=0,
    )


def handle_of(key: str) -> str:
    """The ``file_id`` that proves that this medium's very bytes arrived, as what they were sent as."""
    upload = upload_of(key)
    if upload.kind is MediaKind.PHOTO:
        return str(photo_sizes(upload)[-1]["file_id"])
    return upload.file_id
