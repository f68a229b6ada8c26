"""The table that is cache and queue at once, and where it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.stores.base import Counts as Counts
    from prewarmkit.stores.base import Enqueued as Enqueued
    from prewarmkit.stores.base import Failed as Failed
    from prewarmkit.stores.base import Hint as Hint
    from prewarmkit.stores.base import Job as Job
    from prewarmkit.stores.base import KeyValue as KeyValue
    from prewarmkit.stores.base import Lease as Lease
    from prewarmkit.stores.base import Looked as Looked
    from prewarmkit.stores.base import MediaId as MediaId
    from prewarmkit.stores.base import MediaStore as MediaStore
    from prewarmkit.stores.base import Outcome as Outcome
    from prewarmkit.stores.base import Released as Released
    from prewarmkit.stores.base import Retry as Retry
    from prewarmkit.stores.base import Row as Row
    from prewarmkit.stores.base import Succeeded as Succeeded
    from prewarmkit.stores.base import Turn as Turn
    from prewarmkit.stores.lifecycle import State as State
    from prewarmkit.stores.memory import MemoryStore as MemoryStore
    from prewarmkit.stores.postgres import PostgresStore as PostgresStore
    from prewarmkit.stores.sqlite import SqliteStore as SqliteStore

__all__ = [
    "Counts",
    "Enqueued",
    "Failed",
    "Hint",
    "Job",
    "KeyValue",
    "Lease",
    "Looked",
    "MediaId",
    "MediaStore",
    "MemoryStore",
    "Outcome",
    "PostgresStore",
    "Released",
    "Retry",
    "Row",
    "SqliteStore",
    "State",
    "Succeeded",
    "Turn",
]

_DEFINED_IN = {
    **dict.fromkeys(
        (
            "Counts",
            "Enqueued",
            "Failed",
            "Hint",
            "Job",
            "KeyValue",
            "Lease",
            "Looked",
            "MediaId",
            "MediaStore",
            "Outcome",
            "Released",
            "Retry",
            "Row",
            "Succeeded",
            "Turn",
        ),
        "prewarmkit.stores.base",
    ),
    **dict.fromkeys(
        ("State",),
        "prewarmkit.stores.lifecycle",
    ),
    **dict.fromkeys(
        ("MemoryStore",),
        "prewarmkit.stores.memory",
    ),
    **dict.fromkeys(
        ("PostgresStore",),
        "prewarmkit.stores.postgres",
    ),
    **dict.fromkeys(
        ("SqliteStore",),
        "prewarmkit.stores.sqlite",
    ),
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
