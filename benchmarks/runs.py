"""One run: a feed in a process of its own, a driver in another, and the driver's line with what the feed says of itself.

Which runs are made, and what their figures mean, is the business of the suites and of compare.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsengine.testing import Feed

__all__ = ["DriverFailed", "drive", "drive_feed"]

ROOT = Path(__file__).resolve().parents[1]


class DriverFailed(RuntimeError):
    """A driver ended without its line; the text holds what it said instead."""


def drive(driver: str, *arguments: object, timeout: float = 60.0) -> dict[str, Any]:
    """Run `benchmarks.drivers.<driver>` and return its line.

    Raises:
        DriverFailed: it ended with another status than 0, or not within `timeout` seconds.
    """
    command = [sys.executable, "-m", f"benchmarks.drivers.{driver}", *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise DriverFailed(f"{driver}: no result within {timeout} seconds") from None
    if done.returncode:
        raise DriverFailed(f"{driver}: status {done.returncode}: {done.stderr.strip() or 'it said nothing'}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def drive_feed(feed: Feed, driver: str, *arguments: object, seconds: float) -> dict[str, Any]:
    """Start `feed`, run the driver against it, stop the feed; the line gets the feed's idle share of its time."""
    with feed:
        result = drive(driver, feed.url, "--seconds", seconds, *arguments, timeout=60 + seconds)
        log = feed.stop()
    return result | {"server_idle_share": log.idle_share}
