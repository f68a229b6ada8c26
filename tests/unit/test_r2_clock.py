"""A wrong clock is set right by the service's answers: the ten scenarios that the AWS SDKs share.

Their published form is aws-sdk-go-v2, ``aws/middleware/testdata/clock-skew-test-cases.json`` (2026);
the times and codes are taken from there. Both the signer and the client have a part in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import formatdate

import anyio
import pytest
from attrs import define, field, frozen

from prewarmkit import Credentials, R2Client, R2Error, RetryPolicy, SigV4Signer
from prewarmkit.testing.clock import FakeClock
from prewarmkit.transports import Request, Response

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
REFUSED, UNFIT = (403, "RequestTimeTooSkewed"), (400, "InvalidSignatureException")
GOOD = (200, "")


@frozen
class Attempt:
    """One request and its answer; times in seconds after the start of 2026.

    Attributes:
        sent: By our clock.
        received: By our clock.
        signed: What the request must say.
        date: The service's ``Date``; ``None``: none.
        answer: Status and code.
        age: The answer's ``Age``.
    """

    sent: float
    received: float
    signed: float
    date: float | None
    answer: tuple[int, str] = GOOD
    age: str | None = None


@frozen
class Operation:
    """A call with its attempts, and the skew that is known after it."""

    attempts: list[Attempt]
    skew: float
    starts_with: float | None = None
    max_attempts: int = 3


NOON = 16 * 3600 + 51 * 60
CACHED = Operation([Attempt(NOON, NOON + 2, NOON, 12 * 3600 + 181, age="17280")], 0)
SCENARIOS = {
    "clocks agree": [Operation([Attempt(0, 2, 0, 1)], 0)],
    "a refusal is corrected, and the skew kept": [
        Operation([Attempt(0, 2, 0, 301, REFUSED), Attempt(2, 4, 302, 303)], 300),
        Operation([Attempt(60, 62, 360, 361)], 300),
    ],
    "with no attempt left the skew is learnt all the same": [
        Operation([Attempt(0, 2, 0, 301, REFUSED)], 300, max_attempts=1)
    ],
    "an answer that took over a quarter of an hour says nothing": [
        Operation([Attempt(0, 960, 0, 600)], 0),
        Operation([Attempt(1020, 1022, 1020, 1321)], 300),
    ],
    "a stale skew heals by a good answer": [Operation([Attempt(0, 2, 300, 1)], 0, starts_with=300)],
    "below four minutes an unclear refusal is not the clock's": [
        Operation([Attempt(0, 2, 0, 121, UNFIT)], 120)
    ],
    "above four minutes it may be, and is tried again": [
        Operation([Attempt(0, 2, 0, 301, UNFIT), Attempt(2, 4, 302, 303)], 300)
    ],
    "without a date nothing is learnt and nothing tried again": [
        Operation([Attempt(0, 2, 0, None, REFUSED)], 0)
    ],
    "an answer from a cache says nothing, the next one does": [
        CACHED,
        Operation([Attempt(NOON + 10, NOON + 12, NOON + 10, NOON + 311)], 300),
    ],
    "an answer from a cache does not poison what follows": [
        CACHED,
        Operation([Attempt(NOON + 10, NOON + 12, NOON + 10, NOON + 11)], 0),
    ],
}


@define
class Replay:
    """A transport that plays the attempts: it sets the clock, looks at the signature's time and answers."""

    clock: FakeClock
    attempts: list[Attempt]
    played: int = 0
    signed: list[str] = field(factory=list[str])

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        attempt = self.attempts[self.played]
        self.played += 1
        self.signed.append(dict(request.headers)["x-amz-date"])
        self.clock.now = START + attempt.received
        status, code = attempt.answer
        headers = [] if attempt.date is None else [("date", formatdate(START + attempt.date, usegmt=True))]
        if attempt.age is not None:
            headers.append(("age", attempt.age))
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else b"hello"
        yield Response(status, ((*headers, ("content-length", str(len(body))))), once(body))

    def start_next(self) -> None:
        """Our clock stands at the next attempt's start."""
        if self.played < len(self.attempts):
            self.clock.now = START + self.attempts[self.played].sent


async def once(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.anyio
@pytest.mark.parametrize("operations", SCENARIOS.values(), ids=list(SCENARIOS))
async def test_the_client_corrects_its_clock(operations: list[Operation]) -> None:
    clock = FakeClock(now=START)
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=clock)
    for operation in operations:
        replay = Replay(clock, operation.attempts)

        async def sleep(_seconds: float, replay: Replay = replay) -> None:
            replay.start_next()

        if operation.starts_with is not None:
            signer.observe_server_date(formatdate(clock.now + operation.starts_with, usegmt=True))
        replay.start_next()
        retry = RetryPolicy(attempts=operation.max_attempts, sleep=sleep)
        async with R2Client(
            endpoint="http://r2.test", bucket="media", signer=signer, transport=replay, retry=retry
        ) as r2:
            if operation.attempts[-1].answer == GOOD:
                assert await r2.get("key") == b"hello"
            else:
                with pytest.raises(R2Error) as refusal:
                    await r2.get("key")
                assert refusal.value.code == operation.attempts[-1].answer[1]
        assert replay.played == len(operation.attempts)
        assert replay.signed == [
            datetime.fromtimestamp(START + attempt.signed, UTC).strftime("%Y%m%dT%H%M%SZ")
            for attempt in operation.attempts
        ]
        assert signer.clock_skew_seconds == operation.skew


CLOCK = ["RequestTimeTooSkewed", "ExpiredRequest", "RequestExpired"]
UNCLEAR = [
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "AuthFailure",
    "AccessDenied",
    "AccessDeniedException",
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("code", "skew", "is_tried_again"),
    [
        *((code, 10, True) for code in CLOCK),
        *((code, 241, True) for code in UNCLEAR),
        *((code, -241, True) for code in UNCLEAR),
        *((code, 240, False) for code in UNCLEAR),
        ("InvalidAccessKeyId", 3600, False),
    ],
)
async def test_what_a_wrong_clock_may_be_behind_is_tried_again_once(
    code: str, skew: int, is_tried_again: bool
) -> None:
    clock = FakeClock(now=START)
    refusal = Attempt(0, 0, 0, skew, (403, code))
    again = Attempt(0, 0, skew, skew, (403, code))
    replay = Replay(clock, [refusal, again, again])

    async def sleep(_seconds: float) -> None:
        replay.start_next()

    async with R2Client(
        endpoint="http://r2.test",
        bucket="media",
        signer=SigV4Signer(Credentials("AKID", "secret"), clock=clock),
        transport=replay,
        retry=RetryPolicy(attempts=3, sleep=sleep),
    ) as r2:
        with pytest.raises(R2Error) as raised:
            await r2.get("key")
    assert raised.value.code == code
    assert replay.played == 1 + is_tried_again


@pytest.mark.anyio
async def test_a_skew_that_was_known_when_it_was_signed_is_not_the_reason() -> None:
    clock = FakeClock(now=START)
    signer = SigV4Signer(Credentials("AKID", "secret"), clock=clock)
    signer.observe_server_date(formatdate(START + 3600, usegmt=True))
    replay = Replay(clock, [Attempt(0, 0, 3600, 3600, (403, "SignatureDoesNotMatch"))])
    async with R2Client(
        endpoint="http://r2.test", bucket="media", signer=signer, transport=replay, retry=RetryPolicy(base=0)
    ) as r2:
        with pytest.raises(R2Error, match="SignatureDoesNotMatch"):
            await r2.get("key")
    assert replay.played == 1


@pytest.mark.anyio
async def test_credentials_that_end_are_renewed_before_the_request_is_signed() -> None:
    clock = FakeClock(now=START)

    @define
    class Provider:
        calls: int = 0

        async def get(self) -> Credentials:
            self.calls += 1
            end = datetime.fromtimestamp(clock.now + 3600, UTC)
            return Credentials("AKID", "secret", expires_at=end)

    provider = Provider()
    replay = Replay(clock, [Attempt(0, 1, 0, 1), Attempt(3600, 3601, 3600, 3601)])
    async with R2Client(
        endpoint="http://r2.test",
        bucket="media",
        signer=SigV4Signer(provider, clock=clock),
        transport=replay,
    ) as r2:
        for _ in range(2):
            replay.start_next()
            assert await r2.get("key") == b"hello"
    assert provider.calls == 2


@pytest.mark.anyio
async def test_a_head_that_is_refused_without_a_word_may_have_been_the_clock() -> None:
    """A HEAD has no body to name a code in."""
    clock = FakeClock(now=START)
    replay = Replay(clock, [Attempt(0, 2, 0, 3601, (403, "")), Attempt(2, 4, 3602, 3603)])

    async def sleep(_seconds: float) -> None:
        replay.start_next()

    async with R2Client(
        endpoint="http://r2.test",
        bucket="media",
        signer=SigV4Signer(Credentials("AKID", "secret"), clock=clock),
        transport=replay,
        retry=RetryPolicy(sleep=sleep),
    ) as r2:
        await r2.head("key")
    assert replay.played == 2


@define
class Strict:
    """A service five minutes ahead, which refuses what is signed by another clock; all first answers come together."""

    clock: FakeClock
    crowd: int
    refused: int = 0
    accepted: int = 0
    all_there: anyio.Event = field(factory=anyio.Event)

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        said = datetime.strptime(dict(request.headers)["x-amz-date"], "%Y%m%dT%H%M%S%z").timestamp()
        here = self.clock.now + 300
        date = ("date", formatdate(here, usegmt=True))
        if abs(said - here) > 60:
            self.refused += 1
            if self.refused == self.crowd:
                self.all_there.set()
            await self.all_there.wait()
            body = b"<Error><Code>RequestTimeTooSkewed</Code></Error>"
            yield Response(403, (date, ("content-length", str(len(body)))), once(body))
        else:
            self.accepted += 1
            yield Response(200, (date, ("content-length", "5")), once(b"hello"))


@pytest.mark.anyio
async def test_of_fifty_requests_that_are_refused_together_each_is_corrected() -> None:
    """What the first refusal taught must not make the others look as if nothing had changed: aws-sdk-js-v3#8005."""
    clock = FakeClock(now=START)
    service = Strict(clock, crowd=50)
    retry = RetryPolicy(attempts=2, base=0)
    got: list[bytes] = []
    async with (
        R2Client(
            endpoint="http://r2.test",
            bucket="media",
            signer=SigV4Signer(Credentials("AKID", "secret"), clock=clock),
            transport=service,
            retry=retry,
        ) as r2,
        anyio.create_task_group() as tasks,
    ):

        async def get() -> None:
            got.append(await r2.get("key"))

        for _ in range(50):
            tasks.start_soon(get)
    assert got == [b"hello"] * 50
    assert (service.refused, service.accepted) == (50, 50)
