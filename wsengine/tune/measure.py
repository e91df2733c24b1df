"""One setting, measured: a feed in a process of its own, the user's pipeline in another, looks at its threads from here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsengine.testing.feed import Feed
from wsengine.tune.sampling import Sampler, can_look
from wsengine.tune.setting import Point
from wsengine.tune.shares import mean

if TYPE_CHECKING:
    from wsengine.tune.setting import Setting

__all__ = ["Measure"]

#: The root that the package was imported from: the client must run the same code as its parent.
ROOT = str(Path(__file__).resolve().parents[2])
#: Seconds that a process may take beside what it measures.
BESIDE = 15.0


@dataclass(slots=True)
class Measure:
    """How a setting is measured.

    Args:
        target, kind: the user's handler, see `target.load`.
        size, recording, rate: of what the feed sends: trades of so many bytes, or a recording; messages a second of trades,
            None for as many as are taken.
        url: of another server to take instead; what is sent is its own matter then.
        seconds, warmup: how long is measured, and how long the pipeline runs before.
        patience: seconds until the first message must have been handled.
    """

    target: str
    kind: str = "pipeline"
    size: int = 128
    recording: str | None = None
    rate: float | None = None
    url: str | None = None
    seconds: float = 1.0
    warmup: float = 0.3
    patience: float = 5.0
    #: Of the interpreter that the user's code runs in.
    python: str = sys.executable
    #: Whether that has a GIL, and whether the pipeline has batchers; known behind the first setting.
    gil: bool = True
    batchers: bool = False

    def __call__(self, setting: Setting) -> Point:
        """The point of a setting; one with a `problem` where it can't be measured."""
        if self.url is not None:
            return self._point(setting, self.url)
        feed = (Feed.recording(self.recording, speed=None, loop=True) if self.recording is not None
                else Feed.trades(size=self.size, rate=self.rate))
        with feed:
            point = self._point(setting, feed.url)
            idle = feed.stop().idle_share
        return Point(**{name: getattr(point, name) for name in Point.__slots__} | {"server_idle": idle})

    def _point(self, setting: Setting, url: str) -> Point:
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as said, os.fdopen(reading, "rb", buffering=0) as lines:
            given = {"url": url, "target": self.target, "kind": self.kind, "setting": setting.settings(), "report": writing,
                     "seconds": self.seconds, "warmup": self.warmup, "patience": self.patience, "path": [os.getcwd()]}
            path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
            process = subprocess.Popen(
                [self.python, "-P", "-m", "wsengine.tune.client", json.dumps(given)], pass_fds=[writing],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env={**os.environ, "PYTHONPATH": path})
            os.close(writing)
            try:
                found = self._follow(process, lines.fileno())
            finally:
                process.kill()
                process.wait()
            if found is None:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                found = {"problem": last or "its process ended by itself"}
        return Point(setting, **found)

    def _follow(self, process: subprocess.Popen[bytes], lines: int) -> dict[str, Any] | None:
        """Take its lines in turn; the fields of a point, or None if it ended before it had told all."""
        reader = _Lines(lines, time.monotonic() + BESIDE + self.patience + self.warmup + self.seconds)
        about = reader.next()
        if about is None or "problem" in about:
            return about
        self.gil, self.batchers = about["gil"], about["batchers"]
        threads = {int(number): role for number, role in about["threads"].items()}
        if reader.next() is None:
            return None
        if not can_look():
            return reader.next()
        with Sampler(process.pid, threads, range(*about["runtime"])) as sampler:
            found = reader.next()
        if found is not None and "problem" not in found:
            found["shares"] = {role: mean(one.shares() for one in looks) for role, looks in sampler.roles().items()}
            found["threads"] = {role: len(looks) for role, looks in sampler.roles().items()}
        return found


class _Lines:
    """Lines of JSON from a pipe, until a moment; behind that, a problem."""

    def __init__(self, file: int, until: float) -> None:
        self._file = file
        self._until = until
        self._received = b""

    def next(self) -> dict[str, Any] | None:
        """The next line, None where the pipe has ended."""
        while b"\n" not in self._received:
            left = self._until - time.monotonic()
            if left <= 0 or not select.select([self._file], [], [], left)[0]:
                return {"problem": "it hangs: it told nothing of itself in time"}
            more = os.read(self._file, 65536)
            if not more:
                return None
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found
