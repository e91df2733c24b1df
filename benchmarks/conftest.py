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
