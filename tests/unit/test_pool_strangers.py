"""A resolver that knows targets by id: a backlog goes on though nobody names its targets here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from attrs import define, field
from waiting import eventually

from prewarmkit import PoolSettings, PrewarmPool, UnknownTarget
from prewarmkit.media import Media
from prewarmkit.pool import strangers
from prewarmkit.stores import Job, MediaStore, MemoryStore, SqliteStore, State
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

QUICK = PoolSettings(poll_interval_seconds=0.05)


@define
class Names:
    """Bots by slug, and by nothing else."""

    bots: dict[str, ScriptedTarget] = field(
        factory=lambda: {slug: ScriptedTarget(id=f"bot:{slug}") for slug in ("a", "b")}
    )

    async def resolve(self, name: str) -> ScriptedTarget:
        if name not in self.bots:
            raise UnknownTarget(name)
        return self.bots[name]


@define
class Directory(Names):
    """Bots by id too."""

    asked: list[str] = field(factory=list[str])
    trouble: Exception | None = None

    async def by_id(self, id: str) -> ScriptedTarget:  # noqa: A002
        self.asked.append(id)
        await anyio.lowlevel.checkpoint()
        if self.trouble is not None:
            raise self.trouble
        return await self.resolve(id.removeprefix("bot:"))


async def filled(store: MediaStore, targets: Sequence[str] = ("bot:a", "bot:b", "elsewhere")) -> None:
    """What a process left that knew these targets."""
    await store.enqueue([Job(target, Media(f"{n}.png")) for target in targets for n in range(10)])


async def states(store: MediaStore) -> dict[tuple[str, State], int]:
    return {(target, state): rows for (target, _, state), rows in (await store.counts()).items()}


async def test_a_backlog_is_worked_off_though_nobody_names_its_targets(source: UnreadSource) -> None:
    """Those of another pool on the table are asked for once and left alone."""
    directory, store = Directory(), MemoryStore()
    await filled(store)
    async with PrewarmPool(source, directory, store, settings=QUICK) as pool:
        await eventually(lambda: pool.stats().succeeded == 20)
        await anyio.sleep(0.3)  # some polls
        await pool.enqueue("late.png", target="a")
        await pool.join(timeout=5)
    assert sorted(directory.asked) == ["bot:a", "bot:b", "elsewhere"]
    assert await states(store) == {
        ("bot:a", State.READY): 11,
        ("bot:b", State.READY): 10,
        ("elsewhere", State.PENDING): 10,
    }


async def test_one_that_others_enqueue_for_later_is_met_then(source: UnreadSource) -> None:
    directory, store = Directory(), MemoryStore()
    async with PrewarmPool(source, directory, store, settings=QUICK) as pool:
        await anyio.wait_all_tasks_blocked()
        await filled(store, ["bot:b"])
        await eventually(lambda: pool.stats().succeeded == 10)


async def test_a_resolver_of_names_only_waits_until_one_is_named(source: UnreadSource) -> None:
    names, store = Names(), MemoryStore()
    await filled(store, ["bot:a"])
    async with PrewarmPool(source, names, store, settings=QUICK) as pool:
        await anyio.sleep(0.2)
        assert not names.bots["a"].calls
        await pool.enqueue("new.png", target="a")
        await eventually(lambda: pool.stats().succeeded == 11)


async def test_a_batch_meets_them_too(source: UnreadSource) -> None:
    """Within its bound."""
    store = MemoryStore()
    async with PrewarmPool(source, Directory(), store) as pool:
        await pool.stop()
        await filled(store)
        report = await pool.process_batch(15)
        assert (report.leased, report.succeeded) == (15, 15)


@pytest.mark.parametrize("trouble", [RuntimeError("the table of bots is away"), TypeError("a bug")], ids=repr)
async def test_a_resolver_that_fails_is_asked_again_and_stops_nothing(
    source: UnreadSource,
    trouble: Exception,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strangers, "_TROUBLE_SECONDS", 0.1)
    directory, store = Directory(trouble=trouble), MemoryStore()
    await filled(store, ["bot:a"])
    async with PrewarmPool(source, directory, store, settings=QUICK) as pool:
        await pool.warm("other.png", target="b", timeout=5)
        await eventually(lambda: len(directory.asked) >= 2)
        directory.trouble = None
        await eventually(lambda: pool.stats().succeeded == 11)
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert said
    assert all("the resolver failed for the target id 'bot:a'" in record.message for record in said)


async def test_a_target_with_another_id_than_was_asked_for_is_none(source: UnreadSource) -> None:
    """Its rows would be another's."""

    class Wrong(Directory):
        async def by_id(self, id: str) -> ScriptedTarget:  # noqa: A002
            self.asked.append(id)
            return self.bots["b"]

    directory, store = Wrong(), MemoryStore()
    await filled(store, ["bot:a"])
    async with PrewarmPool(source, directory, store, settings=QUICK) as pool:
        await eventually(lambda: bool(directory.asked))
        await anyio.sleep(0.2)
        assert pool.stats().targets == {}
    assert not directory.bots["b"].calls


async def test_what_a_dead_process_had_in_hand_comes_back_to_one_that_knows_no_target(
    source: UnreadSource, tmp_path: Path
) -> None:
    """Nothing else waits, so only a sweep shows that there is a target to be met."""
    directory = Directory()
    async with SqliteStore(tmp_path / "p.db") as store:
        await filled(store, ["bot:a"])
        assert len((await store.turn(lease=10, lease_seconds=0.2)).leased) == 10
        async with PrewarmPool(source, directory, store, settings=QUICK) as pool:
            await eventually(lambda: pool.stats().succeeded == 10)
