"""Which handle is picked, and when it is weak (sections 1.4 and 1.5 of the research notes)."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from aiogram.types import Message

from prewarmkit.media import MediaKind, Warmed
from prewarmkit.targets.telegram.handles import WeakReason, pick


def file(name: str = "F", **facts: Any) -> dict[str, Any]:
    return {"file_id": name, "file_unique_id": f"U{name}", **facts}


def size(name: str, width: int, height: int, file_size: int) -> dict[str, Any]:
    return file(name, width=width, height=height, file_size=file_size)


def message(**media: Any) -> dict[str, Any]:
    chat = {"id": -1001, "type": "supergroup", "title": "warm"}
    return {"message_id": 7, "date": 1_800_000_000, "chat": chat, **media}


FILM: dict[str, Any] = {"width": 320, "height": 240, "duration": 3}
MESSAGES: dict[MediaKind, dict[str, Any]] = {
    MediaKind.PHOTO: message(photo=[size("s", 90, 60, 900), size("m", 320, 213, 9000)]),
    MediaKind.VIDEO: message(video=file(**FILM, file_size=100)),
    MediaKind.ANIMATION: message(animation=file(**FILM), document=file(file_name="a.mp4")),
    MediaKind.AUDIO: message(audio=file(duration=3, file_size=100)),
    MediaKind.VOICE: message(voice=file(duration=3)),
    MediaKind.VIDEO_NOTE: message(video_note=file(length=240, duration=3)),
    MediaKind.STICKER: message(
        sticker=file(type="regular", width=512, height=512, is_animated=False, is_video=False)
    ),
    MediaKind.DOCUMENT: message(document=file(file_name="a.pdf", mime_type="application/pdf", file_size=100)),
}


def picked(given: dict[str, Any], asked: MediaKind | str, sent: int = 100) -> Warmed:
    return pick(given, asked=MediaKind.parse(asked), sent=sent, source={"etag": "e1", "sha256": None})


@pytest.mark.parametrize("kind", list(MediaKind))
def test_the_handle_is_the_one_that_aiogram_finds(kind: MediaKind) -> None:
    """aiogram, an independent reader of the Bot API, parses the same message."""
    judge = Message.model_validate(MESSAGES[kind])
    expected: Any = getattr(judge, kind.value)
    if kind is MediaKind.PHOTO:
        expected = max(expected, key=lambda one: one.width * one.height)
    warmed = picked(MESSAGES[kind], kind)
    assert (warmed.handle, warmed.unique_id) == (expected.file_id, expected.file_unique_id)
    assert judge.content_type == kind.value
    assert (warmed.kind, warmed.weak) == (kind, ())
    assert (warmed.details["message_id"], warmed.details["chat_id"]) == (judge.message_id, judge.chat.id)


def test_an_animation_comes_before_its_copy_as_a_document() -> None:
    """Bot API: "for backward compatibility, the document field will also be set" (pyTelegramBotAPI#1005)."""
    both = message(document=file("D"), animation=file("A"))
    assert picked(both, "animation").handle == "A"


@pytest.mark.parametrize("asked", ["video", "document"])
def test_the_kind_that_came_is_the_truth(asked: str) -> None:
    """A silent MP4 sent as a video comes back as an animation (pyTelegramBotAPI#672, aiogram#641)."""
    warmed = picked(message(document=file("D"), animation=file("A")), asked)
    assert (warmed.handle, warmed.kind) == ("A", MediaKind.ANIMATION)
    assert WeakReason.KIND_CHANGED in warmed.weak
    assert warmed.details["kind_requested"] == asked


def test_the_largest_photo_counts_in_whatever_order_they_come() -> None:
    """The server sorts by bytes first, so its last need not be the largest (section 1.5)."""
    sizes = [size("s", 90, 60, 900), size("big", 1280, 853, 5000), size("heavy", 800, 533, 9000)]
    for order in itertools.permutations(sizes):
        warmed = picked(message(photo=list(order)), "photo")
        assert (warmed.handle, warmed.unique_id, warmed.weak) == ("big", "Ubig", ())
        assert (warmed.details["width"], warmed.details["height"]) == (1280, 853)
        assert [one["file_id"] for one in warmed.details["variants"]] == [one["file_id"] for one in order]


def test_of_photos_with_equal_pixels_the_heavier_counts_then_the_later() -> None:
    assert picked(message(photo=[size("a", 9, 9, 5), size("b", 9, 9, 4)]), "photo").handle == "a"
    assert picked(message(photo=[size("a", 9, 9, 5), size("b", 9, 9, 5)]), "photo").handle == "b"


@pytest.mark.parametrize(
    ("given", "asked", "reasons"),
    [
        (message(photo=[]), "photo", [WeakReason.NO_PHOTO_SIZE]),
        (message(), "photo", [WeakReason.NO_MEDIA]),
        (message(video={"file_unique_id": "U"}), "video", [WeakReason.NO_FILE_ID]),
        (message(video={"file_id": "F"}), "video", [WeakReason.NO_UNIQUE_ID]),
        (message(video={"file_id": "F", "file_unique_id": ""}), "video", [WeakReason.NO_UNIQUE_ID]),
        (message(video=file("https://example.org/x.mp4")), "video", [WeakReason.URL_HANDLE]),
        ({**message(video=file()), "message_id": 0}, "video", [WeakReason.SCHEDULED]),
        (message(document=file(file_size=99)), "document", [WeakReason.SIZE_CHANGED]),
        (message(audio=file(file_size=101)), "audio", [WeakReason.SIZE_CHANGED]),
        (message(video=file(file_size=99)), "video", []),
        (message(document=file()), "document", []),
        (
            {**message(document={"file_id": "http://x"}), "message_id": 0},
            "voice",
            [WeakReason.NO_UNIQUE_ID, WeakReason.URL_HANDLE, WeakReason.SCHEDULED, WeakReason.KIND_CHANGED],
        ),
    ],
)
def test_a_handle_that_cannot_be_trusted_says_why(
    given: dict[str, Any], asked: str, reasons: list[WeakReason]
) -> None:
    """Section 1.4: empty unique id, a URL as id, message 0, another kind, an empty photo."""
    assert list(picked(given, asked).weak) == reasons


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"photo": "x", "chat": 5},
        {"photo": [1, None]},
        {"video": {"file_id": 5, "file_unique_id": []}},
        {"photo": [{"file_id": "F", "width": "x", "height": None, "file_size": True}]},
        {"message_id": "7", "document": []},
    ],
)
def test_a_malformed_message_is_weak_and_never_a_crash(given: dict[str, Any]) -> None:
    assert picked(given, "photo").weak


def test_the_details_can_be_stored_in_a_row() -> None:
    for kind in MediaKind:
        details = dict(picked(MESSAGES[kind], kind).details)
        assert json.loads(json.dumps(details)) == details
        assert (details["source_etag"], details["bytes_sent"], details["route"]) == ("e1", 100, "multipart")
        assert "source_sha256" not in details
