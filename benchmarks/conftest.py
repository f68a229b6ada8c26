"""``--plots DIR``: after the benchmarks, draw what they measured (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path

import pytest

FIGURES = pytest.StashKey[dict[str, dict[str, float]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--plots", type=Path, metavar="DIR", help="draw the measured figures into DIR, PNG and SVG"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}


@pytest.fixture(scope="session")
def plots(request: pytest.FixtureRequest) -> dict[str, dict[str, float]]:
    """Where a benchmark leaves what is to be drawn: name of the plot, then label and figure."""
    return request.config.stash[FIGURES]


def pytest_sessionfinish(session: pytest.Session) -> None:
    directory = session.config.getoption("plots")
    figures = session.config.stash[FIGURES]
    if directory is not None and figures:
        import plotting

        plotting.draw(figures, directory)
