"""What one process does is known to the others at once: handles refused, versions changed, media warmed."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

import anyio
import pytest
from waiting import eventually

from prewarmkit import Media, PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.stores import PostgresStore
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

SETTINGS = PoolSettings(concurrency=2, lookup_cache_seconds=3600, poll_interval_seconds=60)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def targets() -> list[ScriptedTarget]:
    """One bot, as two processes know it; no two uploads give the same handle."""
    return [ScriptedTarget(script=lambda _media, _nth: Warmed(str(uuid4()))) for _ in range(2)]


@pytest.fixture
async def pools(postgres_dsn: str, targets: list[ScriptedTarget]) -> AsyncIterator[list[PrewarmPool]]:
    """Two that share a table, as two processes do; only hints and the table connect them."""
    async with AsyncExitStack() as stack:
        pools: list[PrewarmPool] = []
        for target in targets:
            store = await stack.enter_async_context(PostgresStore(postgres_dsn, auto_migrate=True))
            pools.append(
                await stack.enter_async_context(PrewarmPool(UnreadSource(), target, store, settings=SETTINGS))
            )
            await eventually(partial(is_hearing, store), 10)
        yield pools


def is_hearing(store: PostgresStore) -> bool:
    listener = store._listener
    return listener is not None and listener.is_hearing


async def remember(pool: PrewarmPool, key: str) -> str:
    """Look a key up; from now on the pool's own cache has it."""
    handle = await pool.lookup(key)
    assert handle is not None
    return handle.value


async def until_forgotten(pool: PrewarmPool, key: str, value: str) -> None:
    """Look until it is not that handle any more: with an hour's cache only a hint can do that."""
    with anyio.fail_after(5):
        while (  # noqa: ASYNC110 - the pool tells nobody
            handle := await pool.lookup(key, allow_stale=False)
        ) is not None and handle.value == value:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("rewarm", [True, False])
async def test_a_handle_that_one_refused_the_other_forgets(pools: list[PrewarmPool], rewarm: bool) -> None:
    """Under each key of its content."""
    a, b = pools
    for key in ("a.png", "same.png"):
        await a.warm(Media(key, sha256="S"), timeout=10)
    await a.warm("other.png", timeout=10)
    values = {key: await remember(b, key) for key in ("a.png", "same.png", "other.png")}
    assert values["a.png"] == values["same.png"] == await remember(a, "same.png")
    handle = await a.lookup("a.png")
    assert handle is not None
    assert await a.invalidate(handle, rewarm=rewarm)
    for pool in (a, b):
        for key in ("a.png", "same.png"):
            await until_forgotten(pool, key, values[key])
    hits = b.stats().cache_hits
    assert await remember(b, "other.png") == values["other.png"]
    assert b.stats().cache_hits == hits + 1


async def test_a_version_that_one_put_in_is_known_to_the_other(pools: list[PrewarmPool]) -> None:
    """Also where it was put in with something else, by the host's own connection."""
    a, b = pools
    await a.warm(Media("a.png", etag="1"), timeout=10)
    old = await remember(b, "a.png")
    await a.enqueue_many([Media("a.png", etag="2"), Media("new.png")])
    await until_forgotten(b, "a.png", old)
    await a.join(timeout=10)
    assert await remember(b, "a.png") != old


async def test_who_waits_here_hears_of_what_is_warmed_there(
    pools: list[PrewarmPool], targets: list[ScriptedTarget]
) -> None:
    """Well before it would look by itself, once a second."""
    a, b = pools
    gates = [anyio.Event(), anyio.Event()]
    for target, gate in zip(targets, gates, strict=True):
        target.gate = gate
    heard: list[float] = []
    opened = 0.0

    async def wait(pool: PrewarmPool) -> None:
        await pool.warm("a.png", timeout=20)
        heard.append(time.monotonic())

    async with anyio.create_task_group() as group:
        group.start_soon(wait, a)
        await eventually(lambda: bool(targets[0].running + targets[1].running))
        group.start_soon(wait, b)
        await anyio.sleep(1.2)  # beyond its first look, in the middle before its second
        opened = time.monotonic()
        for gate in gates:
            gate.set()
    assert len(targets[0].calls + targets[1].calls) == 1
    assert max(heard) - opened < 0.4
