"""`EdgeTarget`: asks a CDN edge for a medium before anybody else does, and looks whether it was kept.

Owns what is asked of the source, which places are asked, and what their verdicts add up
to. What happens at one place is `priming`'s; queues, rows and retries are the pool's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import ClassVar, Self

import anyio
import anyio.to_thread

from prewarmkit.errors import ConfigurationError, SourceMissing, TargetFailure
from prewarmkit.media import Media, ObjectInfo, Warmed
from prewarmkit.sources.base import MediaSource
from prewarmkit.targets.base import source_failures
from prewarmkit.targets.edge.answers import Answer
from prewarmkit.targets.edge.arguments import (
    checked_clock,
    checked_delays,
    checked_flag,
    checked_header,
    checked_id,
    checked_transport,
    checked_ttl,
)
from prewarmkit.targets.edge.calls import STALL_SECONDS, request
from prewarmkit.targets.edge.failures import NotServed
from prewarmkit.targets.edge.places import Place, places_of
from prewarmkit.targets.edge.priming import Priming, Result
from prewarmkit.targets.edge.verdicts import Wanted
from prewarmkit.transports.base import Transport

__all__ = ["EdgeTarget"]

_METHODS = ("GET", "HEAD")
_MOST_KNOWN = 10_000
_VERIFY_DELAYS = (0.5, 1.0, 1.5)


class EdgeTarget:
    """A CDN edge in front of a bucket, such as Cloudflare before an R2 custom domain.

    Example::

        async with EdgeTarget("https://media.example.com") as edge:
            async with PrewarmPool(r2, edge, store) as pool:
                await pool.enqueue("videos/intro.mp4")

    The handle is the URL. It expires: a pool warms it again by itself (`PoolSettings.keep_warm`). An edge is
    warm per data centre: the one that answers this process, and, with Tiered Cache, the tier above it.

    Args:
        base_url: What stands before a key in a viewer's URL, or several: each is primed, the first one gives
            the handle. Without user, password and query: it stands in rows and logs.
        verify: Ask again after a fill, to see whether it was kept.
        method: GET reads every byte of a fill and compares length and, where known, SHA-256. ``"HEAD"`` reads
            none: enough at an edge that makes a GET of it, as Cloudflare does, and half the traffic.
        addresses: IP addresses of the edge, with a port where needed, each of which is primed for every
            base URL. The name in ``host`` and in TLS stays the base URL's.
        id: Stands in rows; ``None``: ``edge:`` and the first base URL without its scheme.
        edge_ttl: How long the zone's Cache Rule keeps objects, where it has one: no header tells.
        match_etag: Whether the edge's ETag must be the source's. Not with sources that make up their own,
            as `DirectorySource` does.
        status_header: Where the cache says what it did: for nginx, a header with ``$upstream_cache_status``.
        verify_delays: Seconds before each further look after a fill.
        transport: To send by; used, never closed. ``None``: its own, made on entering.
        clock: POSIX seconds, for `Warmed.expires_at`.

    Raises:
        prewarmkit.errors.ConfigurationError: Something of it cannot be.
    """

    ignores_kind: ClassVar[bool] = True
    """A URL is the same whatever the medium is called: one row a key."""

    def __init__(
        self,
        base_url: str | Iterable[str],
        *,
        verify: bool = True,
        method: str = "GET",
        addresses: Iterable[str] = (),
        id: str | None = None,  # noqa: A002 - as the protocol calls it
        edge_ttl: float | timedelta | None = None,
        match_etag: bool = True,
        status_header: str = "cf-cache-status",
        verify_delays: Sequence[float] = _VERIFY_DELAYS,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._places = places_of(base_url, addresses)
        if method not in _METHODS:
            raise ConfigurationError(f"method must be GET or HEAD, not {method!r}.")
        if transport is not None and any(place.tls_name for place in self._places):
            raise ConfigurationError(
                "addresses of an https edge need a transport of the target's own, which asks TLS for the right name: "
                "leave out transport."
            )
        self._id = checked_id(id, self._places[0])
        self._verify = checked_flag(verify, "verify")
        self._match_etag = checked_flag(match_etag, "match_etag")
        self._method = method
        self._edge_ttl = checked_ttl(edge_ttl)
        self._status_header = checked_header(status_header)
        self._delays = checked_delays(verify_delays)
        self._clock = checked_clock(clock)
        self._given = checked_transport(transport)
        self._transports = self._lent()
        self._exits: AsyncExitStack | None = None
        self._known: OrderedDict[tuple[Place, str], Wanted] = OrderedDict()

    def __repr__(self) -> str:
        return f"EdgeTarget(id={self._id!r}, places={len(self._places)}, method={self._method!r}, verify={self._verify})"

    @property
    def id(self) -> str:
        """Which edge."""
        return self._id

    async def __aenter__(self) -> Self:
        if self._exits is not None:
            raise RuntimeError(f"{self!r} is entered already: enter it once, and share it.")
        async with AsyncExitStack() as stack:
            names = {place.tls_name for place in self._places}
            self._transports = {name: await self._opened(stack, name) for name in names}
            self._exits = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        stack, self._exits, self._transports = self._exits, None, self._lent()
        if stack is not None:
            await stack.aclose()

    def _lent(self) -> dict[str | None, Transport]:
        return {} if self._given is None else {None: self._given}

    async def _opened(self, stack: AsyncExitStack, tls_name: str | None) -> Transport:
        if self._given is not None:
            return self._given
        from prewarmkit.transports.direct import DirectTransport

        context = None
        if tls_name is not None:
            from prewarmkit.targets.edge.named_tls import context_for

            context = await anyio.to_thread.run_sync(context_for, tls_name)
        return await stack.enter_async_context(
            DirectTransport(stall_timeout=STALL_SECONDS, ssl_context=context)
        )

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        """Have every place fetch ``media``, and return its URL.

        See `prewarmkit.targets.WarmTarget.warm`. The source is asked for the object's size and ETag only, and first: an
        edge that is asked for what is not there yet keeps the 404.
        """
        self._check_connected()
        url = self._places[0].url(media.key)
        with source_failures(media.key):
            info = await source.head(media.key)
        wanted = Wanted(info.size, info.etag if self._match_etag else None, media.sha256)
        try:
            results = await self._primed(media.key, wanted)
        except NotServed as failure:
            await self._check_still_there(media.key, source, failure)
            raise
        return self._warmed(url, info, results)

    async def _primed(self, key: str, wanted: Wanted) -> list[Result]:
        if len(self._places) == 1:
            return [await self._prime(self._places[0], key, wanted)]
        results: dict[Place, Result] = {}
        failures: dict[Place, TargetFailure] = {}

        async def one(place: Place) -> None:
            try:
                results[place] = await self._prime(place, key, wanted)
            except TargetFailure as failure:
                failures[place] = failure

        async with anyio.create_task_group() as tasks:
            for place in self._places:
                tasks.start_soon(one, place)
        if failures:
            # In their order, and first what says most: never again; then what is not the medium's fault.
            found = [failures[place] for place in self._places if place in failures]
            raise min(found, key=lambda failure: (not failure.is_final, failure.spends_attempt))
        return [results[place] for place in self._places]

    async def _prime(self, place: Place, key: str, wanted: Wanted) -> Result:
        priming = Priming(
            place,
            key,
            wanted,
            partial(self._ask, place, key, wanted),
            self._verify,
            self._delays,
            self._edge_ttl,
        )
        known = self._known.get((place, key))
        # Without an ETag nothing tells whether it is the same content still.
        is_known = known == wanted and wanted.etag is not None
        result = await priming.run(method=self._method, is_known=is_known)
        if result.is_read:
            self._known[place, key] = wanted
            self._known.move_to_end((place, key))
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return result

    async def _ask(self, place: Place, key: str, wanted: Wanted, method: str) -> Answer:
        return await request(
            self._transports[place.tls_name],
            method=method,
            place=place,
            key=key,
            wanted=wanted,
            status_header=self._status_header,
        )

    async def _check_still_there(self, key: str, source: MediaSource, failure: NotServed) -> None:
        """A 404 of an object that is gone from the source too is no failure of the edge's."""
        try:
            with source_failures(key):
                await source.head(key)
        except SourceMissing as missing:
            raise missing from failure
        except TargetFailure:
            return

    def _warmed(self, url: str, info: ObjectInfo, results: list[Result]) -> Warmed:
        now = self._clock()
        ends = [end for result in results if (end := result.expires_at(now)) is not None]
        first = results[0]
        details = {
            **first.facts(),
            "etag": first.answer.etag,
            "size": info.size,
            "content_type": first.answer.header("content-type"),
            "requests": sum(result.requests for result in results),
        }
        if len(results) > 1:
            details["places"] = [result.facts() for result in results]
        return Warmed(
            url,
            unique_id=first.answer.etag,
            weak=tuple(dict.fromkeys(result.weak for result in results if result.weak is not None)),
            expires_at=min(ends, default=None),
            details=details,
        )

    def _check_connected(self) -> None:
        if not self._transports:
            raise ConfigurationError(
                f"{self!r} is not entered: use `async with` before the pool enters, or give it transport=."
            )
