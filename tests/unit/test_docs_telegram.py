"""What docs/telegram.md says is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prewarmkit.media import MediaKind
from prewarmkit.targets import RateLimits, WeakReason
from prewarmkit.targets.telegram.routes import ROUTES, URL_RULES

PAGE = (Path(__file__).parents[2] / "docs" / "telegram.md").read_text()


@pytest.mark.parametrize("kind", list(MediaKind))
def test_the_page_has_what_telegram_fetches_of_each_kind(kind: MediaKind) -> None:
    """The sizes of the table are those that decide."""
    [row] = re.findall(
        rf"^\| {kind.value.replace('_', ' ')} \|.*$", PAGE.partition("## Chats")[0], re.MULTILINE
    )
    rule = URL_RULES.get(kind)
    if rule is None:
        assert "never" in row
    else:
        assert f"| {rule.max_bytes // 1024 // 1024} MB" in row


def test_the_page_names_every_route_and_every_weak_reason() -> None:
    for name in (*ROUTES, *WeakReason):
        assert f'"{name}"' in PAGE or f"`{name}`" in PAGE


def test_the_page_has_the_default_limits() -> None:
    limits = RateLimits()
    for text in (
        f"| one group or channel | {limits.group_per_minute} in any {limits.window_seconds:.0f} s",
        f"| one private chat | {limits.private_per_minute} in any",
        f"| one chat | {limits.chat_per_second} in any second",
        f"| the whole bot | {limits.bot_per_second} in any second, {limits.reserve_per_second} of them",
    ):
        assert text in PAGE


def test_the_code_on_the_page_is_code() -> None:
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        compile(code, "docs/telegram.md", "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT
