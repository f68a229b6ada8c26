"""What the demo shows while it runs: lines, and a bar for each long step.

On a terminal the bar moves; anywhere else a line is printed every two seconds. Knows nothing
of what the steps do.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

__all__ = ["Bar", "Screen"]

_LINE_SECONDS = 2.0
_NAME_WIDTH = 10


@define
class Bar:
    """One long step."""

    _screen: Screen
    _what: str
    _total: int
    _progress: Progress | None
    _task: TaskID | None
    _printed_at: float = field(init=False, factory=time.monotonic)

    def update(self, done: int, note: str = "") -> None:
        """So much is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._printed_at >= _LINE_SECONDS:
            self._printed_at = time.monotonic()
            self._screen.say(f"{self._what} {done:,} of {self._total:,}{note and f' · {note}'}")


@define
class Screen:
    """The terminal, or what stands in for it."""

    console: Console

    def say(self, text: str) -> None:
        """Print a line; it may hold anything, a path with brackets too."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def good(self, text: str) -> None:
        """Print what went well."""
        self.console.print(f"✓ {text}", style="green", markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print what one should see."""
        self.console.print(f"! {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def fail(self, text: str) -> None:
        """Print what went wrong."""
        self.console.print(f"✗ {text}", style="red", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, what: str, total: int) -> Generator[Bar]:
        """Show a step of ``total`` things."""
        if not self.console.is_terminal:
            yield Bar(self, what, total, None, None)
            return
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Counted("{task.completed:,}/{task.total:,}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self.console,
            transient=True,
        )
        with progress:
            yield Bar(
                self, what, total, progress, progress.add_task(what.ljust(_NAME_WIDTH), total=total, note="")
            )


class _Counted(TextColumn):
    """How many of how many, always as wide as at the end, so that nothing jumps."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.pad_left(2 * len(f"{task.total or 0:,.0f}") + 1 - len(text))
        return text
