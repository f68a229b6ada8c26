"""Framing of a ``multipart/form-data`` upload whose file is streamed.

Pure: it makes the bytes before the file and those after it, so that the length of the
whole is known before the first byte is sent. Who reads the file is not its business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

__all__ = ["Framing", "frame", "frame_end", "frame_fields", "frame_part", "safe_filename"]

# Control characters would break the line; the rest mean something to one parser or another.
# Telegram's own cuts a parameter at ";" even inside quotes, and unescapes nothing.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029"\\;/]')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")


@frozen
class Framing:
    """What goes round the file.

    Attributes:
        boundary: The separator, which must not occur in the file.
        head: Every byte before the file.
        tail: Every byte after it.
    """

    boundary: str
    head: bytes
    tail: bytes

    @property
    def content_type(self) -> str:
        """The value of the request's ``content-type``."""
        return f"multipart/form-data; boundary={self.boundary}"

    def content_length(self, size: int) -> int:
        """Bytes in the whole body with a file of ``size`` bytes in it."""
        return len(self.head) + size + len(self.tail)


def safe_filename(name: str) -> str:
    """``name`` with everything replaced that some parser of part headers would stumble over."""
    # A name from a file system may hold lone surrogates, which UTF-8 has no bytes for.
    clean = name.encode("utf-8", "replace").decode("utf-8")
    return _UNSAFE.sub("_", clean)


def frame(
    fields: Iterable[tuple[str, str]], *, file_field: str, filename: str, content_type: str, boundary: str
) -> Framing:
    """The framing of one file and the plain fields before it.

    Raises:
        ValueError: The boundary is not one, or stands in a field's value.
    """
    head = frame_fields(fields, boundary=boundary)
    part = frame_part(file_field=file_field, filename=filename, content_type=content_type, boundary=boundary)
    return Framing(boundary, head + part.head, part.tail + frame_end(boundary))


def frame_fields(fields: Iterable[tuple[str, str]], *, boundary: str) -> bytes:
    """Plain fields, which come before all files.

    Raises:
        ValueError: The boundary is not one, or stands in a field's value.
    """
    if _BOUNDARY.fullmatch(boundary) is None:
        raise ValueError("A boundary has 1 to 70 of the characters that RFC 2046 allows.")
    lines: list[str] = []
    for name, value in fields:
        if boundary in value:
            raise ValueError(f"The boundary stands in the value of {name!r}: choose another.")
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"', "", value]
    return "".join([f"{line}\r\n" for line in lines]).encode("utf-8")


def frame_part(*, file_field: str, filename: str, content_type: str, boundary: str) -> Framing:
    """The framing of one file of several; `frame_end` comes after the last."""
    disposition = f'form-data; name="{file_field}"; filename="{safe_filename(filename)}"'
    lines = [
        f"--{boundary}",
        f"Content-Disposition: {disposition}",
        f"Content-Type: {content_type}",
        "",
        "",
    ]
    return Framing(boundary, "\r\n".join(lines).encode("utf-8"), b"\r\n")


def frame_end(boundary: str) -> bytes:
    """What ends the whole."""
    return f"--{boundary}--\r\n".encode("ascii")
