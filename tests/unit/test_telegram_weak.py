"""A handle that is not to be trusted, from the target through the pool's policy to the row."""

from __future__ import annotations

import pytest
from bot_wire import TOKEN, FakeTransport, success

from prewarmkit import Handle, Media, MediaKind, PoolSettings, PrewarmPool, TransportError, WarmFailed
from prewarmkit.errors import Transient
from prewarmkit.media import ObjectInfo
from prewarmkit.pool.settings import WeakPolicy
from prewarmkit.targets import TelegramTarget, WeakReason
from prewarmkit.testing.contracts.target import MemorySource

pytestmark = pytest.mark.anyio

NAMELESS = success(document={"file_id": "F0"})
"""What the server knows only by its address has no unique id (section 1.4)."""


class PublicSource(MemorySource):
    async def head(self, key: str) -> ObjectInfo:
        found = await super().head(key)
        return ObjectInfo(key, found.size, "e1", found.content_type)

    def url(self, key: str, *, version: str | None = None) -> str | None:
        return f"https://media.example.org/{key}?v={version}"


def target_of(transport: FakeTransport) -> TelegramTarget:
    return TelegramTarget(TOKEN, warmup_chats=[-1], transport=transport, budget=None)


async def warmed(
    *answers: tuple[int, bytes], weak: WeakPolicy = "retry", tries: int = 1
) -> tuple[Handle, FakeTransport]:
    transport = FakeTransport(list(answers))
    source, bot = PublicSource({"a.pdf": b"%PDF"}), target_of(transport)
    settings = PoolSettings(weak=weak, retry_weak_id=tries)
    async with PrewarmPool(source, bot, settings=settings) as pool:
        return await pool.warm("a.pdf", timeout=30), transport


async def test_a_weak_handle_is_tried_again_by_another_route() -> None:
    """Requirement 6: by its bytes, at once, and what comes of that is ready."""
    handle, transport = await warmed(NAMELESS)
    assert [sent.has_file for sent in transport.sent] == [False, True]
    assert (handle.value, handle.weak, handle.details["route"]) == ("F1", (), "multipart")


@pytest.mark.parametrize(("weak", "tries", "sends"), [("retry", 0, 1), ("retry", 2, 3), ("reject", 1, 1)])
async def test_a_handle_that_stays_weak_is_never_ready_unless_that_is_accepted(
    weak: WeakPolicy, tries: int, sends: int
) -> None:
    """Requirement 6: at most n times, and the reason stands in the row."""
    transport = FakeTransport([NAMELESS] * 9)
    settings = PoolSettings(weak=weak, retry_weak_id=tries)
    source = PublicSource({"a.pdf": b"%PDF"})
    async with PrewarmPool(source, target_of(transport), settings=settings) as pool:
        with pytest.raises(WarmFailed, match="weak:no_unique_id"):
            await pool.warm("a.pdf", timeout=30)
        assert await pool.lookup("a.pdf") is None
    assert len(transport.sent) == sends


async def test_where_weak_handles_are_accepted_they_say_why() -> None:
    handle, transport = await warmed(NAMELESS, NAMELESS, weak="store")
    assert (handle.value, handle.weak) == ("F0", (WeakReason.NO_UNIQUE_ID.value,))
    assert len(transport.sent) == 2


async def test_another_kind_is_ready_where_that_is_accepted_and_is_sent_as_what_it_is() -> None:
    """Requirement 4: stored as an animation, never as a video."""
    answer = success(
        animation={"file_id": "A", "file_unique_id": "UA"}, document={"file_id": "D", "file_unique_id": "UD"}
    )
    transport = FakeTransport([answer, answer])
    async with PrewarmPool(
        MemorySource({"a.mp4": b"film"}), target_of(transport), settings=PoolSettings(weak="store")
    ) as pool:
        handle = await pool.warm("a.mp4", timeout=30)
    assert (handle.value, handle.kind, handle.weak) == ("A", MediaKind.ANIMATION, ("kind_changed",))


async def test_a_message_that_may_stand_without_an_answer_is_in_the_cost() -> None:
    """Requirement 11: a timeout after the body was sent is retried, and both messages count."""
    transport = FakeTransport([TransportError("timed out", request_sent=True)])
    target, source = target_of(transport), MemorySource({"a.pdf": b"%PDF"})
    with pytest.raises(Transient) as caught:
        await target.warm(Media("a.pdf"), source)
    assert caught.value.outcome_unknown is True
    assert (await target.warm(Media("a.pdf"), source)).details["rate_cost"] == 2


async def test_the_variable_of_the_original_sets_the_tries() -> None:
    assert PoolSettings.from_env({"MEDIA_PREWARM_RETRY_WEAK_ID": "3"}).retry_weak_id == 3
