"""A store that keeps handles warm: ready rows that are due again by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prewarmkit.media import Handle, Warmed
from prewarmkit.stores.base import Enqueued, Failed, Job, MediaId, MediaStore, Retry, Row, Succeeded
from prewarmkit.stores.lifecycle import RENEWED_AT_ONCE, State
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.store_suite import LEASE_SECONDS, StoreSuite, job

__all__ = ["StoreRenewalContract"]

RENEW_SECONDS, EXPIRES_SECONDS = 600.0, 900.0


@pytest.mark.anyio
class StoreRenewalContract(StoreSuite):
    """When a row is due again, what its handle is meanwhile, and what ends it."""

    async def kept(self, store: MediaStore, clock: FakeClock, given: Job, handle: str = "H1") -> MediaId:
        """A row that is ready, whose handle expires and is renewed before."""
        await store.enqueue([given])
        [lease] = await self.lease(store)
        expires = datetime.fromtimestamp(clock(), UTC) + timedelta(seconds=EXPIRES_SECONDS)
        outcome = Succeeded(lease, Warmed(handle, expires_at=expires), renew_in=RENEW_SECONDS)
        assert not (await store.turn([outcome])).lost
        return given.id

    async def look(self, store: MediaStore, id_: MediaId) -> tuple[State, Handle]:
        """State and handle of a row that has one."""
        looked = (await store.lookup_many([id_]))[id_]
        assert looked.handle is not None
        return looked.state, looked.handle

    async def row(self, store: MediaStore, id_: MediaId) -> Row:
        """The row as people see it."""
        [found] = [row for row in await store.list() if row.id == id_]
        return found

    # ── when ─────────────────────────────────────────────────────────────────

    async def test_a_ready_row_is_due_again_by_itself_and_its_handle_stays_good(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Nobody who looks notices anything but the new handle, once it is there."""
        id_ = await self.kept(store, clock, job())
        await self.advance(store, clock, RENEW_SECONDS - 10)
        assert await self.lease(store) == []
        assert await self.state_of(store, id_) is State.READY
        await self.advance(store, clock, 11)
        [lease] = await self.lease(store)
        assert (lease.id, lease.attempt) == (id_, 1)
        state, handle = await self.look(store, id_)
        assert (state, handle.value, handle.stale) == (State.WARMING, "H1", False)
        await store.turn([Succeeded(lease, Warmed("H2"))])
        state, handle = await self.look(store, id_)
        assert (state, handle.value, handle.stale) == (State.READY, "H2", False)
        await self.advance(store, clock, 10 * RENEW_SECONDS)
        assert await self.lease(store) == []

    async def test_a_row_that_is_to_be_renewed_later_is_no_work(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Who waits for the end of all work does not wait for it; who sleeps is told when it is due."""
        id_ = await self.kept(store, clock, job())
        turn = await store.turn(lease=1)
        assert (turn.pending, await store.has_work()) == (0, False)
        assert turn.next_due == pytest.approx(RENEW_SECONDS, abs=1)
        assert (await self.row(store, id_)).renew_in == pytest.approx(RENEW_SECONDS, abs=1)
        assert await store.enqueue([job("other")], limit=1) == [Enqueued.QUEUED]
        await self.advance(store, clock, RENEW_SECONDS + 1)
        assert (await store.turn(lease=1, targets=["nobody"])).leased == []
        assert await store.has_work()
        row = await self.row(store, id_)
        assert (row.state, row.renew_in, row.attempts, row.reason) == (State.PENDING, None, 0, None)
        assert row.due_in is not None
        assert row.due_in <= 0

    @pytest.mark.parametrize(("priority", "again"), [(0, 5), (3, 5), (5, 5), (9, 9)])
    async def test_a_renewal_is_background_work(
        self, store: MediaStore, clock: FakeClock, priority: int, again: int
    ) -> None:
        """Whoever waited for the medium when it was new: nobody does now."""
        await self.kept(store, clock, job(priority=priority))
        await self.advance(store, clock, RENEW_SECONDS + 1)
        await store.turn(lease=1, targets=["nobody"])
        await store.enqueue([job("new", priority=4)])
        leases = await self.lease(store)
        assert [(lease.id.key, lease.priority) for lease in leases] == [("new", 4), ("a.png", again)]

    async def test_a_renewal_that_somebody_asks_for_goes_in_front(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """It waits like any row."""
        await self.kept(store, clock, job())
        await self.advance(store, clock, RENEW_SECONDS + 1)
        await store.turn(lease=1, targets=["nobody"])
        assert await store.enqueue([job(priority=0)]) == [Enqueued.DUPLICATE]
        [lease] = await self.lease(store)
        assert lease.priority == 0

    async def test_many_renewals_that_are_due_at_once_come_in_steps(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """No turn is held up by a catalogue that was warmed in one hour; none of it is forgotten."""
        count = RENEWED_AT_ONCE + 500
        await store.enqueue([job(f"{n}") for n in range(count)])
        leases = await self.lease(store, count)
        await store.turn([Succeeded(lease, Warmed("H"), renew_in=RENEW_SECONDS) for lease in leases])
        await self.advance(store, clock, RENEW_SECONDS + 1)
        turn = await store.turn(lease=1, targets=["nobody"])
        assert turn.next_due == 0
        assert sum((await store.counts()).values()) == count
        assert {state: rows for (_, _, state), rows in (await store.counts()).items()} == {
            State.PENDING: RENEWED_AT_ONCE,
            State.READY: 500,
        }
        assert (await store.turn(lease=1, targets=["nobody"])).next_due is None
        assert len(await self.lease(store, count)) == count

    # ── what its handle is meanwhile ─────────────────────────────────────────

    async def test_a_renewal_that_nobody_carries_out_lets_the_handle_expire(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Its target is gone: it is good for as long as it was said to be."""
        id_ = await self.kept(store, clock, job())
        await self.advance(store, clock, EXPIRES_SECONDS - 10)
        assert await self.lease(store, targets=("other",)) == []
        state, handle = await self.look(store, id_)
        assert (state, handle.stale) == (State.PENDING, False)
        await self.advance(store, clock, 11)
        state, handle = await self.look(store, id_)
        assert (state, handle.value, handle.stale) == (State.PENDING, "H1", True)

    async def test_a_renewal_that_fails_leaves_the_handle_as_good_as_it_was(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Tried again as any medium is; when it failed for good the old handle serves until it expires."""
        id_ = await self.kept(store, clock, job())
        await self.advance(store, clock, RENEW_SECONDS + 1)
        [lease] = await self.lease(store)
        await store.turn([Retry(lease, 0, "transient: reset")])
        [lease] = await self.lease(store)
        assert lease.attempt == 2
        await store.turn([Failed(lease, "source_missing: gone")])
        state, handle = await self.look(store, id_)
        assert (state, handle.value, handle.stale) == (State.FAILED, "H1", False)
        await self.advance(store, clock, EXPIRES_SECONDS)
        state, handle = await self.look(store, id_)
        assert (state, handle.stale) == (State.FAILED, True)
        assert await self.lease(store) == []

    async def test_a_renewal_whose_lease_runs_out_is_tried_again(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """And the late word of the first counts for nothing, its renewal neither."""
        id_ = await self.kept(store, clock, job())
        await self.advance(store, clock, RENEW_SECONDS + 1)
        [late] = await self.lease(store)
        await self.advance(store, clock, LEASE_SECONDS + 1)
        [lease] = await self.lease(store)
        assert not (await store.turn([Succeeded(lease, Warmed("H2"))])).lost
        outcome = Succeeded(late, Warmed("late"), renew_in=1.0)
        assert list((await store.turn([outcome])).lost) == [outcome]
        assert (await self.row(store, id_)).renew_in is None

    # ── what ends it ─────────────────────────────────────────────────────────

    async def test_an_enqueue_that_changes_nothing_leaves_the_renewal(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Neither a duplicate nor a fact that was not known."""
        id_ = await self.kept(store, clock, job())
        assert await store.enqueue([job(), job(size=7, etag="1")]) == [Enqueued.READY] * 2
        assert (await self.row(store, id_)).renew_in == pytest.approx(RENEW_SECONDS, abs=1)

    @pytest.mark.parametrize("what", ["another version", "an expired handle", "a refusal", "requeued"])
    async def test_a_row_that_is_due_for_another_reason_is_not_renewed_besides(
        self, store: MediaStore, clock: FakeClock, what: str
    ) -> None:
        """The next success says anew whether and when."""
        id_ = await self.kept(store, clock, job(etag="1"))
        match what:
            case "another version":
                assert await store.enqueue([job(etag="2")]) == [Enqueued.QUEUED]
            case "an expired handle":
                await self.advance(store, clock, EXPIRES_SECONDS + 1)
                assert await store.enqueue([job()]) == [Enqueued.QUEUED]
            case "a refusal":
                assert await store.invalidate(id_, "H1")
            case _:
                await self.advance(store, clock, RENEW_SECONDS + 1)
                [lease] = await self.lease(store)
                await store.turn([Failed(lease, "no")])
                assert await store.requeue() == 1
        assert (await self.row(store, id_)).renew_in is None
        [lease] = await self.lease(store)
        await store.turn([Succeeded(lease, Warmed("H2"), renew_in=2 * RENEW_SECONDS)])
        await self.advance(store, clock, RENEW_SECONDS + 10)
        assert await self.lease(store) == []
        await self.advance(store, clock, RENEW_SECONDS)
        assert len(await self.lease(store)) == 1

    @pytest.mark.parametrize("what", ["purged", "forgotten"])
    async def test_a_row_that_was_removed_is_not_renewed(
        self, store: MediaStore, clock: FakeClock, what: str
    ) -> None:
        """Nothing of it stays behind, and a row put in anew has its own life."""
        id_ = await self.kept(store, clock, job())
        if what == "purged":
            await self.advance(store, clock, 10)
            assert await store.purge(older_than=5) == 1
        else:
            assert await store.invalidate(id_, rewarm=False)
        assert (await store.turn(lease=1)).next_due is None
        await self.warmed(store, job(), "H2")
        await self.advance(store, clock, 2 * RENEW_SECONDS)
        assert await self.lease(store) == []

    async def test_a_row_that_is_due_for_renewal_is_not_purged(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """However long nobody has touched it: it waits."""
        id_ = await self.kept(store, clock, job())
        await self.advance(store, clock, RENEW_SECONDS + 1)
        await store.turn(lease=1, targets=["nobody"])
        await self.advance(store, clock, 10)
        assert await store.purge(older_than=0) == 0
        assert await self.state_of(store, id_) is State.PENDING

    # ── the same content under several keys ──────────────────────────────────

    @pytest.mark.parametrize("when", ["waiting", "later"])
    async def test_a_row_that_took_a_handle_over_is_renewed_with_it(
        self, store: MediaStore, clock: FakeClock, when: str
    ) -> None:
        """It is good for no longer than that of the first; and of two that are due one upload serves both."""
        both: dict[str, Any] = {"sha256": "S"}
        await store.enqueue([job("a.png", **both)])
        if when == "waiting":
            await store.enqueue([job("b.png", delay=5, **both)])
        [lease] = await self.lease(store)
        await store.turn([Succeeded(lease, Warmed("H1"), renew_in=RENEW_SECONDS)])
        if when == "later":
            assert await store.enqueue([job("b.png", **both)]) == [Enqueued.READY]
        b = job("b.png").id
        assert (await self.row(store, b)).renew_in == pytest.approx(RENEW_SECONDS, abs=1)
        await self.advance(store, clock, RENEW_SECONDS + 1)
        [lease] = await self.lease(store, 1)
        other = b if lease.id != b else job("a.png").id
        assert await self.state_of(store, other) is State.PENDING
        await store.turn([Succeeded(lease, Warmed("H2"), renew_in=2 * RENEW_SECONDS)])
        state, handle = await self.look(store, other)
        assert (state, handle.value) == (State.READY, "H2")
        assert (await self.row(store, other)).renew_in == pytest.approx(2 * RENEW_SECONDS, abs=1)
