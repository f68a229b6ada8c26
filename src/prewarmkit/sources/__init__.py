"""Where bytes come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.sources.base import LocalFiles as LocalFiles
    from prewarmkit.sources.base import MediaReader as MediaReader
    from prewarmkit.sources.base import MediaSource as MediaSource
    from prewarmkit.sources.base import Presigner as Presigner
    from prewarmkit.sources.directory import DirectorySource as DirectorySource
    from prewarmkit.sources.spool.source import SpooledSource as SpooledSource
    from prewarmkit.sources.spool.stats import SpoolStats as SpoolStats

__all__ = [
    "DirectorySource",
    "LocalFiles",
    "MediaReader",
    "MediaSource",
    "Presigner",
    "SpoolStats",
    "SpooledSource",
]

_DEFINED_IN = {
    **dict.fromkeys(
        (
            "LocalFiles",
            "MediaReader",
            "MediaSource",
            "Presigner",
        ),
        "prewarmkit.sources.base",
    ),
    **dict.fromkeys(
        ("DirectorySource",),
        "prewarmkit.sources.directory",
    ),
    "SpooledSource": "prewarmkit.sources.spool.source",
    "SpoolStats": "prewarmkit.sources.spool.stats",
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
