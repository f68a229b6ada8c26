"""Real media from a seed, made with the standard library alone: what the demo and the tests warm.

`make_media` makes one, `media_set` a whole library of mixed kinds. A maker writes its format by hand and stores noise in it
without compression, so hundreds of megabytes take seconds. The same arguments give the same bytes, everywhere.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

from attrs import field, frozen

from prewarmkit.media import MediaKind
from prewarmkit.testing.media.films import mp4
from prewarmkit.testing.media.papers import pdf, txt, zip_archive
from prewarmkit.testing.media.pictures import gif, png
from prewarmkit.testing.media.sounds import mp3, ogg, wav

__all__ = ["CONTENT_TYPES", "SampleMedia", "make_media", "media_set"]

_MAKERS: Mapping[str, Callable[[int, object], bytes]] = {
    "png": png,
    "gif": gif,
    "mp4": mp4,
    "mp3": mp3,
    "wav": wav,
    "ogg": ogg,
    "pdf": pdf,
    "zip": zip_archive,
    "txt": txt,
}
_BY_KIND: Mapping[str, Callable[[int, object], bytes]] = {
    MediaKind.PHOTO: png,
    MediaKind.VIDEO: mp4,
    MediaKind.ANIMATION: gif,
    MediaKind.AUDIO: mp3,
    MediaKind.VOICE: ogg,
    MediaKind.VIDEO_NOTE: mp4,
    MediaKind.DOCUMENT: pdf,
}

CONTENT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "png": "image/png",
        "gif": "image/gif",
        "mp4": "video/mp4",
        "mp3": "audio/mpeg",
        "wav": "audio/x-wav",
        "ogg": "audio/ogg",
        "pdf": "application/pdf",
        "zip": "application/zip",
        "txt": "text/plain",
    }
)
"""What each extension is served as."""

_MIX: tuple[tuple[MediaKind, str], ...] = (
    (MediaKind.PHOTO, "png"),
    (MediaKind.VIDEO, "mp4"),
    (MediaKind.PHOTO, "png"),
    (MediaKind.ANIMATION, "gif"),
    (MediaKind.AUDIO, "mp3"),
    (MediaKind.PHOTO, "png"),
    (MediaKind.VOICE, "ogg"),
    (MediaKind.DOCUMENT, "pdf"),
    (MediaKind.PHOTO, "png"),
    (MediaKind.VIDEO, "mp4"),
    (MediaKind.AUDIO, "wav"),
    (MediaKind.DOCUMENT, "zip"),
    (MediaKind.PHOTO, "png"),
    (MediaKind.ANIMATION, "gif"),
    (MediaKind.VOICE, "ogg"),
    (MediaKind.DOCUMENT, "txt"),
)
_FOLDERS = {
    MediaKind.PHOTO: "photos",
    MediaKind.VIDEO: "videos",
    MediaKind.ANIMATION: "animations",
    MediaKind.AUDIO: "audio",
    MediaKind.VOICE: "voices",
    MediaKind.DOCUMENT: "documents",
}
_SMALLEST = 12_000  # what every format of the mix can be


@frozen(kw_only=True)
class SampleMedia:
    """One medium of a set; its bytes are made when asked for.

    Attributes:
        key: Such as ``photos/0001.png``; by its extension it has this kind.
        kind: What to warm it as.
        content_type: What to store it as.
        size: Bytes, exactly.
        maker: Makes the bytes, the same each time.
    """

    key: str
    kind: MediaKind
    content_type: str
    size: int
    maker: Callable[[], bytes] = field(repr=False, eq=False)


def make_media(kind: MediaKind | str, size: int, seed: object = 0) -> bytes:
    """A medium of exactly `size` bytes (a WAV of an odd size has one less).

    Args:
        kind: A kind's name, or an extension with or without its dot: png, gif, mp4, mp3, wav, ogg, pdf, zip, txt.
        size: Bytes.
        seed: Anything; equal seeds give equal bytes.

    Raises:
        ValueError: There is no maker of that name, or the format cannot be so small.
    """
    name = str(kind).lower().removeprefix(".")
    maker = _BY_KIND.get(name) or _MAKERS.get(name)
    if maker is None:
        known = ", ".join([kind.value for kind in MediaKind if kind in _BY_KIND] + list(_MAKERS))
        raise ValueError(f"kind: nothing makes {kind!r}; use one of {known}.")
    return maker(size, seed)


def media_set(
    count: int, seed: object = 0, *, smallest: int = 20_000, largest: int = 5_000_000
) -> Iterator[SampleMedia]:
    """Media of mixed kinds, their sizes spread evenly over the orders of magnitude, no two alike.

    Equal sizes are avoided since the live server slows equal-sized uploads down.

    Args:
        count: How many.
        seed: Anything; equal seeds give equal sets.
        smallest: Bytes, 12,000 at least.
        largest: Bytes.

    Raises:
        ValueError: A bound cannot be met.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, not {count!r}.")
    if smallest < _SMALLEST:
        raise ValueError(f"smallest: {_SMALLEST} is the least that every format can be, not {smallest!r}.")
    if largest - smallest < 4 * count:
        raise ValueError(
            f"largest: {count} different sizes need more room above {smallest} than {largest!r}."
        )
    return _media_set(count, seed, smallest, largest)


def _media_set(count: int, seed: object, smallest: int, largest: int) -> Iterator[SampleMedia]:
    source = random.Random(f"{seed}/sizes")  # noqa: S311 - repeatable, not secret
    taken: set[int] = set()
    for index in range(count):
        while True:
            # Even, so that a WAV can have it too.
            size = round(smallest * math.exp(source.random() * math.log(largest / smallest)) / 2) * 2
            if smallest <= size <= largest and size not in taken:
                break
        taken.add(size)
        kind, extension = _MIX[index % len(_MIX)]
        key = f"{_FOLDERS[kind]}/{index + 1:04}.{extension}"
        yield SampleMedia(
            key=key,
            kind=kind,
            content_type=CONTENT_TYPES[extension],
            size=size,
            maker=partial(_MAKERS[extension], size, f"{seed}/{key}"),
        )
