"""The events of a pool as log records, under ``prewarmkit.pool``, with fields of their own.

A record has ``pool`` and, where the event has them, ``target``, ``key``, ``kind``, ``attempt`` and ``reason``,
for formatters that write fields (``extra``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from prewarmkit.pool.events import (
    LeaseLost,
    MediaDeferred,
    MediaEnqueued,
    MediaFailed,
    MediaInvalidated,
    MediaReady,
    MediaReleased,
    MediaRequeued,
    MediaRetried,
    MediaStarted,
    PoolPaused,
    PoolResized,
    PoolResumed,
    PoolStarted,
    PoolStopped,
    StoreTrouble,
    TargetPaused,
    TargetResumed,
)

__all__ = ["FORMS", "log_event"]

logger = logging.getLogger("prewarmkit.pool")

FORMS: Mapping[type, tuple[int, Callable[[Any], str]]] = {
    PoolStarted: (logging.INFO, lambda e: f"started with {e.concurrency} workers"),
    PoolStopped: (
        logging.INFO,
        lambda e: "stopped" if e.failure is None else f"stopped by a bug: {e.failure!r}",
    ),
    PoolPaused: (logging.INFO, lambda _: "paused"),
    PoolResumed: (logging.INFO, lambda _: "resumed"),
    PoolResized: (logging.INFO, lambda e: f"has {e.concurrency} workers now"),
    MediaEnqueued: (logging.DEBUG, lambda e: f"{e.id.key!r} offered: {e.answer}"),
    MediaStarted: (logging.DEBUG, lambda e: f"{e.id.key!r} begun, attempt {e.attempt}"),
    MediaReady: (logging.DEBUG, lambda e: f"{e.id.key!r} is warm after {e.seconds:.3g} s"),
    MediaReleased: (logging.DEBUG, lambda e: f"{e.id.key!r} given back"),
    MediaDeferred: (logging.DEBUG, lambda e: f"{e.id.key!r} put off by {e.delay:.3g} s: {e.reason}"),
    MediaInvalidated: (logging.INFO, lambda e: f"{e.id.key!r}: its handle was refused"),
    MediaRequeued: (logging.INFO, lambda e: f"{e.media} failed media are due again"),
    MediaRetried: (
        logging.INFO,
        lambda e: f"{e.id.key!r}: attempt {e.attempt} failed, next in {e.delay:.3g} s: {e.reason}",
    ),
    MediaFailed: (
        logging.INFO,
        lambda e: f"{e.id.key!r} failed for good at attempt {e.attempt}: {e.reason}",
    ),
    # Where processes die or hang this is how it goes on, and nothing is lost by it.
    LeaseLost: (logging.INFO, lambda e: f"{e.id.key!r}: the lease was lost, somebody else has it"),
    TargetPaused: (logging.WARNING, lambda e: f"target {e.target} rests for {e.seconds:.3g} s: {e.reason}"),
    TargetResumed: (logging.INFO, lambda e: f"target {e.target} works again"),
    StoreTrouble: (logging.ERROR, lambda e: f"store: {e.error}; next try in {e.retry_in:.3g} s"),
}
"""Each event's level and words. What happens to every medium is for debugging."""


def log_event(pool: str, event: object) -> None:
    """Write an event to the log; a target's own events are nobody's here."""
    level, words = FORMS.get(type(event), (logging.DEBUG, repr))
    if logger.isEnabledFor(level):
        logger.log(level, "pool %s: %s", pool, words(event), extra=_fields(pool, event))


def _fields(pool: str, event: Any) -> dict[str, Any]:
    fields = {"pool": pool, "event": type(event).__name__}
    id_ = getattr(event, "id", None)
    if id_ is not None:
        fields |= {"target": id_.target, "key": id_.key, "kind": str(id_.kind)}
    for name in ("target", "attempt", "reason"):
        if (value := getattr(event, name, None)) is not None:
            fields[name] = value
    return fields
