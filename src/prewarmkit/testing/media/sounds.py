"""WAV, MP3 and OGG/Opus, written by hand."""

from __future__ import annotations

import random
import struct
import zlib

from prewarmkit.testing.media._bytes import need, noise

__all__ = ["OPUS_PACKET_SECONDS", "mp3", "ogg", "wav"]

_WAV_HEADER = 44
_MP3_LEAST = 2_000
_MP3_BIT_RATE = 128_000
_MP3_SAMPLE_RATE = 44_100
_MP3_TAG = 10 + 10 + 8  # ID3v2 header, PRIV frame header, its owner
_NO_SYNC = bytes(byte if byte < 0xF0 else byte & 0x7F for byte in range(256))  # noqa: PLR2004 - half of MPEG's sync

OPUS_PACKET_SECONDS = 0.02
_OGG_LEAST = 1_000
_OPUS_PACKET = 240  # with 20 ms a packet: 96 kbit/s
_OPUS_PACKETS_A_PAGE = 50
_OPUS_TOC = b"\xf8"  # CELT only, full band, 20 ms, mono, one frame


def wav(size: int, seed: object) -> bytes:
    """A WAV of `size` bytes, one less if that is odd: quiet 8-bit noise, mono, 44.1 kHz."""
    need("WAV", size, _WAV_HEADER + 2)
    size -= size % 2
    samples = noise(seed, size - _WAV_HEADER).translate(bytes(112 + byte // 8 for byte in range(256)))
    header = b"RIFF" + struct.pack("<I", size - 8) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, 44_100, 44_100, 1, 8)
    return header + b"data" + struct.pack("<I", len(samples)) + samples


def mp3(size: int, seed: object) -> bytes:
    """An MP3 of exactly `size` bytes: MPEG-1 Layer III, 128 kbit/s, mono, silence.

    The frames declare no samples; the room that the bit rate gives them is ancillary data, filled with noise.
    """
    need("MP3", size, _MP3_LEAST)
    frames: list[bytes] = []
    room = size - _MP3_TAG
    rest = 0
    filler = noise(seed, size).translate(_NO_SYNC)
    at = 0
    while True:
        # 417.96 bytes a frame: the padding bit makes up for the fraction.
        rest += 144 * _MP3_BIT_RATE % _MP3_SAMPLE_RATE
        padded, rest = divmod(rest, _MP3_SAMPLE_RATE)
        length = 144 * _MP3_BIT_RATE // _MP3_SAMPLE_RATE + padded
        if length > room:
            break
        header = bytes((0xFF, 0xFB, 0x90 | padded << 1, 0xC0))
        frames.append(header + bytes(17) + filler[at : at + length - 21])
        at += length - 21
        room -= length
    private = b"PRIV" + struct.pack(">IH", 8 + room, 0) + b"prewarm\0" + filler[at : at + room]
    tag_size = len(private)
    synchsafe = bytes(tag_size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"".join((b"ID3\x03\0\0", synchsafe, private, *frames))


# ── OGG ──────────────────────────────────────────────────────────────────────

_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    """Ogg's CRC-32, which is zlib's with every byte and the result mirrored, and neither start nor end inverted."""
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRROR), "big")


def _page(packets: list[bytes], *, flags: int, granule: int, serial: int, number: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, number, 0)
    page = head + bytes((len(lacing),)) + lacing + b"".join(packets)
    return page[:22] + struct.pack("<I", _ogg_crc(page)) + page[26:]


def _tags(room: int) -> bytes:
    """OpusTags of exactly `room` bytes; what follows the comments is padding (RFC 7845, section 5.2)."""
    vendor = b"prewarmkit.testing"
    tags = b"OpusTags" + struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", 0)
    return tags + bytes(room - len(tags))


def ogg(size: int, seed: object) -> bytes:
    """An OGG/Opus voice message of exactly `size` bytes: mono, 20 ms a packet, noise."""
    need("OGG", size, _OGG_LEAST)
    serial = random.Random(f"{seed}/serial").getrandbits(31)  # noqa: S311 - repeatable, not secret
    opus_head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 48_000, 0, 0)
    head = _page([opus_head], flags=2, granule=0, serial=serial, number=0)
    packets, tag_room, shortened = _opus_layout(size - len(head))
    pages = [head, _page([_tags(tag_room)], flags=0, granule=0, serial=serial, number=1)]
    sound = noise(seed, packets * _OPUS_PACKET - shortened)
    step = _OPUS_PACKET * _OPUS_PACKETS_A_PAGE
    for at in range(0, len(sound), step):
        part = sound[at : at + step]
        chunk = [_OPUS_TOC + part[n + 1 : n + _OPUS_PACKET] for n in range(0, len(part), _OPUS_PACKET)]
        done = min(packets, (at + step) // _OPUS_PACKET)
        flags = 4 if done == packets else 0
        granule = 312 + done * 960
        pages.append(_page(chunk, flags=flags, granule=granule, serial=serial, number=len(pages)))
    return b"".join(pages)


def _opus_layout(room: int) -> tuple[int, int, int]:
    """How many packets fit, how long the tags must be so that nothing is left over, and whether a packet loses a byte.

    Tags of n bytes take n + n // 255 + 28 with their page. One sum in 256 cannot be met (the byte that is
    missing would need a lacing byte of its own); there the last packet is a byte shorter.
    """
    page = 27 + _OPUS_PACKETS_A_PAGE * (_OPUS_PACKET + 1)
    full, rest = divmod(room - 80, page)  # 80: the shortest tags and their page
    packets = full * _OPUS_PACKETS_A_PAGE + max(0, rest - 27) // (_OPUS_PACKET + 1)
    pages = -(-packets // _OPUS_PACKETS_A_PAGE)
    left = room - 28 - pages * 27 - packets * (_OPUS_PACKET + 1)
    shortened = int(left % 256 == 255)  # noqa: PLR2004 - the sum that cannot be met
    left += shortened
    return packets, left - left // 256, shortened
