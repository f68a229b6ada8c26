"""How a pool works: numbers that a host may set, from code or from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import attrs
from attrs import field, frozen

from prewarmkit.errors import InvalidSetting

__all__ = ["ENV_PREFIX", "PoolSettings", "WeakPolicy"]

ENV_PREFIX = "MEDIA_PREWARM_"
"""What the original system called its variables; ours keep the names."""

WeakPolicy = Literal["retry", "store", "reject"]


def _at_least(bound: float) -> Callable[[Any, Any, Any], None]:
    def check(_settings: object, attribute: Any, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= bound:
            raise InvalidSetting(f"{attribute.name} must be {bound} or more, not {value!r}.")

    return check


def _whole(bound: int) -> Callable[[Any, Any, Any], None]:
    def check(_settings: object, attribute: Any, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < bound:
            raise InvalidSetting(
                f"{attribute.name} must be a whole number of {bound} or more, not {value!r}."
            )

    return check


def _above_zero(_settings: object, attribute: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidSetting(f"{attribute.name} must be more than 0 seconds, not {value!r}.")


def _weak_policy(_settings: object, _attribute: object, value: object) -> None:
    if value not in {"retry", "store", "reject"}:
        raise InvalidSetting(f"weak must be 'retry', 'store' or 'reject', not {value!r}.")


@frozen(kw_only=True)
class PoolSettings:
    """How a `PrewarmPool` works. Every field is keyword-only and checked when it is made.

    Attributes:
        concurrency: Media that are warmed at once, at least 1.
        max_queue: Media that one process holds in memory, leased ahead; with `MemoryStore`, all pending ones.
        max_backlog: Pending media that a durable store may hold; ``None``: no bound.
        poll_interval_seconds: The fall-back poll. Work starts on arrival; this finds what no hint told of.
        retry_weak_id: Tries by another route after a weak handle; 0 for none.
        weak: What becomes of a handle that stays weak: ``store`` makes it ready with its reasons,
            ``retry`` and ``reject`` fail it (``reject`` without a further try).
        max_attempts: Attempts in all, the first included.
        retry_base_seconds: Delay before the second attempt; it doubles each time, ±10 %.
        lease_seconds: How long a dead process keeps its media from the others.
        failure_ttl_seconds: How long a final failure answers `PrewarmPool.warm` without a new try.
        lookup_cache_seconds: Longest life of a handle in the process's own cache; 0 turns it off.
        down_seconds: First pause of a target that is down; it doubles up to five minutes.
        breaker_failures: Attempts in a row that fail for no medium's fault before their target counts as
            down; 0: never.
        deadline_seconds: Longest time that an attempt may take in all.
        target_concurrency: Media that one target may have at once, however idle the others are. ``None``: in a pool
            with several targets all workers but one, so that a target that hangs leaves the others one.
        live_workers: Workers kept for media that somebody waits for (`PrewarmPool.warm`, `PrewarmPool.require`).
        keep_warm: Whether a handle that expires is warmed again before it does, as long as nobody purges its row.
        adaptive: Whether the pool finds out how many media each target takes at once, up to ``concurrency``.
        autostart: Whether entering the pool starts its workers.
    """

    concurrency: int = field(default=5, validator=_whole(1))
    max_queue: int = field(default=500, validator=_whole(1))
    max_backlog: int | None = field(default=None, validator=attrs.validators.optional(_whole(1)))
    poll_interval_seconds: float = field(default=2.0, validator=_above_zero)
    retry_weak_id: int = field(default=1, validator=_whole(0))
    weak: WeakPolicy = field(default="retry", validator=_weak_policy)
    max_attempts: int = field(default=6, validator=_whole(1))
    retry_base_seconds: float = field(default=60.0, validator=_at_least(0))
    lease_seconds: float = field(default=60.0, validator=_above_zero)
    failure_ttl_seconds: float = field(default=30.0, validator=_at_least(0))
    lookup_cache_seconds: float = field(default=5.0, validator=_at_least(0))
    down_seconds: float = field(default=30.0, validator=_above_zero)
    breaker_failures: int = field(default=10, validator=_whole(0))
    deadline_seconds: float = field(default=900.0, validator=_above_zero)
    target_concurrency: int | None = field(default=None, validator=attrs.validators.optional(_whole(1)))
    live_workers: int = field(default=0, validator=_whole(0))
    keep_warm: bool = True
    adaptive: bool = False
    autostart: bool = True

    def __attrs_post_init__(self) -> None:
        if self.live_workers >= self.concurrency:
            raise InvalidSetting(
                f"live_workers must be less than concurrency, which is {self.concurrency}, not {self.live_workers!r}:"
                " nobody would be left for the others."
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Settings from ``MEDIA_PREWARM_*`` variables; what is not set keeps its default.

        A field's variable is the prefix and its name in capitals (``MEDIA_PREWARM_MAX_ATTEMPTS``),
        but for ``MEDIA_PREWARM_INTERVAL_MS``: the fall-back poll, in milliseconds.

        Args:
            environ: Where to read; ``None``: ``os.environ``.

        Raises:
            InvalidSetting: A value does not parse, or no setting has that name; it is named.
        """
        values: dict[str, Any] = {}
        for name, text in (os.environ if environ is None else environ).items():
            if not name.startswith(ENV_PREFIX):
                continue
            known = _VARIABLES.get(name)
            if known is None:
                raise InvalidSetting(f"{name} is no setting; known are {', '.join(sorted(_VARIABLES))}.")
            setting, parse = known
            try:
                values[setting] = parse(text.strip())
            except ValueError:
                raise InvalidSetting(f"{name}={text!r} cannot be read as {_EXPECTED[parse]}.") from None
        try:
            return cls(**values)
        except InvalidSetting as error:
            names = {setting: name for name, (setting, _) in _VARIABLES.items()}
            wrong = str(error).partition(" ")[0]
            raise InvalidSetting(f"{names.get(wrong, wrong)}: {error}") from None


def _milliseconds(text: str) -> float:
    return float(text) / 1000


def _flag(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


_EXPECTED: Mapping[Callable[[str], Any], str] = {
    int: "a whole number",
    float: "a number of seconds",
    str: "text",
    _milliseconds: "a number of milliseconds",
    _flag: "1 or 0",
}

_PARSERS: Mapping[str, Callable[[str], Any]] = {"int": int, "int | None": int, "float": float, "bool": _flag}


def _variables() -> dict[str, tuple[str, Callable[[str], Any]]]:
    variables = {
        ENV_PREFIX + each.name.upper(): (each.name, _PARSERS.get(str(each.type), str))
        for each in attrs.fields(PoolSettings)
        if each.name != "poll_interval_seconds"
    }
    variables[ENV_PREFIX + "INTERVAL_MS"] = ("poll_interval_seconds", _milliseconds)
    return variables


_VARIABLES = _variables()
