"""What keeps retries from making things worse, and signatures from growing old."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count, pairwise

import anyio
import pytest
from attrs import define, field

from prewarmkit import Credentials, R2Client, RetryPolicy
from prewarmkit.errors import ServiceFault, SlowDown
from prewarmkit.r2.pacing import KeyPacer, RetryBudget
from prewarmkit.r2.retry import AttemptEvent
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports import Request, Response

CREDENTIALS = Credentials("AKID", "secret")


@define
class Service:
    """A transport whose answers are one function's."""

    answer: Callable[[Request], tuple[int, str]]
    requests: list[Request] = field(factory=list[Request])

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        self.requests.append(request)
        status, code = self.answer(request)
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
        yield Response(status, (("content-length", str(len(body))), ("etag", '"e"')), once(body))


async def once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def client(service: Service, **options: object) -> R2Client:
    return R2Client(
        endpoint="http://r2.test",
        bucket="media",
        credentials=CREDENTIALS,
        transport=service,
        retry=RetryPolicy(**{"base": 0, **options}),  # type: ignore[arg-type] # a policy's own fields
    )


# ── the budget ───────────────────────────────────────────────────────────────


def test_a_budget_runs_out_and_is_earned_again_by_successes() -> None:
    budget = RetryBudget(2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(11):  # a tenth each, as floats have it
        budget.earn()
    assert budget.spend()
    assert not budget.spend()
    for _ in range(1000):
        budget.earn()
    assert budget.left == 2


@pytest.mark.anyio
async def test_a_service_that_is_down_is_asked_no_more_than_the_budget_allows() -> None:
    """A hundred callers with five attempts each would be 500 requests."""
    service = Service(lambda _: (503, "ServiceUnavailable"))
    async with client(service, attempts=5, budget=20) as r2:
        for _ in range(100):
            with pytest.raises(ServiceFault):
                await r2.head("key")
    assert len(service.requests) == 120


@pytest.mark.anyio
async def test_a_service_that_is_well_earns_its_retries() -> None:
    turn = count(1)
    service = Service(lambda _: (503, "ServiceUnavailable") if next(turn) % 20 == 0 else (200, ""))
    async with client(service, attempts=3, budget=1) as r2:
        for _ in range(200):
            await r2.head("key")


@pytest.mark.parametrize("budget", [-1])
def test_a_budget_that_is_none_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="budget"):
        RetryPolicy(budget=budget)


# ── the pace of a key ────────────────────────────────────────────────────────


def test_only_a_key_that_was_refused_waits_and_then_a_second_for_each_write() -> None:
    pacer = KeyPacer()
    assert pacer.wait_seconds("hot", 10.0) == 0
    pacer.refused("hot", 10.0)
    assert [pacer.wait_seconds("hot", 10.0) for _ in range(3)] == [1, 2, 3]
    assert pacer.wait_seconds("cold", 10.0) == 0
    assert pacer.wait_seconds("hot", 20.0) == 0, "nobody wrote for a while"
    assert pacer.wait_seconds("hot", 20.0) == 0


def test_the_keys_that_are_kept_are_bounded() -> None:
    pacer = KeyPacer()
    for number in range(5000):
        pacer.refused(f"key-{number}", float(number))
    assert len(pacer._next) <= 1000  # pyright: ignore[reportPrivateUsage] - what is kept shows nowhere else


@pytest.mark.anyio
async def test_writes_to_one_key_go_a_second_apart_once_one_was_refused() -> None:
    """R2 takes one write a second to a key, and answers 429 to the others.

    Cloudflare's docs, r2/platform/limits: "Object name concurrent writes".
    """
    accepted: list[float] = []
    last = -10.0
    refused = Counter[str]()

    def answer(request: Request) -> tuple[int, str]:
        nonlocal last
        now = anyio.current_time()
        if now - last < 0.95:
            refused[request.method] += 1
            return 429, "TooManyRequests"
        last = now
        accepted.append(now)
        return 200, ""

    service = Service(answer)
    async with client(service, attempts=5) as r2, anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(r2.delete, "key")
    assert len(accepted) == 4
    assert all(later - sooner >= 0.95 for sooner, later in pairwise(accepted))
    assert refused.total() == 1, "the others knew by then"


@pytest.mark.anyio
async def test_other_keys_and_reads_do_not_wait_for_a_key_that_was_refused() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    service = Service(
        lambda r: (429, "SlowDown") if r.method == "DELETE" and r.url.endswith("hot") else (200, "")
    )
    async with client(service, attempts=1, sleep=sleep) as r2:
        with pytest.raises(SlowDown):
            await r2.delete("hot")
        await r2.delete("cold")
        await r2.head("hot")
        assert waits == []
        with pytest.raises(SlowDown):
            await r2.delete("hot")
    assert waits
    assert 0 < waits[0] <= 1


# ── signed when there is a connection ────────────────────────────────────────


@pytest.mark.anyio
async def test_a_request_that_waited_for_a_connection_is_signed_after_the_wait() -> None:
    """One connection, held for twenty minutes: what comes next must not carry the time of twenty minutes ago."""
    clock = FakeClock()
    first_is_there, go_on = anyio.Event(), anyio.Event()
    events: list[AttemptEvent] = []

    async def handler(wire: Wire) -> None:
        await wire.request()
        first_is_there.set()
        await go_on.wait()
        await wire.answer(200, [("etag", '"e"')], b"")
        await wire.request()
        await wire.answer(200, [("etag", '"e"')], b"")

    async with (
        serve(handler) as server,
        R2Client(
            endpoint=server.url,
            bucket="media",
            credentials=CREDENTIALS,
            clock=clock,
            max_connections=1,
            on_attempt=events.append,
        ) as r2,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(r2.head, "first")
        await first_is_there.wait()
        tasks.start_soon(r2.head, "second")
        await anyio.wait_all_tasks_blocked()
        clock.advance(1200)
        go_on.set()
    dates = [dict(request.headers)["x-amz-date"] for request in server.requests]
    assert dates == ["20270115T080000Z", "20270115T082000Z"]
    assert [event.waited_seconds > 0 for event in events] == [True, True]
    assert events[0].announced_bytes == 0
