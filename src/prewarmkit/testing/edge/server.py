"""`EdgeServer`: the HTTP side. It owns the socket, the thread and the lock, and knows no rule of caching.

The server runs in a thread with an event loop of its own, so that asyncio, trio and plain tests use it alike.
"""

from __future__ import annotations

import asyncio
import email.utils
import re
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import quote, unquote

from aiohttp import web
from attrs import evolve

from prewarmkit.testing.edge.cache import Cache, Reply
from prewarmkit.testing.edge.gate import Gate
from prewarmkit.testing.edge.origin import Origin, OriginRequest, OriginSource
from prewarmkit.testing.edge.rules import Rules
from prewarmkit.testing.edge.values import EdgeRequest, Fault
from prewarmkit.testing.served import HOST, Served, ServedLifespan, reset

__all__ = ["EdgeServer"]

_CHUNK_BYTES = 64 * 1024
_COLO = re.compile(r"[A-Z]{3}")
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class EdgeServer(ServedLifespan):
    """A CDN edge on this machine, with a bucket behind it, that tells what was asked and can be told to fail.

    Use it as ``with`` or as ``async with``; it may be started once.

    Args:
        colo: The data centre that answers; three capitals. It can be set at any time.
        rules: How the zone is set up.
        origin: A bucket to share with other servers; ``None``: its own.
        clock: POSIX seconds: what ages is measured by it (`prewarmkit.testing.clock.FakeClock`).
        tiered: Whether an upper tier is asked before the origin.
        port: 0 takes a free one.
        ssl_context: Serve https.
    """

    def __init__(
        self,
        *,
        colo: str = "FRA",
        rules: Rules | None = None,
        origin: Origin | None = None,
        clock: Callable[[], float] = time.time,
        tiered: bool = False,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.origin = Origin() if origin is None else origin
        self._clock = clock
        self._cache = Cache(self.origin, Rules() if rules is None else rules, clock, is_tiered=tiered)
        self._colo = _checked_colo(colo)
        self._scheme, self._host = ("http", HOST) if ssl_context is None else ("https", "localhost")
        self._served = Served("The edge server", self._answer, port=port, ssl_context=ssl_context)
        self._lock = threading.RLock()
        self._faults: list[Fault] = []
        self._gate: Gate | None = None
        self._requests: list[EdgeRequest] = []

    def __repr__(self) -> str:
        return f"<EdgeServer colo={self._colo}>"

    # ── what a test sees and sets; any thread ────────────────────────────────

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, to be given as the base URL."""
        return f"{self._scheme}://{self._host}:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._served.port

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, for ``EdgeTarget(addresses=...)``."""
        return f"{HOST}:{self.port}"

    @property
    def colo(self) -> str:
        """The data centre that answers."""
        return self._colo

    @colo.setter
    def colo(self, colo: str) -> None:
        self._colo = _checked_colo(colo)

    @property
    def rules(self) -> Rules:
        """How the zone is set up; what is in the caches stays when it changes."""
        return self._cache.rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        with self._lock:
            self._cache.rules = rules

    @property
    def requests(self) -> list[EdgeRequest]:
        """Every request that was answered, oldest first: a copy."""
        with self._lock:
            return list(self._requests)

    @property
    def origin_requests(self) -> list[OriginRequest]:
        """What the caches asked of the origin, oldest first: a copy."""
        return self.origin.requests

    def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str | None = None,
        cache_control: str | None = None,
        etag: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Store an object in the origin; see `Origin.put`."""
        self.origin.put(
            key, body, content_type=content_type, cache_control=cache_control, etag=etag, headers=headers
        )

    def delete(self, key: str) -> None:
        """Remove an object from the origin; caches keep what they have."""
        self.origin.delete(key)

    def source(self) -> OriginSource:
        """The origin as a source for a pool or a target."""
        return OriginSource(self.origin)

    def holds(self, key: str, *, colo: str | None = None, host: str | None = None) -> bool:
        """Whether a data centre has the object, fresh."""
        with self._lock:
            return self._cache.holds(colo or self._colo, self._cache_key(key, host))

    def purge(self, key: str | None = None, *, host: str | None = None) -> None:
        """Forget an object, or everything, in all data centres."""
        with self._lock:
            self._cache.purge(None if key is None else self._cache_key(key, host))

    def _cache_key(self, key: str, host: str | None) -> str:
        return f"{host or self.url.partition('://')[2]}/{quote(key, safe='/-._~')}"

    def fail(self, *faults: Fault) -> None:
        """Queue faults: each request takes the first that matches it."""
        with self._lock:
            self._faults.extend(faults)

    @property
    def pending_faults(self) -> tuple[Fault, ...]:
        """Faults that no request has met yet."""
        with self._lock:
            return tuple(self._faults)

    @contextmanager
    def gate(self) -> Generator[Gate]:
        """Stop requests before they are answered, until the gate opens or the block ends."""
        gate = Gate()
        self._gate = gate
        try:
            yield gate
        finally:
            self._gate = None
            gate.open()

    # ── in the thread ────────────────────────────────────────────────────────

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path
        key = unquote(path.partition("?")[0]).removeprefix("/")
        with self._lock:
            fault = self._take_fault(request.method, key)
        if (gate := self._gate) is not None:
            await gate.pass_through()
        if fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        if fault.reset:
            _reset(request)
        colo = fault.colo or self._colo
        with self._lock:
            reply = self._reply(request, fault, colo, key)
            said = None if fault.hides_cache else fault.cache_status or reply.cache_status
            response, body = self._response(request, reply, fault, said=said, colo=colo)
            self._requests.append(
                EdgeRequest(
                    method=request.method,
                    path=path,
                    host=request.host,
                    headers={name.lower(): value for name, value in request.headers.items()},
                    status=response.status,
                    cache_status=said,
                    colo=colo,
                    at=self._clock(),
                )
            )
        await response.prepare(request)
        if request.method != "HEAD":
            await self._write(request, response, body, fault.cut_after_bytes)
        elif fault.cut_after_bytes is not None:
            _reset(request)
        await response.write_eof()
        return response

    def _take_fault(self, method: str, key: str) -> Fault:
        for index, fault in enumerate(self._faults):
            if fault.matches(method, key):
                if fault.times > 1:
                    self._faults[index] = evolve(fault, times=fault.times - 1)
                else:
                    del self._faults[index]
                return fault
        return Fault()

    def _reply(self, request: web.Request, fault: Fault, colo: str, key: str) -> Reply:
        if fault.status is not None:
            return Reply(fault.status, None)
        if request.method not in {"GET", "HEAD"}:
            return Reply(405, None)
        # A HEAD is asked of the origin as a GET, and kept like one.
        cache_key = f"{request.host}{request.raw_path}"
        reply = self._cache.ask(colo, cache_key, key)
        if fault.evicts:
            self._cache.evict(colo, cache_key)
        return reply

    def _response(
        self, request: web.Request, reply: Reply, fault: Fault, *, said: str | None, colo: str
    ) -> tuple[web.StreamResponse, memoryview]:
        stored = reply.stored
        body = memoryview(f"error {reply.status}\n".encode() if stored is None else stored.body)
        status = reply.status
        headers = {
            "server": "cloudflare",
            "cf-ray": f"{secrets.token_hex(8)}-{colo}",
            "date": email.utils.formatdate(self._clock(), usegmt=True),
            "content-type": "text/plain" if stored is None else stored.content_type,
        }
        if stored is not None:
            headers |= {"etag": stored.etag, "accept-ranges": "bytes", **stored.headers}
            found = _RANGE.fullmatch(request.headers.get("Range", ""))
            if found is not None and int(found[1]) < len(body):
                last = min(int(found[2] or len(body) - 1), len(body) - 1)
                headers["content-range"] = f"bytes {found[1]}-{last}/{len(body)}"
                status, body = 206, body[int(found[1]) : last + 1]
            elif request.headers.get("If-None-Match", "").removeprefix("W/") == stored.etag:
                status, body = 304, body[:0]
        if said is not None:
            headers["cf-cache-status"] = said
            if reply.age is not None:
                headers["age"] = str(reply.age)
        if fault.retry_after is not None:
            headers["retry-after"] = str(fault.retry_after)
        if status != 304:  # noqa: PLR2004 - HTTP's own
            headers["content-length"] = str(len(body))
        headers |= {name.lower(): value for name, value in fault.headers.items()}
        return web.StreamResponse(status=status, headers=headers), body

    async def _write(
        self, request: web.Request, response: web.StreamResponse, body: memoryview, cut_after: int | None
    ) -> None:
        end = len(body) if cut_after is None else min(cut_after, len(body))
        for start in range(0, end, _CHUNK_BYTES):
            await response.write(bytes(body[start : min(start + _CHUNK_BYTES, end)]))
        if cut_after is not None:
            _reset(request)


def _checked_colo(colo: str) -> str:
    if not _COLO.fullmatch(colo):
        raise ValueError(f"colo is three capitals, such as FRA, not {colo!r}.")
    return colo


def _reset(request: web.Request) -> NoReturn:
    reset(request)
    raise ConnectionResetError
