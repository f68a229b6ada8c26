"""What every `prewarmkit.stores.MediaStore` must do.

Subclass `StoreContract` in a test module, give it a ``store`` fixture (entered, empty)
and a way to let its time pass, and pytest runs the suite::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self, clock):
            async with MyStore(clock=clock) as store:
                yield store
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from prewarmkit.errors import QueueFull
from prewarmkit.media import Media, MediaKind, Warmed
from prewarmkit.stores.base import (
    Enqueued,
    Failed,
    Job,
    Lease,
    MediaId,
    MediaStore,
    Outcome,
    Released,
    Retry,
    Succeeded,
)
from prewarmkit.stores.lifecycle import AGEING_SECONDS, State
from prewarmkit.testing.clock import FakeClock

__all__ = ["StoreContract", "job"]

LEASE_SECONDS = 60.0


def job(
    key: str = "a.png", *, target: str = "bot", priority: int = 5, delay: float = 0.0, **media: Any
) -> Job:
    """A job for tests."""
    retry_failed = media.pop("retry_failed", False)
    kind = media.pop("kind", None)
    return Job(target, Media(key, kind, **media), priority=priority, delay=delay, retry_failed=retry_failed)


@pytest.mark.anyio
class StoreContract:
    """The suite. Override the fixture ``store``, and `advance` if the store has a clock of its own."""

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

    # ── enqueue ──────────────────────────────────────────────────────────────

    async def test_a_new_medium_is_queued_and_a_second_enqueue_is_a_duplicate(
        self, store: MediaStore
    ) -> None:
        """Enqueue answers QUEUED once, then DUPLICATE, also inside one call."""
        assert await store.enqueue([job(), job("b.png"), job()]) == [
            Enqueued.QUEUED,
            Enqueued.QUEUED,
            Enqueued.DUPLICATE,
        ]
        assert await store.enqueue([job()]) == [Enqueued.DUPLICATE]
        assert await store.counts() == {("bot", MediaKind.PHOTO, State.PENDING): 2}

    async def test_a_row_is_known_by_target_key_and_kind(self, store: MediaStore) -> None:
        """One key under another kind or target is another row."""
        jobs = [job(), job(kind="document"), job(target="other")]
        assert await store.enqueue(jobs) == [Enqueued.QUEUED] * 3

    async def test_a_bound_refuses_the_whole_call_and_puts_nothing_in(self, store: MediaStore) -> None:
        """Over the limit enqueue raises QueueFull; duplicates need no room."""
        await store.enqueue([job("1"), job("2")], limit=2)
        with pytest.raises(QueueFull):
            await store.enqueue([job("3")], limit=2)
        with pytest.raises(QueueFull):
            await store.enqueue([job("1"), job("3"), job("4")], limit=3)
        assert await store.enqueue([job("1"), job("2")], limit=2) == [Enqueued.DUPLICATE] * 2
        assert sum((await store.counts()).values()) == 2

    async def test_a_ready_medium_answers_ready(self, store: MediaStore) -> None:
        """Nothing is done twice."""
        await self.warmed(store, job())
        assert await store.enqueue([job()]) == [Enqueued.READY]
        assert await self.lease(store) == []

    async def test_a_failed_medium_is_left_alone_until_asked(self, store: MediaStore) -> None:
        """FAILED stays unless retry_failed says otherwise."""
        await store.enqueue([job()])
        [lease] = await self.lease(store)
        await store.turn([Failed(lease, "too_large: 99 MB")])
        assert await store.enqueue([job()]) == [Enqueued.FAILED]
        assert await store.enqueue([job(retry_failed=True)]) == [Enqueued.QUEUED]
        [again] = await self.lease(store)
        assert again.attempt == 1

    async def test_a_duplicate_hands_over_a_better_priority_and_a_sooner_time(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """A worse priority or a later time changes nothing."""
        await store.enqueue([job("slow", priority=9), job("other", priority=5), job("later", delay=100)])
        await store.enqueue([job("slow", priority=1), job("other", priority=7), job("later", delay=500)])
        assert [lease.id.key for lease in await self.lease(store)] == ["slow", "other"]
        await store.enqueue([job("later", delay=0)])
        assert [lease.id.key for lease in await self.lease(store)] == ["later"]
        del clock

    async def test_a_duplicate_adds_the_facts_that_were_not_known(self, store: MediaStore) -> None:
        """Size, type and version arrive with whoever knows them."""
        await store.enqueue([job()])
        await store.enqueue([job(size=7, etag="v1", content_type="image/png")])
        [lease] = await self.lease(store)
        assert (lease.media.size, lease.media.etag, lease.media.content_type) == (7, "v1", "image/png")

    # ── versions ─────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("version", ["etag", "sha256"])
    async def test_another_version_makes_a_ready_row_due_and_leaves_the_handle_stale(
        self, store: MediaStore, version: str
    ) -> None:
        """The old handle stays readable, marked stale, until the new one is there."""
        facts: dict[str, Any] = {version: "v1"}
        first = job(**facts)
        await self.warmed(store, first, "H1")
        assert await store.enqueue([first]) == [Enqueued.READY]
        assert await store.enqueue([job()]) == [Enqueued.READY]
        facts[version] = "v2"
        assert await store.enqueue([job(**facts)]) == [Enqueued.QUEUED]
        looked = (await store.lookup_many([first.id]))[first.id]
        assert looked.state is State.PENDING
        assert looked.handle is not None
        assert (looked.handle.value, looked.handle.stale) == ("H1", True)
        [lease] = await self.lease(store)
        await store.turn([Succeeded(lease, Warmed("H2"))])
        looked = (await store.lookup_many([first.id]))[first.id]
        assert looked.handle is not None
        assert (looked.handle.value, looked.handle.stale) == ("H2", False)

    async def test_another_version_while_warming_fences_the_old_upload_out(self, store: MediaStore) -> None:
        """What is being uploaded is the old content: its outcome must not count for the new."""
        await store.enqueue([job(etag="v1")])
        [old] = await self.lease(store)
        assert await store.enqueue([job(etag="v2")]) == [Enqueued.DUPLICATE]
        outcome = Succeeded(old, Warmed("OLD"))
        assert list((await store.turn([outcome])).lost) == [outcome]
        [new] = await self.lease(store)
        assert (new.media.etag, new.attempt) == ("v2", 1)
        assert new.token > old.token

    async def test_another_version_revives_a_failed_row(self, store: MediaStore) -> None:
        """New content deserves new attempts."""
        await store.enqueue([job(etag="v1")])
        [lease] = await self.lease(store)
        await store.turn([Failed(lease, "media_unfit")])
        assert await store.enqueue([job(etag="v1")]) == [Enqueued.FAILED]
        assert await store.enqueue([job(etag="v2")]) == [Enqueued.QUEUED]

    async def test_an_expired_handle_is_due_again_and_readable_as_stale(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """Time alone makes a handle stale; the next enqueue makes its row due."""
        expires = datetime.fromtimestamp(clock(), UTC) + timedelta(seconds=30)
        id_ = await self.warmed(store, job(), expires_at=expires)
        assert await store.enqueue([job()]) == [Enqueued.READY]
        await self.advance(store, clock, 31)
        looked = (await store.lookup_many([id_]))[id_]
        assert looked.handle is not None
        assert looked.handle.stale
        assert await store.enqueue([job()]) == [Enqueued.QUEUED]

    # ── the same content under several keys ──────────────────────────────────

    async def test_a_row_takes_over_the_handle_of_the_same_content(self, store: MediaStore) -> None:
        """With a known SHA-256 there is no second upload."""
        await self.warmed(store, job("a.png", sha256="S"), "H1", unique_id="U")
        assert await store.enqueue([job("b.png", sha256="S")]) == [Enqueued.READY]
        id_ = job("b.png").id
        handle = (await store.lookup_many([id_]))[id_].handle
        assert handle is not None
        assert (handle.value, handle.key, handle.unique_id, handle.stale) == ("H1", "b.png", "U", False)

    async def test_another_kind_target_or_content_takes_nothing_over(self, store: MediaStore) -> None:
        """A handle holds for one target, one content, one kind."""
        await self.warmed(store, job("a.png", sha256="S"))
        others = [
            job("b.png", sha256="T"),
            job("b.png", sha256="S", kind="document"),
            job("c", sha256="S", target="x"),
        ]
        assert await store.enqueue(others) == [Enqueued.QUEUED] * 3

    async def test_waiting_rows_of_the_same_content_become_ready_with_the_first(
        self, store: MediaStore
    ) -> None:
        """Two keys of one content that were queued together cost one upload."""
        await store.enqueue(
            [job("a.png", sha256="S", priority=1), job("b.png", sha256="S"), job("c.png", delay=9)]
        )
        await store.enqueue([job("c.png", sha256="S", delay=9)])
        [lease] = await self.lease(store, 1)
        await store.turn([Succeeded(lease, Warmed("H1"))])
        for key in ("b.png", "c.png"):
            assert await self.state_of(store, job(key).id) is State.READY
        assert await self.lease(store) == []

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

    # ── by hand ──────────────────────────────────────────────────────────────

    async def test_of_many_refusals_of_a_handle_one_acts(self, store: MediaStore) -> None:
        """Fifty late refusals cost one re-warm."""
        id_ = await self.warmed(store, job(), "H1")
        assert await store.invalidate(id_, "other") is False
        assert [await store.invalidate(id_, "H1") for _ in range(50)] == [True] + [False] * 49
        [lease] = await self.lease(store)
        assert (lease.priority, lease.attempt) == (0, 1)
        await store.turn([Succeeded(lease, Warmed("H2"))])
        assert await store.invalidate(id_, "H1") is False
        assert await store.invalidate(id_) is True
        assert await store.invalidate(MediaId("bot", "never", MediaKind.PHOTO)) is False

    async def test_invalidating_without_rewarming_forgets_the_row(self, store: MediaStore) -> None:
        """Nobody wants it any more."""
        id_ = await self.warmed(store, job())
        assert await store.invalidate(id_, "H1", rewarm=False) is True
        assert await store.lookup_many([id_]) == {}

    async def test_failed_rows_can_be_requeued_by_what_they_are(self, store: MediaStore) -> None:
        """By target, kind, the start of the reason, keys; as many as asked."""
        await store.enqueue(
            [job(f"{n}.png") for n in range(4)] + [job("x.txt"), job("y.png", target="other")]
        )
        for lease in await self.lease(store):
            await store.turn([Failed(lease, "too_large: big" if lease.id.key == "0.png" else "transient: x")])
        assert await store.requeue(reason="too_large") == 1
        assert await store.requeue(target="other", kind=MediaKind.PHOTO) == 1
        assert await store.requeue(keys=["x.txt", "nothing"]) == 1
        assert await store.requeue(limit=2) == 2
        assert await store.requeue() == 1
        assert await store.requeue() == 0
        assert {lease.attempt for lease in await self.lease(store)} == {1}

    async def test_purge_removes_what_has_ended_long_ago(self, store: MediaStore, clock: FakeClock) -> None:
        """Pending rows are never purged."""
        await self.warmed(store, job("old.png"))
        await self.advance(store, clock, 100)
        await self.warmed(store, job("new.png"))
        await store.enqueue([job("waiting.png")])
        await self.advance(store, clock, 10)
        assert await store.purge(older_than=50, state=State.FAILED) == 0
        assert await store.purge(older_than=50) == 1
        assert await store.purge(older_than=0) == 1
        assert await self.state_of(store, job("waiting.png").id) is State.PENDING

    async def test_rows_are_listed_page_by_page(self, store: MediaStore) -> None:
        """Each row once, by state and target."""
        await self.warmed(store, job("ready.png"))
        await store.enqueue([job(f"{n}.png") for n in range(5)])
        await store.enqueue([job("elsewhere.png", target="x")])
        keys: list[str] = []
        after: str | None = None
        while page := await store.list(State.PENDING, after=after, limit=2, targets=["bot"]):
            keys += [row.id.key for row in page]
            after = page[-1].cursor
        assert sorted(keys) == [f"{n}.png" for n in range(5)]
        [ready] = await store.list(State.READY)
        assert ready.handle is not None
        assert ready.due_in is None

    # ── the rest ─────────────────────────────────────────────────────────────

    async def test_has_work_knows_delayed_and_leased_rows(self, store: MediaStore) -> None:
        """A join must wait for both."""
        assert await store.has_work() is False
        await store.enqueue([job(delay=1000)])
        assert await store.has_work(["bot"]) is True
        assert await store.has_work(["other"]) is False
        await store.enqueue([job()])
        [lease] = await self.lease(store)
        assert await store.has_work() is True
        await store.turn([Succeeded(lease, Warmed("H"))])
        assert await store.has_work() is False

    async def test_a_wake_up_follows_an_enqueue(self, store: MediaStore) -> None:
        """A hint: the store may poll, but must not be deaf to its own process."""
        async with store.wakeups() as hints:
            await store.enqueue([job()])
            with anyio.fail_after(5):
                await anext(hints)

    async def test_small_facts_are_kept_by_name(self, store: MediaStore) -> None:
        """Put, overwrite, forget; names do not mix."""
        state = store.state("bot")
        await state.put("chat", "1")
        await state.put("chat", "2")
        assert await store.state("bot").get("chat") == "2"
        assert await store.state("other").get("chat") is None
        await state.put("chat", None)
        assert await state.get("chat") is None

    async def test_migrating_again_changes_nothing(self, store: MediaStore) -> None:
        """Migration is idempotent."""
        id_ = await self.warmed(store, job())
        await store.migrate()
        await store.check_schema()
        assert await self.state_of(store, id_) is State.READY

    async def test_any_text_is_a_key(self, store: MediaStore) -> None:
        """Quotes, Unicode and SQL in keys and reasons are text."""
        keys = ["it's", '"; DROP TABLE media_cache; --', "ключ/🎬.mp4", "a\nb", "%_"]
        await store.enqueue([job(key) for key in keys])
        leases = await self.lease(store)
        assert sorted(lease.id.key for lease in leases) == sorted(keys)
        await store.turn([Failed(lease, f"reason {lease.id.key}") for lease in leases])
        assert await store.requeue(reason="reason it's") == 1
