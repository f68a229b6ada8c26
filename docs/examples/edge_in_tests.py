"""An edge on this machine: what a pool makes of it, before there is a zone."""

from __future__ import annotations

import anyio

from prewarmkit import PrewarmPool
from prewarmkit.stores import MemoryStore
from prewarmkit.targets import EdgeTarget
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.edge import EdgeServer


async def main() -> None:
    clock = FakeClock()
    with EdgeServer(colo="FRA", clock=clock) as server:
        server.put("intro.mp4", b"...", cache_control="public, max-age=600")
        async with (
            EdgeTarget(server.url, verify_delays=(0, 0, 0), clock=clock) as edge,
            PrewarmPool(server.source(), edge, MemoryStore()) as pool,
        ):
            handle = await pool.warm("intro.mp4")
            print(handle.details["colo"], [request.cache_status for request in server.requests])


if __name__ == "__main__":
    anyio.run(main)
