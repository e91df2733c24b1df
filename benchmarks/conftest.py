"""What all suites share: how long a run measures, how a run of a driver is recorded, the recorded feeds, and a file of all
figures for the commands that compare runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.figures import figures_of, reason_of
from benchmarks.messages import FEEDS, TRADES, recorded, trades
from benchmarks.runs import drive_feed
from tests.conftest import recordings

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.testing import Feed

__all__ = ["measured", "payloads", "recordings", "seconds"]

#: Why benchmarks of this session, or whole files, have no figures.
MISSING = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seconds`: more for steadier figures, less to see whether a suite works. `--figures`: for baseline and commits."""
    parser.addoption("--seconds", type=float, default=1.0, help="that each run of a driver measures")
    parser.addoption("--figures", type=Path, default=None, help="a file for all figures, as benchmarks.figures reads it")


def pytest_configure(config: pytest.Config) -> None:
    """Note what fails or is skipped."""
    config.pluginmanager.register(Missing(config.stash.setdefault(MISSING, {})))


class Missing:
    """Notes why a benchmark, or a file of them, has no figures."""

    def __init__(self, reasons: dict[str, str]) -> None:
        self._reasons = reasons

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.passed:  # the first time: what fails may also leave something for its teardown to complain of
            self._reasons.setdefault(report.nodeid, reason_of(report))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the file of --figures."""
    path, config = session.config.getoption("--figures"), session.config
    if path is not None:
        benchmarks = getattr(getattr(config, "_benchmarksession", None), "benchmarks", ())
        figures_of(benchmarks, config.stash[MISSING]).write(path)


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


@pytest.fixture(params=FEEDS)
def payloads(request: pytest.FixtureRequest) -> list[bytes]:
    """The messages of one feed; without its recording the benchmark is skipped, and the report says so."""
    if request.param == TRADES:
        return trades()
    path = request.getfixturevalue("recordings") / f"{request.param}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no recorded feed {path}")
    return recorded(path)


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
