"""One request to an edge, and its body read and thrown away.

Owns the deadline, and that no more than one chunk is ever in memory. Knows nothing of
tries, rows or what a verdict leads to.
"""

from __future__ import annotations

import hashlib
from typing import Any

from attrs import evolve, frozen

from prewarmkit.errors import TargetDown, Transient, TransportError
from prewarmkit.targets.edge.answers import Answer
from prewarmkit.targets.edge.places import Place
from prewarmkit.targets.edge.verdicts import Wanted, WeakReason, mismatch, verdict_of
from prewarmkit.transports.base import Request, Response, Transport

__all__ = ["STALL_SECONDS", "deadline_of", "request"]

STALL_SECONDS = 130.0
"""Longer than Cloudflare itself waits for an origin (524 after 120 s): its answer says more than our giving up."""

_SLOWEST_BYTES_PER_SECOND = 64 * 1024
_OK = 200


def deadline_of(size: int) -> float:
    """Seconds for an exchange whose body has ``size`` bytes."""
    return STALL_SECONDS + 20.0 + size / _SLOWEST_BYTES_PER_SECOND


@frozen(kw_only=True)
class _Asked:
    """What one request is about."""

    method: str
    place: Place
    key: str
    wanted: Wanted
    status_header: str


async def request(
    transport: Transport, *, method: str, place: Place, key: str, wanted: Wanted, status_header: str
) -> Answer:
    """Ask once, without ``Range``: the edge keeps what was asked for, which must be the whole.

    The body of a GET is read to its end; not where the head says already that it is another object, or
    that none is kept.

    Raises:
        Transient: No answer, or not all of it.
        TargetDown: None ever comes this way: a certificate that is not trusted.
    """
    # As it is stored: what is compressed on the way has another length.
    headers: tuple[tuple[str, str], ...] = (("accept-encoding", "identity"), ("accept", "*/*"))
    if place.address is not None:
        headers = (("host", place.host), *headers)
    asked = _Asked(method=method, place=place, key=key, wanted=wanted, status_header=status_header)
    try:
        async with transport.send(
            Request(method, place.asked_url(key), headers), deadline_seconds=deadline_of(wanted.size)
        ) as response:
            return await _read(asked, response)
    except TransportError as error:
        if not error.is_retryable:
            raise TargetDown(f"{place} cannot be asked: {error}") from error
        raise Transient(f"{place} gave no whole answer for {key!r}: {error}", error.request_sent) from error


async def _read(asked: _Asked, response: Response) -> Answer:
    answer = Answer.of(asked.method, response.status, response.headers, status_header=asked.status_header)
    if asked.method != "GET" or answer.status != _OK or mismatch(answer, asked.wanted) is not None:
        return answer
    verdict = verdict_of(answer)
    if isinstance(verdict, WeakReason) and verdict.is_final:
        return answer
    digest: Any = None if asked.wanted.sha256 is None else hashlib.sha256()
    received = 0
    async for chunk in response.body:
        received += len(chunk)
        if received > asked.wanted.size:
            break
        if digest is not None:
            digest.update(chunk)
    if received < asked.wanted.size == answer.length:
        raise Transient(
            f"{asked.place} sent {received} bytes of the {answer.length} that it announced for {asked.key!r}.",
            outcome_unknown=True,
        )
    return evolve(answer, received=received, sha256=None if digest is None else digest.hexdigest())
