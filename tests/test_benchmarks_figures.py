"""What the commands of `benchmarks` make of a run of suites: figures with units, reasons for those that are missing, a table
of two sides, and the file of a baseline. One small suite is really run, in a process of its own, as the commands do."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.mark.expression import Expression

from benchmarks import baseline, suites
from benchmarks.commits import copied
from benchmarks.difference import missing, rows, table, verdict
from benchmarks.figures import TIME, Run, figures_of, short
from benchmarks.suites import QUICK, Suite, Tree
from wsengine.bench.statistics import Spread, spread

ROOT = Path(__file__).resolve().parents[1]
SUITE = """
import pytest
from wsengine import Message

def test_with_figures(benchmark):
    benchmark(Message, b"x")
    benchmark.extra_info |= {"messages_per_second": 5.0, "bytes_per_second": 10.0, "p50_us": 7.0, "settings": {"a": 1}}

def test_without(benchmark):
    benchmark(Message, b"x")

def test_of_what_is_not_there(benchmark):
    from wsengine import Nonesuch

def test_that_fails_behind_its_measurement(benchmark):
    benchmark(Message, b"x")
    raise ValueError("in\\ntwo lines")

def test_left_out(benchmark):
    pytest.skip("no recordings")
"""


@pytest.fixture
def tree(tmp_path):
    """Our benchmarks without the suites, with our package; a suite is made by writing it."""
    pytest.importorskip("pytest_benchmark", reason="benchmarks need the extra: pip install 'wsengine[bench]'")
    code = copied(ROOT, tmp_path)
    for path in code.glob("benchmarks/test_*.py"):
        path.unlink()
    return Tree(code, ROOT)


def test_a_suite_that_is_run_has_figures_and_reasons(tree):
    tree.benchmarks.joinpath("benchmarks", "test_made.py").write_text(SUITE)
    found = suites.run(Suite("made"), tree, 0.1)
    without = found.figures.pop(("made: without", TIME))
    assert 0 < without < 1e6
    assert found.figures == {("made: with figures", "messages/s"): 5.0, ("made: with figures", "p50 µs"): 7.0}
    reasons = found.missing
    assert reasons.pop("made: of what is not there").startswith("ImportError: cannot import name 'Nonesuch' from 'wsengine'")
    assert reasons == {"made: that fails behind its measurement": "ValueError: in", "made: left out": "no recordings"}


def test_of_a_suite_only_what_an_expression_chooses_is_run(tree):
    tree.benchmarks.joinpath("benchmarks", "test_made.py").write_text(SUITE)
    assert {name for name, _ in suites.run(Suite("made", "figures"), tree, 0.1).figures} == {"made: with figures"}
    assert suites.run(Suite("made", "nonesuch"), tree, 0.1) == (
        {}, {"made": "no benchmark of it is chosen by 'nonesuch'"})


def test_a_suite_that_cannot_be_imported_is_not_there(tree):
    tree.benchmarks.joinpath("benchmarks", "test_made.py").write_text("import wsengine.nonesuch\n")
    assert suites.run(Suite("made"), tree, 0.1) == (
        {}, {"made": "ModuleNotFoundError: No module named 'wsengine.nonesuch'"})


def test_a_suite_that_hangs_is_ended(tree, monkeypatch):
    monkeypatch.setattr(suites, "LONGEST", 1.0)
    tree.benchmarks.joinpath("benchmarks", "test_made.py").write_text("import time\ntime.sleep(600)\n")
    assert suites.run(Suite("made"), tree, 0.1) == ({}, {"made": "it did not end within 1 s"})


def test_a_suite_that_is_not_there_says_so(tree):
    [(name, reason)] = suites.run(Suite("made"), tree, 0.1).missing.items()
    assert name == "made"
    assert "pytest ended with status 4" in reason


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = Run({("a: b", "µs"): 1.5, ("a: b", "messages/s"): 2.0}, {"a: c": "why"})
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run


def test_names_are_short():
    assert short("benchmarks/test_keys.py::test_a_field_found[far_off-x1]") == "keys: a field found[far_off-x1]"
    assert short("benchmarks/test_keys.py") == "keys"


def test_a_benchmark_with_a_reason_has_no_figure():
    one = SimpleNamespace(fullname="benchmarks/test_a.py::test_b", extra_info={}, stats=SimpleNamespace(median=0.001))
    assert figures_of([one], {}).figures == {("a: b", TIME): 1000.0}
    assert figures_of([one], {one.fullname: "why"}) == ({}, {"a: b": "why"})


@pytest.mark.parametrize(("base", "head", "unit", "said"), [
    ((1, 2, 3), (4, 5, 6), "messages/s", "better"), ((4, 5, 6), (1, 2, 3), "messages/s", "worse"),
    ((1, 2, 3), (4, 5, 6), TIME, "worse"), ((4, 5, 6), (1, 2, 3), TIME, "better"),
    ((1, 2, 3), (3, 5, 6), TIME, ""), ((1, 2, 9), (3, 4, 5), TIME, ""),
])
def test_a_change_is_marked_if_it_exceeds_the_spread(base, head, unit, said):
    assert verdict(spread(base), spread(head), unit) == said


def test_the_table_of_two_sides():
    base = {("a: one", TIME): spread([1.0, 2.0, 3.0]), ("a: gone", TIME): spread([1, 1, 1])}
    head = {("a: one", TIME): spread([10.0, 20.0, 30.0]), ("a: new", "messages/s"): spread([12345.0])}
    ratios = {("a: one", TIME): Spread(10.0, 9.0, 11.0)}
    assert list(table(rows(base, head, ratios, 3), "base", "head")) == [
        "         unit             base       head           head / base",
        "a: one   µs a round          2         20  10.00 (9.00 … 11.00)  worse",
        "a: gone  µs a round          1  not there",
        "a: new   messages/s  not there     12,345",
    ]
    assert rows(base, head, ratios, 2)[0].verdict == ""
    assert list(missing({"a: new": "why"}, "base")) == ["not there in base: a: new: why"]


def test_a_suite_is_chosen_by_its_name(capsys):
    parser = argparse.ArgumentParser()
    assert suites.chosen(parser, []) == list(QUICK)
    assert {one.name for one in QUICK} <= set(suites.all_suites())
    assert suites.chosen(parser, ["keys:far or near", "ring", "ring"]) == [Suite("keys", "far or near"), Suite("ring")]
    assert [one.name for one in suites.chosen(parser, ["all"])] == suites.all_suites()
    with pytest.raises(SystemExit):
        suites.chosen(parser, ["nonesuch"])
    assert "there is no 'nonesuch'" in capsys.readouterr().err


def test_each_expression_of_the_quick_choice_chooses_something():
    pytest.importorskip("pytest_benchmark", reason="benchmarks need the extra: pip install 'wsengine[bench]'")
    done = subprocess.run([sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider"],
                          cwd=ROOT, env=Tree(ROOT, ROOT).environment, capture_output=True, text=True, check=True)
    there = [line.removeprefix("benchmarks/") for line in done.stdout.splitlines() if "::" in line]
    for name, expression in QUICK:
        tests = [line.lower() for line in there if line.startswith(f"test_{name}.py::")]
        chooses = Expression.compile(expression or "test").evaluate
        assert [test for test in tests if chooses(lambda word, test=test, **_: word.lower() in test)], (name, expression)


# ------------------------------------------------------------------------------------------------------------- baselines

in_repository = pytest.mark.skipif(not shutil.which("git") or not (ROOT / ".git").exists(), reason="no repository of git")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where baselines are, and suites that are not run."""
    monkeypatch.setattr(baseline, "FOLDER", tmp_path)
    monkeypatch.setattr(baseline, "check_built", lambda root: None)
    monkeypatch.setattr(suites, "run", lambda suite, tree, seconds: Run(
        {(f"{suite.name}: one", TIME): next(values)}, {f"{suite.name}: two": "no recordings"}))
    values = iter([3.0, 1.0, 2.0, 40.0, 60.0, 50.0])
    return tmp_path


@in_repository
def test_a_baseline_is_written_and_compared(folder, capsys):
    assert baseline.main(["write", "here", "--suite", "keys:far"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["not there in the present tree: keys: two: no recordings"]
    text = (folder / "here.json").read_text()
    stored = json.loads(text)
    assert stored["figures"] == [{"name": "keys: one", "unit": TIME, "median": 2.0, "least": 1.0, "greatest": 3.0}]
    assert stored["suites"] == [["keys", "far"]]
    assert '\n  {"name": "keys: one", ' in text
    assert baseline.main(["compare", "here"]) == 0
    said = capsys.readouterr().out
    assert "25.00 (20.00 … 30.00)  worse" in said
    assert "WARNING" not in said


@in_repository
def test_what_is_wrong_with_a_baseline_is_told_in_a_line(folder, capsys):
    assert baseline.main(["compare", "nonesuch"]) == 1
    assert "there is no baseline 'nonesuch'; there are: none" in capsys.readouterr().err
    (folder / "broken.json").write_text("{")
    assert baseline.main(["compare", "broken"]) == 1
    assert capsys.readouterr().err.startswith("broken.json is no baseline: ")
    with pytest.raises(SystemExit):
        baseline.main(["write", "../outside"])
    assert "give a name, not a path" in capsys.readouterr().err


def test_a_baseline_of_another_machine_is_told(folder):
    made = {"machine": {"cores": -1, "system": "", "architecture": "", "python": "", "load": 0}, "commit": "c", "made": "d",
            "rounds": 3, "seconds": 0.5, "figures": {}}
    said = list(baseline.shown(made, {}, {}, "now", argparse.Namespace(rounds=3, seconds=0.7)))
    assert sum(one.startswith("WARNING") for one in said) == 2


def test_the_stored_baselines_can_be_read():
    for path in (ROOT / "benchmarks" / "baselines").glob("*.json"):
        found = baseline.stored(path.read_text(encoding="utf-8"))
        assert found["figures"]
        assert {one.name for one in found["suites"]} <= set(suites.all_suites())
        for value in found["figures"].values():
            assert value.least <= value.median <= value.greatest
