"""What keeps retries from making things worse, and signatures from growing old."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, pairwise

import anyio
import pytest
from attrs import define, field

from prewarmkit import Credentials, R2Client, RetryPolicy, Timeouts
from prewarmkit.errors import ServiceFault, SlowDown
from prewarmkit.r2.link import DEFAULT_TIMEOUTS, MAX_CONNECTIONS
from prewarmkit.r2.pacing import KeyPacer, RetryBudget
from prewarmkit.r2.retry import AttemptEvent
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports import DirectTransport, Request, Response

CREDENTIALS = Credentials("AKID", "secret")


@define
class Service:
    """A transport whose answers are one function's."""

    answer: Callable[[Request], tuple[int, str]]
    requests: list[Request] = field(factory=list[Request])
    headers: tuple[tuple[str, str], ...] = ()

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        self.requests.append(request)
        status, code = self.answer(request)
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
        headers = (("content-length", str(len(body))), ("etag", '"e"'), *self.headers)
        yield Response(status, headers, once(body))


async def once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def client(service: Service, timeouts: Timeouts = DEFAULT_TIMEOUTS, **options: object) -> R2Client:
    return R2Client(
        endpoint="http://r2.test",
        bucket="media",
        credentials=CREDENTIALS,
        transport=service,
        timeouts=timeouts,
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


# ── Retry-After ──────────────────────────────────────────────────────────────


def test_the_longest_wait_that_is_granted_is_granted() -> None:
    policy = RetryPolicy(max_retry_after=10, base=0)
    assert (policy.delay_seconds(1, 10.0), policy.delay_seconds(1, 10.5)) == (10.0, None)


async def opens(r2: R2Client, key: str) -> None:
    async with r2.open(key):
        pass


@pytest.mark.anyio
@pytest.mark.parametrize("call", [R2Client.head, R2Client.get, opens])
@pytest.mark.parametrize(("asked", "is_waited_for"), [(3, True), (5, False), (61, False)])
async def test_what_the_service_asks_for_is_waited_for_unless_the_call_ends_before(
    call: Callable[[R2Client, str], Awaitable[object]], asked: int, is_waited_for: bool
) -> None:
    """A call of 4 s that is asked to wait for 5 fails at once, by the service's own words, and not after 4."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    statuses = iter([(503, "SlowDown")])
    service = Service(lambda _: next(statuses, (200, "")), headers=(("retry-after", str(asked)),))
    async with client(service, timeouts=Timeouts(operation=4), sleep=sleep) as r2:
        if is_waited_for:
            await call(r2, "key")
        else:
            with pytest.raises(SlowDown) as caught:
                await call(r2, "key")
            assert caught.value.attempts == 1
    assert slept == ([asked] if is_waited_for else [])
    assert len(service.requests) == 1 + is_waited_for


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
        pacer.wait_seconds(f"key-{number}", float(number))
        pacer.give_back(f"key-{number}", number + 1.0)
    # What is kept shows nowhere else.
    assert len(pacer._next) <= 1000  # pyright: ignore[reportPrivateUsage]
    assert len(pacer._free) <= 1000  # pyright: ignore[reportPrivateUsage]


def test_a_turn_that_is_given_back_is_the_next_ones_and_nobody_elses() -> None:
    """In any order; none is given twice, and one that has passed is nobody's."""
    pacer = KeyPacer()
    pacer.refused("hot", 10.0)
    assert [pacer.wait_seconds("hot", 10.0) for _ in range(5)] == [1, 2, 3, 4, 5]
    for turn in (14.0, 12.0, 13.0):
        pacer.give_back("hot", turn)
    assert [pacer.wait_seconds("hot", 10.5) for _ in range(2)] == [1.5, 2.5]
    assert [pacer.wait_seconds("hot", 14.5) for _ in range(2)] == [1.5, 2.5]
    pacer.give_back("cold", 10.0)
    assert pacer.wait_seconds("cold", 9.0) == 0
    assert pacer.wait_seconds("hot", 30.0) == 0
    assert (pacer._next, pacer._free) == ({}, {})  # pyright: ignore[reportPrivateUsage] - it shows nowhere else
    pacer.refused("hot", 30.0)
    assert pacer.wait_seconds("hot", 30.0) == 1, "nothing of before is left"


@pytest.mark.anyio
async def test_writers_that_give_up_do_not_keep_later_ones_waiting() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await anyio.sleep(0 if len(waits) > 10 else 60)

    statuses = iter([(429, "TooManyRequests")])
    service = Service(lambda _: next(statuses, (200, "")))
    async with client(service, attempts=1, sleep=sleep) as r2:
        with pytest.raises(SlowDown):
            await r2.delete("hot")
        with anyio.move_on_after(0.05):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(r2.delete, "hot")
        assert max(waits) > 9
        await r2.delete("hot")
    assert 0 < waits[-1] <= 1


@pytest.mark.anyio
async def test_a_key_of_another_bucket_is_another_key() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    service = Service(lambda r: (429, "SlowDown") if "/media/" in r.url else (200, ""))
    async with client(service, attempts=1, sleep=sleep) as r2:
        with pytest.raises(SlowDown):
            await r2.delete("hot")
        await r2.with_bucket("other").delete("hot")
        assert waits == []


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
@pytest.mark.parametrize("whose", ["ours", "the host's"])
async def test_a_request_that_waited_for_a_connection_is_signed_after_the_wait(whose: str) -> None:
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
        DirectTransport(max_connections=1) as transport,
        R2Client(
            endpoint=server.url,
            bucket="media",
            credentials=CREDENTIALS,
            clock=clock,
            on_attempt=events.append,
            max_connections=1 if whose == "ours" else MAX_CONNECTIONS,
            transport=None if whose == "ours" else transport,
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
