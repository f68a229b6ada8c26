"""A body is what it was when it was given, or it is refused: never another one's bytes, never half of it."""

from __future__ import annotations

import io
import os
import socket
import tempfile
import time
from array import array
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from r2_model import MIB, Call, R2Model, client, md5, small_parts

from prewarmkit.errors import BodyFault, ServiceFault
from prewarmkit.r2.bodies import known_body, pieces
from prewarmkit.r2.tokens import UploadToken

pytestmark = pytest.mark.anyio


@pytest.fixture
def tiny() -> Iterator[None]:
    with small_parts():
        yield


# ── files that change ────────────────────────────────────────────────────────


def replaced(path: Path) -> None:
    """By one of the same length and time."""
    other = path.with_name("other")
    other.write_bytes(b"b" * path.stat().st_size)
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.replace(path)


def rewritten(path: Path) -> None:
    """In place, at one length, and some time later."""
    path.write_bytes(b"b" * path.stat().st_size)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"b")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


CHANGES = [replaced, rewritten, appended, cut, emptied]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_path_whose_file_changes_between_two_parts_is_no_object_of_both(
    change: Callable[[Path], None], tiny: None, tmp_path: Path
) -> None:
    (path := tmp_path / "f").write_bytes(b"a" * 100)

    def meanwhile(call: Call) -> None:
        if call.number == 2:
            change(path)

    model = R2Model(before=meanwhile)
    async with client(model) as r2:
        with pytest.raises(BodyFault, match="changed while it was read") as caught:
            await r2.put("k", path, part_size=10, concurrency=1)
    assert not caught.value.is_retryable
    assert (model.objects, model.uploads) == ({}, {})


@pytest.mark.parametrize("change", CHANGES)
async def test_a_path_whose_file_changes_before_it_is_sent_is_no_object(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    """In one request: its head promises a length, and its bytes are read as they go out."""
    (path := tmp_path / "f").write_bytes(b"a" * 3 * MIB)
    model, left = R2Model(), iter([path])

    def step() -> None:
        for each in left:
            change(each)

    async with client(model, step=step) as r2:
        with pytest.raises(BodyFault, match="changed while it was read"):
            await r2.put("k", path)
    assert model.objects == {}


async def test_an_open_file_has_one_reader_at_a_time(tiny: None) -> None:
    """It has one position, and parts that go side by side."""

    class Slow(io.BytesIO):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            found = super().seek(offset, whence)
            time.sleep(0.002)
            return found

    model = R2Model()
    async with client(model) as r2:
        await r2.put("k", Slow(bytes(range(100))), part_size=10, concurrency=8)
    assert model.objects["k"].content == bytes(range(100))


async def test_an_open_file_that_grows_is_put_as_far_as_it_went(tiny: None, tmp_path: Path) -> None:
    """A log that is written to all the time can be put by its open file."""
    (path := tmp_path / "f").write_bytes(b"a" * 100)
    model = R2Model(before=lambda _call: appended(path))
    with path.open("rb") as file:
        async with client(model) as r2:
            await r2.put("k", file, part_size=10)
            assert model.objects["k"].content == b"a" * 100
            file.seek(0)
            await r2.put("whole", file)
    assert model.objects["whole"].content[:100] == b"a" * 100


@pytest.mark.parametrize("part_size", [10, None])
async def test_an_open_file_that_shrinks_is_no_object(
    part_size: int | None, tiny: None, tmp_path: Path
) -> None:
    (path := tmp_path / "f").write_bytes(b"a" * 100)
    model, left = R2Model(), iter([path])

    def step() -> None:
        for each in left:
            cut(each)

    with path.open("rb", buffering=0) as file:
        async with client(model, step=step) as r2:
            with pytest.raises(BodyFault, match="ended 1 bytes early"):
                await r2.put("k", file, part_size=part_size)
    assert (model.objects, model.uploads) == ({}, {})


# ── what is no file, or hardly one ───────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 5, 3 * MIB])
async def test_a_text_file_is_refused_before_anything_is_sent(size: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x" * size)
    model = R2Model()
    with (tmp_path / "f").open() as file:
        async with client(model) as r2:
            with pytest.raises(TypeError, match="open files in binary"):
                await r2.put("k", file)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert model.calls == []


async def test_a_path_that_is_no_file_is_refused_without_a_wait(tmp_path: Path) -> None:
    """Opening a pipe waits for its other end, and /dev/zero has none."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        async with client(R2Model()) as r2:
            for path in (tmp_path / "fifo", tmp_path / "s", "/dev/zero"):
                with pytest.raises(ValueError, match="pipe or a device"):
                    await r2.put("k", path)
            for path, error in ((tmp_path, IsADirectoryError), (tmp_path / "no", FileNotFoundError)):
                with pytest.raises(error):
                    await r2.put("k", path)
            with (tmp_path / "closed").open("wb") as closed:
                pass
            with pytest.raises(ValueError, match="closed"):
                await r2.put("k", closed)


async def test_a_device_is_no_empty_file() -> None:
    """It can be sought in, and says that its end is at 0: it is read as a stream."""
    with open("/dev/zero", "rb") as zeroes:  # noqa: PTH123, ASYNC230 - opens at once
        assert await known_body(zeroes) is None
        async with aclosing(pieces(zeroes, 5)) as given:
            assert await anext(given) == bytes(5)


@pytest.mark.parametrize("is_sought", [True, False])
async def test_a_file_whose_end_nobody_knows_is_read_to_its_end(is_sought: bool) -> None:
    """As files of /proc: their end cannot be sought, or is said to be at 0."""

    class Endless(io.BytesIO):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            if whence == os.SEEK_END and not is_sought:
                raise OSError(22, "Invalid argument")
            return super().seek(offset) if whence == 0 else 0

    model = R2Model()
    async with client(model) as r2:
        await r2.put("k", Endless(b"content"))
    assert model.objects["k"].content == b"content"


async def test_a_wrapped_file_is_one_that_can_be_read_again(tiny: None) -> None:
    """What hands on to a file has its methods, though not in its class."""
    tokens: list[UploadToken] = []
    model = R2Model()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x\n" * 50)
        file.seek(10)
        async with client(model) as r2:
            await r2.put("k", file, part_size=10, on_upload=tokens.append)
    assert (model.objects["k"].content, len(tokens)) == (b"x\n" * 45, 1)


# ── streams ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 9, 10, 11, 20, 21])
@pytest.mark.parametrize("form", ["bytes", "iterable"])
async def test_at_the_edge_of_a_part_nothing_is_lost_and_nothing_is_sent_for_nothing(
    form: str, size: int, tiny: None
) -> None:
    content = bytes(range(size))
    model = R2Model()
    async with client(model) as r2:
        info = await r2.put("k", content if form == "bytes" else iter([content]), part_size=10)
    assert (model.objects["k"].content, info.size) == (content, size)
    # A stream that is as long as a part is not known to be at its end.
    parts = 0 if size < 10 + (form == "bytes") else -(-size // 10)
    assert (model.count("upload_part"), model.count("put")) == (parts, parts == 0)


async def test_views_of_any_layout_are_their_bytes() -> None:
    views: list[Any] = [memoryview(b"a-b-c-")[::2], memoryview(array("H", [1, 2])), memoryview(array("H"))]
    model = R2Model()
    async with client(model) as r2:
        for view in views:
            await r2.put("whole", view)
            assert model.objects["whole"].content == view.tobytes()
        await r2.put("k", iter(views))
    assert model.objects["k"].content == b"".join(view.tobytes() for view in views)


@pytest.mark.parametrize(
    "body", [["text"], [5], [None], [b"x", "text"], {"a": 1}, io.StringIO("text"), 5, None]
)
async def test_what_gives_no_bytes_is_refused(body: Any) -> None:
    model = R2Model()
    async with client(model) as r2:
        with pytest.raises(TypeError, match="body"):
            await r2.put("k", body)
    assert model.calls == []


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_generator_left_half_way_leaves_its_own_blocks_in_their_order(
    number: int, tiny: None
) -> None:
    """It holds cancel scopes open while the upload fails, which are left before ours are."""
    is_left = False

    async def body() -> AsyncGenerator[bytes, None]:
        nonlocal is_left
        try:
            with anyio.CancelScope(), anyio.fail_after(60):
                while True:
                    await anyio.lowlevel.checkpoint()
                    yield b"abc"
        finally:
            is_left = True

    model = R2Model(fault=lambda _n, call: "refuse" if call.number == number else None)
    async with client(model) as r2:
        with pytest.raises(ServiceFault):
            await r2.put("k", body(), part_size=10, concurrency=1)
    assert (model.objects, model.uploads, is_left) == ({}, {}, True)


@pytest.mark.parametrize("after", [0, 5, 25])
@pytest.mark.parametrize("form", ["iterable", "stream"])
async def test_what_a_body_raises_is_raised_and_nothing_is_written(form: str, after: int, tiny: None) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(after)
        raise KeyError("the source broke")

    async def stream() -> AsyncGenerator[bytes, None]:
        for chunk in chunks():
            yield chunk

    model = R2Model()
    async with client(model) as r2:
        with pytest.raises(KeyError):
            await r2.put("k", chunks() if form == "iterable" else stream(), part_size=10)
    assert (model.objects, model.uploads, model.count("put")) == ({}, {}, 0)


async def test_bytes_that_change_while_they_are_sent_are_those_that_were_given(tiny: None) -> None:
    body = bytearray(b"a" * 50)

    def overwrite(_call: Call) -> None:
        body[:] = b"b" * 50

    model = R2Model(before=overwrite)
    async with client(model) as r2:
        await r2.put("k", memoryview(body), part_size=10, concurrency=1)
        assert model.objects["k"].content == b"a" * 50
        body[:] = b"c" * 50
        info = await r2.put("k", body)
    assert (model.objects["k"].content, info.etag) == (b"c" * 50, md5(b"c" * 50))
