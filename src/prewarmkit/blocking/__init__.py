"""`PrewarmPool` for hosts without an event loop: Django, Flask, scripts. Its loop runs in a thread of its own."""

from __future__ import annotations

from prewarmkit.blocking.pool import PrewarmPool

__all__ = ["PrewarmPool"]
