"""What the benchmarks share: interleaved rounds, medians, a table."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

__all__ = ["interleaved", "quiet_collector"]


@contextmanager
def quiet_collector() -> Generator[None]:
    """Leave what was built beforehand out of collections, for every series alike: they would hit one at random."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def interleaved(
    series: Mapping[str, Callable[[int], float]], *, rounds: int, calls: Mapping[str, int] | int
) -> dict[str, float]:
    """The median of what each of ``series`` tells when asked for so many calls; in a round, each has its turn.

    What disturbs the machine for a while then disturbs all alike, and ratios hold.
    """
    samples: dict[str, list[float]] = {name: [] for name in series}
    with quiet_collector():
        for round_number in range(rounds + 1):
            for name, measure in series.items():
                figure = measure(calls if isinstance(calls, int) else calls[name])
                if round_number:  # the first warms up
                    samples[name].append(figure)
    return {name: statistics.median(sample) for name, sample in samples.items()}
