"""Where media are pushed to: the protocol that every target fulfils.

A target gets a medium and a source, and gives a `Warmed` or raises one of the closed
set of failures (`prewarmkit.errors.TargetFailure`). It knows nothing of queues, rows,
retries or the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from prewarmkit.budget import Budget
from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    NotFound,
    R2Error,
    SourceChanged,
    SourceMissing,
    TargetDown,
    Transient,
    TransportError,
)
from prewarmkit.media import Media, Warmed
from prewarmkit.sources.base import MediaSource
from prewarmkit.stores.base import KeyValue

__all__ = ["Services", "WarmTarget", "source_failures"]

# Refusals of who we are, rather than of what we asked for (R2's error codes; S3's for other services).
_LOCKED_OUT = frozenset(
    {
        "ExpiredRequest",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NotEntitled",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "Unauthorized",
    }
)


@runtime_checkable
class WarmTarget(Protocol):
    """Something to warm. A class of your own needs no base class.

    Two members are optional: ``ignores_kind = True`` gives one row a key whatever the
    kind, and ``bind(services)`` is called when a pool enters.
    """

    @property
    def id(self) -> str:
        """Stands in rows, so it must be stable, and never a secret: a bot's number, a zone."""
        ...

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        """Push one medium and return its handle.

        Raises:
            TargetFailure: What went wrong, by the class that says what to do about it.
        """
        ...


@frozen
class Services:
    """What a pool lends to a target's ``bind``.

    Attributes:
        budget: Rate budget of this target, shared by all that share the store.
        state: Small durable key-value facts of this target.
        emit: Takes a frozen event into the pool's stream.
    """

    budget: Budget
    state: KeyValue
    emit: Callable[[Any], None]


@contextmanager
def source_failures(key: str) -> Generator[None]:
    """Turn a source's errors, raised inside, into the failures that a pool acts on."""
    try:
        yield
    except NotFound as error:
        if error.code == "NoSuchBucket":
            raise TargetDown(f"The source cannot be read: {error}") from error
        raise SourceMissing(f"The source has no {key!r}: {error}") from error
    except AccessDenied as error:
        if error.status == HTTPStatus.UNAUTHORIZED or error.code in _LOCKED_OUT:
            # Nobody's medium is at fault: burn no attempts, hold the work until this is mended.
            raise TargetDown(f"The source refuses us: {error}") from error
        # One key may be out of bounds for us: it must not hold all the others.
        raise Transient(f"{key!r} may not be read: {error}") from error
    except BodyFault as error:
        raise SourceChanged(f"{key!r} could not be read whole: {error}") from error
    except (R2Error, TransportError) as error:
        raise Transient(f"{key!r} could not be read: {error}") from error
