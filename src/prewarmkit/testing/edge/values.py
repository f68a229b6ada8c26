"""What the edge server is told and what it remembers: frozen values, no behaviour but their checks."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

__all__ = ["EdgeRequest", "Fault"]


def _positive(_instance: object, attribute: Any, value: float) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must be 0 or more, not {value!r}.")


@frozen(kw_only=True)
class EdgeRequest:
    """One answered request.

    Attributes:
        method: GET or HEAD.
        path: As it was sent, still encoded.
        host: The ``host`` header.
        headers: Names in lower case.
        status: What it was answered.
        cache_status: The ``cf-cache-status`` of the answer; ``None``: it had none.
        colo: The data centre that answered.
        at: The server's clock.
    """

    method: str
    path: str
    host: str
    headers: dict[str, str] = field(hash=False)
    status: int
    cache_status: str | None
    colo: str
    at: float


@frozen(kw_only=True)
class Fault:
    """One way for the next matching request to go wrong.

    A fault either answers with ``status`` before the cache is asked, or alters an answer that is otherwise right.

    Attributes:
        status: Answer with it, with no word of a cache.
        headers: Added to the answer; one that stands in it already is replaced.
        retry_after: The header of that name.
        cache_status: What ``cf-cache-status`` says instead of the truth.
        hides_cache: Neither ``cf-cache-status`` nor ``age`` is in the answer: a Worker's, r2.dev's.
        cut_after_bytes: Reset the connection after so many bytes of the body; 0 means after the head.
        reset: Reset it instead of answering.
        delay_seconds: Wait so long before answering.
        colo: This data centre answers, with a cache of its own.
        evicts: What was stored for this request is gone right after it.
        method: Only requests of this method; ``None``: any.
        key: Only requests for this key; ``None``: any.
        times: How many matching requests it hits.
    """

    status: int | None = None
    headers: dict[str, str] = field(factory=dict[str, str], hash=False)
    retry_after: str | int | None = None
    cache_status: str | None = None
    hides_cache: bool = False
    cut_after_bytes: int | None = None
    reset: bool = False
    delay_seconds: float = field(default=0.0, validator=_positive)
    colo: str | None = None
    evicts: bool = False
    method: str | None = None
    key: str | None = None
    times: int = 1

    def __attrs_post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times must be 1 or more, not {self.times!r}.")
        if self.status is not None and not 200 <= self.status <= 599:  # noqa: PLR2004 - HTTP's own bounds
            raise ValueError(f"status must be 200 to 599, not {self.status!r}.")

    def matches(self, method: str, key: str) -> bool:
        """Whether it is about such a request."""
        return self.method in {None, method} and self.key in {None, key}
