"""An edge server for tests and examples: a bucket behind a cache that speaks Cloudflare's headers over real HTTP.

::

    with EdgeServer() as edge:
        edge.put("a.jpg", b"...", cache_control="public, max-age=60")
        async with EdgeTarget(edge.url, verify_delays=(0, 0, 0)) as target:
            warmed = await target.warm(Media("a.jpg"), edge.source())
        assert [request.cache_status for request in edge.requests] == ["MISS", "HIT"]

Its rules are those of Cloudflare's documentation; where that is silent, the docstring of the rule says so.
"""

from __future__ import annotations

try:
    import aiohttp as _aiohttp  # noqa: F401 - only whether it is there  # pyright: ignore[reportUnusedImport]
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "The edge server needs aiohttp: pip install 'prewarmkit[testing]'.", name=missing.name
    ) from missing

from prewarmkit.testing.edge.gate import Gate
from prewarmkit.testing.edge.origin import Origin, OriginRequest, OriginSource
from prewarmkit.testing.edge.rules import DEFAULT_EXTENSIONS, Rules
from prewarmkit.testing.edge.server import EdgeServer
from prewarmkit.testing.edge.values import EdgeRequest, Fault

__all__ = [
    "DEFAULT_EXTENSIONS",
    "EdgeRequest",
    "EdgeServer",
    "Fault",
    "Gate",
    "Origin",
    "OriginRequest",
    "OriginSource",
    "Rules",
]
