"""A pool's `PoolStats`, put together from what its rooms know."""

from __future__ import annotations

from prewarmkit.pool.core import Core
from prewarmkit.pool.pump import Pump
from prewarmkit.pool.stats import PoolStats, TargetStats
from prewarmkit.stores.memory import MemoryStore

__all__ = ["figures_of"]


def figures_of(core: Core, pump: Pump, *, running: bool) -> PoolStats:
    """The figures now; O(1) in media."""
    figures = core.recorder.figures()
    queued = len(pump.rack)
    if isinstance(core.store, MemoryStore):
        # Here the store is this process's memory too, and knows better than the last turn.
        figures["pending"] = core.store.pending
        queued += core.store.pending
    return PoolStats(
        **figures,
        queue_size=queued,
        processing=pump.crew.busy,
        active_workers=pump.crew.busy,
        max_concurrency=pump.crew.concurrency,
        max_queue=core.settings.max_queue,
        utilization=pump.crew.busy / pump.crew.concurrency,
        running=running,
        targets={id_: _target_stats(core, id_) for id_ in core.book.ids},
    )


def _target_stats(core: Core, id_: str) -> TargetStats:
    counts = core.recorder.by_target.get(id_, {})
    health = core.book.health(id_)
    rest = health.resting()
    return TargetStats(
        **{figure: counts.get(figure, 0) for figure in ("succeeded", "failed", "retried", "deferred")},
        paused_for=rest.seconds if rest else 0.0,
        paused_reason=rest.reason if rest else None,
        is_down=rest.is_down if rest else False,
        running=health.running,
        limit=None if health.limit is None else health.limit.whole,
    )
