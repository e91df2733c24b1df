"""Stored baselines, in baselines/: `python -m benchmarks.baseline write|compare [NAME]`.

`write` runs suites in rounds and stores the median of each figure with its spread; `compare` runs the same suites with the
present tree and prints the ratio of each figure to the stored one. No figure passes or fails. Those of another machine mean
little: ratios of figures of one and the same machine are what to look at, best those of one hour, as commits gives them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import suites
from benchmarks.arguments import above_zero, positive
from benchmarks.difference import Figures, missing, rows, table
from benchmarks.suites import Suite, Tree
from benchmarks.worktrees import DIGITS, Refused, check_built, commit_of, root_of, uncommitted
from wsengine.bench.statistics import Spread, spread
from wsengine.bench.table import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.figures import Run

FOLDER = Path(__file__).resolve().parent / "baselines"
#: What has to be the same for two figures to mean something side by side.
SAME = ("cores", "system", "architecture", "python")
#: Digits of a figure that are stored.
PRECISION = 5


def name_here() -> str:
    """The name of a baseline of this machine and Python."""
    about = machine()
    version = "".join(platform.python_version_tuple()[:2])
    return f"{about['system']}-{about['architecture']}-{about['cores']}cores-py{version}".lower()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; leaves the process with status 2 for wrong ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baseline", description=__doc__)
    parser.add_argument("command", choices=("write", "compare"))
    parser.add_argument("name", nargs="?", default=name_here(), help=f"of a file in {FOLDER.name}/; here {name_here()}")
    suites.add_options(parser)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--seconds", type=above_zero, default=0.7, help="measured by each benchmark that runs a driver")
    options = parser.parse_args(arguments)
    options.path = FOLDER / f"{options.name}.json"
    if options.path.parent != FOLDER:
        parser.error(f"{options.name}: give a name, not a path")
    options.chosen = suites.chosen(parser, options.suite)
    return options


def measure(chosen: Sequence[Suite], tree: Tree, options: argparse.Namespace) -> tuple[dict[tuple[str, str], list[float]],
                                                                                       dict[str, str]]:
    """The values of each figure, of all rounds, and the reasons of those that are not there."""
    found: dict[tuple[str, str], list[float]] = {}
    reasons: dict[str, str] = {}
    for number in range(options.rounds):
        for suite in chosen:
            run: Run = suites.run(suite, tree, options.seconds)
            reasons |= run.missing
            for key, value in run.figures.items():
                found.setdefault(key, []).append(value)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return found, reasons


def stored(text: str) -> dict[str, Any]:
    """A baseline by the text of its file; its figures as spreads. ValueError if it is none."""
    found: dict[str, Any] = json.loads(text)
    found["figures"] = {(one["name"], one["unit"]): Spread(one["median"], one["least"], one["greatest"])
                        for one in found["figures"]}
    found["suites"] = [Suite(*one) for one in found["suites"]]
    return found


def to_store(found: dict[str, Any]) -> str:
    """The text of a file: a figure a line, so that git shows which have changed."""
    figures = [json.dumps({"name": name, "unit": unit, **{key: rounded(value) for key, value in one._asdict().items()}})
               for (name, unit), one in found["figures"].items()]
    head = json.dumps({key: value for key, value in found.items() if key != "figures"}, indent=1)
    return head.removesuffix("\n}") + ',\n "figures": [\n  ' + ",\n  ".join(figures) + "\n ]\n}\n"


def rounded(value: float) -> float:
    """As many digits as mean something."""
    return float(f"{value:.{PRECISION}g}")


def write(options: argparse.Namespace, tree: Tree, commit: str) -> int:
    """Run the suites and store what they come to."""
    values, reasons = measure(options.chosen, tree, options)
    about = machine()
    found = {
        "made": datetime.now(UTC).date().isoformat(), "commit": commit,
        "machine": {key: about[key] for key in (*SAME, "load")},
        "rounds": options.rounds, "seconds": options.seconds, "suites": options.chosen,
        "figures": {key: spread(one) for key, one in values.items()},
    }
    if not values:
        print("\n".join(missing(reasons, "the present tree")), file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    options.path.write_text(to_store(found), encoding="utf-8")
    print("\n".join([f"{len(values)} figures in {FOLDER.parent.name}/{FOLDER.name}/{options.path.name}",
                     *missing(reasons, "the present tree")]))
    return 0


def compare(options: argparse.Namespace, tree: Tree, commit: str) -> int:
    """Run the suites of a stored baseline, or those of --suite, and print both beside one another."""
    try:
        base = stored(options.path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(path.stem for path in FOLDER.glob("*.json"))) or "none"
        print(f"there is no baseline {options.name!r}; there are: {there}; to store one: python -m benchmarks.baseline "
              "write", file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError) as error:
        print(f"{options.path.name} is no baseline: {error}", file=sys.stderr)
        return 1
    values, reasons = measure(options.chosen if options.suite else base["suites"], tree, options)
    known: Figures = base["figures"]
    if options.suite:
        known = {key: one for key, one in known.items() if key in values}
    print("\n".join(shown(base | {"figures": known}, values, reasons, commit, options)))
    return 0


def shown(base: dict[str, Any], values: dict[tuple[str, str], list[float]], reasons: dict[str, str], commit: str,
          options: argparse.Namespace) -> Iterator[str]:
    """The comparison as lines."""
    about = machine()
    yield f"now: {commit}, load {about['load']}, {options.rounds} rounds"
    yield f"stored: {base['commit']}, {base['made']}, load {base['machine']['load']}, {base['rounds']} rounds"
    other = [f"{key} {base['machine'][key]} and now {about[key]}" for key in SAME if base["machine"][key] != about[key]]
    if other:
        yield f"WARNING  it was made elsewhere ({', '.join(other)}): only how ratios differ from each other means anything"
    if base["seconds"] != options.seconds:
        yield f"WARNING  its drivers measured for {base['seconds']:g} s, those of now for {options.seconds:g} s"
    yield "Ratios: now over the stored median, median (least … greatest). better, worse: beyond the spread of both."
    yield ""
    known: Figures = base["figures"]
    ratios = {key: spread(value / known[key].median for value in found)
              for key, found in values.items() if key in known and known[key].median}
    now = {key: spread(found) for key, found in values.items()}
    yield from table(rows(known, now, ratios, min(base["rounds"], options.rounds)), "stored", "now")
    yield from missing(reasons, "the present tree")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command says; 1 with a line on stderr if it cannot be done."""
    options = parse(arguments)
    try:
        root = root_of(Path(__file__).resolve().parent)
        check_built(root)
        changed = uncommitted(root)
        commit = commit_of(root, "HEAD")[:DIGITS] + (f", uncommitted files: {changed}" if changed else "")
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    return {"write": write, "compare": compare}[options.command](options, Tree(root, root), commit)


if __name__ == "__main__":
    sys.exit(main())
