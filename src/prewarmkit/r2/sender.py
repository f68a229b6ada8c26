"""Sends drafts: signs each attempt anew, tells faults from answers, retries what may be retried.

Owns the way from a `Draft` to a good answer or a typed error. Knows no operation of S3
and nothing of objects; what an answer means is the caller's business.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus

import anyio
from attrs import define, field, frozen

from prewarmkit.errors import ConnectionFault, R2Error, SlowDown, TransportError
from prewarmkit.r2.faults import fault_of, request_id_of
from prewarmkit.r2.pacing import KeyPacer, RetryBudget
from prewarmkit.r2.reader import headers_of
from prewarmkit.r2.requests import Draft
from prewarmkit.r2.retry import AttemptEvent, RetryPolicy, Timeouts, retry_after_seconds
from prewarmkit.sigv4.signer import SigV4Signer
from prewarmkit.transports.base import Request, Response, Transport

__all__ = ["Answer", "Calls", "Sender"]

_LENGTH_DIGITS = 19  # of a number of bytes; int() refuses thousands
_logger = logging.getLogger("prewarmkit.r2")
_MAX_ERROR_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_GOOD = range(200, 300)
_WRITES = frozenset({"PUT", "POST", "DELETE"})
# Those whose answers are XML and no object; what a copy says is the copy's to judge, with what it may have done.
_TOLD_IN_XML = frozenset({"GET", "POST"})
_ERROR_DOCUMENT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?<(?:\w+:)?Error[\s/>]")
# Refusals of the time itself, and those that a wrong clock may be behind.
_CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture", "ExpiredRequest", "RequestExpired"})
_MAYBE_CLOCK_CODES = frozenset(
    {
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "AuthFailure",
        "AccessDenied",
        "AccessDeniedException",
    }
)
_CLOCK_IS_WRONG_SECONDS = 240


@frozen
class Answer:
    """A whole answer.

    Attributes:
        status: From 200 to 299.
        headers: By name in lower case; of a name that came twice, the first.
        body: All of it.
        attempts: How often the request was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    attempts: int


@define
class _Call:
    """One call and its attempts: what is known of it so far."""

    draft: Draft
    attempt: int = 0
    began: float = 0.0
    status: int | None = None
    request_id: str | None = None
    retry_after: float | None = None
    failure: R2Error | None = None
    skew_signed_with: float = 0.0
    skew_seen: float | None = None
    is_corrected: bool = False
    waited: float = 0.0
    announced: int | None = None
    ends_at: float = math.inf


@define
class Calls:
    """What was called for inside of one bound of time.

    Attributes:
        made: The calls.
        ends_at: Of the loop's clock.
    """

    made: list[_Call] = field(factory=list[_Call])
    ends_at: float = math.inf

    @property
    def attempts(self) -> int:
        """Requests that were sent."""
        return sum(call.attempt for call in self.made)


class Sender:
    """Signs and sends, with retries.

    Args:
        transport: Entered, and closed by somebody else.
        signer: Signs each attempt, after its credentials were refreshed.
        retry: When to send again.
        timeouts: Of which ``operation`` is kept here.
        on_attempt: Called after each attempt with what came of it.
        max_sends: Requests at a time; more wait here, unsigned, so that none is signed long before it
            is sent. ``None``: the transport alone decides.
    """

    def __init__(
        self,
        transport: Transport,
        signer: SigV4Signer,
        *,
        retry: RetryPolicy,
        timeouts: Timeouts,
        on_attempt: Callable[[AttemptEvent], None] | None,
        max_sends: int | None = None,
    ) -> None:
        self._transport = transport
        self._signer = signer
        self._retry = retry
        self._operation_seconds = timeouts.operation
        self._on_attempt = on_attempt
        self._budget = RetryBudget(retry.budget)
        self._pacer = KeyPacer()
        self._turns = None if max_sends is None else anyio.Semaphore(max_sends, fast_acquire=True)

    @property
    def retry(self) -> RetryPolicy:
        """When a request is sent again."""
        return self._retry

    async def fetch(self, draft: Draft, *, max_bytes: int | None = _MAX_ANSWER_BYTES) -> Answer:
        """The whole answer; a connection that breaks inside it counts as a failed attempt.

        Not for an object's bytes: they go on where they broke, and may look like a refusal.

        Raises:
            R2Error: The service refused, or could not be reached.
        """
        call = _Call(draft)
        with anyio.move_on_after(self._operation_seconds) as bound:
            call.ends_at = bound.deadline
            response, body, _ = await self._good(call, max_bytes=max_bytes)
            return Answer(response.status, headers_of(response), body, call.attempt)
        raise self.too_long(Calls([call]))

    def calls(self) -> Calls:
        """What is one call to the host, and may be several requests; it began now."""
        seconds = self._operation_seconds
        return Calls() if seconds is None else Calls(ends_at=anyio.current_time() + seconds)

    async def begin(self, draft: Draft, calls: Calls) -> tuple[Response, int, AsyncExitStack]:
        """A good answer with its body still to be read, how many attempts it took, and what holds it open.

        That ``calls`` ends in time is the caller's affair; a wait that would be longer is not begun.

        Raises:
            R2Error: As for `fetch`.
        """
        call = _Call(draft, ends_at=calls.ends_at)
        calls.made.append(call)
        response, _, stack = await self._good(call, max_bytes=0)
        return response, call.attempt, stack

    def may_go_on(self) -> bool:
        """Take a retry out of the budget, for a body that broke; ``False``: there is none."""
        return self._budget.spend()

    async def _good(self, call: _Call, *, max_bytes: int | None) -> tuple[Response, bytes, AsyncExitStack]:
        """Attempts until a good answer, and what holds it open: nothing any more if its body was read."""
        while True:
            call.attempt += 1
            call.began = time.perf_counter()
            call.status = call.request_id = call.retry_after = call.announced = call.skew_seen = None
            try:
                async with AsyncExitStack() as mine:
                    response, body = await self._try(call, mine, max_bytes=max_bytes)
                    self._report(call, None)
                    self._budget.earn()
                    return response, body, mine.pop_all() if max_bytes == 0 else mine
            except R2Error as error:
                call.failure = error
                self._report(call, error)
                delay = self._retry.delay_seconds(call.attempt, call.retry_after)
                # A service that asks for more time than there is gets none of it: better told now than later.
                is_late = anyio.current_time() + (call.retry_after or 0.0) >= call.ends_at
                if not error.is_retryable or delay is None or is_late or not self._budget.spend():
                    raise
            _logger.info("%s: attempt %d failed, again in %.2f s", call.draft.operation, call.attempt, delay)
            await self._retry.sleep(delay)

    async def _try(
        self, call: _Call, stack: AsyncExitStack, *, max_bytes: int | None
    ) -> tuple[Response, bytes]:
        draft = call.draft
        await self._wait_for_a_turn(call, stack)
        try:
            request = await self._signed(draft)
            sent_at = self._signer.now()
            call.skew_signed_with = self._signer.clock_skew_seconds
            response = await stack.enter_async_context(self._transport.send(request))
            call.status = response.status
            headers = headers_of(response)
            # Every answer tells the service's time, good ones too: a clock that was set right is noticed.
            call.skew_seen = self._signer.observe_server_date(
                headers.get("date"), sent_at=sent_at, age=headers.get("age")
            )
            call.request_id = request_id_of(headers)
            call.retry_after = retry_after_seconds(headers.get("retry-after"), now=headers.get("date"))
            length = headers.get("content-length", "")
            call.announced = int(length) if length.isdecimal() and len(length) <= _LENGTH_DIGITS else None
            if response.status not in _GOOD:
                body = await _read(response, _MAX_ERROR_BYTES, draft, cut=True)
                raise self._fault(call, headers, body)
            if max_bytes == 0:
                return response, b""
            body = await _read(response, max_bytes, draft, cut=False)
        except TransportError as error:
            if isinstance(error, R2Error):
                raise
            raise _connection_fault(error, call) from error
        # S3 answers long operations with 200 before it knows how they end.
        if draft.method in _TOLD_IN_XML and _ERROR_DOCUMENT.match(body):
            raise self._fault(call, headers, body)
        return response, body

    def _fault(self, call: _Call, headers: Mapping[str, str], body: bytes) -> R2Error:
        assert call.status is not None
        fault = fault_of(call.draft, call.status, headers, body, attempts=call.attempt)
        if isinstance(fault, SlowDown) and call.draft.method in _WRITES and call.draft.key is not None:
            self._pacer.refused(_paced(call.draft), anyio.current_time())
        if not call.is_corrected and self._may_be_the_clock(call, fault.code):
            # Signed by the service's clock, the next attempt can be good; it is tried once.
            call.is_corrected = fault.is_retryable = True
        return fault

    @staticmethod
    def _may_be_the_clock(call: _Call, code: str | None) -> bool:
        if call.skew_seen is None:
            return False
        off = abs(call.skew_seen - call.skew_signed_with)
        is_unclear = code in _MAYBE_CLOCK_CODES or (
            code is None and call.status == HTTPStatus.FORBIDDEN
        )  # a HEAD
        return code in _CLOCK_CODES or (is_unclear and off > _CLOCK_IS_WRONG_SECONDS)

    def too_long(self, calls: Calls) -> ConnectionFault:
        """They took longer than ``timeouts.operation``."""
        failures = [call.failure for call in calls.made if call.failure is not None]
        last = f"; the last attempt: {failures[-1]}" if failures else "."
        what = calls.made[0].draft.operation if calls.made else "The call"
        return ConnectionFault(
            f"{what} took longer than timeouts.operation = {self._operation_seconds:g} s: "
            f"allow more, or look at the network{last}",
            attempts=max(1, calls.attempts),
        )

    async def _wait_for_a_turn(self, call: _Call, stack: AsyncExitStack) -> None:
        """For the key's turn and for a connection; ``stack`` gives the connection's place back."""
        began = time.perf_counter()
        draft = call.draft
        if draft.method in _WRITES and draft.key is not None:
            await self._wait_for_the_keys_turn(_paced(draft))
        if self._turns is not None:
            await stack.enter_async_context(self._turns)
        call.began = time.perf_counter()
        call.waited = call.began - began

    async def _wait_for_the_keys_turn(self, key: str) -> None:
        now = anyio.current_time()
        delay = self._pacer.wait_seconds(key, now)
        if not delay:
            return
        try:
            await self._retry.sleep(delay)
        except BaseException:
            self._pacer.give_back(key, now + delay)
            raise

    async def _signed(self, draft: Draft) -> Request:
        await self._signer.refresh()
        added = self._signer.sign(draft.method, draft.url, draft.signed, payload_hash=draft.payload_hash)
        body = draft.body() if callable(draft.body) else draft.body
        headers = (*draft.signed, *draft.unsigned, *added.items())
        return Request(draft.method, draft.url, headers, body, draft.content_length)

    def _report(self, call: _Call, error: R2Error | None) -> None:
        if self._on_attempt is None:
            return
        draft = call.draft
        self._on_attempt(
            AttemptEvent(
                operation=draft.operation,
                method=draft.method,
                bucket=draft.bucket,
                key=draft.key,
                attempt=call.attempt,
                status=call.status,
                seconds=time.perf_counter() - call.began,
                error=error,
                waited_seconds=call.waited,
                sent_bytes=draft.content_length,
                announced_bytes=call.announced,
            )
        )


def _paced(draft: Draft) -> str:
    """What the pace is kept for: buckets share a sender, and their names have no slash."""
    return f"{draft.bucket}/{draft.key}"


async def _read(response: Response, max_bytes: int | None, draft: Draft, *, cut: bool) -> bytes:
    """All of a body that is small by right; one that is not is cut, or refused."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.body:
        chunks.append(chunk)
        size += len(chunk)
        if max_bytes is not None and size > max_bytes:
            if cut:
                break
            raise R2Error(
                f"The answer to {draft.operation} is over {max_bytes} bytes long, which none is: "
                "is the endpoint an S3 service?",
                status=response.status,
                request_id=request_id_of(headers_of(response)),
            )
    return b"".join(chunks)[:max_bytes]


def _connection_fault(error: TransportError, call: _Call) -> ConnectionFault:
    fault = ConnectionFault(
        f"{call.draft.operation}: {error}",
        status=call.status,
        request_id=call.request_id,
        attempts=call.attempt,
        is_retryable=error.is_retryable,
    )
    fault.request_sent = error.request_sent
    return fault
