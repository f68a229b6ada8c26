"""Uploads to a Bot API server: CPU a medium, MB/s and memory, beside aiogram and python-telegram-bot.

Each library sends with ``sendDocument``, a file as its documentation has it and what it has in memory, from a process of its own
to the same server (`upload_sink`), in turns.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from attrs import define, field, frozen

FAST, DEFAULT = "prewarmkit, FastTransport", "prewarmkit"
AIOGRAM, PTB = "aiogram", "python-telegram-bot"
SIDES: Mapping[str, tuple[str, str]] = {  # what upload_side.py calls it, and what must be installed
    FAST: ("ours-fast", "httptools"),
    DEFAULT: ("ours", "prewarmkit"),
    AIOGRAM: ("aiogram", "aiogram"),
    PTB: ("ptb", "telegram"),
}
KIB, MIB = 1024, 1024 * 1024

BYTES = "-bytes"  # from memory, and not from a file

# ── what is to be reached ────────────────────────────────────────────────────

MOST_CPU = 0.5  # of aiogram's CPU a medium of 256 KiB
LEAST_SPEED = 1.5  # times aiogram's MB/s at 20 MB
MOST_MEMORY = 0.1  # of what aiogram's memory grows by at 20 MB where it has the bytes, as from R2

# ── how it is measured ───────────────────────────────────────────────────────

ROUNDS = 5
HERE = Path(__file__).parent


@frozen
class Load:
    """So many files of this size, so many at once."""

    size: int
    count: int
    at_once: int

    def __str__(self) -> str:
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        return f"{self.count} x {size}, {self.at_once} at once"


SMALL, LARGE = Load(256 * KIB, 300, 16), Load(20 * MIB, 10, 5)


@define
class Figures:
    """Of one library: medians of the rounds."""

    seconds: list[float] = field(factory=list[float])
    cpu: list[float] = field(factory=list[float])
    grew_kib: list[float] = field(factory=list[float])

    def milliseconds(self, load: Load) -> float:
        """CPU a medium."""
        return statistics.median(self.cpu) / load.count * 1e3

    def speed(self, load: Load) -> float:
        """MB/s."""
        return load.size * load.count / statistics.median(self.seconds) / 1e6


@define
class Process:
    """A process that is spoken to by lines of JSON."""

    process: subprocess.Popen[str]

    def ask(self, line: Mapping[str, object]) -> str:
        """Say a line, and hear one."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"A process of the benchmark ended: {self.process.args!r}")
        return line


def started(stack: ExitStack, *arguments: str) -> Process:
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE
        )
    )
    assert process.stdin is not None
    stack.callback(process.stdin.close)  # which ends it
    return Process(process)


@pytest.fixture
def sides(capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, Process]]:
    """Each library that is installed, from a file and from memory."""
    with ExitStack() as stack:
        server = json.loads(started(stack, "upload_sink.py").hear())
        running: dict[str, Process] = {}
        for name, (argument, package) in SIDES.items():
            if importlib.util.find_spec(package) is None:
                with capsys.disabled():
                    print(f"\n{name} is not installed: left out")
                continue
            for suffix in ("", BYTES):
                side = started(stack, "upload_side.py", argument + suffix)
                assert side.ask(server) == "ready\n"
                running[name + suffix] = side
        yield running


def measure(sides: Mapping[str, Process], directory: Path, load: Load) -> dict[str, Figures]:
    path = directory / "a.bin"
    path.write_bytes(Random(1).randbytes(load.size))
    order = {"path": str(path), "count": load.count, "at_once": load.at_once}
    found = {name: Figures() for name in sides}
    for number in range(ROUNDS + 1):
        for name, side in sides.items():
            took = json.loads(side.ask(order))
            if number:  # the first warms up
                found[name].seconds.append(took["seconds"])
                found[name].cpu.append(took["cpu"])
            found[name].grew_kib.append(took["grew_kib"])
    return found


def show(capsys: pytest.CaptureFixture[str], load: Load, found: Mapping[str, Figures]) -> None:
    with capsys.disabled():
        print(f"\n\n{load!s:36}{'CPU ms':>9}{'MB/s':>9}{'memory, MiB':>13}")
        for name, figures in found.items():
            told = name.removesuffix(BYTES) + (", from memory" if name.endswith(BYTES) else ", from a file")
            grew = max(figures.grew_kib) / KIB
            print(f"{told:36}{figures.milliseconds(load):>9.2f}{figures.speed(load):>9,.0f}{grew:>13.1f}")


def test_small_uploads_cost_half_of_what_aiograms_do(
    sides: dict[str, Process], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(sides, tmp_path, SMALL)
    show(capsys, SMALL, found)
    if AIOGRAM in found:
        for name in {FAST, DEFAULT} & found.keys():
            assert found[name].milliseconds(SMALL) <= MOST_CPU * found[AIOGRAM].milliseconds(SMALL)


def test_large_uploads_are_faster_and_take_next_to_no_memory(
    sides: dict[str, Process], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(sides, tmp_path, LARGE)
    show(capsys, LARGE, found)
    if AIOGRAM in found:
        for name in {FAST, DEFAULT} & found.keys():
            assert found[name].speed(LARGE) >= LEAST_SPEED * found[AIOGRAM].speed(LARGE)
            # What a library takes that is handed the bytes, beside one that streams them.
            assert max(found[name].grew_kib) <= MOST_MEMORY * max(found[AIOGRAM + BYTES].grew_kib)
