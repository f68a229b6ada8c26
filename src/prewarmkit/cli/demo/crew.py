"""Keeps a worker at work: starts one, listens to it, starts the next when it was killed.

Owns what a worker's end means. Knows no pool and no screen but what it is handed.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable

from attrs import define, field

from prewarmkit import PrewarmKitError
from prewarmkit.cli.demo.figures import WorkerFigures
from prewarmkit.cli.demo.place import Place, last_words
from prewarmkit.cli.demo.screen import Bar, Screen
from prewarmkit.cli.demo.servers import Child, start_child
from prewarmkit.cli.demo.wire import Order, Report

__all__ = ["Trouble", "warm_all"]

_MOST_DEATHS = 5
_RATE_SECONDS = 5.0


class Trouble(PrewarmKitError):
    """The worker cannot go on until an operator has changed something; the message says what."""


@define
class _Pace:
    """Media a minute over the last seconds."""

    _points: deque[tuple[float, int]] = field(init=False, factory=deque[tuple[float, int]])

    def of(self, done: int) -> float | None:
        """Note that so many are done, and tell the pace."""
        now = time.monotonic()
        self._points.append((now, done))
        while now - self._points[0][0] > _RATE_SECONDS:
            self._points.popleft()
        then, before = self._points[0]
        return (done - before) / (now - then) * 60 if now - then > 1 else None


@define
class _Crew:
    order: Order
    place: Place
    screen: Screen
    figures: WorkerFigures
    bar: Bar
    count_done: Callable[[], Awaitable[int]]
    _done_before: int = field(init=False, default=0)
    _pace: _Pace = field(init=False, factory=_Pace)
    _deaths: int = field(init=False, default=0)

    async def work(self) -> None:
        """Have workers work until nothing is left."""
        while not await self._one_life():
            self.figures.kills += 1
            self._deaths += 1
            if self._deaths >= _MOST_DEATHS:
                raise Trouble(f"{_MOST_DEATHS} workers in a row were killed before they warmed anything.")

    async def _one_life(self) -> bool:
        """One worker, from its start to its end; whether it was the last."""
        self.figures.begin()
        # What a killed worker had done and not told yet is in the table.
        self._done_before = await self.count_done()
        async with start_child("prewarmkit.cli.demo.worker", [], log=self.place.log) as child:
            self.screen.say(f"worker {child.pid} warms them   (kill -9 {child.pid}: nothing is lost)")
            await child.tell(self.order.to_line())
            async for line in child.lines():
                report = Report.from_line(line)
                self._note(report)
                if report.trouble is not None:
                    raise Trouble(report.trouble)
            return self._ended(child, await child.wait(), is_done=self.figures.lives[-1].is_done)

    def _note(self, report: Report) -> None:
        self.figures.take(report)
        if report.succeeded:
            self._deaths = 0
        done = self._done_before + report.succeeded + report.failed
        pace = self._pace.of(done)
        self.bar.update(
            done,
            f"queue {report.pending:,} · {report.active} active"
            + ("" if pace is None else f" · {pace:,.0f} media/min"),
        )

    def _ended(self, child: Child, code: int, *, is_done: bool) -> bool:
        if is_done:
            return True
        if code >= 0 and sys.platform != "win32":
            raise PrewarmKitError(f"The worker ended with code {code}: {last_words(self.place.log)}")
        self.screen.warn(
            f"worker {child.pid} was killed{_by(code)}; what it held is free again within {self.order.lease_seconds:g} s"
        )
        return False


def _by(code: int) -> str:
    try:
        return f" by {signal.Signals(-code).name}"
    except ValueError:
        return ""


async def warm_all(
    order: Order,
    place: Place,
    screen: Screen,
    figures: WorkerFigures,
    bar: Bar,
    *,
    count_done: Callable[[], Awaitable[int]],
) -> None:
    """Warm all that is queued, with as many workers as it takes, one after another.

    Args:
        order: For every worker.
        place: Has the log.
        screen: Is told of each worker's start and end.
        figures: Filled with what they do.
        bar: Shows it.
        count_done: How many media the table has that need nothing more.

    Raises:
        Trouble: A worker met what only an operator can mend.
        PrewarmKitError: A worker ended by itself, or they are killed one after another.
    """
    await _Crew(order, place, screen, figures, bar, count_done).work()
