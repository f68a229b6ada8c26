"""PNG and animated GIF, written by hand: noise stored without compression, so that a picture of any size is made at the speed of memory."""

from __future__ import annotations

import math
import struct
import zlib

from prewarmkit.testing.media._bytes import need, noise

__all__ = ["gif", "png"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_LEAST = 200
_GIF_LEAST = 1_500

_GIF_COLOURS = 128
_GIF_CLEAR = bytes((_GIF_COLOURS,))
_GIF_END = bytes((_GIF_COLOURS + 1,))
_GIF_RUN = 120
"""Pixels between two clear codes.

A decoder's table starts at 130 entries and grows by one a code; below 256 entries a code has 8 bits. A clear code
in time keeps it so: every code is one byte, and pixels (0 to 127) are their own codes.
"""
_LOW_BITS = bytes(byte & 0x7F for byte in range(256))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(size: int, seed: object) -> bytes:
    """A PNG of exactly `size` bytes: true colour noise, about square."""
    need("PNG", size, _PNG_LEAST)
    # The rest (signature, chunk frames, five bytes for each 64 KiB of stored data) goes to a text chunk.
    width = math.isqrt((size - 150 - size // 8192) // 3)
    height = max(1, (size - 150 - size // 8192) // (3 * width + 1))
    pixels = noise(seed, 3 * width * height)
    row = 3 * width
    rows = b"".join(b"\0" + pixels[at : at + row] for at in range(0, len(pixels), row))
    head = _PNG_SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(rows, 0))
    end = _chunk(b"IEND", b"")
    comment = b"Comment\0"
    room = size - len(head) - len(body) - len(end) - 12 - len(comment)
    return head + _chunk(b"tEXt", comment + b"." * room) + body + end


def _sub_blocks(data: bytes) -> bytes:
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def _gif_frame(pixels: bytes, side: int) -> bytes:
    control = b"\x21\xf9\x04\x04" + struct.pack("<H", 8) + b"\0\0"  # 80 ms, replaced by the next
    place = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0)
    runs = [pixels[at : at + _GIF_RUN] for at in range(0, len(pixels), _GIF_RUN)]
    codes = _GIF_CLEAR + _GIF_CLEAR.join(runs) + _GIF_END
    return control + place + b"\x07" + _sub_blocks(codes)


def gif(size: int, seed: object) -> bytes:
    """An animated GIF of exactly `size` bytes: at least two frames of grey noise, in a loop."""
    need("GIF", size, _GIF_LEAST)
    # A pixel costs 1/120 for clear codes and 1/255 for block lengths; frames are up to 480 pixels wide.
    head = b"GIF89a"
    palette = b"".join(bytes((level * 2,)) * 3 for level in range(_GIF_COLOURS))
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    budget = size - len(head) - 7 - len(palette) - len(loop) - 300
    frames = max(2, budget // 235_000)
    side = math.isqrt(int((budget / frames - 40) / 1.013))
    screen = struct.pack("<HHBBB", side, side, 0xF6, 0, 0)
    parts = [head, screen, palette, loop]
    pixels = noise(seed, side * side + 7 * frames).translate(_LOW_BITS)
    # Each frame is the noise moved on by a few pixels: it is seen to move, and costs no more noise.
    parts += [_gif_frame(pixels[7 * frame : 7 * frame + side * side], side) for frame in range(frames)]
    room = size - sum(map(len, parts)) - 1
    return b"".join((*parts, _gif_comment(room), b"\x3b"))


def _gif_comment(room: int) -> bytes:
    """A comment extension of exactly `room` bytes, which is not 4."""
    blocks: list[bytes] = []
    left = room - 3
    while left:
        length = min(256, left)
        if left - length == 1:  # a block is its length and at least one byte
            length -= 1
        blocks.append(bytes((length - 1,)) + b"." * (length - 1))
        left -= length
    return b"".join((b"\x21\xfe", *blocks, b"\0"))
