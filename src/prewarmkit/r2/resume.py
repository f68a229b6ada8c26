"""Goes on with a body that broke: asks for the rest of the same object, and makes sure that it is.

Owns the answer that is being read, and the count of the breaks. Knows how objects are asked
for, and nothing of who reads the bytes or where they go.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import anyio
import anyio.abc
from attrs import define, field, frozen

from prewarmkit.errors import AccessDenied, BodyFault, NotFound, PreconditionFailed, R2Error
from prewarmkit.r2.facts import Facts, check_rest, headers_of, wrong_md5
from prewarmkit.r2.faults import request_id_of
from prewarmkit.r2.requests import Draft
from prewarmkit.r2.retry import RetryPolicy
from prewarmkit.transports.base import Response

if TYPE_CHECKING:
    from prewarmkit.r2.sender import Calls, Sender

__all__ = ["Answered", "Holder", "InPlace", "Keeper", "Patience", "Rest", "keeping"]

_FREE_BREAKS = 100
_BYTES_A_BREAK = 8 * 1024 * 1024


@frozen
class Answered:
    """A good answer, its body still to be read, and how often it was asked for."""

    response: Response
    attempts: int


class Holder(Protocol):
    """Holds one answer at a time."""

    async def ask(self, draft: Draft) -> Answered:
        """Get another answer; the one at hand was dropped before.

        Raises:
            R2Error: As for `Sender.fetch`.
        """
        ...

    async def drop(self) -> None:
        """Let go of the answer at hand; its connection is for others."""
        ...


class InPlace:
    """A holder for who reads in the task and the scopes that it was entered in, to the end: one call."""

    def __init__(self, sender: Sender, calls: Calls) -> None:
        self._sender = sender
        self._calls = calls
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.__aexit__(exc_type, exc_value, traceback)

    async def ask(self, draft: Draft) -> Answered:
        """See `Holder.ask`."""
        response, attempts, self._stack = await self._sender.begin(draft, self._calls)
        return Answered(response, attempts)

    async def drop(self) -> None:
        """See `Holder.drop`."""
        await self.__aexit__(None, None, None)


@define(eq=False)
class _Order:
    """One answer's way from being asked for to being gone."""

    draft: Draft
    answer: Answered | None = None
    error: Exception | None = None
    opening: anyio.CancelScope = field(factory=anyio.CancelScope)
    answered: anyio.Event = field(factory=anyio.Event)
    dropped: anyio.Event = field(factory=anyio.Event)
    gone: anyio.Event = field(factory=anyio.Event)


class Keeper:
    """Holds one answer at a time, in a task of its own.

    An answer's context must be left where it was entered, and inside of what was entered before. A reader
    that finds its answer broken may be in another task by then, or inside a time limit of its caller's: there
    it could neither leave the old answer, which holds a connection, nor enter a new one.
    """

    def __init__(self, sender: Sender, tasks: anyio.abc.TaskGroup) -> None:
        self._sender = sender
        self._tasks = tasks
        self._order: _Order | None = None

    async def ask(self, draft: Draft) -> Answered:
        """See `Holder.ask`; given up half-way, the next call asks anew."""
        if self._order is not None:
            await self.drop()  # it may be one that was given up
            await self._order.gone.wait()  # or two connections would be held for one reader
        order = self._order = _Order(draft)
        self._tasks.start_soon(self._hold, order)
        await order.answered.wait()
        if order.error is not None:
            raise order.error
        if order.answer is None:
            raise RuntimeError("The object was closed while it was read: read it inside its block only.")
        return order.answer

    async def drop(self) -> None:
        """See `Holder.drop`; it is as soon as the answer's task runs, and nothing is waited for."""
        if self._order is not None:
            self._order.dropped.set()
            if not self._order.answered.is_set():
                self._order.opening.cancel()

    async def _hold(self, order: _Order) -> None:
        calls = self._sender.calls()
        try:
            with order.opening as opening:
                opening.deadline = calls.ends_at
                response, attempts, stack = await self._sender.begin(order.draft, calls)
                async with stack:
                    opening.deadline = math.inf  # the reader's pace is its own affair
                    order.answer = Answered(response, attempts)
                    order.answered.set()
                    await order.dropped.wait()
            if order.answer is None and not order.dropped.is_set():
                order.error = self._sender.too_long(calls)
        except Exception as error:  # noqa: BLE001 - raised where the answer is waited for
            order.error = error
        finally:
            order.answered.set()
            order.gone.set()


@asynccontextmanager
async def keeping(sender: Sender) -> AsyncGenerator[Keeper, None]:
    """A keeper for the time of the block, whose answer is gone after it; the block's errors come out bare."""
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        keeper = Keeper(sender, tasks)
        try:
            yield keeper
        # Not for the task group: it would wrap errors, and is not what was cancelled.
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure = error
        await keeper.drop()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


@define
class Patience:
    """How often, and how fast, one body is asked for again.

    The policy's attempts and waits count from the last byte that came: after progress they start anew. Overall a
    body may break a hundred times, and once more for every 8 MiB of it.

    Attributes:
        policy: Whose ``attempts`` hold without progress; 1: never again.
        length: Bytes of the whole body.
    """

    policy: RetryPolicy
    length: int
    _total: int = field(default=0, init=False)
    _in_vain: int = field(default=0, init=False)
    _given: int = field(default=0, init=False)

    def delay_seconds(self, given: int) -> float | None:
        """The wait after a break that ``given`` bytes came before; ``None``: give up."""
        self._in_vain = 1 if given > self._given else self._in_vain + 1
        self._given = given
        self._total += 1
        if self._total > _FREE_BREAKS + self.length // _BYTES_A_BREAK:
            return None
        return self.policy.delay_seconds(self._in_vain)


class Rest:
    """What is left of one body that is being read.

    Args:
        facts: Of the object, from the first answer.
        answer: The first answer.
        holder: Holds it.
        sender: Whose policy is kept, and whose budget is spent.
        draft: The request for the bytes from first to last, both inclusive, of the object with an ETag.
        first: Where in the object the body begins.
        length: Bytes of the body.

    Attributes:
        is_void: What came is of no use; a read from the start may be.
    """

    def __init__(
        self,
        facts: Facts,
        answer: Answered,
        holder: Holder,
        *,
        sender: Sender,
        draft: Callable[[int, int, str], Draft],
        first: int,
        length: int,
    ) -> None:
        self._facts = facts
        self._holder = holder
        self._sender = sender
        self._patience = Patience(sender.retry, length)
        self._draft = draft
        self._first = first
        self._length = length
        self._response = answer.response
        self._attempts = answer.attempts
        self.is_void = False

    async def drop(self) -> None:
        """The answer at hand is not needed any more."""
        await self._holder.drop()

    async def after(self, given: int, why: str) -> Response:
        """Another answer, with exactly what follows the ``given`` bytes that came before the body broke.

        Raises:
            BodyFault: There is no going on, or the object is not the same any more.
            AccessDenied: The credentials ceased to be good.
        """
        await self._holder.drop()  # its connection is for others while this waits
        if self._facts.etag is None:
            self.is_void = True
            raise self.fault(
                given,
                f"{why} It has no strong ETag by which the rest would be known to be the same object's.",
            )
        delay = self._patience.delay_seconds(given)
        if delay is None or not self._sender.may_go_on():
            raise self.fault(given, why)
        await self._sender.retry.sleep(delay)
        first, last = self._first + given, self._first + self._length - 1
        try:
            answer = await self._holder.ask(self._draft(first, last, self._facts.etag))
        except AccessDenied:
            raise
        except R2Error as error:
            raise self._refused(given, why, error) from error
        self._response = answer.response
        self._attempts += answer.attempts
        try:
            check_rest(self._facts, answer.response.status, headers_of(answer.response), first, last)
        except BodyFault as fault:
            self.is_void = fault.is_retryable
            await self._holder.drop()
            raise
        return answer.response

    def fault(self, given: int, why: str) -> BodyFault:
        """A body that broke for good."""
        return BodyFault(
            f"The body of {self._facts.info.key!r} broke after {given} of {self._length} bytes: {why} "
            "To do: open the object again.",
            status=self._response.status,
            request_id=request_id_of(headers_of(self._response)),
            attempts=self._attempts,
        )

    def wrong(self, found: str) -> BodyFault:
        """A body that came whole, with another MD5 than its object's."""
        self.is_void = True
        fault = wrong_md5(
            self._facts, found, status=self._response.status, headers=headers_of(self._response)
        )
        fault.attempts = self._attempts
        return fault

    def _refused(self, given: int, why: str, error: R2Error) -> BodyFault:
        is_shorter = error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        self.is_void = is_other = is_shorter or isinstance(error, (PreconditionFailed, NotFound))
        what = f"{why} Then: {error}"
        if is_shorter:
            what = (
                f"the object is not as long as announced: either it changed while it was read, or something "
                f"between here and the service rewrites lengths ({error})"
            )
        elif is_other:
            what = f"the object changed while it was read ({error})"
        fault = self.fault(given, what)
        fault.code, fault.status, fault.request_id = error.code, error.status, error.request_id
        fault.attempts += error.attempts
        fault.is_retryable = is_other or error.is_retryable
        return fault
