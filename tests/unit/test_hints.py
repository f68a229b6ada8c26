"""What a store tells those who listen, and what a pool's own cache makes of it."""

from __future__ import annotations

import anyio
import pytest

from prewarmkit.media import Handle, MediaKind
from prewarmkit.pool.cache import HandleCache
from prewarmkit.stores import Hint, Looked, MediaId, State
from prewarmkit.stores.postgres.hints import DUE, SETTLED, hint_of, payloads_of
from prewarmkit.stores.wakeups import Wakeups
from prewarmkit.testing.clock import FakeClock

A, B, C = (MediaId("bot", key, MediaKind.PHOTO) for key in "abc")


def found(id_: MediaId, value: str) -> Looked:
    return Looked(state=State.READY, handle=Handle(value, id_.kind, target=id_.target, key=id_.key))


# ── to whoever listens ───────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_one_who_looks_late_finds_one_hint_that_says_all() -> None:
    wakeups = Wakeups()
    async with wakeups.listen() as early, wakeups.listen() as late:
        wakeups.notify(Hint(is_due=False, changed=[A]))
        assert await anext(early) == Hint(is_due=False, changed=[A])
        wakeups.notify(Hint(is_due=False, changed=[B]))
        wakeups.notify()
        assert await anext(early) == Hint(changed=[B])
        assert await anext(late) == Hint(changed={A, B})
        wakeups.notify(Hint(is_due=False, changed=None))
        wakeups.notify(Hint(is_due=False, changed=[A]))
        assert await anext(early) == Hint(is_due=False, changed=None)
        wakeups.notify(Hint(changed=[A]))
        assert await anext(late) == Hint(changed=None)
        with anyio.move_on_after(0.02) as quiet:
            await anext(late)
        assert quiet.cancelled_caught


@pytest.mark.anyio
async def test_rows_that_nobody_looks_for_are_not_named_without_end() -> None:
    """A listener that is stuck would hold every name that ever changed."""
    wakeups = Wakeups()
    async with wakeups.listen() as hints:
        for n in range(5_000):
            wakeups.notify(Hint(changed=[MediaId("bot", str(n), MediaKind.PHOTO)]))
        assert await anext(hints) == Hint(changed=None)


# ── over the wire ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", ["a.png", 'it\'s "quoted"', "ключ/🎬", "\\ \n", "x" * 2_500])
def test_what_is_said_of_a_row_is_understood(key: str) -> None:
    id_ = MediaId("telegram:1", key, MediaKind.VIDEO)
    [payload] = payloads_of([id_])
    assert hint_of(payload) == Hint(is_due=False, changed=[id_])


def test_a_payload_never_outgrows_what_notify_takes() -> None:
    """Less than 8,000 bytes (PostgreSQL, "NOTIFY"); escaped, a control character has six."""
    for changed in ([MediaId("bot", "\x01" * 2_000, MediaKind.PHOTO)], [A] * 257):
        assert payloads_of(changed) == ["*"]
    assert hint_of("*") == Hint(is_due=False, changed=None)
    assert len(payloads_of([A, B, C])) == 3


@pytest.mark.parametrize("payload", ["what", "{}", "[1]", '["a", "b", "no kind"]', '{"due": 1}', "7"])
def test_what_another_version_says_is_taken_for_any_change(payload: str) -> None:
    assert hint_of(payload) == Hint(is_due=True, changed=None)


def test_the_plain_hints() -> None:
    assert hint_of(DUE) == Hint()
    assert hint_of(SETTLED) == Hint(is_due=False)


# ── in the pool ──────────────────────────────────────────────────────────────


def filled() -> HandleCache:
    cache = HandleCache(FakeClock(), 5)
    for id_, value in ((A, "one"), (B, "one"), (C, "other")):
        with cache.reading(id_) as keep:
            keep(found(id_, value))
    return cache


def test_a_refused_handle_is_forgotten_wherever_it_stands() -> None:
    """Keys of one content share it."""
    for value in ("one", None):
        cache = filled()
        cache.refuse(A, value)
        assert [cache.get(id_) for id_ in (A, B)] == [None, None]
        assert cache.get(C) == found(C, "other")
    cache = filled()
    with cache.reading(B) as keep:
        cache.refuse(A, "one")
        keep(found(B, "one"))
    assert cache.get(B) is None


def test_what_others_changed_is_forgotten() -> None:
    cache = filled()
    cache.heed([])
    cache.heed([B])
    assert [cache.get(id_) is None for id_ in (A, B, C)] == [False, True, False]
    with cache.reading(B) as keep:
        cache.heed(None)
        keep(found(B, "one"))
    assert [cache.get(id_) for id_ in (A, B, C)] == [None, None, None]
