"""`RingQueue`: a bounded, keyed queue in memory with priority lanes, O(1) in every operation."""

from __future__ import annotations

from prewarmkit.ring.queue import RingQueue
from prewarmkit.ring.statistics import QueueStatistics

__all__ = ["QueueStatistics", "RingQueue"]
