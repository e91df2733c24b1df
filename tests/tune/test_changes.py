"""What is measured behind the search, on models: what two changes bring, and latency at a pace that all can keep."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from wsengine.errors import ConfigurationError
from wsengine.tune import interpreters
from wsengine.tune.changes import Change, by_chunk, without_gil
from wsengine.tune.found import Found
from wsengine.tune.interpreters import Interpreter, free_threaded
from wsengine.tune.pace import MOST, paced
from wsengine.tune.setting import Point, Setting

BEST = Setting(concurrency=3)
FREE = Interpreter("/opt/python3.14t", "3.14.0")


@dataclass
class Model:
    """Measures as `Measure` does: 100 messages a second, 30 more by chunk; without a GIL 50 a thread, of 4 at the most.

    At a pace: as many as come, up to `able`.
    """

    loop: bool = False
    python: str = "python"
    rate: float | None = None
    broken: str = ""
    able: float = 1000.0
    asked: list | None = None

    def __call__(self, setting):
        if self.asked is not None:
            self.asked.append((setting, self.rate))
        if self.broken and self.broken in (self.python, self.loop and "loop"):
            return Point(setting, problem="it hangs")
        rate = 130.0 if self.loop else 100.0
        if self.python == FREE.path:
            rate = 100.0 * min(setting.concurrency, 4) / 2
        if self.rate is not None:
            rate = min(self.able, self.rate)
        return Point(setting, rate=rate)

    def check(self):
        if self.python == "broken":
            raise ConfigurationError("tune.target", "shop:handle", "make it importable (No module named 'wsengine')")
        return {"gil": self.python != FREE.path, "python": FREE.version, "version": ""}


def always(measurements):
    return True


def never(measurements):
    return False


def test_a_chunk_handler_is_measured_beside_what_there_is():
    change = by_chunk(Model(), BEST, always)
    assert change.ratios == (1.3, 1.3)
    assert change.setting == BEST
    assert "1.30 x as many messages a second (1.30 … 1.30)" in change.said()
    assert json.loads(json.dumps(change.figures()))["ratio"] == 1.3


def test_a_python_without_the_gil_gets_as_many_processors_as_are_best_there():
    change = without_gil(Model(), BEST, FREE, always)
    assert change.setting.concurrency == 4
    assert change.ratios == (2.0, 2.0)
    assert change.said().startswith("Python 3.14.0 without the GIL, with concurrency=4: 2.00 x")


@pytest.mark.parametrize("change", [
    by_chunk(Model(broken="loop"), BEST, always), without_gil(Model(broken=FREE.path), BEST, FREE, always)])
def test_what_cannot_be_measured_has_its_reason(change):
    assert change.ratios == ()
    assert change.said().endswith("not measured, it hangs")
    assert change.figures()["ratio"] is None


@pytest.mark.parametrize("change", [by_chunk(Model(), BEST, never), without_gil(Model(), BEST, FREE, never)])
def test_without_time_nothing_is_measured(change):
    assert "no time was left" in change.said()


def test_without_such_a_python_it_is_said_how_to_name_one():
    assert "not measured, none here" in without_gil(Model(), BEST, "none here", always).said()


def test_little_is_told_as_little():
    assert "only where work can be done for many messages at once" in Change("handle_messages", "", BEST, (1.0, 1.02)).said()


@pytest.fixture
def there(monkeypatch):
    """Which programs there are."""
    programs = set()
    monkeypatch.setattr(interpreters.shutil, "which", lambda name: name if name in programs else None)
    return programs


def test_one_of_the_path_is_taken(there, monkeypatch):
    monkeypatch.setattr(interpreters, "NAMES", ("broken", FREE.path))
    there.update(("broken", FREE.path))
    assert free_threaded(Model(), None) == FREE


def test_if_none_of_the_path_will_do_it_is_said_why(there):
    assert "no free-threaded Python is at hand; name one by --free-threaded" in free_threaded(Model(), None)
    there.add(interpreters.NAMES[0])
    said = free_threaded(Model(), None)
    assert f"{interpreters.NAMES[0]}: it has a GIL" in said
    assert "name one by" in said


@pytest.mark.parametrize(("named", "said"), [
    ("nowhere", "there is no such program"), ("broken", "No module named 'wsengine'"), ("python3.11", "it has a GIL")])
def test_one_that_is_named_has_to_do(there, named, said):
    there.update(("broken", "python3.11", FREE.path))
    with pytest.raises(ConfigurationError, match=said):
        free_threaded(Model(), named)
    assert free_threaded(Model(), FREE.path) == FREE


def test_the_pace_is_half_of_the_best_and_only_those_that_can_keep_it_are_measured():
    found = Found([Point(Setting(concurrency=number), rate=10.0 * number) for number in (1, 2, 4, 8, 16, 32, 64)])
    found.points.append(Point(Setting(concurrency=32, max_demand=10), rate=640.0))
    found.best = found.points[-1].setting
    asked = []
    result = paced(Model(asked=asked), found, always)
    assert result.rate == 320
    assert asked == [(found.best, 320), (Setting(concurrency=64, max_demand=10), 320)]  # in nothing else do they differ


def test_who_cannot_keep_the_pace_is_left_out():
    found = Found([Point(Setting(concurrency=number), rate=100.0) for number in (1, 2)], best=Setting())
    result = paced(Model(), found, always)
    assert result.points == [Point(Setting(), rate=50), Point(Setting(concurrency=2), rate=50)]
    assert (result.part, result.problem) == ("half", "")


@pytest.mark.parametrize(("able", "rates", "said"), [
    (30.0, {50, 25}, ""),
    (20.0, {50, 25}, "at 25 messages a second, a quarter of what it handled flat out, it fell behind")])
def test_where_nobody_can_keep_the_pace_half_of_it_is_tried(able, rates, said):
    found = Found([Point(Setting(concurrency=number), rate=100.0) for number in (1, 2)], best=Setting())
    asked = []
    result = paced(Model(able=able, asked=asked), found, always)
    assert {rate for _, rate in asked} == rates
    assert (result.part, result.problem) == ("a quarter", said)
    assert len(result.points) == (0 if said else 2)
    assert json.loads(json.dumps(result.figures()))["problem"] == said


def test_latencies_that_no_time_was_left_for_are_told_of():
    found = Found([Point(Setting(), rate=100.0)], best=Setting())
    assert "no time was left" in paced(Model(), found, never).problem
    asked = []
    assert paced(Model(asked=asked), found, lambda measurements: measurements <= 1).points    # no more are wanted
    assert len(asked) == 1


def test_what_hangs_at_a_pace_is_told_of():
    found = Found([Point(Setting(), rate=100.0)], best=Setting())
    assert paced(Model(broken="python"), found, always).problem == "it hangs"


def test_of_many_that_can_keep_it_some_are_measured_and_the_best_among_them():
    found = Found([Point(Setting(concurrency=number), rate=100.0) for number in range(1, 20)], best=Setting(concurrency=7))
    asked = []
    paced(Model(asked=asked), found, always)
    numbers = [setting.concurrency for setting, _ in asked]
    assert len(numbers) == MOST
    assert numbers == sorted(set(numbers))
    assert 7 in numbers
    assert numbers[0] == 1
