"""Figures of one pool: counted as things happen, read in O(1)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen

__all__ = ["Histogram", "PoolStats", "Quantiles", "Recorder", "TargetStats"]


@frozen
class Quantiles:
    """Seconds; ``None`` as long as nothing was measured. Each is within 5 % of the true value."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    count: int = 0


@frozen(kw_only=True)
class TargetStats:
    """One target's figures since start.

    Attributes:
        succeeded: Media warmed.
        failed: Media that failed for good.
        retried: Attempts that failed and are tried again.
        deferred: Tries put off at no attempt's cost.
        paused_for: Seconds that the target still rests; 0 if it works.
        paused_reason: Why it rests.
        is_down: Whether it refused altogether.
        running: Media that it has now.
        limit: Media that it may have at once, as found out (``PoolSettings.adaptive``); ``None``: nothing was.
    """

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    deferred: int = 0
    paused_for: float = 0.0
    paused_reason: str | None = None
    is_down: bool = False
    running: int = 0
    limit: int | None = None


@frozen(kw_only=True)
class PoolStats:
    """One pool's figures, of this process, since it was made.

    Attributes:
        queue_size: Media leased ahead, or with `MemoryStore` pending, that no worker has yet.
        processing: Media being warmed.
        active_workers: Workers that have one.
        max_concurrency: Workers at most.
        max_queue: The bound of `queue_size`.
        utilization: `active_workers` / `max_concurrency`.
        batch_size: Mean of the last 100 leases.
        enqueued: Media that became due by this process's calls.
        duplicates: Media that were pending or warming already.
        rejected: Media refused with `QueueFull`.
        succeeded: Media warmed.
        failed: Media that failed for good.
        retried: Attempts that failed and are tried again.
        deferred: Tries put off at no attempt's cost.
        weak: Attempts whose handle was weak.
        lost: Outcomes that came after their lease.
        pending: The store's count at the last turn.
        success_rate: succeeded / (succeeded + failed); ``None`` at 0/0.
        error_rate: failed / (succeeded + failed); ``None`` at 0/0.
        throughput_per_min: Media warmed in the last 60 s.
        cache_hits: Look-ups that found a good handle.
        cache_misses: Look-ups that did not.
        cache_hit_rate: hits / (hits + misses); ``None`` at 0/0.
        queue_wait: From due to a worker.
        warm_latency: From a worker to the target's answer.
        running: Whether the workers run.
        targets: By target id.
        dropped_events: Events that a slow ``on_event`` did not get.
    """

    queue_size: int
    processing: int
    active_workers: int
    max_concurrency: int
    max_queue: int
    utilization: float
    batch_size: float
    enqueued: int
    duplicates: int
    rejected: int
    succeeded: int
    failed: int
    retried: int
    deferred: int
    weak: int
    lost: int
    pending: int
    success_rate: float | None
    error_rate: float | None
    throughput_per_min: float
    cache_hits: int
    cache_misses: int
    cache_hit_rate: float | None
    queue_wait: Quantiles
    warm_latency: Quantiles
    running: bool
    targets: Mapping[str, TargetStats]
    dropped_events: int


_GROWTH = math.log(1.1)
_SMALLEST = 1e-5
_BUCKETS = 250  # 10 µs times 1.1 to the 250th: 62 hours
_BOUNDS = [_SMALLEST * math.exp(at * _GROWTH) for at in range(1, _BUCKETS)]  # each the end of a bucket


@define
class Histogram:
    """Spans in buckets that grow by a tenth, so that a quantile is within 5 % of the true one."""

    _buckets: list[int] = field(init=False, factory=lambda: [0] * _BUCKETS)
    _count: int = field(init=False, default=0)
    _max: float = field(init=False, default=0.0)

    def add(self, seconds: float) -> None:
        """Count one span."""
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._count += 1
        self._max = max(self._max, seconds)

    def quantiles(self) -> Quantiles:
        """The quantiles so far."""
        if not self._count:
            return Quantiles()
        p50, p95, p99 = (self._quantile(share) for share in (0.50, 0.95, 0.99))
        return Quantiles(p50, p95, p99, self._max, self._count)

    def _quantile(self, share: float) -> float:
        wanted, seen = share * self._count, 0
        for at, inside in enumerate(self._buckets):
            seen += inside
            if seen >= wanted:
                return min(_SMALLEST * math.exp((at + 0.5) * _GROWTH), self._max)
        return self._max


@define
class Recorder:
    """What a pool counts; `Recorder.count` by figure, and by target where one is given."""

    clock: Callable[[], float]
    counts: dict[str, int] = field(init=False, factory=dict[str, int])
    by_target: dict[str, dict[str, int]] = field(init=False, factory=dict[str, dict[str, int]])
    queue_wait: Histogram = field(init=False, factory=Histogram)
    warm_latency: Histogram = field(init=False, factory=Histogram)
    pending: int = field(init=False, default=0)
    _leases: deque[int] = field(init=False, factory=lambda: deque[int](maxlen=100))
    _seconds: deque[list[float]] = field(init=False, factory=deque[list[float]])

    def count(self, figure: str, by: int = 1, *, target: str | None = None) -> None:
        """Add to a figure."""
        self.counts[figure] = self.counts.get(figure, 0) + by
        if target is not None:
            counts = self.by_target.setdefault(target, {})
            counts[figure] = counts.get(figure, 0) + by

    def leased(self, rows: int) -> None:
        """A turn leased that many rows."""
        if rows:
            self._leases.append(rows)

    def succeeded(self, target: str, media: int = 1) -> None:
        """Media are warm."""
        self.count("succeeded", media, target=target)
        second = math.floor(self.clock())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1][1] += media
        else:
            self._seconds.append([second, media])
            self._forget(second)

    def throughput_per_min(self) -> float:
        """Media warmed in the last 60 seconds."""
        self._forget(math.floor(self.clock()))
        return sum(warmed for _, warmed in self._seconds)

    def figures(self) -> dict[str, Any]:
        """Everything that `PoolStats` takes from here."""
        get = self.counts.get
        ended = get("succeeded", 0) + get("failed", 0)
        looked = get("cache_hits", 0) + get("cache_misses", 0)
        plain = (
            "enqueued duplicates rejected succeeded failed retried deferred weak lost "
            "cache_hits cache_misses dropped_events"
        )
        return {
            **{figure: get(figure, 0) for figure in plain.split()},
            "batch_size": sum(self._leases) / len(self._leases) if self._leases else 0.0,
            "pending": self.pending,
            "success_rate": get("succeeded", 0) / ended if ended else None,
            "error_rate": get("failed", 0) / ended if ended else None,
            "cache_hit_rate": get("cache_hits", 0) / looked if looked else None,
            "throughput_per_min": self.throughput_per_min(),
            "queue_wait": self.queue_wait.quantiles(),
            "warm_latency": self.warm_latency.quantiles(),
        }

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - 60:
            self._seconds.popleft()
