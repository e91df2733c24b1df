"""One setting, measured: a feed in a process of its own, the user's pipeline in another, looks at its threads from here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsengine.errors import ConfigurationError
from wsengine.testing.feed import Feed
from wsengine.testing.peers.window import role_of
from wsengine.testing.recording import load_recording
from wsengine.testing.wire import TEXT
from wsengine.tune.sampling import Sampler, can_look
from wsengine.tune.setting import Point
from wsengine.tune.shares import busiest, mean
from wsengine.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wsengine.tune.setting import Setting
    from wsengine.tune.shares import Looks, Shares

    Follow = Callable[[subprocess.Popen[bytes], "_Lines"], dict[str, Any] | None]

__all__ = ["Measure"]

#: The root that the package was imported from: the client must run the same code as its parent.
ROOT = str(Path(__file__).resolve().parents[2])
#: Seconds that a process may take beside what it measures; and to end, once its line has.
BESIDE, ENDING = 15.0, 1.0


@dataclass(slots=True)
class Measure:
    """How a setting is measured.

    Args:
        target, kind: the user's handler, see `target.load`.
        size, seed, recording, rate: of what the feed sends: trades of so many bytes, or a recording; messages a second,
            None for as many as are taken.
        url: of another server to take instead; what is sent is its own matter then.
        seconds, warmup: how long is measured, and how long the pipeline runs before.
        patience: seconds until the first message must have been handled.
        loop: whether `handle_message` is called in a loop by a `handle_messages`.
        python: the interpreter that the user's code runs in.
    """

    target: str
    kind: str = "pipeline"
    size: int = 128
    seed: int = 1
    recording: str | None = None
    rate: float | None = None
    url: str | None = None
    seconds: float = 1.0
    warmup: float = 0.3
    patience: float = 5.0
    loop: bool = False
    python: str = sys.executable
    #: When all has to be over, on the monotonic clock.
    until: float = math.inf
    #: Whether the interpreter has a GIL; known behind the first setting.
    gil: bool = True

    def __call__(self, setting: Setting) -> Point:
        """The point of a setting; one with a `problem` where it can't be measured."""
        if self.url is not None:
            return self._point(setting, self.url)
        with self._feed() as feed:
            point = self._point(setting, feed.url)
            idle = feed.stop().idle_share
        return Point(**{name: getattr(point, name) for name in Point.__slots__} | {"server_idle": idle})

    def _feed(self) -> Feed:
        if self.recording is None:
            return Feed.trades(size=self.size, seed=self.seed, rate=self.rate)
        if self.rate is None:
            return Feed.recording(self.recording, speed=None, loop=True)
        return Feed.payloads(((TEXT, one) for one in load_recording(self.recording).payloads), loop=True, rate=self.rate)

    def check(self) -> dict[str, Any]:
        """See whether there is such a pipeline, in a process of its own, too: there its module does what it does when it is
        imported.

        Returns:
            chunks: whether it has a chunk handler; gil: whether its interpreter has one; python, version: of the interpreter
            and of wsengine there.

        Raises:
            ConfigurationError: there is none, or it took too long to say.
        """
        path = f"tune.{'target' if self.kind == 'pipeline' else 'handler'}"
        found = self._child(None, {}, lambda process, lines: lines.next())
        if "refused" in found:
            raise ConfigurationError(*found["refused"])
        if "problem" in found:
            raise ConfigurationError(path, self.target, f"make it importable ({found['problem']})")
        return found

    def _point(self, setting: Setting, url: str) -> Point:
        found = self._child(url, setting.settings(), self._follow)
        found.pop("refused", None)
        return Point(setting, **found)

    def _child(self, url: str | None, setting: dict[str, Any], follow: Follow) -> dict[str, Any]:
        """Run the client, and return what came of it: what `follow` says, or a problem."""
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as said, os.fdopen(reading, "rb", buffering=0) as lines:
            given = {"url": url, "target": self.target, "kind": self.kind, "setting": setting, "report": writing,
                     "seconds": self.seconds, "warmup": self.warmup, "patience": self.patience, "path": [os.getcwd()],
                     "ours": self.url is None, "loop": self.loop, "parent": os.getpid()}
            ours = ROOT if self.python == sys.executable else None   # the modules there are compiled for this one
            path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
            process = subprocess.Popen(
                [self.python, "-P", "-m", "wsengine.tune.client", json.dumps(given)], pass_fds=[writing],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path})
            os.close(writing)
            try:
                until = time.monotonic() + BESIDE + 2 * self.patience + self.warmup + self.seconds
                found = follow(process, _Lines(lines.fileno(), until, self.until))
                ended = "" if found else _ended(process)
            finally:
                with contextlib.suppress(OSError):   # it, and whatever its handler has started
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                assert process.stdin is not None
                process.stdin.close()
            if found is None or "messages fail" in found.get("problem", ""):
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                before = "" if found is None else f"{found['problem']}: "
                found = {"problem": before + (printable(last) or "it said nothing") + ended}
        return found

    def _follow(self, process: subprocess.Popen[bytes], lines: _Lines) -> dict[str, Any] | None:
        """Take its lines in turn; the fields of a point, or None if it ended before it had told all."""
        about = lines.next()
        if about is None or "problem" in about:
            return about
        self.gil = about["gil"]
        threads = {int(number): name for number, name in about["threads"].items()}
        if not can_look(process.pid):
            found = lines.next()
            if found is not None:
                found.pop("busy", None)
            return found
        with Sampler(process.pid, threads, range(*about["runtime"])) as sampler:
            found = lines.next()
        if found is not None and "problem" not in found:
            found |= _by_role(sampler.named(), found.pop("busy"))
        return found


def _by_role(looks: Sequence[tuple[str, Looks]], busy: Mapping[str, float]) -> dict[str, Any]:
    """The shares of each role, and how many threads have it."""
    roles: dict[str, list[Shares]] = {}
    for name, seen in looks:
        roles.setdefault(role_of(name), []).append(seen.shares(busy.get(name.rpartition(":")[2])))
    return {"shares": {role: mean(shares) for role, shares in roles.items()},
            "busiest": {role: busiest(shares) for role, shares in roles.items()},
            "threads": {role: len(shares) for role, shares in roles.items()}}


def _ended(process: subprocess.Popen[bytes]) -> str:
    """How a process that has ended by itself has done so, as an addition to what it said."""
    try:
        status = process.wait(ENDING)
    except subprocess.TimeoutExpired:
        return ""
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f" (its process ended {how})"


class _Lines:
    """Lines of JSON from a pipe, until a moment at which its process hangs, or the one at which all has to be over."""

    def __init__(self, file: int, until: float, over: float) -> None:
        self._file = file
        self._until = min(until, over)
        self._problem = "no time was left" if over < until else "it hangs: it told nothing of itself in time"
        self._received = b""

    def next(self) -> dict[str, Any] | None:
        """The next line; a problem where none comes in time, None where the pipe has ended."""
        while b"\n" not in self._received:
            left = self._until - time.monotonic()
            if left <= 0 or not select.select([self._file], [], [], left)[0]:
                return {"problem": self._problem, "late": True}
            more = os.read(self._file, 65536)
            if not more:
                return None
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found
