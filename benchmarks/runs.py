"""The drivers of this folder, run by their short names. How a run is made stands in `wsengine.bench.runs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsengine.bench import runs
from wsengine.bench.runs import DriverFailed

if TYPE_CHECKING:
    from wsengine.testing import Feed

__all__ = ["DriverFailed", "drive", "drive_feed"]

#: Where the folder of this file is imported from.
ROOT = str(Path(__file__).resolve().parents[1])


def drive(driver: str, *arguments: object, timeout: float = 60.0) -> dict[str, Any]:
    """As `runs.drive`, for `benchmarks.drivers.<driver>`; a name with dots is a module's."""
    return runs.drive(module(driver), *arguments, timeout=timeout, path=ROOT)


def drive_feed(feed: Feed, driver: str, *arguments: object, seconds: float, beside: float = 60.0) -> dict[str, Any]:
    """As `runs.drive_feed`."""
    return runs.drive_feed(feed, module(driver), *arguments, seconds=seconds, beside=beside, path=ROOT)


def module(driver: str) -> str:
    """Where a driver stands."""
    return driver if "." in driver else f"benchmarks.drivers.{driver}"
