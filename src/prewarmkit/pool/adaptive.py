"""How many media a target takes at once, found out by asking: additive increase, multiplicative decrease.

A bound grows by one each time as many media have gone through as it allows, if it was used
at all, and shrinks when the target says too much: by a 429, a 5xx, a time-out, or by taking
much longer than usual for media of the same size. One answer of a round shrinks it; those
that had begun before say nothing new. Pure state: times are handed in.

The form is TCP's, as clients of one service do it well (Netflix's concurrency-limits, AIMD);
comparing equal sizes only is ours, since an upload of a film says nothing of one of a photo.
"""

from __future__ import annotations

import math

from attrs import define, field

__all__ = ["AdaptiveLimit"]

_DROP = 0.7
_SLOW_DROP = 0.9
_SLOW = 2.0  # times the usual span
_RECENT, _USUAL = 0.3, 0.02  # weights of a new span in the recent and in the usual one
_FEWEST_SPANS = 10


@define(eq=False)
class _Span:
    """What media of one size class take, recently and usually."""

    recent: float
    usual: float
    count: int = 1

    def add(self, seconds: float) -> bool:
        """Learn one more; whether the recent ones are slow."""
        self.count += 1
        self.recent += _RECENT * (seconds - self.recent)
        # Faster than usual is believed at once, slower only in time: else slowness would become usual.
        weight = _USUAL if seconds > self.usual else _RECENT
        self.usual += weight * (seconds - self.usual)
        return self.count >= _FEWEST_SPANS and self.recent > _SLOW * self.usual


@define(eq=False)
class AdaptiveLimit:
    """A bound between 1 and ``most``.

    Attributes:
        most: The pool's concurrency.
        value: The bound now; `whole` is what it allows.
    """

    most: int
    value: float = field(init=False)
    _since: float = field(init=False, default=-math.inf)
    _spans: dict[int, _Span] = field(init=False, factory=dict[int, _Span])

    def __attrs_post_init__(self) -> None:
        self.value = float(self.most)

    @property
    def whole(self) -> int:
        """Media that it allows at once."""
        return min(self.most, max(1, int(self.value)))

    def succeeded(self, *, began: float, ended: float, size: int | None, running: int) -> None:
        """A medium went through; ``running`` counts it too."""
        span = ended - began
        known = self._spans.get(at := -1 if size is None else size.bit_length())
        if known is None:
            self._spans[at] = _Span(span, span)
        elif known.add(span):
            known.recent = known.usual  # said once
            self._shrink(_SLOW_DROP, began=began, ended=ended)
            return
        if running * 2 >= self.whole:  # a bound that nobody reaches proves nothing
            self.value = min(float(self.most), self.value + 1 / self.value)

    def refused(self, *, began: float, ended: float) -> None:
        """The target had too much: 429, 5xx, a time-out."""
        self._shrink(_DROP, began=began, ended=ended)

    def _shrink(self, factor: float, *, began: float, ended: float) -> None:
        if began >= self._since:
            self.value, self._since = max(1.0, self.whole * factor), ended
