"""A proxy that breaks what passes through it, where and how a test says.

::

    import anyio
    import httpx

    from prewarmkit.testing import Fault, FaultProxy
    from prewarmkit.testing.wire import Wire, serve

    async def hello(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(200, body=b"hello")

    async def main() -> None:
        async with serve(hello) as server, FaultProxy.before(server.url) as proxy:
            proxy.next(Fault.answers(503, retry_after=1))                          # whoever comes first
            cut = proxy.always(Fault.close("answer body", after=3), when=lambda request: request.path == "/film")
            async with httpx.AsyncClient(base_url=proxy.url) as client:
                print((await client.get("/")).status_code)                         # 503
                print((await client.get("/")).text)                                # hello
                try:
                    await client.get("/film")
                except httpx.RemoteProtocolError as error:
                    print(error)                                                   # received 3 bytes, expected 5
            print(cut.hits[0].outcome, len(server.requests))                       # cut 2
            await proxy.wait_closed()                                              # the client leaked nothing

    anyio.run(main)

What can go wrong:

- *the connection*, at any byte of request and answer, head and body: `Fault.reset`, `Fault.close` (a truncated body),
  `Fault.stall`, `Fault.dribble` (slow headers, a slow body); while it is idle: `Fault.close_idle`, `FaultProxy.drop_idle`;
- *the answer*: another instead (`Fault.answers`, `Fault.time_too_skewed`), other headers (`Fault.headers`, `Fault.wrong_length`),
  done but never told (`Fault.lost_answer`), done twice (`Fault.duplicate`).

`Fault` itself takes several of these at once. The proxy is in the middle of TCP, not of TLS, and a client that
half-closes its connection counts as gone. One that hangs up while its own body is held back is noticed once that goes on. `FaultProxy.log` has every request and what became of it.
"""

from __future__ import annotations

from prewarmkit.testing.faults.fault import Answer, Ending, Fault, Stage, Strike
from prewarmkit.testing.faults.plan import Exchange, FaultRule, ProxiedRequest, ProxyStatistics
from prewarmkit.testing.faults.proxy import FaultProxy

__all__ = [
    "Answer",
    "Ending",
    "Exchange",
    "Fault",
    "FaultProxy",
    "FaultRule",
    "ProxiedRequest",
    "ProxyStatistics",
    "Stage",
    "Strike",
]
