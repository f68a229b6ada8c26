"""SpooledSource trusts no file that it did not just write, and does without a disk that fails."""

# ruff: noqa: ASYNC240 - a test looks at a few small local files

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from memory_source import MemoryReader, MemorySource
from waiting import eventually

from prewarmkit.errors import BodyFault, ConfigurationError
from prewarmkit.sources import SpooledSource
from prewarmkit.sources.spool import ledger
from prewarmkit.sources.spool.files import Part

pytestmark = pytest.mark.anyio

MEDIUM = os.urandom(400_000)
OTHER = os.urandom(400_000)


@pytest.fixture
def wrapped() -> MemorySource:
    return MemorySource({"k": MEDIUM, "other": OTHER})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "spool"


async def read(source: SpooledSource, key: str = "k") -> bytes:
    async with source.open(key) as medium:
        return await medium.read()


def only_file(place: Path, kind: str = "medium") -> Path:
    [path] = place.glob(f"*.{kind}")
    return path


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def flipped(at: int) -> Callable[[Path], None]:
    """One bit, there."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    return flip


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def swapped(path: Path) -> None:
    """Another key's whole file under this one's name."""
    [other] = [each for each in path.parent.glob("*.medium") if each != path]
    path.write_bytes(other.read_bytes())


def cut(path: Path) -> None:
    os.truncate(path, 200_000)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def zeroed(path: Path) -> None:
    """As after a power cut: the length is there and the bytes are not."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    "damage",
    [
        flipped(0),
        flipped(len(MEDIUM) - 1),
        flipped(len(MEDIUM) + 10),
        flipped(-1),
        flipped(-33),
        flipped(-50),
        emptied,
        swapped,
        cut,
        grown,
        zeroed,
    ],
)
async def test_a_file_that_was_changed_is_read_anew(
    wrapped: MemorySource, place: Path, damage: Callable[[Path], object]
) -> None:
    """Its time of change may be as it was."""
    async with SpooledSource(wrapped, place) as source:
        await read(source)
        path = only_file(place)
        await read(source, "other")
        status = path.stat()
        damage(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        for _ in range(2):
            assert await read(source) == MEDIUM
        assert wrapped.opens["k"] == 2
        assert source.stats().damaged == 1
        assert await read(source, "other") == OTHER
        assert wrapped.opens["other"] == 1
    async with SpooledSource(wrapped, place) as source:
        assert source.stats().bytes_held == len(MEDIUM) * 2


async def test_a_file_that_was_removed_is_read_anew(wrapped: MemorySource, place: Path) -> None:
    async with SpooledSource(wrapped, place) as source:
        await read(source)
        only_file(place).unlink()
        assert await read(source) == MEDIUM
        assert wrapped.opens["k"] == 2


@pytest.mark.parametrize("damage", [cut, flipped(-1), flipped(300_000)])
async def test_a_file_that_is_changed_while_it_is_read_never_ends_well(
    wrapped: MemorySource, place: Path, damage: Callable[[Path], object]
) -> None:
    """After its checksum held: the reader is told, and the next one gets what is right."""
    async with SpooledSource(wrapped, place) as source:
        await read(source)
        async with source.open("k") as medium:
            await anext(aiter(medium))
            damage(only_file(place))
            with pytest.raises(BodyFault, match="changed while it was read") as caught:
                await medium.read()
            assert caught.value.is_retryable
        assert await read(source) == MEDIUM
        assert wrapped.opens["k"] == 2


async def test_what_others_left_in_the_directory_is_swept_on_entering(
    wrapped: MemorySource, place: Path
) -> None:
    """Files that nobody holds and that are not whole; what is not ours stays."""
    async with SpooledSource(wrapped, place) as source:
        await read(source)
        whole = only_file(place)
    dead = [place / f"{'0' * 32}.part", place / f"{'1' * 32}.old", place / f"{'2' * 64}.medium"]
    foreign = [place / "0.part", place / "letter", place / ("z" * 32 + ".part")]
    for path in (*dead, *foreign):
        path.write_bytes(b"half")
    held = (place / f"{'3' * 32}.part").open("wb")
    fcntl.flock(held, fcntl.LOCK_EX)  # as a living process does
    with held:
        held.write(b"half")
        held.flush()
        async with SpooledSource(wrapped, place) as source:
            assert {*place.iterdir()} == {whole, place / "lock", *foreign, Path(held.name)}
            assert source.stats().bytes_held == len(MEDIUM) + 4
            assert await read(source) == MEDIUM
    assert wrapped.opens["k"] == 1


async def test_room_that_a_dead_process_took_is_found_again(wrapped: MemorySource, place: Path) -> None:
    """It is counted until somebody looks, which is when room gets short."""
    async with SpooledSource(wrapped, place, max_bytes=500_000) as source:
        (place / "lock").write_bytes((10**6).to_bytes(8, "big") * 2)
        for _ in range(2):
            await read(source)
        assert wrapped.opens["k"] == 1
        (place / "lock").write_bytes(b"?")
        await read(source, "other")
        assert (source.stats().evicted, source.stats().bytes_held) == (1, len(OTHER))


async def test_a_file_that_is_replaced_while_it_is_read_counts_until_that_ends(
    wrapped: MemorySource, place: Path
) -> None:
    """Its bytes are on the disk still, so that they take room."""
    now = 0.0
    async with SpooledSource(wrapped, place, max_bytes=1_000_000, clock=lambda: now) as source:
        await read(source)
        async with source.open("k") as old:
            first = await anext(aiter(old))
            now += 301
            wrapped.objects = {"k": OTHER, "third": OTHER}
            assert await read(source) == OTHER
            assert source.stats().bytes_held == 800_000
            await read(source, "third")
            assert source.stats().evicted == 1
            assert first + await old.read() == MEDIUM
        await read(source, "k")
        await read(source, "third")
        assert source.stats().bytes_held == 800_000
        assert not list(place.glob("*.old"))


class Failing:
    """What the disk does to a write; counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: int = 0) -> None:
        self.is_on = True
        self.calls = 0
        real = Part.write

        def write(part: Part, content: bytes) -> None:
            self.calls += 1
            if self.is_on and part.written >= after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(part, content)

        monkeypatch.setattr(Part, "write", write)


@pytest.mark.parametrize("after", [0, 200_000])
async def test_a_full_disk_lets_media_through_and_says_so_once(
    wrapped: MemorySource,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    after: int,
) -> None:
    """At the first byte or in the middle; and once when it works again."""
    caplog.set_level(logging.INFO, "prewarmkit.sources")
    disk = Failing(monkeypatch, after=after)
    async with SpooledSource(wrapped, place) as source:
        for _ in range(3):
            assert await read(source) == MEDIUM
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "No space left" in caplog.text
        assert str(place) in caplog.text
        assert "k" not in caplog.records[0].getMessage().replace(str(place), "").split()
        assert source.stats().bytes_held == 0
        assert not list(place.glob("*.part"))
        disk.is_on = False
        for _ in range(3):
            assert await read(source) == MEDIUM
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert source.stats().hits == 2
        assert wrapped.reading == 0


async def test_readers_at_every_place_get_the_rest_when_the_disk_fails(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each from its own place on: one that has all there was, one that had a chunk, one that had nothing."""
    Failing(monkeypatch, after=300_000)
    async with SpooledSource(wrapped, place) as source:
        async with source.open("k") as ahead, source.open("k") as behind, source.open("k") as unread:
            some = await anext(aiter(behind))
            assert await ahead.read() == MEDIUM
            assert some + await behind.read() == MEDIUM
            assert await unread.read() == MEDIUM
        assert wrapped.opens["k"] == 4
        assert wrapped.reading == 0


async def test_bytes_of_two_versions_are_never_put_together(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails in the middle and the object is another one by then, by its ETag or by its bytes alone."""
    Failing(monkeypatch, after=300_000)
    for version, other in (("1", OTHER), ("1", MEDIUM[:-1] + b"!"), (None, OTHER)):
        wrapped.versions["k"] = version
        wrapped.objects = {"k": MEDIUM}
        async with SpooledSource(wrapped, place) as source, source.open("k") as medium:
            await anext(aiter(medium))
            await eventually(lambda: not wrapped.reading)
            wrapped.objects = {"k": other}
            wrapped.versions["k"] = version and version + "x"
            with pytest.raises(BodyFault, match="changed at its source"):
                await medium.read()


async def test_a_source_that_fails_behind_a_full_disk_is_itself_heard(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(monkeypatch, after=300_000)
    async with SpooledSource(wrapped, place) as source, source.open("k") as medium:
        await anext(aiter(medium))
        await eventually(lambda: not wrapped.reading)
        error = BodyFault("cut")
        wrapped.failures["k"] = (2, error)
        with pytest.raises(BodyFault) as caught:
            await medium.read()
        assert caught.value is error


@pytest.mark.parametrize(
    "call", ["os.posix_fallocate", "os.ftruncate", "os.rename", "os.scandir", "os.unlink"]
)
async def test_whatever_the_disk_refuses_media_pass(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Reserving, naming, removing: bytes are right, and nothing is left open."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with SpooledSource(wrapped, place, max_bytes=500_000) as source:
        await read(source, "other")
        with monkeypatch.context() as patch:
            patch.setattr(call, refuse)
            for _ in range(3):
                assert await read(source) == MEDIUM
        descriptors = open_descriptors()
        for _ in range(3):
            assert await read(source) == MEDIUM
            assert await read(source, "other") == OTHER
        assert open_descriptors() <= descriptors


async def test_a_disk_without_room_is_known_before_the_first_byte(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a medium is read once, and not once more behind where the disk failed."""

    def full(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    async with SpooledSource(wrapped, place) as source:
        assert await read(source) == MEDIUM
        assert (wrapped.opens["k"], source.stats().passed, source.stats().bytes_held) == (1, 1, 0)
        assert not list(place.glob("*.part"))


async def test_a_disk_that_cannot_set_room_aside_is_used_all_the_same(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("os.posix_fallocate", unknown)
    async with SpooledSource(wrapped, place) as source:
        await read(source)
        assert await read(source) == MEDIUM
        assert source.stats().hits == 1


async def test_a_directory_that_vanishes_is_done_without(
    wrapped: MemorySource, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SpooledSource(wrapped, place) as source:
        await read(source)
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        for _ in range(2):
            assert await read(source) == MEDIUM
        assert source.stats().passed == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_disk_that_is_full_on_entering_is_no_error(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have room later; a file system without locks never will."""
    real = os.pwrite

    def full(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", full)
    async with SpooledSource(wrapped, place) as source:
        assert await read(source) == MEDIUM
        monkeypatch.setattr("os.pwrite", real)
        await read(source)
        await read(source)
        assert source.stats().hits == 1

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ConfigurationError, match="file locks"):
        await SpooledSource(wrapped, place).__aenter__()


async def test_a_process_that_stopped_with_the_lock_holds_nobody_up(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has a name is served, what has none passes through."""
    monkeypatch.setattr(ledger, "_WAIT_SECONDS", 0.05)
    async with SpooledSource(wrapped, place) as source:
        await read(source)
        with (place / "lock").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with anyio.fail_after(5):
                assert await read(source) == MEDIUM
                assert await read(source, "other") == OTHER
        assert (source.stats().hits, source.stats().passed) == (1, 1)
        await read(source, "other")
        await read(source, "other")
        assert source.stats().hits == 2


LIMITED = """
import anyio, resource, sys
from memory_source import MemoryReader, MemorySource
from prewarmkit.sources import SpooledSource

async def main():
    wrapped = MemorySource({"small": b"s" * 10_000, "large": bytes(range(250)) * 4_000})
    async with SpooledSource(wrapped, sys.argv[1]) as source:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for key, content in wrapped.objects.items():
            for _ in range(2):
                async with source.open(key) as medium:
                    assert await medium.read() == content
        print(dict(wrapped.opens), source.stats().bytes_held)

anyio.run(main)
"""


def test_a_limit_of_the_operating_system_is_kept_to(place: Path) -> None:
    """The kernel itself refuses files that long: known before the first byte, so that each read is one."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, place],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{'small': 1, 'large': 2} 10000\n", done.stderr
    assert done.stderr.count("cannot be used (File too large)") == 1


async def test_a_thousand_media_under_a_bound_are_no_thousand_scans(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making room looks at the whole directory once for all the files that it then removes."""
    scans = 0
    real = os.scandir

    def scandir(path: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        nonlocal scans
        scans += 1
        return real(path)

    wrapped.objects = {str(number): bytes(1000) for number in range(200)}
    async with SpooledSource(wrapped, place, max_bytes=50_000) as source:
        monkeypatch.setattr("os.scandir", scandir)
        for key in wrapped.objects:
            await read(source, key)
        assert source.stats().evicted == 150
        assert scans <= 5


async def test_files_are_bounded_too(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty medium takes no bytes, but it takes a name."""
    monkeypatch.setattr("prewarmkit.sources.spool.shelf._MAX_FILES", 5)
    wrapped.objects = {str(number): b"" for number in range(10)}
    async with SpooledSource(wrapped, place) as source:
        for key in wrapped.objects:
            await read(source, key)
        assert len(list(place.glob("*.medium"))) == 5


async def test_an_error_names_paths_and_nothing_of_what_is_in_them(
    wrapped: MemorySource, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert repr(SpooledSource(wrapped, place)).endswith(f"{str(place)!r})")
    async with SpooledSource(wrapped, place) as source, source.open("k") as medium:
        assert "_flight" not in repr(medium)
    assert not caplog.records


class ClosingBadly(MemorySource):
    """Fails as it is closed."""

    def open(self, key: str) -> AbstractAsyncContextManager[MemoryReader]:
        @asynccontextmanager
        async def opened() -> AsyncGenerator[MemoryReader, None]:
            async with MemorySource.open(self, key) as medium:
                yield medium
            if self.opens[key] == 1:
                raise BodyFault("closed")

        return opened()


async def test_a_source_that_cannot_be_closed_behind_a_full_disk_is_in_the_log(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its readers have gone on without it, and have all their bytes."""
    Failing(monkeypatch, after=200_000)
    async with SpooledSource(ClosingBadly({"k": MEDIUM}), place) as source:
        assert await read(source) == MEDIUM
    assert [record.getMessage() for record in caplog.records][1:] == [
        "The source of 'k' could not be closed (BodyFault)."
    ]
