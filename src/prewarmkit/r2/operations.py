"""What every operation of `R2Client` works on. Knows no operation."""

from __future__ import annotations

from prewarmkit.r2.link import Link
from prewarmkit.r2.requests import Bucket

__all__ = ["Operations"]


class Operations:
    """One bucket, and the way to it; the operations are its subclasses.

    Attributes:
        _bucket: Builds the requests.
        _link: Sends them.
        _has_seen_bucket: An answer showed that the bucket is there.
        _verifies: Whether what is read is compared with its MD5, where a call does not say.
    """

    _bucket: Bucket
    _link: Link
    _has_seen_bucket: bool
    _verifies: bool
