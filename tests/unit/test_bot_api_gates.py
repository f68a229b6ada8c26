"""The gates of the hosted Bot API server that are in no documentation, as the Bot API server of prewarmkit.testing has them.

"Source" is tdlib/telegram-bot-api; nothing of this holds with ``--local``.
"""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from bot_api_client import OTHER_BOT, Client, error_of

from prewarmkit.testing.botapi import BotApiServer, HostedGates
from prewarmkit.testing.botapi.gates import PAUSE_SECONDS, Gates
from prewarmkit.testing.botapi.limits import FloodWait
from prewarmkit.testing.clock import FakeClock

pytestmark = pytest.mark.usefixtures("close_bot_clients")


class Sleeper:
    """Sleeps not at all, and notes how long it was to."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=1000.0)


def _gates(clock: FakeClock) -> Gates:
    return Gates(limits=HostedGates(uploads=2, upload_bytes=1000, requests=3), clock=clock)


# ── the brake on equal sizes ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "space"),
    [(100_001, 0.2), (1_999_999, 0.2), (5_000_000, 0.5), (9_000_000, 0.9), (45_000_000, 0.9)],
)
def test_equal_sizes_are_spaced_by_their_bytes(clock: FakeClock, size: int, space: float) -> None:
    """Source: clamp(bytes x 1e-7, 0.2, 0.9) seconds between requests whose files have the same total."""
    gates = Gates(limits=HostedGates(), clock=clock)
    assert [gates.brake(1, size) for _ in range(3)] == pytest.approx([0, space, 2 * space])
    clock.advance(3 * space + 0.001)
    assert gates.brake(1, size) == 0


def test_other_sizes_small_files_and_other_bots_are_not_braked(clock: FakeClock) -> None:
    """Source: over 100,000 bytes, per bot."""
    gates = Gates(limits=HostedGates(), clock=clock)
    assert [gates.brake(1, 100_000) for _ in range(9)] == [0] * 9
    assert [gates.brake(1, size) for size in (200_000, 200_001)] == [0, 0]
    assert gates.brake(2, 200_000) == 0
    unbraked = Gates(limits=HostedGates(same_size=False), clock=clock)
    assert [unbraked.brake(1, 200_000) for _ in range(9)] == [0] * 9


def test_a_backlog_of_equal_sizes_is_too_many_requests(clock: FakeClock) -> None:
    """Source: a backlog over 5 s gives 429."""
    sleep = Sleeper()
    with BotApiServer(gates=HostedGates(), clock=clock, sleep=sleep) as server:
        bot = Client(server)
        answers = [bot.send("sendDocument", bytes(2_500_000), "a.bin") for _ in range(22)]
        assert [answer.status_code for answer in answers] == [200] * 21 + [429]
        assert sleep.slept == [0.25 * n for n in range(1, 21)]
        assert answers[-1].json()["parameters"]["retry_after"] == 6
        assert bot.send("sendDocument", bytes(2_500_001), "a.bin").status_code == 200
    with BotApiServer(gates=HostedGates(), local=True, clock=clock, sleep=sleep) as server:
        bot = Client(server)
        assert [bot.send("sendDocument", bytes(2_500_000), "a").status_code for _ in range(3)] == [200] * 3
    assert len(sleep.slept) == 20, "off with --local"


# ── what is in flight at once ────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [([1, 1], True), ([1, 1, 1], False), ([600, 401], False), ([0, 0, 0], True), ([0] * 4, False)],
)
def test_uploads_their_bytes_and_requests_are_counted_at_once(
    clock: FakeClock, sizes: list[int], fits: bool
) -> None:
    """Source: more than 100 uploads, 4 GiB of them, or 1000 requests in flight: 429 with retry_after 60."""
    assert HostedGates() == HostedGates(uploads=100, upload_bytes=4 * 1024**3, requests=1000)
    gates = _gates(clock)
    for size in sizes[:-1]:
        gates.enter(1, size)
    gates.enter(2, sizes[-1])
    if fits:
        gates.enter(1, sizes[-1])
        return
    for _ in range(2):
        with pytest.raises(FloodWait) as flood:
            gates.enter(1, sizes[-1])
        assert flood.value.seconds == 60
    gates.leave(1, sizes[0])
    gates.enter(1, sizes[-1])


def test_too_many_uploads_at_once_are_refused_after_a_pause() -> None:
    """Source: the answer to them is held back for 3 s; the same of another bot goes through."""
    braked, go_on = threading.Event(), threading.Event()
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds == PAUSE_SECONDS:
            paused.append(seconds)
            return
        braked.set()
        await asyncio.to_thread(go_on.wait, 10)

    with BotApiServer(gates=HostedGates(uploads=1), clock=FakeClock(), sleep=sleep) as server:
        server.add_bot(OTHER_BOT)
        bot, second, other = Client(server), Client(server), Client(server, OTHER_BOT)
        assert bot.send("sendDocument", bytes(200_000), "a").status_code == 200
        slow: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: slow.append(bot.send("sendDocument", bytes(200_000), "a")))
        thread.start()
        assert braked.wait(10)
        assert other.send("sendDocument", b"x", "a").status_code == 200
        assert error_of(second.send("sendDocument", b"x", "a")) == (
            429,
            "Too Many Requests: retry after 60",
        )
        go_on.set()
        thread.join()
        assert slow[0].status_code == 200
        assert paused == [3.0]
        assert second.send("sendDocument", b"x", "a").status_code == 200


def test_gates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"HostedGates\.uploads"):
        HostedGates(uploads=0)
