"""The plots of the benchmarks, in `docs/`: what a call costs by what is queued, and beside whom."""

# matplotlib leaves its keyword arguments open
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["draw"]

OURS, THEIRS, LINEAR = "#f38020", "#8a94a6", "#c0392b"
Figures = Mapping[str, Mapping[str, float]]


def draw(figures: Figures, directory: Path) -> None:
    """Draw whatever was measured, each plot as PNG and SVG."""
    directory.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "prewarmkit", "svg.fonttype": "none", "font.size": 9})
    growth = {
        name.removeprefix("growth: "): row for name, row in figures.items() if name.startswith("growth: ")
    }
    if growth:
        save(growth_plot(growth), directory / "ring-queue-growth")
    if {"nowait", "awaited"} <= figures.keys():
        save(peers_plot(figures), directory / "ring-queue-peers")


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path.with_suffix(".png"), dpi=144, metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})


def growth_plot(growth: Figures) -> Figure:
    """Nanoseconds a call over what is queued; both logarithmic, so O(1) is level and O(n) a diagonal."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    markers = iter("os^Dv*")
    for name, row in sorted(growth.items(), key=lambda named: -list(named[1].values())[-1]):
        ours = name.startswith("RingQueue")
        is_linear = max(row.values()) > 50 * min(row.values())
        axes.plot(
            [int(size) for size in row],
            list(row.values()),
            label=name,
            color=OURS if ours else LINEAR if is_linear else THEIRS,
            marker=next(markers) if ours else "",
            markersize=4,
            linewidth=1.4,
            linestyle="-" if ours else "--" if is_linear else ":" if "heapq" in name else "-.",
        )
    axes.legend(loc="upper left", fontsize=7.5, frameon=False)
    axes.set(xscale="log", yscale="log", xlabel="items queued", ylabel="nanoseconds a call")
    axes.set_title("What a call costs does not depend on what is queued", loc="left")
    tidy(axes)
    return figure


def peers_plot(figures: Figures) -> Figure:
    """Nanoseconds of a put and a get, ours and theirs."""
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    titles = {"nowait": "put + get, nowait, 10,000 queued", "awaited": "put + get, awaited, uncontended"}
    sizes = [len(figures[name]) for name in titles]
    for axes, (name, title) in zip(figure.subplots(2, 1, height_ratios=sizes), titles.items(), strict=True):
        rows = sorted(figures[name].items(), key=lambda row: -row[1])
        labels = [label for label, _ in rows]
        values = [value for _, value in rows]
        colours = [OURS if label.startswith("RingQueue") else THEIRS for label in labels]
        bars = axes.barh(labels, values, color=colours)
        axes.bar_label(bars, labels=[f" {value:,.0f} ns" for value in values], fontsize=8)
        axes.set(xlim=(0, max(values) * 1.12), xticks=[])
        axes.set_title(title, loc="left")
        tidy(axes)
    return figure


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
