"""One run: a feed in a process of its own, a driver in another, and the driver's line with what the feed says of itself.

Which runs are made, and what their figures mean, is not known here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsengine.testing import Feed

__all__ = ["DriverFailed", "drive", "drive_feed"]

#: The root that the package was imported from: a driver must run the same code as its parent.
ROOT = str(Path(__file__).resolve().parents[2])


class DriverFailed(RuntimeError):
    """A driver ended without its line, or with one that cannot be true. The text is the last line that it said instead; a
    note has all of them."""


def drive(
    module: str, *arguments: object, timeout: float = 60.0, environment: Mapping[str, str] | None = None, path: str = ""
) -> dict[str, Any]:
    """Run `python -m module` with these arguments; return its line. It may be given more in its environment, and a folder
    to import from.

    Raises:
        DriverFailed: it ended with another status than 0, or without its line, or not within `timeout` seconds.
    """
    name = module.rpartition(".")[2]
    path = os.pathsep.join(filter(None, [path, ROOT, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-m", module, *map(str, arguments)]
    try:
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path, **(environment or {})}, capture_output=True,
                              text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise DriverFailed(f"{name}: no result within {timeout:g} seconds") from None
    said = done.stderr.strip()
    last = said.rpartition("\n")[2] or "it said nothing"
    if done.returncode:
        raise _failure(f"{name}: status {done.returncode}: {last}", said)
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise _failure(f"{name}: it ended without a result: {last}", said) from None
    return result


def _failure(text: str, said: str) -> DriverFailed:
    failure = DriverFailed(text)
    failure.add_note(said)
    return failure


def drive_feed(
    feed: Feed, module: str, *arguments: object, seconds: float, beside: float = 60.0,
    environment: Mapping[str, str] | None = None, path: str = "",
) -> dict[str, Any]:
    """Start `feed`, run the driver against it, stop the feed; the line gets the feed's idle share of its time.

    Args:
        seconds: that are measured. beside: that the driver may take for all else.

    Raises:
        DriverFailed: as `drive`; or it counts more messages than were sent, as one does that takes the end for messages.
    """
    with feed:
        result = drive(module, feed.url, "--seconds", seconds, *arguments, timeout=beside + seconds,
                       environment=environment, path=path)
        log = feed.stop()
    if result.get("messages", 0) > log.messages:
        raise DriverFailed(f"{module.rpartition('.')[2]}: it counted {result['messages']:,} messages, and the feed, as far "
                           f"as it could still say, sent {log.messages:,}")
    return result | {"server_idle_share": log.idle_share}
