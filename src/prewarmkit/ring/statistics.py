"""What a `RingQueue` tells about itself."""

from __future__ import annotations

from attrs import frozen

__all__ = ["QueueStatistics"]


@frozen(kw_only=True)
class QueueStatistics:
    """What `RingQueue.statistics` returns; ``size == enqueued - dequeued - discarded``.

    Attributes:
        size: Items that are queued.
        capacity: The queue's ``maxsize``.
        lane_sizes: Items in each lane, lane 0 first.
        enqueued: Items ever taken in.
        dequeued: Items ever handed out.
        discarded: Items removed by `RingQueue.discard`.
        duplicates: Enqueues that found their key queued, moved to a better lane or not.
        rejected: Calls of `RingQueue.enqueue_nowait` that raised `QueueFull`.
        waiting_producers: Tasks inside `RingQueue.enqueue`, waiting for room.
        waiting_consumers: Tasks inside `RingQueue.dequeue`, waiting for an item.
    """

    size: int
    capacity: int
    lane_sizes: tuple[int, ...]
    enqueued: int
    dequeued: int
    discarded: int
    duplicates: int
    rejected: int
    waiting_producers: int
    waiting_consumers: int
