"""The suites of this folder by their names, and a run of one in a process of its own, with the package of any tree."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from benchmarks.figures import Run

if TYPE_CHECKING:
    import argparse

__all__ = ["QUICK", "Suite", "Tree", "add_options", "all_suites", "chosen", "run"]

FOLDER = Path(__file__).resolve().parent
#: Seconds that pytest-benchmark calls each function of the suites that need no driver.
EACH = 0.3
#: Seconds that a suite may take.
LONGEST = 900.0


class Suite(NamedTuple):
    """A file `test_<name>.py`, and which of its benchmarks: an expression of `pytest -k`, "" for all."""

    name: str
    expression: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.expression}" if self.expression else self.name


class Tree(NamedTuple):
    """The folder that `benchmarks` is imported from, and the one that `wsengine` is: a checkout may be both."""

    benchmarks: Path
    package: Path

    @property
    def environment(self) -> dict[str, str]:
        """For a process that imports both from there; a test of ours in a worker of pytest-xdist does not make it one."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return {**own, "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(self.benchmarks), str(self.package)]))}


#: Something of each hot path, a minute or so, where all suites would take many.
QUICK = (
    Suite("parser", "128 or inside"), Suite("utf8", "engine and (ascii or mixed)"), Suite("frames", "128B or 65536B"),
    Suite("inflate", "trades and engine"), Suite("deflate", "trades and engine"), Suite("keys", "engine"),
    Suite("ring", "RingQueue and batch256"), Suite("fanout"), Suite("telemetry", "nobody"),
    Suite("pipeline", "[128B-x1-"), Suite("connect", "[128B-"), Suite("sending", "[128B-bytes]"),
    Suite("batcher", "x1 and 100 and not 1000"), Suite("partitions", "[x1-field]"), Suite("frame_handler", "[one-x1]"),
    Suite("tls", "[coalesced-path-A]"), Suite("latency", "[10000-spin0]"),
)


def all_suites() -> list[str]:
    """The names that there are."""
    return sorted(path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """--suite, for `chosen`."""
    parser.add_argument("--suite", action="append", default=[], metavar="NAME[:EXPRESSION]",
                        help="instead of a quick choice; may be given again. EXPRESSION is one of pytest -k; all: each of "
                             + ", ".join(all_suites()))


def chosen(parser: argparse.ArgumentParser, given: list[str]) -> list[Suite]:
    """What --suite says; leaves the process with status 2 for a name that there is not."""
    if not given:
        return list(QUICK)
    found, there = [], all_suites()
    for one in given:
        name, _, expression = one.partition(":")
        if name == "all":
            found += [Suite(each, expression) for each in there]
        elif name in there:
            found.append(Suite(name, expression))
        else:
            parser.error(f"--suite: there is no {name!r}; give all, or some of {', '.join(there)}")
    return list(dict.fromkeys(found))


def run(suite: Suite, tree: Tree, seconds: float) -> Run:
    """Run it, and wait for it. What fails is missing, with its reason; that is no error here."""
    with tempfile.TemporaryDirectory(prefix="wsengine-figures-") as folder:
        path = Path(folder, "figures.json")
        command = [
            sys.executable, "-P", "-m", "pytest", f"benchmarks/test_{suite.name}.py", "-q", "-p", "no:cacheprovider",
            "--benchmark-only", f"--benchmark-max-time={EACH}", "--benchmark-min-rounds=3", "--seconds", str(seconds),
            "--figures", str(path), *(["-k", suite.expression] if suite.expression else []),
        ]
        try:
            done = subprocess.run(command, cwd=tree.benchmarks, env=tree.environment, capture_output=True, text=True,
                                  timeout=LONGEST, check=False)
        except subprocess.TimeoutExpired:
            return Run({}, {suite.name: f"it did not end within {LONGEST:g} s"})
        found = Run.read(path) if path.is_file() else Run({}, {})
    if found.figures or found.missing:
        return found
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        return Run({}, {suite.name: f"no benchmark of it is chosen by {suite.expression!r}"})
    said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it said nothing"]
    return Run({}, {suite.name: f"pytest ended with status {done.returncode}: {said[-1]}"})
