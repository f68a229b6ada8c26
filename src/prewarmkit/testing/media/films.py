"""MP4 (ISO BMFF) with H.264 baseline video and, if wanted, silent AAC sound, written by hand.

Every macroblock is I_PCM: its samples stand in the stream as they are, so a frame is noise between fixed bytes, and no
encoder is needed. The index stands in front, as in a film that is meant to be streamed.
"""

from __future__ import annotations

import math
import struct

from attrs import frozen

from prewarmkit.testing.media._bytes import need, noise

__all__ = ["mp4"]

_LEAST = 12_000
_FRAMES_A_SECOND = 25
_TIMESCALE = 1000
_MACROBLOCK = b"\x0d\x00"
"""mb_type I_PCM (ue 25) and the zero bits up to the byte: in a slice that is at a byte boundary."""
_SAMPLES = 384  # 256 luma, 64 + 64 chroma
_NOT_ZERO = bytes(byte or 1 for byte in range(256))
"""A sample is never 0: so no two zero bytes follow each other, and nothing has to be escaped."""

_AAC_RATE = 44_100
_AAC_FRAME_SAMPLES = 1024
_AAC_SILENCE = bytes.fromhex("00c800802380")
_AAC_CONFIG = b"\x12\x08"  # AAC LC, 44.1 kHz, mono


class _Bits:
    """A bit string under construction."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def u(self, value: int, width: int) -> _Bits:
        self._bits.append(f"{value:0{width}b}")
        return self

    def ue(self, *values: int) -> _Bits:
        """Exponential-Golomb codes."""
        for value in values:
            code = f"{value + 1:b}"
            self._bits.append("0" * (len(code) - 1) + code)
        return self

    def bytes(self) -> bytes:
        """The whole bytes; the last is filled up with zeros."""
        bits = "".join(self._bits)
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _sps(side: int) -> bytes:
    """Sequence parameter set: baseline, level 4, `side` by `side` macroblocks, pictures in decoding order."""
    bits = _Bits().u(66, 8).u(0b11000000, 8).u(40, 8).ue(0, 0, 2, 1).u(0, 1)
    bits.ue(side - 1, side - 1).u(1, 1).u(1, 1).u(0, 1).u(0, 1).u(1, 1)
    return b"\x67" + bits.bytes()


def _pps() -> bytes:
    """Picture parameter set: CAVLC, one slice group, deblocking can be switched off."""
    bits = (
        _Bits()
        .ue(0, 0)
        .u(0, 1)
        .u(0, 1)
        .ue(0, 0, 0)
        .u(0, 1)
        .u(0, 2)
        .ue(0, 0, 0)
        .u(1, 1)
        .u(0, 1)
        .u(0, 1)
        .u(1, 1)
    )
    return b"\x68" + bits.bytes()


def _slice_head(frame: int) -> bytes:
    """NAL head, slice header and the first macroblock's type: an IDR picture of I macroblocks, without deblocking."""
    bits = _Bits().ue(0, 7, 0).u(0, 4)  # first macroblock, slice type I, parameter set, frame_num
    bits.ue(frame % 2)  # idr_pic_id: neighbours must differ
    bits.u(0, 1).u(0, 1)  # no_output_of_prior_pics, long_term_reference
    bits.ue(0, 1)  # slice_qp_delta, deblocking filter off
    return b"\x65" + bits.ue(25).bytes()


@frozen
class _Track:
    """What the index says of one track."""

    number: int
    handler: bytes
    sizes: tuple[int, ...]
    timescale: int
    frame_ticks: int
    offset: int
    entry: bytes
    side: int = 0

    @property
    def duration(self) -> int:
        return len(self.sizes) * self.frame_ticks * _TIMESCALE // self.timescale


def mp4(size: int, seed: object, *, sound: bool = True) -> bytes:
    """An MP4 of exactly `size` bytes: square noise at 25 frames a second; with `sound`, a silent AAC track."""
    need("MP4", size, _LEAST)
    side = min(8, max(1, math.isqrt(size // (_SAMPLES * 40))))
    frame_size = 4 + len(_slice_head(0)) + side * side * (_SAMPLES + 2) - 2 + 1
    # An index entry of 4 bytes a frame, and 1.73 sound frames of 6 + 4 bytes; 1200 for the rest of the index.
    frames = max(1, (size - 1_200) // (frame_size + 4 + (18 if sound else 0)))
    sounds = -(-frames * _AAC_RATE // (_FRAMES_A_SECOND * _AAC_FRAME_SAMPLES)) if sound else 0
    head_size = len(_index(side, frames, frame_size, sounds, 0))
    head = _index(side, frames, frame_size, sounds, head_size + 8)
    content = _pictures(side, frames, seed) + _AAC_SILENCE * sounds
    room = size - len(head) - 8 - len(content)
    return b"".join((head, _box(b"mdat", content), _box(b"free", bytes(room - 8))))


def _pictures(side: int, frames: int, seed: object) -> bytes:
    samples = noise(seed, frames * side * side * _SAMPLES).translate(_NOT_ZERO)
    step = side * side * _SAMPLES
    parts: list[bytes] = []
    for frame in range(frames):
        picture = samples[frame * step : (frame + 1) * step]
        blocks = [picture[at : at + _SAMPLES] for at in range(0, step, _SAMPLES)]
        nal = _slice_head(frame) + _MACROBLOCK.join(blocks) + b"\x80"
        parts.append(struct.pack(">I", len(nal)) + nal)
    return b"".join(parts)


# ── boxes ────────────────────────────────────────────────────────────────────


def _box(name: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", len(content) + 8, name) + content


def _full(name: bytes, *parts: bytes, version_flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version_flags), *parts)


_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def _index(side: int, frames: int, frame_size: int, sounds: int, offset: int) -> bytes:
    """``ftyp`` and ``moov``; `offset` is where the pictures begin."""
    brand = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    tracks = [
        _Track(1, b"vide", (frame_size,) * frames, _FRAMES_A_SECOND * 512, 512, offset, _avc1(side), side)
    ]
    if sounds:
        silence = (len(_AAC_SILENCE),) * sounds
        behind = offset + frames * frame_size
        tracks.append(_Track(2, b"soun", silence, _AAC_RATE, _AAC_FRAME_SAMPLES, behind, _mp4a()))
    duration = max(track.duration for track in tracks)
    movie = struct.pack(">IIIIIH10x", 0, 0, _TIMESCALE, duration, 0x10000, 0x100)
    head = _full(b"mvhd", movie, _MATRIX, bytes(24), struct.pack(">I", len(tracks) + 1))
    return brand + _box(b"moov", head, *map(_track, tracks))


def _track(track: _Track) -> bytes:
    pixels = track.side * 16 << 16
    volume = 0x100 if track.handler == b"soun" else 0
    place = struct.pack(">IIIII8xHHHH", 0, 0, track.number, 0, track.duration, 0, 0, volume, 0)
    tkhd = _full(b"tkhd", place, _MATRIX, struct.pack(">II", pixels, pixels), version_flags=3)
    ticks = len(track.sizes) * track.frame_ticks
    mdhd = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, track.timescale, ticks, 0x55C4, 0))
    hdlr = _full(b"hdlr", bytes(4), track.handler, bytes(12), b"prewarmkit\0")
    kind = _full(b"smhd", bytes(4)) if track.handler == b"soun" else _full(b"vmhd", bytes(8), version_flags=1)
    place_of_data = _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", version_flags=1)))
    return _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, _box(b"minf", kind, place_of_data, _samples(track))))


def _samples(track: _Track) -> bytes:
    count = len(track.sizes)
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), track.entry),
        _full(b"stts", struct.pack(">III", 1, count, track.frame_ticks)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", struct.pack(f">II{count}I", 0, count, *track.sizes)),
        _full(b"stco", struct.pack(">II", 1, track.offset)),
    )


def _avc1(side: int) -> bytes:
    sps, pps = _sps(side), _pps()
    config = b"\x01" + sps[1:4] + b"\xff\xe1" + struct.pack(">H", len(sps)) + sps
    config += b"\x01" + struct.pack(">H", len(pps)) + pps
    pixels = side * 16
    entry = struct.pack(">6xH16xHHIII H32sHh", 1, pixels, pixels, 0x480000, 0x480000, 0, 1, b"", 24, -1)
    return _box(b"avc1", entry, _box(b"avcC", config))


def _mp4a() -> bytes:
    specific = b"\x05" + bytes((len(_AAC_CONFIG),)) + _AAC_CONFIG
    decoder = b"\x40\x15" + bytes(3) + struct.pack(">II", 4_000, 4_000) + specific
    decoder = b"\x04" + bytes((len(decoder),)) + decoder
    stream = struct.pack(">HB", 1, 0) + decoder + b"\x06\x01\x02"
    esds = _full(b"esds", b"\x03" + bytes((len(stream),)) + stream)
    return _box(b"mp4a", struct.pack(">6xH8xHHHHI", 1, 1, 16, 0, 0, _AAC_RATE << 16), esds)
