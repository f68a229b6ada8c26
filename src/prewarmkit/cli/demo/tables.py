"""The tables at the end: the original system beside this run, then this run by itself.

Owns how numbers look. Knows nothing of where they come from.
"""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table

from prewarmkit.cli.demo.figures import ORIGINAL, Figures, Spans

__all__ = ["show"]


def show(console: Console, figures: Figures) -> None:
    """Print the tables, and what one should know to read them."""
    console.print()
    if figures.warmed:
        console.print(_beside_the_original(figures))
    console.print(_spans(figures))
    if figures.warmed:
        console.print(_facts(figures))
        console.print()
    for note in _notes(figures):
        console.print(note, style="dim", markup=False, highlight=False)


def _beside_the_original(figures: Figures) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="The original system, and this run", title_justify="left")
    table.add_column("")
    for phase in ORIGINAL:
        table.add_column(f"{phase.name}\n{'done' if phase.is_done else 'planned'}", justify="right")
    table.add_column("this run\nmeasured", justify="right", style="bold green")
    rate = figures.media_per_minute
    table.add_row(
        "media a minute",
        *(f"{phase.media_per_minute:,}" for phase in ORIGINAL),
        "—" if rate is None else f"{rate:,.0f}",
    )
    for name, then, now in (
        ("P50, ms", [phase.p50_ms for phase in ORIGINAL], figures.warming.p50),
        ("P95, ms", [phase.p95_ms for phase in ORIGINAL], figures.warming.p95),
    ):
        table.add_row(f"warming {name}", *(f"{value:,}" for value in then), _ms(now))
    table.add_row(
        "cache hit rate",
        *(_percent(phase.hit_rate) for phase in ORIGINAL),
        _percent(figures.lookup_hit_rate),
    )
    table.add_row(
        "survives a crash",
        *(_percent(phase.survival) for phase in ORIGINAL),
        "not killed" if figures.survival is None else _percent(figures.survival),
    )
    return table


def _spans(figures: Figures) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="How long it took, ms", title_justify="left")
    table.add_column("")
    for name in ("P50", "P95", "P99"):
        table.add_column(name, justify="right")
    for name, spans in (
        ("queue wait", figures.queue_wait),
        ("warming", figures.warming),
        ("  of it, moving the bytes", figures.moving),
        ("look-up of a ready medium", figures.lookup),
    ):
        if spans.count:
            table.add_row(name, *_milliseconds(spans))
    return table


def _notes(figures: Figures) -> list[str]:
    notes = [
        (
            "A look-up of a ready medium is one indexed read and moves no media, so it is timed apart: latencies "
            "as planned for phase 3 can be promised for it alone, for an upload over the Internet takes longer."
        )
    ]
    if figures.warmed:
        notes.append(
            "Warming is bucket to file_id, its turn in the budget included; here every server is on this machine."
        )
    if (figures.media_per_minute or 0) > (figures.allowed_per_minute or math.inf):
        notes.append(
            f"The first second of a budget may be spent at once, so a short run shows more than "
            f"{figures.allowed_per_minute:,} a minute."
        )
    if figures.repeated:
        notes.append(
            f"{figures.repeated} uploads were made again, for their outcome was not known: nothing is lost, "
            "and a medium may arrive twice."
        )
    return notes


def _milliseconds(spans: Spans) -> list[str]:
    return [_ms(value) for value in (spans.p50, spans.p95, spans.p99)]


def _facts(figures: Figures) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, title="The worker", title_justify="left")
    table.add_column("")
    table.add_column("", justify="left")
    keys = figures.signing_hits + figures.signing_misses
    table.add_row("success rate", _percent(figures.success_rate))
    table.add_row(
        "signing-key cache",
        f"{_percent(figures.signing_hit_rate)} hits ({figures.signing_hits:,} of {keys:,} requests)",
    )
    table.add_row("bytes warmed", f"{figures.uploaded_bytes / 1e6:,.1f} MB")
    peak = figures.peak_memory_bytes
    table.add_row("worker's peak memory", "—" if peak is None else f"{peak / 1e6:,.0f} MB")
    return table


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "—"
    ms = seconds * 1000
    return f"{ms:,.0f}" if ms >= 10 else f"{ms:.2f}"  # noqa: PLR2004 - below it decimals matter


def _percent(share: float | None) -> str:
    if share is None:
        return "—"
    # Never rounded up to all: 299 of 300 is 99.7 %, and 9,999 of 10,000 is 99.9 %.
    return "100 %" if share >= 1 else f"{int(share * 1000) / 10:g} %"
