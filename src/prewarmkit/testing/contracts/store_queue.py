"""A store as a queue: order, leases, outcomes, the fence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from prewarmkit.errors import QueueFull
from prewarmkit.media import MediaKind, Warmed
from prewarmkit.stores.base import (
    Enqueued,
    Failed,
    MediaStore,
    Outcome,
    Released,
    Retry,
    Succeeded,
)
from prewarmkit.stores.lifecycle import AGEING_SECONDS, State
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.store_suite import LEASE_SECONDS, StoreSuite, job

__all__ = ["StoreQueueContract"]


@pytest.mark.anyio
class StoreQueueContract(StoreSuite):
    """What is let in, what is leased when, and what an outcome does."""

    # ── bounds ───────────────────────────────────────────────────────────────

    async def test_a_bound_refuses_the_whole_call_and_puts_nothing_in(self, store: MediaStore) -> None:
        """Over the limit enqueue raises QueueFull; duplicates need no room."""
        await store.enqueue([job("1"), job("2")], limit=2)
        with pytest.raises(QueueFull):
            await store.enqueue([job("3")], limit=2)
        with pytest.raises(QueueFull):
            await store.enqueue([job("1"), job("3"), job("4")], limit=3)
        assert await store.enqueue([job("1"), job("2")], limit=2) == [Enqueued.DUPLICATE] * 2
        assert sum((await store.counts()).values()) == 2

    async def test_a_bound_counts_what_another_version_takes_out_of_somebodys_hands(
        self, store: MediaStore
    ) -> None:
        """That row waits again, though it answers as a duplicate; one that waits already needs no room."""
        await store.enqueue([job("1", etag="1")])
        await self.lease(store)
        await store.enqueue([job("2", etag="1")], limit=1)
        with pytest.raises(QueueFull):
            await store.enqueue([job("1", etag="2")], limit=1)
        assert await store.enqueue([job("2", etag="2")], limit=1) == [Enqueued.DUPLICATE]

    async def test_many_at_once_never_pass_a_bound(self, store: MediaStore) -> None:
        """Each call counts what the others have put in; none is put in by half."""
        refused: list[int] = []

        async def enqueue(nth: int) -> None:
            try:
                await store.enqueue([job(f"{nth}-{n}") for n in range(5)], limit=23)
            except QueueFull:
                refused.append(nth)

        async with anyio.create_task_group() as group:
            for nth in range(12):
                group.start_soon(enqueue, nth)
        assert (len(refused), sum((await store.counts()).values())) == (8, 20)

    # ── order ────────────────────────────────────────────────────────────────

    async def test_rows_leave_by_priority_then_by_age(self, store: MediaStore) -> None:
        """0 goes first, 9 last, equals as they came."""
        await store.enqueue(
            [job(f"{priority}-{n}", priority=priority) for n in range(2) for priority in (9, 0, 5)]
        )
        assert [lease.id.key for lease in await self.lease(store)] == [
            "0-0",
            "0-1",
            "5-0",
            "5-1",
            "9-0",
            "9-1",
        ]

    async def test_waiting_makes_up_for_priority(self, store: MediaStore, clock: FakeClock) -> None:
        """A row of priority 9 overtakes every row of priority 3 that came six steps of ageing later."""
        await store.enqueue([job("old", priority=9)])
        await self.advance(store, clock, 6 * AGEING_SECONDS - 1)
        await store.enqueue([job("before", priority=3)])
        await self.advance(store, clock, 2)
        await store.enqueue([job("after", priority=3)])
        assert [lease.id.key for lease in await self.lease(store)] == ["before", "old", "after"]

    async def test_priority_zero_goes_before_any_age(self, store: MediaStore, clock: FakeClock) -> None:
        """Somebody waits for it now."""
        await store.enqueue([job("old", priority=1)])
        await self.advance(store, clock, 1_000_000)
        await store.enqueue([job("live", priority=0)])
        assert [lease.id.key for lease in await self.lease(store)] == ["live", "old"]

    async def test_a_delayed_row_is_leased_when_its_time_has_come(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """And the store says when that is."""
        await store.enqueue([job(delay=10)])
        turn = await store.turn(lease=1)
        assert (list(turn.leased), turn.pending) == ([], 1)
        assert turn.next_due == pytest.approx(10, abs=0.1)
        await self.advance(store, clock, 10.01)
        assert len(await self.lease(store)) == 1

    async def test_only_the_asked_targets_are_leased(self, store: MediaStore) -> None:
        """A paused target's rows stay where they are."""
        await store.enqueue([job("1", target="a"), job("2", target="b"), job("3", target="c")])
        assert {lease.id.target for lease in await self.lease(store, targets=("a", "c"))} == {"a", "c"}
        assert await self.lease(store, targets=()) == []
        assert await self.state_of(store, job("2", target="b").id) is State.PENDING

    async def test_a_turn_leases_no_more_than_asked(self, store: MediaStore) -> None:
        """And no row twice."""
        await store.enqueue([job(str(n)) for n in range(5)])
        first, second = await self.lease(store, 2), await self.lease(store, 9)
        assert (len(first), len(second)) == (2, 3)
        assert len({lease.id for lease in [*first, *second]}) == 5

    # ── live and background ──────────────────────────────────────────────────

    @pytest.mark.parametrize("targets", [("bot",), ("bot", "other"), None], ids=["one", "two", "any"])
    async def test_endless_live_rows_leave_an_eighth_to_background_rows(
        self, store: MediaStore, targets: tuple[str, ...] | None
    ) -> None:
        """After seven in a row the best of the others comes, whichever target it is for."""
        rest = targets[-1] if targets else "other"
        await store.enqueue([job(f"live {n}", priority=0) for n in range(40)])
        await store.enqueue([job(f"{9 - n}", priority=9 - n, target=rest) for n in range(9)])
        for n in range(2):
            leases = await self.lease(store, 16, targets=targets)
            live = [f"live {14 * n + each}" for each in range(14)]
            keys = [*live[:7], str(2 * n + 1), *live[7:], str(2 * n + 2)]
            assert [lease.id.key for lease in leases] == keys

    async def test_the_share_of_background_rows_adds_up_over_leases_of_any_size(
        self, store: MediaStore
    ) -> None:
        """Who leases one row at a time gives them no less."""
        await store.enqueue([job(f"live {n}", priority=0) for n in range(40)])
        await store.enqueue([job(f"{n}") for n in range(9)])
        came: list[str] = []
        for most in [1] * 17 + [2, 3, 5, 5]:
            leases = await self.lease(store, most)
            assert len(leases) == most
            came += [lease.id.key for lease in leases]
        places = [place for place, key in enumerate(came, 1) if not key.startswith("live")]
        assert places == [8, 16, 24, 32]
        assert [came[place - 1] for place in places] == ["0", "1", "2", "3"]
        assert [key for key in came if key.startswith("live")] == [f"live {n}" for n in range(28)]

    @pytest.mark.parametrize("targets", [("bot",), None], ids=["one", "any"])
    async def test_live_rows_that_nearly_fill_a_batch_leave_the_rest_of_the_share(
        self, store: MediaStore, targets: tuple[str, ...] | None
    ) -> None:
        """One background row would be among the first sixteen as it is, and one more is due."""
        await store.enqueue([job(f"live {n}", priority=0) for n in range(22)])
        await self.lease(store, 7, targets=targets)
        await store.enqueue([job(str(n)) for n in range(9)])
        live = [f"live {n}" for n in range(7, 21)]
        leases = await self.lease(store, 16, targets=targets)
        assert [lease.id.key for lease in leases] == ["0", *live[:7], "1", *live[7:]]

    async def test_either_kind_has_all_while_the_other_has_none(self, store: MediaStore) -> None:
        """Nothing is held free; what a background row has waited for it gets when it comes."""
        await store.enqueue([job(f"live {n}", priority=0) for n in range(12)])
        assert len(await self.lease(store, 10)) == 10
        await store.enqueue([job(str(n)) for n in range(20)])
        keys = [lease.id.key for lease in await self.lease(store, 5)]
        assert keys == ["0", "live 10", "live 11", "1", "2"]
        assert [lease.id.key for lease in await self.lease(store, 20)] == [str(n) for n in range(3, 20)]
        await store.enqueue([job("live again", priority=0), job("20")])
        assert [lease.id.key for lease in await self.lease(store, 1)] == ["live again"]

    # ── outcomes ─────────────────────────────────────────────────────────────

    async def test_success_keeps_everything_that_the_target_said(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """The handle comes back as it went in."""
        expires = datetime.fromtimestamp(clock(), UTC) + timedelta(days=1)
        details = {"chat_id": -100, "sizes": [1, 2]}
        id_ = await self.warmed(
            store,
            job(),
            "H",
            kind=MediaKind.ANIMATION,
            unique_id="U",
            weak=("w",),
            expires_at=expires,
            details=details,
        )
        looked = (await store.lookup_many([id_]))[id_]
        handle = looked.handle
        assert looked.state is State.READY
        assert handle is not None
        assert (handle.value, handle.kind, handle.target, handle.key) == (
            "H",
            MediaKind.ANIMATION,
            "bot",
            "a.png",
        )
        assert (handle.unique_id, handle.weak, handle.details, handle.stale) == ("U", ("w",), details, False)
        assert handle.expires_at == expires
        assert handle.warmed_at is not None
        assert handle.warmed_at.tzinfo is not None

    async def test_a_retry_waits_and_keeps_its_attempt(self, store: MediaStore, clock: FakeClock) -> None:
        """The attempt was counted when it was claimed."""
        await store.enqueue([job()])
        [lease] = await self.lease(store)
        assert lease.attempt == 1
        await store.turn([Retry(lease, 60, "transient: reset")])
        looked = (await store.lookup_many([lease.id]))[lease.id]
        assert (looked.state, looked.reason, looked.attempts) == (State.PENDING, "transient: reset", 1)
        assert looked.due_in == pytest.approx(60, abs=0.1)
        assert await self.lease(store) == []
        await self.advance(store, clock, 60.01)
        [again] = await self.lease(store)
        assert again.attempt == 2
        assert again.token > lease.token

    async def test_a_refunded_retry_and_a_release_spend_no_attempt(self, store: MediaStore) -> None:
        """Rate limits and a stop cost nothing."""
        await store.enqueue([job()])
        [lease] = await self.lease(store)
        await store.turn([Retry(lease, 0, "rate_limited", refund=True)])
        [lease] = await self.lease(store)
        assert lease.attempt == 1
        assert await store.release([lease]) == []
        [lease] = await self.lease(store)
        assert lease.attempt == 1
        await store.turn([Released(lease)])
        [lease] = await self.lease(store)
        assert lease.attempt == 1

    async def test_failure_is_final_and_says_why(self, store: MediaStore, clock: FakeClock) -> None:
        """A failed row is not leased again."""
        await store.enqueue([job()])
        [lease] = await self.lease(store)
        await store.turn([Failed(lease, "source_missing: gone")])
        await self.advance(store, clock, 5)
        looked = (await store.lookup_many([lease.id]))[lease.id]
        assert (looked.state, looked.reason, looked.handle) == (State.FAILED, "source_missing: gone", None)
        assert looked.failed_ago == pytest.approx(5, abs=0.1)
        assert await self.lease(store) == []

    async def test_one_turn_settles_and_leases(self, store: MediaStore) -> None:
        """Both ways in one commit, and one lost outcome harms no other."""
        await store.enqueue([job(str(n), priority=n) for n in range(4)])
        first, second = await self.lease(store, 2)
        await store.release([second])
        turn = await store.turn([Succeeded(second, Warmed("X")), Succeeded(first, Warmed("H"))], lease=10)
        assert [outcome.lease for outcome in turn.lost] == [second]
        assert [lease.id.key for lease in turn.leased] == ["1", "2", "3"]
        assert turn.pending == 0
        assert await self.state_of(store, first.id) is State.READY

    # ── leases ───────────────────────────────────────────────────────────────

    async def test_an_expired_lease_is_due_at_once_and_its_attempt_is_spent(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """The process died: somebody else goes on."""
        await store.enqueue([job()])
        [lost] = await self.lease(store)
        await self.advance(store, clock, LEASE_SECONDS - 1)
        assert await self.lease(store) == []
        await self.advance(store, clock, 1.01)
        [lease] = await self.lease(store)
        assert (lease.id, lease.attempt) == (lost.id, 2)

    async def test_a_late_outcome_changes_nothing(self, store: MediaStore, clock: FakeClock) -> None:
        """The fence: B's handle stands, A learns that its lease was lost."""
        await store.enqueue([job()])
        [a] = await self.lease(store)
        await self.advance(store, clock, LEASE_SECONDS + 1)
        [b] = await self.lease(store)
        late: list[Outcome] = [Succeeded(a, Warmed("A")), Retry(a, 0, "late"), Failed(a, "late"), Released(a)]
        assert list((await store.turn(late)).lost) == late
        assert not (await store.turn([Succeeded(b, Warmed("B"))])).lost
        assert list((await store.turn(late)).lost) == late
        handle = (await store.lookup_many([a.id]))[a.id].handle
        assert handle is not None
        assert handle.value == "B"

    async def test_a_heartbeat_holds_a_lease_and_tells_which_were_lost(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Long uploads stay ours as long as they beat."""
        await store.enqueue([job("held", priority=1), job("lost", priority=2)])
        held, lost = await self.lease(store)
        await self.advance(store, clock, LEASE_SECONDS - 1)
        assert await store.heartbeat([held], LEASE_SECONDS) == []
        await self.advance(store, clock, LEASE_SECONDS - 1)
        [again] = await self.lease(store)
        assert again.id == lost.id
        assert await store.heartbeat([held, lost], LEASE_SECONDS) == [lost]

    async def test_a_lease_that_was_held_for_long_is_taken_back_when_nobody_holds_it_any_more(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Its first time to run out has passed then; only the last one counts."""
        await store.enqueue([job()])
        [lease] = await self.lease(store)
        for _ in range(4):
            await self.advance(store, clock, LEASE_SECONDS - 20)
            assert await store.heartbeat([lease], LEASE_SECONDS) == []
            turn = await store.turn(lease=1)
            assert list(turn.leased) == []
            assert turn.next_due is not None
            assert turn.next_due <= LEASE_SECONDS
        await self.advance(store, clock, LEASE_SECONDS + 1)
        [again] = await self.lease(store)
        assert (again.id, again.attempt) == (lease.id, 2)

    async def test_a_heartbeat_may_end_a_lease_sooner(self, store: MediaStore, clock: FakeClock) -> None:
        """It says until when from now on, not how much longer."""
        await store.enqueue([job()])
        [lease] = await self.lease(store)
        assert await store.heartbeat([lease], 5) == []
        turn = await store.turn(lease=1)
        assert turn.next_due is not None
        assert turn.next_due <= 5
        await self.advance(store, clock, 6)
        assert len(await self.lease(store)) == 1
