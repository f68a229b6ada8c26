"""Figures of one spool."""

from __future__ import annotations

from attrs import define, frozen

__all__ = ["Figures", "SpoolStats"]


@frozen(kw_only=True)
class SpoolStats:
    """One spool's figures, of this process, since it was made.

    Attributes:
        hits: Opens that were served from a file whose checksum held.
        joined: Opens that shared the read, or the file, that another reader was at.
        misses: Opens that read the source and wrote a file.
        passed: Opens that read the source and wrote none: too large, no room, disk trouble.
        damaged: Files that were changed or cut on the disk, and not served.
        evicted: Files that made room for newer ones.
        bytes_read: Bytes that came from the source.
        bytes_given: Bytes that readers got.
        bytes_held: Bytes of media in the directory, all processes' together, as last counted.
    """

    hits: int = 0
    joined: int = 0
    misses: int = 0
    passed: int = 0
    damaged: int = 0
    evicted: int = 0
    bytes_read: int = 0
    bytes_given: int = 0
    bytes_held: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of opens that did not read the source; ``None`` as long as there was none."""
        spared = self.hits + self.joined
        opens = spared + self.misses + self.passed
        return spared / opens if opens else None


@define(eq=False)
class Figures:
    """What a spool counts; changed on its event loop only."""

    hits: int = 0
    joined: int = 0
    misses: int = 0
    passed: int = 0
    bytes_read: int = 0
    bytes_given: int = 0
