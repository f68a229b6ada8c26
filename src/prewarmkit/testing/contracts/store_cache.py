"""A store as a cache: rows, versions, shared content, what is done by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from prewarmkit.budget import Window
from prewarmkit.media import MediaKind, Warmed
from prewarmkit.stores.base import (
    Enqueued,
    Failed,
    MediaId,
    MediaStore,
    Retry,
    Succeeded,
)
from prewarmkit.stores.lifecycle import State
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.store_suite import StoreSuite, job

__all__ = ["StoreCacheContract"]


@pytest.mark.anyio
class StoreCacheContract(StoreSuite):
    """What an enqueue finds, what a look-up tells, what stays."""

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

    async def test_a_waiting_row_takes_a_handle_over_once_its_content_is_known(
        self, store: MediaStore
    ) -> None:
        """Not only a new one: it has no handle, and there is one."""
        await self.warmed(store, job("a.png", sha256="S"), "H1")
        assert await store.enqueue([job("b.png", delay=60)]) == [Enqueued.QUEUED]
        assert await store.enqueue([job("b.png", sha256="S")]) == [Enqueued.READY]
        looked = (await store.lookup_many([job("b.png").id]))[job("b.png").id]
        assert looked.handle is not None
        assert (looked.state, looked.handle.value, looked.reason) == (State.READY, "H1", None)
        assert await self.lease(store) == []

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

    async def test_a_row_that_goes_back_to_waiting_takes_over_a_handle_of_the_same_turn(
        self, store: MediaStore
    ) -> None:
        """One of two keys of one content fails for now while the other succeeds: no second upload."""
        await store.enqueue([job("a.png", sha256="S"), job("b.png", sha256="S")])
        a, b = await self.lease(store, 2)
        assert not (await store.turn([Succeeded(b, Warmed("H")), Retry(a, 60, "later")])).lost
        assert await self.state_of(store, a.id) is State.READY

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

    async def test_a_stale_handle_of_a_failed_row_can_be_refused(self, store: MediaStore) -> None:
        """It had stayed readable; without it the row is due again."""
        id_ = await self.warmed(store, job(etag="1"), "H1")
        await store.enqueue([job(etag="2")])
        [lease] = await self.lease(store)
        await store.turn([Failed(lease, "source_missing: gone")])
        assert await store.invalidate(id_, "H1") is True
        assert await store.invalidate(id_, "H1") is False
        looked = (await store.lookup_many([id_]))[id_]
        assert (looked.state, looked.handle, looked.attempts) == (State.PENDING, None, 0)
        [again] = await self.lease(store)
        assert (again.attempt, again.priority, again.media.etag) == (1, 0, "2")

    async def test_a_look_up_tells_the_version_of_the_row(self, store: MediaStore) -> None:
        """So that who asks for another version knows that this is not it."""
        id_ = await self.warmed(store, job(etag="1", size=3))
        media = (await store.lookup_many([id_]))[id_].media
        assert media is not None
        assert (media.etag, media.size) == ("1", 3)

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

    async def test_a_budget_gives_no_more_than_its_windows_let_through(self, store: MediaStore) -> None:
        """By name: all windows of all names at once, or nothing."""
        budget, again = store.budget("bot"), store.budget("bot")
        chat, bot = [Window(2, 60)], [Window(3, 60)]
        assert [await each.take({"chat": chat, "bot": bot}) for each in (budget, again)] == [0.0, 0.0]
        assert 0 < await budget.take({"chat": chat, "bot": bot}) <= 60.001
        assert await budget.take({"bot": bot}) == 0.0
        assert 0 < await again.take({"other": chat, "bot": bot}) <= 60.001
        assert await budget.take({"other": chat}, cost=2) == 0.0
        assert await store.budget("another").take({"bot": bot}) == 0.0
        assert await budget.take({}) == 0.0

    async def test_what_has_only_now_arrived_counts_from_now(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """And once: its place is free a window later. Of a name that nobody knows nothing comes."""
        budget, chat = store.budget("bot"), [Window(2, 60)]
        wait, at = await budget.take_at({"chat": chat}, cost=2)
        assert wait == 0.0
        await budget.arrived("chat", at)
        await budget.arrived("unknown", at)
        wait, _ = await budget.take_at({"chat": chat})
        assert wait == pytest.approx(60, abs=1)
        await self.advance(store, clock, 61)
        assert await budget.take({"chat": chat}, cost=2) == 0.0

    async def test_a_held_name_gives_nothing_and_the_others_go_on(self, store: MediaStore) -> None:
        """A 429 said so; a later, shorter one does not end it sooner."""
        budget = store.budget("bot")
        await budget.hold("chat", 100)
        await budget.hold("chat", 1)
        assert 90 < await budget.take({"chat": []}) <= 100
        assert await budget.take({"other": [Window(1, 1)]}) == 0.0

    async def test_what_was_spent_and_held_is_over_in_the_stores_time(
        self, store: MediaStore, clock: FakeClock
    ) -> None:
        """The waits that are named end when they say."""
        budget, chat = store.budget("bot"), [Window(2, 60)]
        assert await budget.take({"chat": chat}, cost=2) == 0.0
        await budget.hold("held", 50)
        await self.advance(store, clock, 40)
        assert 10 < await budget.take({"chat": chat}) <= 20.001
        assert 0 < await budget.take({"held": []}) <= 10
        await self.advance(store, clock, 21)
        assert await budget.take({"chat": chat, "held": []}) == 0.0

    @pytest.mark.parametrize("cost", [0, -1, 3])
    async def test_a_cost_that_never_fits_is_an_error(self, store: MediaStore, cost: int) -> None:
        """Waiting for it would be waiting for ever."""
        with pytest.raises(ValueError, match=str(cost)):
            await store.budget("bot").take({"bot": [Window(2, 1)]}, cost=cost)

    async def test_a_listing_goes_on_after_a_row_and_ends(self, store: MediaStore) -> None:
        """By the cursor of the last row of a page."""
        await store.enqueue([job("1"), job("2")])
        [first] = await store.list(limit=1)
        [second] = await store.list(after=first.cursor, limit=5)
        assert {first.id.key, second.id.key} == {"1", "2"}
        assert await store.list(after=second.cursor) == []
