"""The media that the demo and the tests warm are what they claim to be: each is read by somebody else's rules."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import time
import wave
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise

import pytest

from prewarmkit.media import kind_of
from prewarmkit.testing.media import make_media, media_set

FORMATS = ["png", "gif", "mp4", "mp3", "wav", "ogg", "pdf", "zip", "txt"]
SIZES = [12_000, 65_536, 65_537, 99_999, 100_254, 1_000_001]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_a_medium_has_the_size_that_was_asked_for(name: str, size: int) -> None:
    expected = size - size % 2 if name == "wav" else size
    assert len(make_media(name, size, 1)) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_every_small_size_can_be_met(name: str) -> None:
    """Each format has its own awkward sums (block lengths, lacing bytes, padding bits); none of 300 in a row is missed."""
    sizes = range(13_000, 13_300)
    assert all(len(make_media(name, size, 0)) == size - (size % 2 if name == "wav" else 0) for size in sizes)


@pytest.mark.parametrize("name", FORMATS)
def test_a_seed_gives_the_same_bytes_each_time_and_another_gives_others(name: str) -> None:
    assert make_media(name, 20_000, "a") == make_media(name, 20_000, "a")
    assert make_media(name, 20_000, "a") != make_media(name, 20_000, "b")


@pytest.mark.parametrize("kind", ["photo", "video", "animation", "audio", "voice", "video_note", "document"])
def test_a_kind_names_its_usual_format(kind: str) -> None:
    assert len(make_media(kind, 20_000)) == 20_000


def test_what_cannot_be_made_is_named() -> None:
    with pytest.raises(ValueError, match=r"nothing makes 'bmp'; use one of photo, .*, txt"):
        make_media("bmp", 20_000)
    with pytest.raises(ValueError, match="the smallest MP4 is 12000 bytes, not 10"):
        make_media("mp4", 10)
    with pytest.raises(ValueError, match="smallest"):
        media_set(3, smallest=1)
    with pytest.raises(ValueError, match="largest"):
        media_set(300, smallest=20_000, largest=20_100)


# ── one by one ───────────────────────────────────────────────────────────────


def test_png_chunks_are_whole_and_hold_every_pixel() -> None:
    """PNG specification, sections 5 and 9: CRCs, and a filter byte before each row."""
    data = make_media("png", 100_000)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(name + content),)
        chunks[name] = content
        at += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, colour) == (8, 2)
    assert abs(width - height) < 10
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + 3 * width)
    assert chunks[b"IEND"] == b""


def _gif_frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Width, height and LZW bytes of each frame, by the GIF89a specification."""
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    while data[at] != 0x3B:
        if data[at] == 0x21:
            at, _ = _sub_blocks(data, at + 2)
        else:
            assert data[at] == 0x2C
            width, height = struct.unpack_from("<HH", data, at + 5)
            assert data[at + 10] == 7
            at, codes = _sub_blocks(data, at + 11)
            yield width, height, codes
    assert at == len(data) - 1


def _sub_blocks(data: bytes, at: int) -> tuple[int, bytes]:
    parts: list[bytes] = []
    while data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return at + 1, b"".join(parts)


def _lzw_pixels(codes: bytes) -> int:
    """How many pixels a plain LZW decoder gets; it fails where a code had to be wider than 8 bits."""
    pixels, table = 0, 130
    for code in codes:
        if code == 128:
            table = 130
            continue
        if code == 129:
            break
        assert code < 128
        pixels += 1
        table += 1
        assert table <= 256, "the decoder would read 9 bits from here"
    return pixels


def test_gif_is_animated_and_each_frame_has_every_pixel() -> None:
    frames = list(_gif_frames(make_media("gif", 700_000)))
    assert len(frames) >= 2
    assert all(_lzw_pixels(codes) == width * height for width, height, codes in frames)
    assert len({hashlib.sha256(codes).digest() for _, _, codes in frames}) == len(frames)


def test_wav_is_read_by_the_standard_library() -> None:
    with wave.open(io.BytesIO(make_media("wav", 50_000))) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 1, 44_100)
        assert sound.getnframes() == 50_000 - 44
        assert len(set(sound.readframes(1000))) > 10


def test_mp3_is_a_tag_and_then_frames_to_the_last_byte() -> None:
    """ID3v2.3 for the tag; ISO 11172-3: a frame of 128 kbit/s at 44.1 kHz has 417 bytes, 418 with padding."""
    data = make_media("mp3", 100_000)
    assert data[:3] == b"ID3"
    at = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    lengths: list[int] = []
    while at < len(data):
        assert data[at : at + 2] == b"\xff\xfb"
        assert data[at + 2] & 0xFC == 0x90
        lengths.append(417 + (data[at + 2] >> 1 & 1))
        at += lengths[-1]
    assert at == len(data)
    assert abs(sum(lengths) / len(lengths) - 144 * 128_000 / 44_100) < 0.01


def _slow_ogg_crc(page: bytes) -> int:
    """Bit by bit, as RFC 3533 and the Ogg framing document put it: polynomial 04c11db7, nothing inverted."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x8000_0000 else crc << 1) & 0xFFFF_FFFF
    return crc


def test_ogg_pages_follow_each_other_with_right_checksums() -> None:
    data = make_media("ogg", 40_000)
    at, packets, granules = 0, list[bytes](), list[int]()
    rest = b""
    while at < len(data):
        magic, _, flags, granule, _, number, crc, segments = struct.unpack_from("<4sBBqIIIB", data, at)
        lacing = data[at + 27 : at + 27 + segments]
        body = data[at + 27 + segments : at + 27 + segments + sum(lacing)]
        page = data[at : at + 22] + bytes(4) + data[at + 26 : at + 27 + segments] + body
        assert magic == b"OggS"
        assert number == len(granules)
        assert crc == _slow_ogg_crc(page)
        assert flags == (2 if number == 0 else 4 if at + len(page) == len(data) else 0)
        granules.append(granule)
        for length in lacing:
            rest, body = rest + body[:length], body[length:]
            if length < 255:
                packets.append(rest)
                rest = b""
        at += len(page)
    assert packets[0][:8] == b"OpusHead"
    assert packets[1][:8] == b"OpusTags"
    assert all(later >= earlier for earlier, later in pairwise(granules))
    assert granules[-1] == 312 + 960 * (len(packets) - 2)


def _boxes(data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        assert 8 <= size <= len(data) - at
        found.setdefault(name, data[at + 8 : at + size])
        at += size
    return found


def test_mp4_index_points_at_whole_pictures() -> None:
    """ISO 14496-12 for the boxes; each sample is one length-prefixed IDR picture (ISO 14496-15) with no escape due."""
    data = make_media("mp4", 200_000)
    boxes = _boxes(data)
    assert list(boxes) == [b"ftyp", b"moov", b"mdat", b"free"]
    media = _boxes(_boxes(boxes[b"moov"])[b"trak"])[b"mdia"]
    table = _boxes(_boxes(_boxes(media)[b"minf"])[b"stbl"])
    (count,) = struct.unpack_from(">I", table[b"stsz"], 8)
    sizes = struct.unpack_from(f">{count}I", table[b"stsz"], 12)
    (at,) = struct.unpack_from(">I", table[b"stco"], 8)
    ids: list[int] = []
    for size in sizes:
        assert struct.unpack_from(">I", data, at) == (size - 4,)
        nal = data[at + 4 : at + size]
        assert nal[0] == 0x65
        assert b"\0\0" not in nal, "an encoder would have had to escape here"
        ids.append(int.from_bytes(nal[1:5], "big"))
        at += size
    assert count > 10
    assert all(earlier != later for earlier, later in pairwise(ids)), "idr_pic_id must alternate"


@pytest.mark.parametrize("sound", [True, False])
def test_mp4_has_a_sound_track_only_where_wanted(sound: bool) -> None:
    from prewarmkit.testing.botapi.probe import probe
    from prewarmkit.testing.media.films import mp4

    facts = probe(mp4(300_000, 0, sound=sound)[:65_536], "film.mp4")
    assert facts.has_sound is sound
    assert facts.width == facts.height > 0
    assert facts.duration > 0


def test_pdf_table_points_at_its_objects() -> None:
    data = make_media("pdf", 30_000)
    start = int(data.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    table = data[start:].splitlines()
    assert table[0] == b"xref"
    for number, entry in enumerate(table[3 : 2 + int(table[1].split()[1])], start=1):
        assert data[int(entry[:10]) :].startswith(b"%d 0 obj\n" % number)
    for match in re.finditer(rb"/Length (\d+) >>\nstream\n", data):
        assert data[match.end() + int(match[1]) :].startswith(b"\nendstream")


def test_zip_is_read_by_the_standard_library() -> None:
    with zipfile.ZipFile(io.BytesIO(make_media("zip", 30_000))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["noise.bin"]


def test_txt_is_lines_of_words() -> None:
    text = make_media("txt", 30_000).decode("ascii")
    assert len(text.splitlines()) > 300


# ── the set ──────────────────────────────────────────────────────────────────


def test_a_set_has_what_it_says() -> None:
    sample = list(media_set(64, "a", largest=200_000))
    assert len({medium.size for medium in sample}) == len({medium.key for medium in sample}) == 64
    assert {medium.kind.value for medium in sample} == {
        "photo",
        "video",
        "animation",
        "audio",
        "voice",
        "document",
    }
    assert sample[0].key == "photos/0001.png"
    for medium in sample:
        assert kind_of(medium.key) is medium.kind
        assert 20_000 <= medium.size <= 200_000
        assert len(medium.maker()) == medium.size
    assert sample == list(media_set(64, "a", largest=200_000))


def test_a_set_is_spread_over_the_orders_of_magnitude() -> None:
    sizes = sorted(medium.size for medium in media_set(300))
    assert 250_000 < sizes[150] < 400_000, "the middle is the geometric mean of 20 KB and 5 MB, 316 KB"
    assert 200e6 < sum(sizes) < 350e6


def test_fifty_megabytes_are_made_in_no_time() -> None:
    start = time.perf_counter()
    total = sum(len(medium.maker()) for medium in media_set(60))
    assert total > 30e6
    assert time.perf_counter() - start < 4, "about 0.2 s here: the demo makes five times as much"
