"""What the benchmarks share: interleaved rounds, medians, what another process costs."""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["cpu_seconds", "interleaved", "quiet_collector"]


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


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process and of all below it, those included that have ended; 0 where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        number = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(number)
        # utime and stime, and those of children that were waited for
        spent[number] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total, todo = 0.0, [pid]
    while todo:
        number = todo.pop()
        total += spent.get(number, 0.0)
        todo += children.get(number, [])
    return total
