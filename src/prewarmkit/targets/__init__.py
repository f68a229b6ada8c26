"""Where media are pushed to, and how that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.budget import Budget as Budget
    from prewarmkit.budget import Window as Window
    from prewarmkit.errors import BadHandle as BadHandle
    from prewarmkit.errors import ChatDead as ChatDead
    from prewarmkit.errors import MediaUnfit as MediaUnfit
    from prewarmkit.errors import Moved as Moved
    from prewarmkit.errors import RateLimited as RateLimited
    from prewarmkit.errors import RouteUnfit as RouteUnfit
    from prewarmkit.errors import SourceChanged as SourceChanged
    from prewarmkit.errors import SourceMissing as SourceMissing
    from prewarmkit.errors import TargetDown as TargetDown
    from prewarmkit.errors import TargetFailure as TargetFailure
    from prewarmkit.errors import TooLarge as TooLarge
    from prewarmkit.errors import Transient as Transient
    from prewarmkit.media import Warmed as Warmed
    from prewarmkit.targets.base import Services as Services
    from prewarmkit.targets.base import WarmTarget as WarmTarget
    from prewarmkit.targets.base import source_failures as source_failures
    from prewarmkit.targets.edge.target import EdgeTarget as EdgeTarget
    from prewarmkit.targets.telegram.handles import WeakReason as WeakReason
    from prewarmkit.targets.telegram.limits import RateLimits as RateLimits
    from prewarmkit.targets.telegram.target import TelegramTarget as TelegramTarget

__all__ = [
    "BadHandle",
    "Budget",
    "ChatDead",
    "EdgeTarget",
    "MediaUnfit",
    "Moved",
    "RateLimited",
    "RateLimits",
    "RouteUnfit",
    "Services",
    "SourceChanged",
    "SourceMissing",
    "TargetDown",
    "TargetFailure",
    "TelegramTarget",
    "TooLarge",
    "Transient",
    "WarmTarget",
    "Warmed",
    "WeakReason",
    "Window",
    "source_failures",
]

_DEFINED_IN = {
    **dict.fromkeys(
        (
            "Budget",
            "Window",
        ),
        "prewarmkit.budget",
    ),
    **dict.fromkeys(
        (
            "BadHandle",
            "ChatDead",
            "MediaUnfit",
            "Moved",
            "RateLimited",
            "RouteUnfit",
            "SourceChanged",
            "SourceMissing",
            "TargetDown",
            "TargetFailure",
            "TooLarge",
            "Transient",
        ),
        "prewarmkit.errors",
    ),
    **dict.fromkeys(
        ("Warmed",),
        "prewarmkit.media",
    ),
    **dict.fromkeys(
        (
            "Services",
            "WarmTarget",
            "source_failures",
        ),
        "prewarmkit.targets.base",
    ),
    **dict.fromkeys(
        ("EdgeTarget",),
        "prewarmkit.targets.edge.target",
    ),
    **dict.fromkeys(
        ("WeakReason",),
        "prewarmkit.targets.telegram.handles",
    ),
    **dict.fromkeys(
        ("RateLimits",),
        "prewarmkit.targets.telegram.limits",
    ),
    **dict.fromkeys(
        ("TelegramTarget",),
        "prewarmkit.targets.telegram.target",
    ),
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
