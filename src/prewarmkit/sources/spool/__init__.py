"""A wrapped source's media on this machine's disk, for minutes: whoever asks again does not read the source again.

`source` (options, life, figures) ◀ `flight` (one read of one medium, shared) ◀ `reader`, `pipe`, `home`; below them, in threads,
`shelf` (the directory: room, leftovers, names) ◀ `files` (one file: locks, checksum) ◀ `record` (what stands in it).
"""

from __future__ import annotations

from prewarmkit.sources.spool.source import SpooledSource
from prewarmkit.sources.spool.stats import SpoolStats

__all__ = ["SpoolStats", "SpooledSource"]
