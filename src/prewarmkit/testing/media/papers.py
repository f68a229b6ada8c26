"""PDF, ZIP and plain text."""

from __future__ import annotations

import io
import random
import zipfile

from prewarmkit.testing.media._bytes import need, noise

__all__ = ["pdf", "txt", "zip_archive"]

_PDF_LEAST = 1_200
_ZIP_LEAST = 200
_WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "field",
    "grove",
    "harbor",
    "island",
    "juniper",
    "kettle",
    "lantern",
    "meadow",
    "north",
    "orchard",
    "pebble",
    "quarry",
    "river",
    "stone",
    "timber",
    "umber",
    "valley",
    "willow",
    "yarrow",
    "zephyr",
)


def pdf(size: int, seed: object) -> bytes:
    """A PDF of exactly `size` bytes: one page of text, and noise as an attachment."""
    need("PDF", size, _PDF_LEAST)
    empty = _pdf(b"")
    return _pdf(noise(seed, size - len(empty)))


def _pdf(attachment: bytes) -> bytes:
    """All numbers that depend on the attachment's length have a fixed width, so lengths add up."""
    text = b"BT /F1 24 Tf 72 720 Td (A paper made by prewarmkit.testing) Tj ET"
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles << /Names [(noise.bin) 6 0 R] >> >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
            b"/Resources << /Font << /F1 5 0 R >> >> >>"
        ),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Filespec /F (noise.bin) /EF << /F 7 0 R >> >>",
        b"<< /Type /EmbeddedFile /Length %010d >>\nstream\n%s\nendstream" % (len(attachment), attachment),
    )
    body = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    table = [b"0000000000 65535 f \n"]
    for number, content in enumerate(objects, start=1):
        table.append(b"%010d 00000 n \n" % len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%010d\n%%%%EOF\n" % (len(table), len(body))
    return bytes(body) + b"xref\n0 %d\n" % len(table) + b"".join(table) + trailer


def zip_archive(size: int, seed: object) -> bytes:
    """A ZIP of exactly `size` bytes: one file of noise, stored."""
    need("ZIP", size, _ZIP_LEAST)
    return _zip(noise(seed, size - len(_zip(b""))))


def _zip(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("noise.bin", (2020, 1, 1, 0, 0, 0)), content)
    return target.getvalue()


def txt(size: int, seed: object) -> bytes:
    """A text of exactly `size` bytes: lines of English words."""
    need("text", size, 1)
    source = random.Random(str(seed))  # noqa: S311 - repeatable, not secret
    lines = [" ".join(source.choices(_WORDS, k=12)) + "\n" for _ in range(64)]
    mean = sum(map(len, lines)) / len(lines)
    text = "".join(source.choices(lines, k=int(size / mean * 1.2) + 8))
    while len(text) < size:
        text += "".join(lines)
    return text[:size].encode("ascii")
