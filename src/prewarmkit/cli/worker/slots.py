"""Where workers belong: a slot for each, and the rolling restart that goes from slot to slot."""

from __future__ import annotations

import math
from collections import deque

from attrs import define, field

from prewarmkit.cli.worker.patience import Patience
from prewarmkit.cli.worker.process import Process

__all__ = ["Roll", "Slot"]


@define(eq=False)
class Slot:
    """The place of one worker, whichever process fills it.

    Attributes:
        number: 1 and up.
        patience: When it is filled again.
        process: Who is in charge; ``None``: nobody is.
        due_at: When somebody shall be.
    """

    number: int
    patience: Patience
    process: Process | None = field(init=False, default=None)
    due_at: float = field(init=False, default=math.inf)


@define(eq=False)
class Roll:
    """A rolling restart: in one slot at a time a successor gets ready, then whom it replaces retires.

    Attributes:
        waiting: The slots whose turn is still to come.
        slot: Whose turn it is.
        successor: Who shall fill it, until it is ready.
        retiring: Who filled it, until it has ended.
        is_wanted_again: Whether the code may have changed once more since it began.
    """

    waiting: deque[Slot]
    slot: Slot | None = field(init=False, default=None)
    successor: Process | None = field(init=False, default=None)
    retiring: Process | None = field(init=False, default=None)
    is_wanted_again: bool = field(init=False, default=False)

    @property
    def is_busy(self) -> bool:
        """Whether the slot's turn is not over."""
        return self.successor is not None or self.retiring is not None

    def hand_over(self) -> Process | None:
        """The successor is ready: put it in charge; gives whom it replaces."""
        assert self.slot is not None
        self.retiring, self.slot.process = self.slot.process, self.successor
        self.successor, self.slot.due_at = None, math.inf
        return self.retiring
