"""Framing: what other people's parsers read back is what was meant."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest
from aiohttp import BodyPartReader, MultipartReader, StreamReader
from hypothesis import given
from hypothesis import strategies as st

from prewarmkit.targets.telegram.multipart import Framing, frame, safe_filename

BOUNDARY = "prewarmkit-0123456789abcdef0123456789abcdef"


def framed(filename: str = "a.png", fields: tuple[tuple[str, str], ...] = ()) -> Framing:
    return frame(fields, file_field="photo", filename=filename, content_type="image/png", boundary=BOUNDARY)


def parsed(framing: Framing, data: bytes) -> tuple[dict[str, str], list[tuple[str, str, bytes]]]:
    """What aiohttp's parser, which is not ours, makes of the body."""

    async def read() -> tuple[dict[str, str], list[tuple[str, str, bytes]]]:
        stream = StreamReader(Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
        stream.feed_data(framing.head + data + framing.tail)
        stream.feed_eof()
        reader = MultipartReader({"Content-Type": framing.content_type}, stream)
        fields: dict[str, str] = {}
        files: list[tuple[str, str, bytes]] = []
        while (part := await reader.next()) is not None:
            assert isinstance(part, BodyPartReader)
            name, filename = part.name or "", part.filename
            if filename is None:
                fields[name] = await part.text()
            else:
                files.append((name, filename, bytes(await part.read())))
        return fields, files

    return asyncio.run(read())


def test_an_independent_parser_reads_back_fields_and_file() -> None:
    """Every field is found, and the file's name and bytes."""
    framing = framed("Ünïcode 🎬.png", (("chat_id", "-1001"), ("disable_notification", "true")))
    data = b"\r\n--not-the-boundary--\r\n\x00\xff" * 10
    fields, files = parsed(framing, data)
    assert fields == {"chat_id": "-1001", "disable_notification": "true"}
    assert files == [("photo", "Ünïcode 🎬.png", data)]


def test_the_content_length_is_that_of_the_whole() -> None:
    framing = framed()
    assert framing.content_length(5) == len(framing.head + b"12345" + framing.tail)


@pytest.mark.parametrize(
    ("given_", "safe"),
    [
        ("plain name.png", "plain name.png"),
        ('say "hi".png', "say _hi_.png"),
        ("two\r\nlines: x\r\n\r\n.png", "two__lines: x____.png"),
        ("a;b.png", "a_b.png"),
        ("back\\slash.png", "back_slash.png"),
        ("dir/../x.png", "dir_.._x.png"),
        ("nul\x00tab\t\x7f\x85.png", "nul_tab___.png"),
        ("line\u2028sep.png", "line_sep.png"),
        ("lone\ud800.png", "lone?.png"),
        ("ファイル.png", "ファイル.png"),
    ],
)
def test_a_filename_loses_what_parsers_stumble_over(given_: str, safe: str) -> None:
    """Telegram's parser cuts a parameter at ";" even inside quotes (tdlib/td, tdnet HttpReader.cpp)."""
    assert safe_filename(given_) == safe


@given(st.text(st.characters(), min_size=1))
def test_no_filename_can_break_out_of_its_header(name: str) -> None:
    """Any string at all: one file part, its bytes whole, nothing else."""
    fields, files = parsed(framed(f"{name}.png", (("chat_id", "7"),)), b"data")
    assert fields == {"chat_id": "7"}
    assert [(part, data) for part, _, data in files] == [("photo", b"data")]
    assert files[0][1] == safe_filename(f"{name}.png")


def test_a_boundary_in_a_field_is_an_error() -> None:
    with pytest.raises(ValueError, match="boundary"):
        framed(fields=(("caption", f"x{BOUNDARY}y"),))


@pytest.mark.parametrize("boundary", ["", "a" * 71, "spaced out", 'quo"te'])
def test_a_boundary_that_is_none_is_an_error(boundary: str) -> None:
    """At most 70 bytes (RFC 2046, section 5.1.1)."""
    with pytest.raises(ValueError, match="boundary"):
        frame((), file_field="f", filename="f", content_type="image/png", boundary=boundary)
