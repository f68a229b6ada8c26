"""SpooledSource serves from disk what it read, for as long, as much and as told."""

# ruff: noqa: ASYNC240 - a test looks at a few small local files

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from memory_source import MemorySource
from waiting import eventually

from prewarmkit.errors import BodyFault, ConfigurationError, NotFound, ServiceFault
from prewarmkit.sources import DirectorySource, SpooledSource, SpoolStats
from prewarmkit.sources.spool.files import Part

pytestmark = pytest.mark.anyio

A, B, C = (bytes([number]) * 100_000 for number in (1, 2, 3))


@pytest.fixture
def wrapped() -> MemorySource:
    return MemorySource({"a": A, "b": B, "c": C})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "spool"


async def read(source: SpooledSource, key: str, **wanted: Any) -> bytes:
    async with source.open(key, **wanted) as medium:
        return await medium.read()


async def test_what_was_read_once_is_served_from_the_disk(wrapped: MemorySource, place: Path) -> None:
    """With all that the source told of it."""
    async with SpooledSource(wrapped, place) as source:
        for _ in range(3):
            async with source.open("a") as medium:
                assert medium.info == await wrapped.head("a")
                assert await medium.read() == A
        assert wrapped.opens == {"a": 1}


async def test_stats_tell_how_often_the_source_was_spared(wrapped: MemorySource, place: Path) -> None:
    async with SpooledSource(wrapped, place, max_bytes=150_000) as source:
        assert source.stats() == SpoolStats()
        assert source.stats().hit_rate is None
        for _ in range(4):
            await read(source, "a")
        stats = source.stats()
        assert stats == SpoolStats(
            hits=3, misses=1, bytes_read=100_000, bytes_given=400_000, bytes_held=100_000
        )
        assert stats.hit_rate == 0.75
        with pytest.raises(AttributeError):
            stats.hits = 0  # type: ignore[misc]


async def test_bytes_are_served_for_the_ttl_and_not_longer(wrapped: MemorySource, place: Path) -> None:
    """From when the source was asked, also where the object has another version since."""
    now = 1000.0
    async with SpooledSource(wrapped, place, clock=lambda: now) as source:
        assert await read(source, "a") == A
        wrapped.objects = {"a": B}
        now += 299.9
        assert await read(source, "a") == A
        now += 0.2
        assert await read(source, "a") == B
        assert await read(source, "a") == B
    assert wrapped.opens["a"] == 2


async def test_bytes_from_the_future_are_not_served(wrapped: MemorySource, place: Path) -> None:
    """A calendar that was put back does not lengthen their life."""
    now = 1000.0
    async with SpooledSource(wrapped, place, clock=lambda: now) as source:
        await read(source, "a")
        now -= 1
        await read(source, "a")
        await read(source, "a")
    assert wrapped.opens["a"] == 2


async def test_a_caller_who_knows_another_version_gets_it(wrapped: MemorySource, place: Path) -> None:
    """And from then on everybody does; quotes and the mark of weakness are HTTP's."""
    async with SpooledSource(wrapped, place) as source:
        assert await read(source, "a") == A
        wrapped.objects = {"a": B + B}
        etag = (await wrapped.head("a")).etag
        assert etag is not None
        assert await read(source, "a") == A
        assert await read(source, "a", etag=f'W/"{etag}"') == B + B
        assert await read(source, "a", etag=f'"{etag}"', size=200_000) == B + B
        assert await read(source, "a") == B + B
        assert wrapped.opens["a"] == 2
        assert await read(source, "a", size=5) == B + B  # what the source has, whatever its size
        assert wrapped.opens["a"] == 3


async def test_head_asks_the_source_and_drops_what_is_of_another_version(
    wrapped: MemorySource, place: Path
) -> None:
    async with SpooledSource(wrapped, place) as source:
        await read(source, "a")
        assert await source.head("a") == await wrapped.head("a")
        await read(source, "a")
        assert wrapped.opens["a"] == 1
        wrapped.objects = {"a": B}
        assert await source.head("a") == await wrapped.head("a")
        assert await read(source, "a") == B
        wrapped.objects = {}
        with pytest.raises(NotFound):
            await source.head("a")
        with pytest.raises(NotFound):
            await read(source, "a")
        assert source.stats().bytes_held == 0


async def test_head_keeps_a_read_under_way_of_another_version_from_being_joined(
    wrapped: MemorySource, place: Path
) -> None:
    """Nor is it kept when it is whole."""
    async with SpooledSource(wrapped, place) as source, source.open("a") as old:
        first = await anext(aiter(old))
        wrapped.objects = {"a": B}
        await source.head("a")
        assert await read(source, "a") == B
        assert first + await old.read() == A
        assert await read(source, "a") == B
        assert wrapped.opens["a"] == 2


async def test_the_oldest_that_nobody_reads_makes_room(wrapped: MemorySource, place: Path) -> None:
    async with SpooledSource(wrapped, place, max_bytes=250_000) as source:
        for key in "abcb":
            await read(source, key)
        assert wrapped.opens == {"a": 1, "b": 1, "c": 1}
        await read(source, "a")
        assert wrapped.opens["a"] == 2
        assert (source.stats().evicted, source.stats().bytes_held) == (2, 200_000)


async def test_what_is_being_read_does_not_make_room(wrapped: MemorySource, place: Path) -> None:
    """The next oldest does."""
    async with SpooledSource(wrapped, place, max_bytes=250_000) as source:
        await read(source, "a")
        await read(source, "b")
        async with source.open("a") as medium:
            await read(source, "c")
            assert await medium.read() == A
        await read(source, "a")
        await read(source, "c")
        assert wrapped.opens == {"a": 1, "b": 1, "c": 1}


async def test_a_medium_that_finds_no_room_is_passed_through(wrapped: MemorySource, place: Path) -> None:
    """All that is here is in use: by a reader, and by one that is being written."""
    async with SpooledSource(wrapped, place, max_bytes=250_000) as source:
        await read(source, "a")
        wrapped.gates["b"] = anyio.Event()
        async with source.open("a"), source.open("b") as half:
            await anext(aiter(half))
            assert await read(source, "c") == C
            assert await read(source, "c") == C
            wrapped.gates["b"].set()
            await half.read()
        assert wrapped.opens["c"] == 2
        assert source.stats().passed == 2
        await read(source, "c")
        await read(source, "c")
        assert wrapped.opens["c"] == 3


async def test_a_medium_larger_than_the_bound_is_passed_through(wrapped: MemorySource, place: Path) -> None:
    """And evicts nothing; one that is just as large has room."""
    async with SpooledSource(wrapped, place, max_bytes=100_000) as source:
        await read(source, "a")
        wrapped.objects = {"a": A, "large": A + b"!"}
        for _ in range(2):
            assert await read(source, "large") == A + b"!"
        assert (source.stats().passed, source.stats().evicted) == (2, 0)
        assert source.stats().bytes_read == 100_000 + 2 * 100_001
        await read(source, "a")
        assert wrapped.opens == {"a": 1, "large": 2}


async def test_many_who_are_passed_through_at_once_read_side_by_side(
    wrapped: MemorySource, place: Path
) -> None:
    """One that holds its bytes back holds nobody else."""
    async with SpooledSource(wrapped, place, max_bytes=1) as source:
        async with source.open("a") as slow:
            first = await anext(aiter(slow))
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(read, source, "a")
            assert first + await slow.read() == A
        assert wrapped.opens["a"] == 6
        assert wrapped.reading == 0


async def test_errors_of_the_source_pass_unchanged(wrapped: MemorySource, place: Path) -> None:
    """The very same object; and nothing of them is remembered."""
    async with SpooledSource(wrapped, place) as source:
        for at in (-1, 0, 1):
            error = ServiceFault("no", code="InternalError", status=500)
            wrapped.failures["a"] = (at, error)
            with pytest.raises(ServiceFault) as caught:
                await read(source, "a")
            assert caught.value is error
        foreign = OSError(28, "a source's own full disk")
        wrapped.failures["a"] = (1, foreign)
        with pytest.raises(OSError, match="own full disk") as met:
            await read(source, "a")
        assert met.value is foreign
        del wrapped.failures["a"]
        assert await read(source, "a") == A


@pytest.mark.parametrize("announced", [99_999, 100_001])
async def test_a_body_of_another_length_than_announced_is_not_kept(
    wrapped: MemorySource, place: Path, announced: int
) -> None:
    wrapped.announced["a"] = announced
    async with SpooledSource(wrapped, place) as source:
        with pytest.raises(BodyFault, match="announced"):
            await read(source, "a")
        assert source.stats().bytes_held == 0
        wrapped.announced.clear()
        assert await read(source, "a") == A


async def test_what_is_still_fresh_survives_leaving_and_another_process_uses_it(
    wrapped: MemorySource, place: Path
) -> None:
    """Another object on the directory stands for another process: they share nothing but files."""
    async with SpooledSource(wrapped, place) as source, SpooledSource(wrapped, place) as beside:
        async with source.open("a") as medium:
            assert await medium.read() == A
            assert await read(beside, "a") == A
        assert await read(beside, "a") == A
    async with SpooledSource(wrapped, place) as later:
        assert await read(later, "a") == A
        assert later.stats().bytes_held == 100_000
    assert wrapped.opens["a"] == 1


async def test_leaving_removes_what_has_expired(wrapped: MemorySource, place: Path) -> None:
    now = 0.0
    async with SpooledSource(wrapped, place, clock=lambda: now) as source:
        await read(source, "a")
        now += 299
        await read(source, "b")
        now += 2
    assert len(list(place.glob("*.medium"))) == 1
    assert source.stats().bytes_held == 100_000


async def test_what_expires_while_nobody_asks_is_removed(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within twice its time; here the sleep between two looks is short."""
    sleep = anyio.sleep
    now = 0.0
    slept: list[float] = []

    async def doze(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0.001)

    monkeypatch.setattr("prewarmkit.sources.spool.source.anyio.sleep", doze)
    async with SpooledSource(wrapped, place, clock=lambda: now) as source:
        await read(source, "a")
        now += 301
        await eventually(lambda: not list(place.glob("*.medium")))
    assert set(slept) - {0.002} == {300}


async def test_namespaces_keep_sources_apart(place: Path) -> None:
    """On one directory; also where space and key together read the same."""
    first, second = MemorySource({"xa": A, "a": A}), MemorySource({"a": B})
    async with (
        SpooledSource(first, place) as one,
        SpooledSource(second, place, namespace="x") as other,
    ):
        assert await read(one, "xa") == A
        assert await read(one, "a") == A
        assert await read(other, "a") == B
        assert await read(one, "xa") == A
        assert (one.stats().hits, one.stats().damaged) == (1, 0)


@pytest.mark.parametrize("key", ["../a", "/a", "a/b", "ü" * 400, "a\0b", "", "\ud800"])
async def test_any_key_has_a_file_in_the_directory(place: Path, key: str) -> None:
    wrapped = MemorySource({key: A})
    async with SpooledSource(wrapped, place) as source:
        for _ in range(2):
            assert await read(source, key) == A
    assert wrapped.opens[key] == 1
    assert {each.name for each in place.parent.iterdir()} == {"spool"}


async def test_an_address_is_the_wrapped_sources(wrapped: MemorySource, place: Path) -> None:
    source = SpooledSource(wrapped, place)
    assert source.url("a", version="1") == "https://cdn.example/a?v=1"
    assert SpooledSource(DirectorySource(place), place).url("a") is None


async def test_nothing_is_read_before_it_is_entered(wrapped: MemorySource, place: Path) -> None:
    """Nor does making it touch the disk; after it was left it can be entered again."""
    source = SpooledSource(wrapped, place)
    assert not place.exists()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="not entered"):
            await read(source, "a")
        async with source:
            assert await read(source, "a") == A
            with pytest.raises(RuntimeError, match="entered already"):
                await source.__aenter__()
    assert wrapped.opens["a"] == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"source": object()}, TypeError),
        ({"directory": 5}, TypeError),
        ({"directory": ""}, TypeError),
        ({"ttl_seconds": 0}, ValueError),
        ({"ttl_seconds": -1.5}, ValueError),
        ({"ttl_seconds": float("nan")}, ValueError),
        ({"ttl_seconds": float("inf")}, ValueError),
        ({"ttl_seconds": True}, TypeError),
        ({"ttl_seconds": "300"}, TypeError),
        ({"max_bytes": 0}, ValueError),
        ({"max_bytes": 1.5}, TypeError),
        ({"max_bytes": True}, TypeError),
        ({"namespace": None}, TypeError),
    ],
)
def test_an_option_that_cannot_work_is_refused_at_once_by_its_name(
    wrapped: MemorySource, place: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    arguments: dict[str, Any] = {"source": wrapped, "directory": place, **options}
    with pytest.raises(error, match=next(iter(options))):
        SpooledSource(**arguments)


async def test_a_key_that_is_none_is_refused(wrapped: MemorySource, place: Path) -> None:
    async with SpooledSource(wrapped, place) as source:
        with pytest.raises(TypeError, match="key must be a str"):
            source.open(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("umask", [0, 0o177])
async def test_files_and_directory_are_nobody_elses(wrapped: MemorySource, place: Path, umask: int) -> None:
    """Whatever the umask."""
    before = os.umask(umask)
    try:
        async with SpooledSource(wrapped, place) as source:
            wrapped.gates["a"] = anyio.Event()
            async with source.open("a") as half:
                await anext(aiter(half))
                modes = {path.name.partition(".")[2]: path.stat().st_mode & 0o777 for path in place.iterdir()}
                assert modes == {"": 0o600, "part": 0o600}
            wrapped.gates["a"].set()
            await read(source, "a")
            assert place.stat().st_mode & 0o777 == 0o700
            assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    finally:
        os.umask(before)


async def test_a_directory_that_is_made_already_is_closed_to_others(
    wrapped: MemorySource, place: Path
) -> None:
    """If nothing but a spool's files is in it; anybody's else is refused, and left as it is."""
    place.mkdir(mode=0o755)
    async with SpooledSource(wrapped, place) as source:
        await read(source, "a")
        assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o750)
    async with SpooledSource(wrapped, place) as source:
        await read(source, "a")
        assert place.stat().st_mode & 0o777 == 0o700
    assert wrapped.opens["a"] == 1
    place.chmod(0o755)
    (place / "letter").touch()
    with pytest.raises(ConfigurationError, match="chmod 700"):
        await SpooledSource(wrapped, place).__aenter__()
    assert place.stat().st_mode & 0o777 == 0o755
    place.chmod(0o700)
    async with SpooledSource(wrapped, place, max_bytes=100_000) as source:
        for key in "abc":
            await read(source, key)
    assert (place / "letter").exists()


async def test_a_directory_that_cannot_be_used_is_refused_on_entering(
    wrapped: MemorySource, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        source = SpooledSource(wrapped, place)
        with pytest.raises(ConfigurationError, match="directory"):
            await source.__aenter__()
        with pytest.raises(ConfigurationError, match="not entered"):
            await read(source, "a")


async def test_a_version_that_head_finds_replaced_is_not_kept_by_a_read_that_just_ends(
    wrapped: MemorySource, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of its bytes and its name."""
    real = Part.append
    is_publishing, may_go_on = threading.Event(), threading.Event()

    def append(part: Part, record: bytes) -> None:
        is_publishing.set()
        assert may_go_on.wait(10)
        real(part, record)

    monkeypatch.setattr(Part, "append", append)
    async with SpooledSource(wrapped, place) as source, anyio.create_task_group() as tasks:
        tasks.start_soon(read, source, "a")
        await anyio.to_thread.run_sync(is_publishing.wait, 10)
        wrapped.objects = {"a": B}
        await source.head("a")
        may_go_on.set()
        assert await read(source, "a") == B
        assert await read(source, "a") == B
        assert wrapped.opens["a"] == 2


async def test_what_was_read_later_keeps_the_name(wrapped: MemorySource, place: Path) -> None:
    """Of two processes that read one key, the one that began first may end last."""
    now = 0.0
    slow = MemorySource({"a": A}, gates={"a": anyio.Event()})
    async with (
        SpooledSource(slow, place, clock=lambda: now) as late,
        SpooledSource(wrapped, place, clock=lambda: now) as source,
        late.open("a") as medium,
    ):
        first = await anext(aiter(medium))
        now += 1
        wrapped.objects = {"a": B}
        await read(source, "a")
        slow.gates["a"].set()
        assert first + await medium.read() == A
        assert await read(source, "a") == B
        assert source.stats().hits == 1


@pytest.mark.parametrize("at", [0, -1, -60])
async def test_a_file_that_took_the_place_of_a_damaged_one_is_as_young_as_it_is(
    wrapped: MemorySource, place: Path, at: int
) -> None:
    """What is known of the old one, its age and its size, is not taken for its own."""
    async with SpooledSource(wrapped, place) as source:
        await read(source, "a")
        [path] = place.glob("*.medium")
        await read(source, "b")
    async with SpooledSource(wrapped, place, max_bytes=250_000) as source:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        await read(source, "a")
        assert source.stats().evicted == 0
        await read(source, "c")
        await read(source, "a")
        assert wrapped.opens == {"a": 2, "b": 1, "c": 1}
