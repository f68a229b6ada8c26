"""Methods, names, types and sizes by kind."""

from __future__ import annotations

from typing import Any

import pytest

from prewarmkit.errors import MediaUnfit, TooLarge
from prewarmkit.media import Media, MediaKind, ObjectInfo
from prewarmkit.targets.telegram.methods import METHODS, check_size, content_type_of, filename_of

MIB = 1024 * 1024


def info(content_type: str | None = None) -> ObjectInfo:
    return ObjectInfo(key="k", size=1, content_type=content_type)


def test_every_kind_has_its_method_and_parameter() -> None:
    """Names as in the Bot API's documentation ("Available methods")."""
    assert {kind: (method.name, method.field) for kind, method in METHODS.items()} == {
        MediaKind.PHOTO: ("sendPhoto", "photo"),
        MediaKind.VIDEO: ("sendVideo", "video"),
        MediaKind.ANIMATION: ("sendAnimation", "animation"),
        MediaKind.AUDIO: ("sendAudio", "audio"),
        MediaKind.VOICE: ("sendVoice", "voice"),
        MediaKind.VIDEO_NOTE: ("sendVideoNote", "video_note"),
        MediaKind.STICKER: ("sendSticker", "sticker"),
        MediaKind.DOCUMENT: ("sendDocument", "document"),
    }


@pytest.mark.parametrize(
    ("media", "stored", "name"),
    [
        (Media("videos/intro.mp4"), None, "intro.mp4"),
        (Media("photos/1", "photo"), None, "1.jpg"),
        (Media("photos/1", "photo"), "image/png", "1.png"),
        (Media("photos/1", "photo", content_type="image/webp"), "image/png", "1.webp"),
        (Media("a/b.mp3", filename="Song.mp3"), None, "Song.mp3"),
        (Media("audio/x", "audio"), "binary/octet-stream", "x.mp3"),
        (Media("audio/track.v2", "audio"), None, "track.v2.mp3"),
        (Media("v/1", "voice"), None, "1.ogg"),
        (Media("gif/1", "animation"), "image/gif", "1.gif"),
        (Media("gif/1", "animation"), None, "1.mp4"),
        (Media("docs/LICENSE", "document"), None, "LICENSE"),
        (Media("docs/report", "document"), "application/pdf", "report.pdf"),
        (Media("docs/data.custom", "document"), "application/pdf", "data.custom"),
        (Media("PHOTO.JPG"), None, "PHOTO.JPG"),
        (Media("folder/", "document"), None, "folder"),
        (Media("/", "photo"), None, "photo.jpg"),
    ],
)
def test_a_name_gets_an_extension_that_fits(media: Media, stored: str | None, name: str) -> None:
    """Telegram goes by the extension (python-telegram-bot#2300; research/section 1.2)."""
    assert filename_of(media, info(stored)) == name


@pytest.mark.parametrize(
    ("media", "stored", "content_type"),
    [
        (Media("a.png"), "image/jpeg", "image/jpeg"),
        (Media("a.png", content_type="image/webp"), "image/jpeg", "image/webp"),
        (Media("a.png"), "application/octet-stream", "image/png"),
        (Media("a.txt"), "text/plain; charset=utf-8", "text/plain"),
        (Media("a", "video"), None, "video/mp4"),
        (Media("a", "document"), None, "application/octet-stream"),
        (Media("a.png"), "evil\r\nX-Header: 1", "image/png"),
        (Media("a.png", content_type='image/png"; x="'), None, "image/png"),
    ],
)
def test_the_type_is_the_stated_one_where_it_says_something(
    media: Media, stored: str | None, content_type: str
) -> None:
    assert content_type_of(media, info(stored)) == content_type


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("photo", 10 * MIB), ("document", 50 * MIB), ("video", 50 * MIB), ("video_note", 12 * MIB)],
)
def test_a_medium_over_the_limit_is_too_large_before_it_is_sent(kind: str, limit: int) -> None:
    """10 MB for photos, 50 MB for the rest (Bot API, "Sending files"); 12 MiB for video notes (TDLib)."""
    media = Media("k", MediaKind.parse(kind))
    check_size(media, limit)
    with pytest.raises(TooLarge, match="k") as caught:
        check_size(media, limit + 1)
    assert caught.value.limit == limit


def test_an_empty_medium_is_unfit() -> None:
    """The server answers 400 "file must be non-empty"."""
    with pytest.raises(MediaUnfit, match="empty"):
        check_size(Media("k.png"), 0)


@pytest.mark.parametrize("size", [None, -1, 2.0])
def test_a_source_must_say_how_large_it_is(size: Any) -> None:
    with pytest.raises(TypeError, match=r"'k\.png'.*size"):
        check_size(Media("k.png"), size)
