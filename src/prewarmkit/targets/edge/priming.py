"""One medium at one place: filled, then asked for again until it is known whether it is kept.

Owns the order of the requests and their number. Knows nothing of other places, of the
source, or of what becomes of the verdict.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import anyio
from attrs import define, field, frozen

from prewarmkit.errors import SourceChanged
from prewarmkit.targets.edge.answers import Answer
from prewarmkit.targets.edge.failures import failure_of
from prewarmkit.targets.edge.life import NEARLY_OVER_SECONDS, left_of, life_of
from prewarmkit.targets.edge.places import Place
from prewarmkit.targets.edge.verdicts import Verdict, Wanted, WeakReason, mismatch, verdict_of

__all__ = ["Ask", "Priming", "Result"]

Ask = Callable[[str], Awaitable[Answer]]
"""Sends one request of that method."""

_OK = 200
_NEW_STARTS = 2
_FARTHEST = 100 * 365 * 86400.0


@frozen(kw_only=True)
class Result:
    """What is known of one place.

    Attributes:
        place: Which.
        answer: The last one, which the verdict is from.
        weak: Why it is not warm, or ``None``.
        left_seconds: How long it stays so, from that answer on.
        requests: How many it took.
        is_verified: Whether an answer came from the cache.
        is_read: Whether the bytes came whole.
    """

    place: Place
    answer: Answer
    weak: WeakReason | None
    left_seconds: float
    requests: int
    is_verified: bool
    is_read: bool

    def expires_at(self, now: float) -> datetime | None:
        """When it is to be asked for again; ``None``: that would not help."""
        if self.weak is not None and self.weak.is_final:
            return None
        return datetime.fromtimestamp(now + min(max(0.0, self.left_seconds), _FARTHEST), UTC)

    def facts(self) -> dict[str, Any]:
        """What is kept for audit."""
        return {
            "place": str(self.place),
            "colo": self.answer.colo,
            "cache_status": self.answer.cache,
            "age": self.answer.age,
            "requests": self.requests,
            "verified": self.is_verified,
            "mode": "get" if self.is_read else "head",
        }


@define(eq=False)
class Priming:
    """The requests for one medium at one place.

    Attributes:
        place: Where.
        key: The medium's.
        wanted: What must come.
        ask: Sends one.
        verify: Whether to ask again after a fill.
        delays: Seconds before each further look.
        edge_ttl_seconds: See `life.left_of`.
    """

    place: Place
    key: str
    wanted: Wanted
    ask: Ask
    verify: bool
    delays: tuple[float, ...]
    edge_ttl_seconds: float | None
    _requests: int = field(init=False, default=0)
    _is_read: bool = field(init=False, default=False)

    async def run(self, *, method: str, is_known: bool) -> Result:
        """Prime.

        Args:
            method: GET; HEAD where the edge makes a GET of it and nobody needs the bytes looked at.
            is_known: Whether these bytes came whole from this place before, so that a hit needs no second reading.

        Raises:
            TargetFailure: The edge does not serve what the source has.
        """
        if is_known and method == "GET":
            answer = await self._asked("HEAD")
            for delay in self.delays:
                if not self._is_ending(answer):
                    break
                await anyio.sleep(delay)
                answer = await self._asked("HEAD")
            if (verdict := self._verdict(answer)) is not Verdict.FILLED:
                return self._result(answer, verdict)
        answer, is_of_one_colo = await self._looked_at(await self._asked(method))
        for _start in range(_NEW_STARTS):
            if is_of_one_colo:
                break
            answer, is_of_one_colo = await self._looked_at(await self._asked(method))
        return self._result(answer, self._verdict(answer) if is_of_one_colo else WeakReason.COLO_CHANGED)

    async def _looked_at(self, answer: Answer) -> tuple[Answer, bool]:
        """The answer that tells, and whether it is the same data centre's: what another one has says nothing."""
        colo = answer.colo
        for delay in self.delays if self.verify else ():
            if self._verdict(answer) is not Verdict.FILLED:
                break
            await anyio.sleep(delay)
            answer = await self._asked("HEAD")
            if answer.colo != colo:
                return answer, False
        return answer, True

    async def _asked(self, method: str) -> Answer:
        self._requests += 1
        answer = await self.ask(method)
        if answer.status != _OK:
            raise failure_of(answer, key=self.key, place=self.place)
        wrong = mismatch(answer, self.wanted)
        if wrong is not None:
            raise SourceChanged(
                f"{self.place} serves another {self.key!r} than the source has, {wrong}: purge it there, "
                "and name objects by their content."
            )
        self._is_read = self._is_read or answer.received is not None
        return answer

    def _verdict(self, answer: Answer) -> Verdict | WeakReason:
        return Verdict.FILLED if self._is_ending(answer) else verdict_of(answer)

    def _is_ending(self, answer: Answer) -> bool:
        """Whether it is a hit that the next viewer may not get any more."""
        return answer.cache == "HIT" and left_of(answer, self.edge_ttl_seconds) <= NEARLY_OVER_SECONDS

    def _result(self, answer: Answer, verdict: Verdict | WeakReason) -> Result:
        weak = verdict if isinstance(verdict, WeakReason) else None
        is_hit = verdict_of(answer) is Verdict.WARM
        if verdict is Verdict.FILLED and self.verify and not is_hit:
            weak = WeakReason.NOT_RETAINED
        left = left_of(answer, self.edge_ttl_seconds)
        return Result(
            place=self.place,
            answer=answer,
            weak=weak,
            # A hit that has outlived what the headers say: a rule keeps it, so look again after another life.
            left_seconds=left if left > 0 else life_of(answer, self.edge_ttl_seconds),
            requests=self._requests,
            is_verified=is_hit,
            is_read=self._is_read,
        )
