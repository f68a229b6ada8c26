"""What the store contracts share: a clock, jobs, and steps that tests take often."""

from __future__ import annotations

from typing import Any

import pytest

from prewarmkit.media import Media, Warmed
from prewarmkit.stores.base import (
    Job,
    Lease,
    MediaId,
    MediaStore,
    Succeeded,
)
from prewarmkit.stores.lifecycle import State
from prewarmkit.testing.clock import FakeClock

__all__ = ["LEASE_SECONDS", "StoreSuite", "job"]

LEASE_SECONDS = 60.0


def job(
    key: str = "a.png", *, target: str = "bot", priority: int = 5, delay: float = 0.0, **media: Any
) -> Job:
    """A job for tests."""
    retry_failed = media.pop("retry_failed", False)
    kind = media.pop("kind", None)
    return Job(target, Media(key, kind, **media), priority=priority, delay=delay, retry_failed=retry_failed)


@pytest.mark.anyio
class StoreSuite:
    """Override the fixture ``store``, and `advance` if the store has a clock of its own."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The clock that the store is made with, where it takes one."""
        return FakeClock()

    async def advance(self, store: MediaStore, clock: FakeClock, seconds: float) -> None:
        """Let time pass for the store."""
        del store
        clock.advance(seconds)

    async def lease(
        self, store: MediaStore, most: int = 10, *, targets: tuple[str, ...] | None = None
    ) -> list[Lease]:
        """Lease due rows."""
        return list((await store.turn(lease=most, targets=targets, lease_seconds=LEASE_SECONDS)).leased)

    async def warmed(self, store: MediaStore, given: Job, handle: str = "H1", **facts: Any) -> MediaId:
        """A row that is ready."""
        await store.enqueue([given])
        [lease] = await self.lease(store)
        turn = await store.turn([Succeeded(lease, Warmed(handle, **facts))])
        assert not turn.lost
        return given.id

    async def state_of(self, store: MediaStore, id_: MediaId) -> State | None:
        """Where a row is."""
        looked = (await store.lookup_many([id_])).get(id_)
        return None if looked is None else looked.state
