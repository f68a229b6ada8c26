"""A pool whose source is spooled: several bots, and attempts that are made again, read the source once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import pytest
from attrs import define, field
from memory_source import MemorySource

from prewarmkit import Media, PoolSettings, PrewarmPool, Transient
from prewarmkit.sources import MediaSource, SpooledSource
from prewarmkit.targets import Warmed

pytestmark = pytest.mark.anyio

MEDIUM = bytes(range(256)) * 2000


@define(eq=False)
class Bot:
    """Takes a medium as far as it is told at first, and whole when it is tried again."""

    id: str
    breaks_at: int | None = None
    got: list[bytes] = field(factory=list[bytes])

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        async with source.open(media.key) as medium:
            got = b""
            async for chunk in medium:
                got += chunk
                if self.breaks_at is not None and len(got) > self.breaks_at:
                    self.breaks_at = None
                    raise Transient("reset")
        self.got.append(got)
        return Warmed(f"{self.id}:{media.key}")


async def test_three_bots_one_of_which_tries_twice_read_each_medium_once(tmp_path: Path) -> None:
    """One read of the source for each medium, and every bot has the whole of it."""
    wrapped = MemorySource({"a.mp4": MEDIUM, "b.mp4": MEDIUM[::-1]})
    bots = [Bot("1"), Bot("2", breaks_at=100_000), Bot("3")]
    async with (
        SpooledSource(wrapped, tmp_path / "spool") as source,
        PrewarmPool(source, bots, settings=PoolSettings(concurrency=3)) as pool,
        anyio.create_task_group() as tasks,
    ):
        for bot in bots:
            for key in wrapped.objects:
                tasks.start_soon(partial(pool.warm, key, target=bot.id, timeout=20))
    assert wrapped.opens == {"a.mp4": 1, "b.mp4": 1}
    assert [sorted(bot.got) for bot in bots] == [sorted(wrapped.objects.values())] * 3
    stats = source.stats()
    assert stats.bytes_read == 2 * len(MEDIUM)
    assert stats.hit_rate == pytest.approx(5 / 7)
