"""DirectorySource gives the files of one directory, and nothing else."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from prewarmkit.errors import BodyFault, ConfigurationError, NotFound
from prewarmkit.sources import DirectorySource

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a b+ü.png").write_bytes(b"image")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "media-beside").mkdir()
    (tmp_path / "media-beside" / "secret").write_bytes(b"secret")
    return root


async def test_info_says_what_the_file_is(root: Path) -> None:
    path = root / "sub" / "a b+ü.png"
    os.utime(path, ns=(1, 1_700_000_000_000_000_001))
    info = await DirectorySource(root).head("sub/a b+ü.png")
    assert (info.key, info.size, info.content_type) == ("sub/a b+ü.png", 5, "image/png")
    assert info.last_modified == datetime.fromtimestamp(1_700_000_000, UTC)
    assert info.etag == f"{1_700_000_000_000_000_001:x}-5"


@pytest.mark.parametrize(
    "key",
    [
        "../secret",
        "sub/../../secret",
        "sub/..",
        "..",
        ".",
        "",
        "/etc/passwd",
        "//etc/passwd",
        "sub//a b+ü.png",
        "./sub/a b+ü.png",
        "sub/",
        "sub",
        "sub/a b+ü.png/",
        "sub/a\0b",
        "\ud800",
        "x" * 5000,
        "sub/a b+ü.png/below",
    ],
)
async def test_a_key_that_is_no_file_inside_is_not_found(root: Path, key: str) -> None:
    """Escapes, directories, second spellings and impossible names look all alike from outside."""
    source = DirectorySource(root)
    with pytest.raises(NotFound) as caught:
        await source.head(key)
    assert caught.value.code == "NoSuchKey"
    with pytest.raises(NotFound):
        async with source.open(key):
            pass


async def test_an_absolute_key_inside_the_directory_is_not_a_key(root: Path) -> None:
    with pytest.raises(NotFound):
        await DirectorySource(root).head(str(root / "sub" / "a b+ü.png"))


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
async def test_a_link_may_point_inside_but_never_out(root: Path, tmp_path: Path) -> None:
    (root / "in").symlink_to(root / "sub" / "a b+ü.png")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "beside").symlink_to(tmp_path / "media-beside")
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling").symlink_to(root / "nothing")
    source = DirectorySource(root)
    assert (await source.head("in")).size == 5
    for key in ("out", "beside/secret", "loop", "dangling"):
        with pytest.raises(NotFound):
            await source.head(key)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes there")
async def test_a_pipe_is_no_medium_and_does_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with anyio.fail_after(2), pytest.raises(NotFound):
        await DirectorySource(root).head("pipe")


async def test_a_directory_that_is_itself_a_link_works(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert (await DirectorySource(tmp_path / "alias").head("sub/a b+ü.png")).size == 5


@pytest.mark.parametrize("change", ["shrunk", "grown", "rewritten", "emptied"])
async def test_a_file_that_changes_under_the_reader_is_a_fault(root: Path, change: str) -> None:
    """Never mixed bytes, never a quiet end."""
    path = root / "large"
    path.write_bytes(b"a" * 1_000_000)
    os.utime(path, (1, 1))
    async with DirectorySource(root).open("large") as medium:
        await anext(aiter(medium))
        with path.open("r+b") as file:
            if change == "shrunk":
                file.truncate(500_000)
            elif change == "emptied":
                file.truncate(0)
            elif change == "grown":
                file.seek(0, os.SEEK_END)
                file.write(b"b" * 1000)
            else:
                file.seek(900_000)
                file.write(b"b" * 1000)
        with pytest.raises(BodyFault, match="changed while it was read") as caught:
            await medium.read()
        assert caught.value.is_retryable


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """At the first use: constructors do no I/O."""
    source = DirectorySource(tmp_path / "later")
    with pytest.raises(ConfigurationError, match="later"):
        await source.head("k")
    (tmp_path / "later").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="no directory"):
        await source.head("k")
    (tmp_path / "later").unlink()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "k").write_bytes(b"x")
    assert (await source.head("k")).size == 1


async def test_a_file_has_no_public_address(root: Path) -> None:
    assert DirectorySource(root).url("sub/a b+ü.png") is None
