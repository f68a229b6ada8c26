"""Cloudflare R2, and any S3-compatible endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.r2.batches import DeleteResult as DeleteResult
    from prewarmkit.r2.batches import PutItem as PutItem
    from prewarmkit.r2.batches import PutResult as PutResult
    from prewarmkit.r2.client import R2Client as R2Client
    from prewarmkit.r2.responses import CommonPrefix as CommonPrefix
    from prewarmkit.r2.retry import AttemptEvent as AttemptEvent
    from prewarmkit.r2.retry import RetryPolicy as RetryPolicy
    from prewarmkit.r2.retry import Timeouts as Timeouts
    from prewarmkit.r2.tokens import UploadToken as UploadToken

__all__ = [
    "AttemptEvent",
    "CommonPrefix",
    "DeleteResult",
    "PutItem",
    "PutResult",
    "R2Client",
    "RetryPolicy",
    "Timeouts",
    "UploadToken",
]

_DEFINED_IN = {
    "R2Client": "prewarmkit.r2.client",
    "CommonPrefix": "prewarmkit.r2.responses",
    **dict.fromkeys(("AttemptEvent", "RetryPolicy", "Timeouts"), "prewarmkit.r2.retry"),
    **dict.fromkeys(("DeleteResult", "PutItem", "PutResult"), "prewarmkit.r2.batches"),
    "UploadToken": "prewarmkit.r2.tokens",
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
