"""The figures of a demo: collected from workers that may die, and put into words and JSON.

Pure: lists of numbers in, numbers out. What the original system reached stands here too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from attrs import asdict, define, field, frozen

from prewarmkit.cli.demo.wire import Report

__all__ = ["ORIGINAL", "Figures", "Phase", "Spans", "WorkerFigures"]


@frozen(kw_only=True)
class Phase:
    """What the original system reached, or planned, as its published notes say.

    Attributes:
        name: Which version.
        is_done: Whether it was reached; else it was planned.
        media_per_minute: Media warmed.
        p50_ms: Of warming.
        p95_ms: Of warming.
        hit_rate: Of the cache of handles.
        survival: The part of what was queued that survives a crash.
    """

    name: str
    is_done: bool
    media_per_minute: int
    p50_ms: int
    p95_ms: int
    hit_rate: float
    survival: float


def _phase(name: str, done: bool, rate: int, p50: int, p95: int, hits: float, survival: float) -> Phase:  # noqa: FBT001
    return Phase(
        name=name,
        is_done=done,
        media_per_minute=rate,
        p50_ms=p50,
        p95_ms=p95,
        hit_rate=hits,
        survival=survival,
    )


ORIGINAL = (
    _phase("first version", True, 30, 1500, 2500, 0.60, 0.0),  # noqa: FBT003 - rows of a table
    _phase("phase 1", True, 150, 300, 800, 0.60, 0.0),  # noqa: FBT003
    _phase("phase 2", False, 300, 200, 400, 0.75, 1.0),  # noqa: FBT003
    _phase("phase 3", False, 1500, 50, 150, 0.90, 1.0),  # noqa: FBT003
)
"""The original system, version by version."""


@frozen(kw_only=True)
class Spans:
    """Quantiles of some spans, exact, in seconds; ``None`` where nothing was measured."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """The quantiles of these, each one that was measured (nearest rank)."""
        if not seconds:
            return cls()
        ranked = sorted(seconds)
        p50, p95, p99 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.50, 0.95, 0.99))
        return cls(count=len(ranked), p50=p50, p95=p95, p99=p99)

    def to_json(self) -> dict[str, float | int | None]:
        """With the unit in each name."""
        return {
            "count": self.count,
            "p50_seconds": self.p50,
            "p95_seconds": self.p95,
            "p99_seconds": self.p99,
        }


@define
class WorkerFigures:
    """What all workers of one demo did, the dead ones too, up to the last report of each."""

    lives: list[Report] = field(factory=list[Report])
    kills: int = 0
    waits: list[float] = field(factory=list[float])
    moves: list[float] = field(factory=list[float])
    warms: list[float] = field(factory=list[float])

    def begin(self) -> None:
        """Another worker starts."""
        self.lives.append(Report())

    def take(self, report: Report) -> None:
        """The worker of now reports."""
        self.lives[-1] = report
        self.waits.extend(report.waits)
        self.moves.extend(report.moves)
        self.warms.extend(report.warms)

    def total(self, counter: str) -> int:
        """A counter over all lives."""
        return sum(int(getattr(life, counter)) for life in self.lives)

    @property
    def seconds(self) -> float | None:
        """From the first medium begun to the last one ready, a dead worker's absence included."""
        began = [life.began_at for life in self.lives if life.began_at is not None]
        ready = [life.ready_at for life in self.lives if life.ready_at is not None]
        return max(ready) - min(began) if began and ready else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory that any of them had."""
        peaks = [life.peak_memory_bytes for life in self.lives if life.peak_memory_bytes is not None]
        return max(peaks, default=None)


@frozen(kw_only=True)
class Figures:
    """What one run of the demo showed.

    Attributes:
        allowed_per_minute: Media a minute that the budget allows in the long run; ``None``: no budget.
        chats: Private warmup chats.
        media: How many there are.
        media_bytes: How large all of them are.
        warmed: How many this run made ready.
        uploaded_bytes: What the Bot API server got from this run.
        repeated: Uploads beyond one a medium: a kill came between upload and commit, or no answer came.
        warming_seconds: From the first medium begun to the last one ready; ``None``: none was warmed.
        warming: Spans of warming, the wait for the budget included.
        moving: Spans that the bytes were on their way, from the bucket to the answer of the Bot API server.
        queue_wait: Spans from due to begun.
        lookup: Spans of looking a ready medium up.
        lookup_hits: Look-ups that found a good handle.
        succeeded: Media that workers warmed, as they told.
        failed: Media that failed for good.
        retried: Attempts that failed and went again.
        signing_hits: Requests signed with a key from the cache.
        signing_misses: Requests for which the key was derived.
        peak_memory_bytes: Of the worker; ``None``: not told.
        workers: Worker processes that were started.
        kills: Worker processes that were killed.
        total_seconds: The whole run.
    """

    allowed_per_minute: int | None
    chats: int
    media: int
    media_bytes: int
    warmed: int
    uploaded_bytes: int
    repeated: int
    warming_seconds: float | None
    warming: Spans
    moving: Spans
    queue_wait: Spans
    lookup: Spans
    lookup_hits: int
    succeeded: int
    failed: int
    retried: int
    signing_hits: int
    signing_misses: int
    peak_memory_bytes: int | None
    workers: int
    kills: int
    total_seconds: float

    @property
    def media_per_minute(self) -> float | None:
        """Media made ready a minute."""
        return self.warmed / self.warming_seconds * 60 if self.warming_seconds else None

    @property
    def success_rate(self) -> float | None:
        """Succeeded / (succeeded + failed); ``None`` at 0/0."""
        return _rate(self.succeeded, self.failed)

    @property
    def signing_hit_rate(self) -> float | None:
        """Hits of the signing-key cache; ``None`` at 0/0."""
        return _rate(self.signing_hits, self.signing_misses)

    @property
    def survival(self) -> float | None:
        """The part of all media that is ready though workers were killed; ``None``: none was."""
        return self.lookup_hits / self.media if self.kills and self.media else None

    @property
    def lookup_hit_rate(self) -> float | None:
        """Look-ups that were cache hits; ``None`` at 0/0."""
        return _rate(self.lookup_hits, self.lookup.count - self.lookup_hits)

    def to_json(self) -> dict[str, Any]:
        """The figures for scripts; durations in seconds, sizes in bytes."""
        return {
            "budget": {"chats": self.chats, "media_per_minute": self.allowed_per_minute},
            "media": self.media,
            "media_bytes": self.media_bytes,
            "warming": {
                "warmed": self.warmed,
                "media_per_minute": self.media_per_minute,
                "seconds": self.warming_seconds,
                "uploaded_bytes": self.uploaded_bytes,
                "repeated_uploads": self.repeated,
                "success_rate": self.success_rate,
                "succeeded": self.succeeded,
                "failed": self.failed,
                "retried": self.retried,
                **self.warming.to_json(),
            },
            "moving": self.moving.to_json(),
            "queue_wait": self.queue_wait.to_json(),
            "lookup": {
                **self.lookup.to_json(),
                "hits": self.lookup_hits,
                "hit_rate": self.lookup_hit_rate,
            },
            "signing_cache": {
                "hits": self.signing_hits,
                "misses": self.signing_misses,
                "hit_rate": self.signing_hit_rate,
            },
            "worker": {
                "started": self.workers,
                "killed": self.kills,
                "survival": self.survival,
                "peak_memory_bytes": self.peak_memory_bytes,
            },
            "original": [asdict(phase) for phase in ORIGINAL],
            "total_seconds": self.total_seconds,
        }


def _rate(good: int, bad: int) -> float | None:
    return good / (good + bad) if good + bad else None
