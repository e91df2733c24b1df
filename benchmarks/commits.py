"""Two commits side by side: `python -m benchmarks.commits BASE [HEAD]`. Without HEAD it is the working tree, as it is built.

Each commit is checked out into a folder of its own and built, which takes minutes; --keep names a folder in which they
remain for the next time. Suites then take turns, base and head right behind one another, in processes of their own. The
benchmarks are those of the head for both, so that a new one shows what it is about: where an old package lacks what a
benchmark needs, its line says "not there", and why stands below.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import suites
from benchmarks.arguments import above_zero, positive
from benchmarks.difference import missing, rows, table
from benchmarks.suites import Suite, Tree
from benchmarks.worktrees import DIGITS, Refused, Worktrees, check_built, commit_of, root_of, uncommitted
from wsengine.bench.statistics import spread
from wsengine.bench.table import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.figures import Run

#: What benchmarks are made of, in a checkout.
CODE = ("benchmarks", "tests/__init__.py", "tests/conftest.py", "pyproject.toml")
#: Without it, the benchmarks of a commit cannot be run by this command.
ESSENTIAL = "benchmarks/figures.py"
SIDES = ("base", "head")
#: The rounds of each side.
Rounds = dict[str, list["Run"]]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; leaves the process with status 2 for wrong ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__)
    parser.add_argument("base", metavar="BASE", help="a revision, as git takes it")
    parser.add_argument("head", metavar="HEAD", nargs="?", help="another one; the working tree by default")
    suites.add_options(parser)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=above_zero, default=0.7, help="measured by each benchmark that runs a driver")
    parser.add_argument("--keep", type=Path, help="a folder in which the builds remain, and are found again")
    parser.add_argument("--json", action="store_true", help="everything, each round by itself, as JSON")
    options = parser.parse_args(arguments)
    options.suite = suites.chosen(parser, options.suite)
    return options


def copied(root: Path, folder: Path) -> Path:
    """The benchmarks of a checkout, without its package, so that they can be run with that of another."""
    for name in CODE:
        source, target = root / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "baselines"))
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


def check_package(tree: Tree) -> None:
    """Check that processes of this tree import its own package; Refused if not."""
    command = [sys.executable, "-P", "-c", "import wsengine; print(wsengine.__file__)"]
    done = subprocess.run(command, cwd=tree.benchmarks, env=tree.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{tree.package.name} cannot be imported: {done.stderr.strip().rpartition(chr(10))[2]}")
    found = Path(done.stdout.strip()).resolve()
    if not found.is_relative_to(tree.package.resolve()):
        raise Refused(f"wsengine would be imported from {found.parent}, not from {tree.package}")


def measure(trees: Mapping[str, Tree], chosen: Sequence[Suite], options: argparse.Namespace) -> Rounds:
    """All rounds. Each suite is run by both sides before the next one is, every other round the other way."""
    found: Rounds = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for run in found.values():
            run.append(suites.Run({}, {}))
        for suite in chosen:
            for side in SIDES[:: 1 if number % 2 == 0 else -1]:
                one = suites.run(suite, trees[side], options.seconds)
                found[side][-1].figures.update(one.figures)
                found[side][-1].missing.update(one.missing)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return found


def summary(names: Mapping[str, str], rounds: Rounds) -> dict[str, Any]:
    """What is made of the rounds: figures of both sides, their ratios round by round, and what is not there."""
    figures = {side: {key: spread(one.figures[key] for one in runs if key in one.figures)
                      for key in dict.fromkeys(key for one in runs for key in one.figures)} for side, runs in rounds.items()}
    ratios = {}
    for key in figures["base"].keys() & figures["head"].keys():
        pairs = [(one.figures.get(key), other.figures.get(key)) for one, other in zip(*rounds.values(), strict=True)]
        found = [head / base for base, head in pairs if base and head is not None]
        if found:
            ratios[key] = spread(found)
    reasons = {side: {name: why for one in runs for name, why in one.missing.items()} for side, runs in rounds.items()}
    return {"names": dict(names), "machine": machine(), "rounds": rounds, "figures": figures, "ratios": ratios,
            "missing": reasons}


def shown(found: dict[str, Any]) -> str:
    """The same for people."""
    about, names = found["machine"], found["names"]
    said = [
        f"base {names['base']}, head {names['head']}; benchmarks of {names['benchmarks']}",
        f"{about['cores']} cores, {about['system']} {about['architecture']}, Python {about['python']}, load "
        f"{about['load']}; {len(found['rounds']['base'])} rounds",
        "Figures are medians; ratios are those of a round: median (least … greatest) of the rounds.",
        "better, worse: all rounds of one side are beyond all of the other's.", "",
    ]
    figures = found["figures"]
    said += table(rows(figures["base"], figures["head"], found["ratios"], len(found["rounds"]["base"])), "base", "head")
    for side in SIDES:
        said += missing(found["missing"][side], side)
    return "\n".join(said)


def as_json(found: dict[str, Any]) -> str:
    """The same for programs."""
    keys = dict.fromkeys(key for side in SIDES for key in found["figures"][side])
    figures = [
        {"name": key[0], "unit": key[1], **{side: [one.figures.get(key) for one in found["rounds"][side]] for side in SIDES}}
        for key in keys]
    return json.dumps({"names": found["names"], "machine": found["machine"], "figures": figures,
                       "missing": found["missing"]}, indent=1)


def compare(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Build both, and have them take turns; Refused if that cannot be."""
    base = commit_of(root, options.base)
    head = None if options.head is None else commit_of(root, options.head)
    if head is None:
        check_built(root)
    names = {"base": base[:DIGITS], "head": head[:DIGITS] if head else working_tree(root)}
    with Worktrees(root, options.keep) as made, tempfile.TemporaryDirectory(prefix="wsengine-code-") as folder:
        packages = {}
        for side, commit in (("base", base), ("head", head)):
            print(f"{side}: {names[side]}", file=sys.stderr)
            packages[side] = root if commit is None else made.built(commit)
        owner = packages["head"] if (packages["head"] / ESSENTIAL).is_file() else root
        names["benchmarks"] = "the head" if owner == packages["head"] else "the working tree, for the head's are too old"
        code = copied(owner, Path(folder))
        trees = {side: Tree(code, package) for side, package in packages.items()}
        for tree in trees.values():
            check_package(tree)
        return summary(names, measure(trees, options.suite, options))


def working_tree(root: Path) -> str:
    """What the working tree is called: it may differ from its commit."""
    changed = uncommitted(root)
    name = f"the working tree, at {commit_of(root, 'HEAD')[:DIGITS]}"
    return f"{name}, uncommitted files: {changed}" if changed else name


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; 1 with a line on stderr if it cannot be done, 130 if it was interrupted."""
    options = parse(arguments)
    try:
        found = compare(options, root_of(Path(__file__).resolve().parent))
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(as_json(found) if options.json else shown(found))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was made is removed then, too
    sys.exit(main())
