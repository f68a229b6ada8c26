"""Part of the contract of every store: a handle that was refused is gone, under every key of its content."""

from __future__ import annotations

import pytest

from prewarmkit.media import Warmed
from prewarmkit.stores.base import Enqueued, MediaStore, Succeeded
from prewarmkit.testing.contracts.store_suite import StoreSuite, job

__all__ = ["StoreRefusalsContract"]


@pytest.mark.anyio
class StoreRefusalsContract(StoreSuite):
    """`MediaStore.invalidate` where several keys share one handle."""

    async def test_a_refused_handle_does_not_come_back_from_the_same_content(self, store: MediaStore) -> None:
        """Two keys share a handle; refused for one it is refused for both, and one upload serves both again."""
        await self.warmed(store, job("a", sha256="S"), handle="DEAD")
        assert await store.enqueue([job("b", sha256="S")]) == [Enqueued.READY]
        assert await store.invalidate(job("b").id, "DEAD")
        found = await store.lookup_many([job("a").id, job("b").id])
        assert {looked.handle for looked in found.values()} == {None}
        assert await store.enqueue([job("b", sha256="S")]) == [Enqueued.DUPLICATE]
        assert not await store.invalidate(job("a").id, "DEAD")
        first, second = await self.lease(store, 2)
        assert first.id.key == "b"  # somebody waits for it
        await store.release([second])
        await store.turn([Succeeded(first, Warmed("NEW"))])
        found = await store.lookup_many([job("a").id, job("b").id])
        assert [looked.handle.value for looked in found.values() if looked.handle] == ["NEW", "NEW"]

    async def test_a_refused_handle_that_nobody_wants_is_gone_with_its_copies(
        self, store: MediaStore
    ) -> None:
        """Without rewarming: another content's handle of that value stays."""
        await self.warmed(store, job("a", sha256="S"), handle="DEAD")
        await store.enqueue([job("b", sha256="S")])
        await self.warmed(store, job("c", sha256="T"), handle="DEAD")
        assert await store.invalidate(job("b").id, None, rewarm=False)
        assert set(await store.lookup_many([job(key).id for key in "abc"])) == {job("c").id}
