"""What the first bytes of a file say: its container, its pixels, whether a film has sound.

Pure functions over the head of a file. What the bytes do not say, the file's name says; what neither says stays unknown.
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterator

from attrs import frozen

__all__ = ["HEAD_BYTES", "Facts", "has_known_extension", "probe"]

HEAD_BYTES = 65_536
"""How much of a file's beginning is looked at; a film whose index is not in it is taken at its word."""

_BY_EXTENSION = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".gif": "gif",
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".mp3": "mp3",
    ".m4a": "m4a",
    ".aac": "aac",
    ".flac": "flac",
    ".wav": "wav",
    ".ogg": "ogg",
    ".oga": "ogg",
    ".opus": "ogg",
    ".tgs": "tgs",
    ".pdf": "pdf",
    ".zip": "zip",
}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"),
    (b"\xff\xfa", "mp3"),
    (b"\xff\xf3", "mp3"),
    (b"\xff\xf1", "aac"),
    (b"\xff\xf9", "aac"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "tgs"),
)
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's SOF0 to SOF15, which hold the size; the three in their midst are tables."""

_RIFF = {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}


@frozen(kw_only=True)
class Facts:
    """What is known of a file.

    Attributes:
        container: ``"png"``, ``"mp4"``, …; empty: neither bytes nor name say.
        width: Pixels, 0: not known.
        height: Pixels, 0: not known.
        duration: Whole seconds, 0: not known.
        has_sound: Of a film; ``None``: not known.
    """

    container: str
    width: int = 0
    height: int = 0
    duration: int = 0
    has_sound: bool | None = None


def probe(head: bytes, filename: str) -> Facts:
    """What the first `HEAD_BYTES` and the name say of a file."""
    container = _by_magic(head)
    if not container:
        return Facts(container=_BY_EXTENSION.get(posixpath.splitext(filename)[1].lower(), ""))
    if container == "mp4":
        return _film(head)
    width, height = _pixels(container, head)
    return Facts(container=container, width=width, height=height)


def has_known_extension(path: str) -> bool:
    """Whether a name or a path says what the file is."""
    return posixpath.splitext(path)[1].lower() in _BY_EXTENSION


def _by_magic(head: bytes) -> str:
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return {b"M4A ": "m4a", b"qt  ": "mov"}.get(head[8:12], "mp4")
    if head[:4] == b"\x1aE\xdf\xa3":
        return "webm" if b"webm" in head[:64] else "matroska"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def _pixels(container: str, head: bytes) -> tuple[int, int]:
    try:
        if container == "png" and head[12:16] == b"IHDR":
            return struct.unpack_from(">II", head, 16)
        if container == "gif":
            return struct.unpack_from("<HH", head, 6)
        if container == "jpeg":
            return _jpeg_pixels(head)
        if container == "webp":
            return _webp_pixels(head)
    except struct.error:  # cut off before the numbers: they are not known
        return 0, 0
    return 0, 0


def _jpeg_pixels(head: bytes) -> tuple[int, int]:
    at = 2
    while head[at : at + 1] == b"\xff":
        marker = head[at + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", head, at + 2)[0]
    return 0, 0


def _webp_pixels(head: bytes) -> tuple[int, int]:
    form = head[12:16]
    if form == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if form == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Each box of ISO 14496-12 in `data`: its name, its content, and whether the content is all there."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1 and start + 8 <= len(data):
            size = struct.unpack_from(">Q", data, start)[0]
            start += 8
        end = at + size if size else len(data)
        if end < start:
            return
        yield name, data[start:end], end <= len(data)
        at = end


def _child(data: bytes, *path: bytes) -> bytes:
    for wanted in path:
        data = next((content for name, content, _ in _boxes(data) if name == wanted), b"")
    return data


def _film(head: bytes) -> Facts:
    moov = next((content for name, content, whole in _boxes(head) if name == b"moov" and whole), None)
    if moov is None:
        return Facts(container="mp4")
    tracks = [content for name, content, _ in _boxes(moov) if name == b"trak"]
    handlers = {_child(track, b"mdia", b"hdlr")[8:12] for track in tracks}
    width = height = 0
    for track in tracks:
        if _child(track, b"mdia", b"hdlr")[8:12] == b"vide":
            tkhd = _child(track, b"tkhd")
            if len(tkhd) >= 8:  # noqa: PLR2004 - two 16.16 numbers at its end
                width, height = (number >> 16 for number in struct.unpack(">II", tkhd[-8:]))
    return Facts(
        container="mp4",
        width=width,
        height=height,
        duration=_seconds(_child(moov, b"mvhd")),
        has_sound=b"soun" in handlers,
    )


def _seconds(mvhd: bytes) -> int:
    try:
        scale, length = struct.unpack_from(
            ">IQ" if mvhd[:1] == b"\x01" else ">II", mvhd, 20 if mvhd[:1] == b"\x01" else 12
        )
    except struct.error:
        return 0
    return round(length / scale) if scale else 0
