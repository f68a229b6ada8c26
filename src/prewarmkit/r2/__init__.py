"""Cloudflare R2, and any S3-compatible endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.r2.client import R2Client as R2Client
    from prewarmkit.r2.responses import CommonPrefix as CommonPrefix
    from prewarmkit.r2.retry import AttemptEvent as AttemptEvent
    from prewarmkit.r2.retry import RetryPolicy as RetryPolicy
    from prewarmkit.r2.retry import Timeouts as Timeouts

__all__ = ["AttemptEvent", "CommonPrefix", "R2Client", "RetryPolicy", "Timeouts"]

_DEFINED_IN = {
    "R2Client": "prewarmkit.r2.client",
    "CommonPrefix": "prewarmkit.r2.responses",
    **dict.fromkeys(("AttemptEvent", "RetryPolicy", "Timeouts"), "prewarmkit.r2.retry"),
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
