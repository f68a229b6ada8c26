"""Which kind a sent file becomes: the table of what was asked against what the bytes are. Pure.

Where the documentation is silent, what users of the live server reported decides:

* A GIF, or a film without sound, becomes an animation by ``sendVideo`` and by ``sendDocument``
  (eternnoir/pyTelegramBotAPI#672, aiogram/aiogram#641); other containers than MPEG-4 become documents.
* ``sendAudio`` promises MP3 and M4A only. Other sound stays audio (a FLAC did:
  python-telegram-bot#4352), OGG becomes a voice message (EDM115/unzip-bot#164), what is no sound a document.
* ``sendVoice`` promises OGG, MP3 and M4A; "other formats may be sent as Audio or Document".
* Bytes that are no known container are taken at the method's word.
"""

from __future__ import annotations

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi.probe import Facts

__all__ = ["VIDEO_NOTE_LIMIT", "becomes"]

VIDEO_NOTE_LIMIT = 12 * 1024 * 1024
"""TDLib's default; a larger one is a video."""

_SOUND = frozenset({"mp3", "m4a", "aac", "flac", "wav", "ogg"})


def becomes(asked: MediaKind, facts: Facts, *, size: int, detect: bool = True) -> MediaKind:  # noqa: PLR0911 - a table
    """The kind of the message.

    Args:
        asked: The kind of the method.
        facts: What the bytes are.
        size: Bytes.
        detect: Whether a document's content may change its kind: not ``disable_content_type_detection``.
    """
    if asked is MediaKind.PHOTO or not facts.container:
        return asked
    match asked:
        case MediaKind.VIDEO:
            return _film(facts)
        case MediaKind.ANIMATION:
            # Unlike a video, a film whose sound is not known was meant to have none.
            return MediaKind.VIDEO if facts.has_sound else _animated(facts)
        case MediaKind.AUDIO:
            return MediaKind.VOICE if facts.container == "ogg" else _sound(facts)
        case MediaKind.VOICE:
            return MediaKind.VOICE if facts.container in {"ogg", "mp3", "m4a"} else _sound(facts)
        case MediaKind.VIDEO_NOTE if facts.container == "mp4":
            return MediaKind.VIDEO_NOTE if size <= VIDEO_NOTE_LIMIT else MediaKind.VIDEO
        case MediaKind.STICKER if facts.container in {"webp", "webm", "tgs"}:
            return MediaKind.STICKER
        case MediaKind.DOCUMENT if detect:
            return _film(facts)
        case _:
            return MediaKind.DOCUMENT


def _sound(facts: Facts) -> MediaKind:
    return MediaKind.AUDIO if facts.container in _SOUND else MediaKind.DOCUMENT


def _animated(facts: Facts) -> MediaKind:
    return MediaKind.ANIMATION if facts.container in {"gif", "mp4"} else MediaKind.DOCUMENT


def _film(facts: Facts) -> MediaKind:
    if facts.container == "gif" or (facts.container == "mp4" and facts.has_sound is False):
        return MediaKind.ANIMATION
    return MediaKind.VIDEO if facts.container == "mp4" else MediaKind.DOCUMENT
