"""How fast the demo may send: Telegram's limits, as numbers and in words. Pure."""

from __future__ import annotations

from prewarmkit.cli.demo.arguments import Options
from prewarmkit.targets import RateLimits

__all__ = ["allowed_per_minute", "limits_of", "said"]


def limits_of(*, has_budget: bool) -> RateLimits | None:
    """The limits that warming keeps to; ``None``: none."""
    return RateLimits() if has_budget else None


def allowed_per_minute(options: Options) -> int | None:
    """Media a minute that the limits allow in the long run; ``None``: as many as one can."""
    limits = limits_of(has_budget=options.has_budget)
    if limits is None:
        return None
    bot = (limits.bot_per_second - limits.reserve_per_second) * 60
    return min(bot, _each(limits) * options.chats)


def said(options: Options) -> str:
    """The limits in words."""
    limits = limits_of(has_budget=options.has_budget)
    if limits is None:
        return "budget: none, so as fast as this machine goes (Telegram itself would not take it)"
    chats = f"{options.chats} private warmup chat{'' if options.chats == 1 else 's'}"
    return (
        f"budget: {chats}, each {_each(limits)} media a minute, together {allowed_per_minute(options):,} "
        "(--no-budget: no limits)"
    )


def _each(limits: RateLimits) -> int:
    return min(limits.chat_per_second * 60, limits.private_per_minute)
