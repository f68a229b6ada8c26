"""One call that sends an HTTP request, and what carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.transports.auth import SigV4Auth as SigV4Auth
    from prewarmkit.transports.base import Request as Request
    from prewarmkit.transports.base import Response as Response
    from prewarmkit.transports.base import Transport as Transport
    from prewarmkit.transports.direct import DirectTransport as DirectTransport
    from prewarmkit.transports.fast import FastTransport as FastTransport
    from prewarmkit.transports.httpx import HttpxTransport as HttpxTransport

__all__ = [
    "DirectTransport",
    "FastTransport",
    "HttpxTransport",
    "Request",
    "Response",
    "SigV4Auth",
    "Transport",
]

_DEFINED_IN = {
    **dict.fromkeys(
        (
            "Request",
            "Response",
            "Transport",
        ),
        "prewarmkit.transports.base",
    ),
    **dict.fromkeys(
        ("DirectTransport",),
        "prewarmkit.transports.direct",
    ),
    **dict.fromkeys(
        ("FastTransport",),
        "prewarmkit.transports.fast",
    ),
    **dict.fromkeys(
        ("HttpxTransport",),
        "prewarmkit.transports.httpx",
    ),
    **dict.fromkeys(
        ("SigV4Auth",),
        "prewarmkit.transports.auth",
    ),
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
