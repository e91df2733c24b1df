"""`wsengine tune`: its options, how far it has got while it runs, and what it recommends.

What is measured, and how the setting is found, stands in `wsengine.tune`. Standard output gets the report or the JSON alone.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from wsengine.cli.arguments import duration, rate, whole_number
from wsengine.cli.endings import ended_by_signals
from wsengine.errors import ConfigurationError, InvalidURI
from wsengine.options import whole
from wsengine.testing.images import MINIMUM_TRADE
from wsengine.testing.peers.cores import usable_cores
from wsengine.testing.recording import load_recording
from wsengine.tune.changes import by_chunk, without_gil
from wsengine.tune.found import Found
from wsengine.tune.interpreters import free_threaded
from wsengine.tune.measure import Measure
from wsengine.tune.pace import paced
from wsengine.tune.reason import reason_of
from wsengine.tune.report import figures, lines
from wsengine.tune.search import Search, exhaustive
from wsengine.websocket.uri import parse_uri

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from wsengine.tune.interpreters import Interpreter
    from wsengine.tune.reason import Reason
    from wsengine.tune.setting import Point

__all__ = ["add_options", "in_words_of_the_command", "run"]

#: What a pipeline with one processor may be bound by that none of the settings changes.
NOT_TUNED = ("feed-bound", "batcher-bound")
#: Of the budget, what the search may take: what follows it wants the rest.
SEARCH = 0.7
#: Seconds that a measurement takes beside what it measures: two processes that start, and a connection.
STARTING = 2.0
#: Bytes of the largest payload: the default of a producer's `max_size`.
LARGEST = 1 << 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    option = parser.add_argument
    option("target", nargs="?", metavar="MODULE:PIPELINE",
           help="the pipeline, a class or an object; its own producers are not started")
    option("--handler", metavar="MODULE:FUNCTION", help="a function of a message, in place of a pipeline")
    option("--chunk", action="store_true", help="the function takes a list of messages, as handle_messages does")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--recording", metavar="FILE", help="send this recorded feed, over and over, flat out")
    source.add_argument("--url", help="take what this server sends, in place of a feed of this machine")
    option("--size", type=whole_number, metavar="BYTES", help="of each made-up trade that is sent (128)")
    option("--seed", type=whole_number, metavar="N", help="of the made-up trades (1)")
    option("--rate", type=rate, default=0.0, metavar="N", help="messages a second, 0 for as many as are taken (0)")
    option("--budget", type=duration, default=90.0, metavar="N", help="seconds that it may take (90)")
    option("--seconds", type=duration, default=1.0, metavar="N", help="measured at each setting (1)")
    option("--warmup", type=duration, default=0.3, metavar="N", help="before that (0.3)")
    option("--patience", type=duration, default=5.0, metavar="N", help="until the first message has to be handled (5)")
    option("--free-threaded", metavar="PYTHON",
           help="a Python without the GIL to measure with, too; by default one of the PATH that has wsengine")
    option("--most", type=whole_number, default=64, metavar="N", help="processors to try at the most (64)")
    option("--exhaustive", action="store_true", help="measure every setting of a grid instead, whatever it takes")
    option("--json", action="store_true", help="everything as JSON instead of the report")
    option("--out", metavar="FOLDER", help="also write report.html, its pictures as PNG files, and report.json there")


def run(given: argparse.Namespace, stream: TextIO) -> int:
    """Run it and print; returns the exit status. Main thread only.

    Raises:
        ConfigurationError, InvalidURI: an option is wrong. SystemExit: by SIGTERM or SIGHUP. OSError.
    """
    with ended_by_signals():
        return _run(given, stream)


def _run(given: argparse.Namespace, stream: TextIO) -> int:
    begun = time.monotonic()
    measure = _measure(given)
    folder = None if given.out is None else prepared(given.out)
    most = whole("tune.most", given.most, minimum=1, maximum=1024)
    if not given.exhaustive:
        measure.until = begun + given.budget
    chunks = measure.check()["chunks"]
    interpreter = free_threaded(measure, given.free_threaded)
    print(f"measuring, {given.budget:g} s at the most" if not given.exhaustive else
          f"measuring {len(exhaustive(most))} settings", file=sys.stderr, flush=True)

    def reason(point: Point, others: Sequence[Point] = ()) -> Reason:
        return reason_of(point, gil=measure.gil, cores=usable_cores())

    found = _sweep(measure, most) if given.exhaustive else Search(
        measure, budget=SEARCH * (measure.until - time.monotonic()), most=most, told=_tell,
        enough=lambda point: reason(point).bound in NOT_TUNED).run()
    if not found.of(found.best):
        print(f"wsengine tune: nothing could be measured: {found.points[0].problem}", file=sys.stderr)
        return 1
    _look_further(measure, found, interpreter, chunks=chunks)
    best = reason(found.typical(found.best), found.points)
    first = reason(found.typical(found.first), found.points)
    about = {"target": measure.target, "kind": measure.kind, "gil": measure.gil, "python": platform.python_version()}
    written = json.dumps(figures(found, best, first, about), indent=1)
    print(written if given.json else "\n".join(lines(found, best, first)), file=stream, flush=True)
    if folder is not None:
        from wsengine.tune.files import write

        path = write(folder, found, best, first, about=_about(measure), figures=written, rate=measure.rate)
        print(f"wsengine tune: written: {path}", file=sys.stderr)
    return 0


def _look_further(measure: Measure, found: Found, interpreter: Interpreter | str, *, chunks: bool) -> None:
    """What is measured once the setting has been found, as far as time is left: what would change it; latency at a pace."""
    print("measuring what would change it, and latencies", file=sys.stderr, flush=True)
    each = 1.2 * found.seconds / len(found.points)

    def time_left(measurements: int) -> bool:
        return time.monotonic() + measurements * each < measure.until

    if not chunks:
        found.changes.append(by_chunk(measure, found.best, time_left))
    if measure.gil:
        found.changes.append(without_gil(measure, found.best, interpreter, time_left))
    if measure.rate is None and measure.url is None:
        found.paced = paced(measure, found, time_left)


def prepared(folder: str) -> Path:
    """The folder that a report goes to, made if it is not there, before anything is measured.

    Raises:
        ConfigurationError: it can't be made or written to, or what draws pictures is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigurationError("tune.out", folder, "install what draws the pictures first: pip install 'wsengine[tune]'")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass                                 # it can be written to
    except OSError as error:
        raise ConfigurationError("tune.out", folder, f"give a folder that can be written to ({error.strerror})") from None
    return path


def _about(measure: Measure) -> str:
    """What was tuned, on what, and when."""
    fed = (measure.url and parse_uri(measure.url).redacted) or measure.recording or f"made-up trades of {measure.size} bytes"
    return (f"{measure.target} on {fed}; Python {platform.python_version()}{'' if measure.gil else ' without the GIL'}, "
            f"{usable_cores():.3g} cores, {platform.system()} {platform.machine()}; {time.strftime('%Y-%m-%d %H:%M')}")


def in_words_of_the_command(error: ConfigurationError | InvalidURI) -> str:
    """The error of an option object, with the option named as the user has typed it."""
    if isinstance(error, InvalidURI):
        return str(error)
    name = error.path.rpartition(".")[2].replace("_", "-")
    words = " ".join(filter(None, ["" if name == "target" else f"--{name}", str(error.value)]))
    return f"{words}: {error.remedy}" if words else error.remedy


def _measure(given: argparse.Namespace) -> Measure:
    if (given.target is None) == (given.handler is None):
        raise ConfigurationError("tune.target", given.target or "", "give a pipeline as MODULE:PIPELINE, or a function by "
                                 "--handler, and not both")
    if given.chunk and given.handler is None:
        raise ConfigurationError("tune.chunk", "", "leave it out; a pipeline says by itself how its handler is called")
    if given.url is not None:
        parse_uri(given.url)
    if given.recording is not None:
        load_recording(given.recording)
    for name in ("size", "seed", "rate"):
        value = getattr(given, name)
        if value and (given.url or (given.recording and name != "rate")):
            raise ConfigurationError(f"tune.{name}", f"{value:g}", "leave it out; it says what a feed of this machine sends"
                                     if given.url else "leave it out; a recording is sent as it is")
    size = whole("tune.size", 128 if given.size is None else given.size, minimum=MINIMUM_TRADE, maximum=LARGEST)
    seed = whole("tune.seed", 1 if given.seed is None else given.seed)
    target = given.target or given.handler
    kind = "pipeline" if given.handler is None else "chunk" if given.chunk else "message"
    least = given.seconds + given.warmup + STARTING
    if given.budget < least and not given.exhaustive:
        raise ConfigurationError("tune.budget", f"{given.budget:g}", f"give at least {least:g}, for one measurement")
    return Measure(target, kind, size=size, seed=seed, recording=given.recording, rate=given.rate or None, url=given.url,
                   seconds=given.seconds, warmup=given.warmup, patience=given.patience)


def _sweep(measure: Measure, most: int) -> Found:
    found, begun = Found(), time.monotonic()
    for setting in exhaustive(most):
        found.points.append(measure(setting))
        _tell(found.points[-1])
    found.best = max(found.settings(), key=found.rate)
    found.seconds = time.monotonic() - begun
    return found


def _tell(point: Point) -> None:
    print(f"{point.setting}: {point.problem or f'{point.rate:,.0f} msg/s'}", file=sys.stderr, flush=True)
