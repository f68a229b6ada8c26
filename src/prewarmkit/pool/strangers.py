"""Targets that rows wait for and that nobody has named in this process: a resolver may know them by id.

After a restart a table is full of rows, and the pool knows of no target before a caller names one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from attrs import define, field

from prewarmkit.errors import UnknownTarget
from prewarmkit.pool.book import TargetBook
from prewarmkit.pool.core import Bell

__all__ = ["Strangers"]

logger = logging.getLogger("prewarmkit.pool")

_ASK_AGAIN_SECONDS = 300.0  # as for names
_TROUBLE_SECONDS = 10.0


@define(eq=False)
class Strangers:
    """The ids of targets that rows wait for, as turns tell them.

    Attributes:
        book: Where targets are known; one that is met is known there.
        clock: The pool's.
        on_met: Called when some were met.
    """

    book: TargetBook
    clock: Callable[[], float]
    on_met: Callable[[], None]
    _noted: list[str] = field(init=False, factory=list[str])
    _asked: dict[str, float] = field(init=False, factory=dict[str, float])
    _bell: Bell = field(init=False, factory=Bell)

    def note(self, ids: Iterable[str] | None) -> None:
        """What a turn saw; of those that were asked for a while ago nothing is thought."""
        if ids is None or not self.book.can_meet:
            return
        noted = [id_ for id_ in ids if not self.book.knows(id_)]
        if not noted:
            return
        now = self.clock()
        self._noted = [id_ for id_ in noted if self._asked.get(id_, -math.inf) <= now]
        if self._noted:
            self._bell.ring()

    async def meet(self) -> int:
        """Ask the resolver for those that were noted; how many it knew."""
        noted, self._noted, met = self._noted, [], 0
        for id_ in noted:
            again = _ASK_AGAIN_SECONDS
            try:
                met += await self.book.meet(id_)
            except UnknownTarget:
                pass  # another pool's, on the same table
            except Exception:
                again = _TROUBLE_SECONDS
                logger.exception("the resolver failed for the target id %r", id_)
            self._asked[id_] = self.clock() + again
        self._asked = {id_: until for id_, until in self._asked.items() if until > self.clock()}
        if met:
            self.on_met()
        return met

    async def run(self) -> None:
        """Meet whoever is noted, until cancelled."""
        while True:
            await self._bell.wait(math.inf)
            await self.meet()
