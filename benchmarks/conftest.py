"""What all suites share: how long a run measures, how a run of a driver is recorded, and the recorded feeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.runs import drive_feed
from tests.conftest import recordings

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.testing import Feed

__all__ = ["measured", "recordings", "seconds"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seconds`: more for steadier figures, less to see whether a suite works."""
    parser.addoption("--seconds", type=float, default=1.0, help="that each run of a driver measures")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The figures of extra_info, a line for each benchmark: the table above them has only times."""
    session = getattr(config, "_benchmarksession", None)
    found = [one for one in getattr(session, "benchmarks", ()) if one.extra_info]
    if found:
        terminalreporter.section("figures")
    for one in found:
        terminalreporter.write_line(f"{one.name}: " + ", ".join(
            f"{key}={_shown(value)}" for key, value in one.extra_info.items() if key != "settings"))


def _shown(value: object) -> str:
    """Figures to four digits, whatever they are in."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) + ")"
    return "[" + ", ".join(map(_shown, value)) + "]" if isinstance(value, list) else str(value)


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """How long a driver measures."""
    value: float = request.config.getoption("--seconds")
    return value


@pytest.fixture
def measured(benchmark: Any, seconds: float) -> Callable[..., dict[str, Any]]:
    """Run a driver against a feed once; its figures go to extra_info, which is where to read them.

    The time that the table of pytest-benchmark shows is that of the whole run with the start of two processes, and
    says nothing.
    """

    def run(feed: Feed, driver: str, *arguments: object) -> dict[str, Any]:
        result: dict[str, Any] = benchmark.pedantic(
            drive_feed, args=(feed, driver, *arguments), kwargs={"seconds": seconds}, rounds=1, iterations=1)
        benchmark.extra_info.update(result)
        return result

    return run
