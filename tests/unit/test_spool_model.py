"""SpooledSource against a dictionary: the same bytes, the same reads of the source, in any order of what may happen."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from random import Random

import anyio
import pytest
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_source import MemorySource
from waiting import eventually

from prewarmkit.errors import NotFound, ServiceFault
from prewarmkit.sources import SpooledSource

BOUND = 1000
TTL = 10
SIZES = {"a": 300, "b": 301, "c": 600, "d": 400}
ERROR = ServiceFault("no", status=500)

keys = st.sampled_from(tuple(SIZES))
opens = st.tuples(st.just("open"), keys, st.sampled_from((0, 1, 2, None, None, None, None)))
steps = st.one_of(
    opens,
    opens,
    opens,
    opens,
    st.tuples(st.just("put"), keys, st.sampled_from((0, 1, 300, 301, 600, BOUND, BOUND + 1))),
    st.tuples(st.just("remove"), keys, st.just(0)),
    st.tuples(st.just("break_at"), keys, st.sampled_from((-1, 0, 1, 5))),
    st.tuples(st.just("mend"), keys, st.just(0)),
    st.tuples(st.just("wait"), keys, st.integers(1, 6)),
    st.tuples(st.just("damage"), keys, st.integers(0, 10_000)),
    st.tuples(st.just("ask"), keys, st.just(0)),
    st.tuples(st.just("demand"), keys, st.just(0)),
    st.tuples(st.just("restart"), keys, st.just(0)),
)


@define
class Kept:
    """A file of the model."""

    content: bytes
    read_at: float
    is_harmed: bool = False


@define
class Model:
    """What ought to be on the disk, and how often the source ought to have been opened."""

    source: MemorySource
    now: float = 100.0
    files: dict[str, Kept] = field(factory=dict[str, Kept])
    opens: int = 0

    def is_fresh(self, kept: Kept) -> bool:
        return self.now - kept.read_at < TTL

    def served(self, key: str, etag: str | None) -> bytes | None:
        kept = self.files.get(key)
        if kept is None or not self.is_fresh(kept) or etag not in {None, etag_of(kept.content)}:
            return None
        if kept.is_harmed:
            del self.files[key]
            return None
        return kept.content

    def make_room(self, size: int) -> None:
        """Before a byte is read, and beside an old file of the same key."""
        if size > BOUND:
            return
        held = sum(len(kept.content) for kept in self.files.values())
        for key, kept in sorted(self.files.items(), key=lambda item: item[1].read_at):
            if held + size <= BOUND:
                break
            del self.files[key]
            held -= len(kept.content)

    def keep(self, key: str, content: bytes) -> None:
        if len(content) <= BOUND:
            self.files[key] = Kept(content, self.now)


def etag_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Play:
    """One program's run: each step is done to the spool and to the model."""

    def __init__(self, place: Path) -> None:
        self.dice = Random(1)
        self.place = place
        self.wrapped = MemorySource({key: self.dice.randbytes(size) for key, size in SIZES.items()})
        self.wrapped.chunk_bytes = 100
        self.model = Model(self.wrapped)
        self.source = self.made()

    def made(self) -> SpooledSource:
        return SpooledSource(self.wrapped, self.place, TTL, BOUND, clock=lambda: self.model.now)

    async def run(self, program: list[tuple[str, str, int | None]]) -> None:
        await self.source.__aenter__()
        try:
            for verb, key, number in program:
                self.model.now += 0.001  # no two files are of one age
                await getattr(self, verb)(key, number)
                self.check()
        finally:
            await self.source.__aexit__(None, None, None)

    def check(self) -> None:
        assert self.wrapped.opens.total() == self.model.opens
        sizes = [each.stat().st_size for each in self.place.glob("*.medium")]
        assert sum(sizes) <= BOUND + 700 * len(sizes)  # what stands behind the bytes is not counted
        assert not list(self.place.glob("*.part"))

    def is_at_rest(self) -> bool:
        """Nothing is being read, also not for nobody."""
        flights = self.source._flights  # pyright: ignore[reportPrivateUsage] - it tells nobody
        return not flights and not list(self.place.glob("*.part"))

    async def put(self, key: str, size: int) -> None:
        self.wrapped.objects = {**self.wrapped.objects, key: self.dice.randbytes(size)}

    async def remove(self, key: str, _: int) -> None:
        self.wrapped.objects = {name: each for name, each in self.wrapped.objects.items() if name != key}

    async def break_at(self, key: str, at: int) -> None:
        self.wrapped.failures[key] = (at, ERROR)

    async def mend(self, key: str, _: int) -> None:
        self.wrapped.failures.pop(key, None)

    async def wait(self, _: str, seconds: int) -> None:
        self.model.now += seconds

    async def damage(self, key: str, at: int) -> None:
        """Change one of the medium's bytes, if it has some on the disk."""
        kept = self.model.files.get(key)
        path = Path(self.source.shelf._path_of(key))  # pyright: ignore[reportPrivateUsage] - where its file is
        if kept is None or not kept.content or not path.exists():  # noqa: ASYNC240 - a small local file
            return
        content = bytearray(path.read_bytes())  # noqa: ASYNC240 - a small local file
        content[at % len(kept.content)] ^= 0xFF
        path.write_bytes(content)  # noqa: ASYNC240 - a small local file
        kept.is_harmed = content[: len(kept.content)] != kept.content

    async def ask(self, key: str, _: int) -> None:
        """`head`, which drops a file of another version."""
        kept = self.model.files.get(key)
        content = self.wrapped.objects.get(key)
        if content is None:
            with pytest.raises(NotFound):
                await self.source.head(key)
        else:
            assert (await self.source.head(key)).etag == etag_of(content)
        if kept is not None and kept.content != content:
            del self.model.files[key]

    async def restart(self, _: str, __: int) -> None:
        await self.source.__aexit__(None, None, None)
        self.source = self.made()
        await self.source.__aenter__()
        files = self.model.files
        self.model.files = {key: kept for key, kept in files.items() if self.model.is_fresh(kept)}

    async def demand(self, key: str, _: int) -> None:
        await self.open(key, None, etag=etag_of(self.wrapped.objects.get(key, b"none")))

    async def open(self, key: str, chunks: int | None, *, etag: str | None = None) -> None:
        spooled = self.model.served(key, etag)
        got: bytes | Exception
        try:
            got = await self.take(key, chunks, etag)
        except (NotFound, ServiceFault) as error:
            got = error
        await eventually(self.is_at_rest)
        if spooled is None:
            self.model.opens += 1
            self.read_from_source(key, chunks, got)
        else:
            self.is_right(got, spooled, chunks)

    async def take(self, key: str, chunks: int | None, etag: str | None) -> bytes:
        async with self.source.open(key, etag=etag) as medium:
            if chunks is None:
                return await medium.read()
            return b"".join([await anext(aiter(medium), b"") for _ in range(chunks)])

    def read_from_source(self, key: str, chunks: int | None, got: bytes | Exception) -> None:
        content = self.wrapped.objects.get(key)
        breaks_at = self.wrapped.failures.get(key, (10**6, ERROR))[0]
        if breaks_at == -1:
            assert got is ERROR
        elif content is None:
            assert isinstance(got, NotFound)
            return
        else:
            self.model.make_room(len(content))
        if content is None or breaks_at == -1:
            return
        if breaks_at <= -(-len(content) // self.wrapped.chunk_bytes):
            # A chunk of the spool is some of the source's: how many there are before it breaks is chance.
            if chunks is None:
                assert got is ERROR
            elif got is not ERROR:
                self.is_right(got, content, chunks)
        else:
            self.is_right(got, content, chunks)
            if (
                chunks is None or got or (chunks and not content)
            ):  # what somebody had a byte of is read to its end
                self.model.keep(key, content)

    @staticmethod
    def is_right(got: bytes | Exception, content: bytes, chunks: int | None) -> None:
        assert isinstance(got, bytes)
        assert content.startswith(got)
        assert len(got) == len(content) or chunks is not None
        assert got or not content or chunks == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=st.lists(steps, min_size=15, max_size=50))
def test_any_order_of_opens_expiries_and_failures_is_as_in_the_model(
    backend: str, program: list[tuple[str, str, int | None]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(Play(Path(directory) / "spool").run, program, backend=backend)
