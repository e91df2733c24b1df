"""The engine's concurrent header under real threads, compiled for speed and with ThreadSanitizer.

Here belong the build of `ring_stress.cpp`, the variants it is run in and what its figures must show. That orders are as
weak as can be is the matter of `tests/model`; here the machine's own caches, scheduler and futex have their say.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ENGINE = HERE.parents[1] / "wsengine" / "engine"
BUILDS = {"fast": [], "tsan": ["-g", "-fsanitize=thread"]}
LONG = 10 if os.environ.get("WSENGINE_LONG") == "1" else 1
MILLIS = 200 * LONG

pytestmark = [pytest.mark.stress, pytest.mark.timeout(120 * LONG)]


def build(folder: Path, flags: list[str], include: Path = ENGINE) -> Path:
    """Compile the stress program against the header in `include`."""
    program = folder / "ring_stress"
    source = HERE / "ring_stress.cpp"
    command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{include}", *flags]
    built = subprocess.run([*command, str(source), "-o", str(program)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return program


def run(program: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run it; where this kernel lays memory out in a way that ThreadSanitizer cannot map, once more without that."""
    command = [str(program), *(str(option) for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100 * LONG)
    if "unexpected memory mapping" in done.stderr:
        done = subprocess.run(["setarch", "-R", *command], capture_output=True, text=True, timeout=100 * LONG)
    print(done.stdout, end="")
    return done


def figures(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """What a run that found nothing wrong has counted."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The program in each build."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the stress program needs the Debian package g++")
    return {name: build(tmp_path_factory.mktemp(name), flags) for name, flags in BUILDS.items()}


@pytest.mark.parametrize("capacity", [2, 4, 1024])
@pytest.mark.parametrize("consumers", [1, 2, 4])
@pytest.mark.parametrize("producers", [1, 2])
@pytest.mark.parametrize("name", BUILDS)
def test_every_message_comes_once_and_in_order_and_nothing_is_left_after_a_stop(
    programs: dict[str, Path], seed: int, name: str, producers: int, consumers: int, capacity: int
) -> None:
    shape = ("--producers", producers, "--consumers", consumers, "--capacity", capacity)
    counted = figures(run(programs[name], *shape, "--millis", MILLIS, "--seed", seed))
    assert counted["seed"] == seed
    assert counted["messages"] > 0
    assert counted["parks"] > 0
    assert counted["wakes"] > 0
    assert counted["sleeps"] > 0
    if consumers == 1:
        assert counted["chained"] == 0, "one consumer woke itself"


@pytest.mark.parametrize("capacity", [2, 8, 64])
@pytest.mark.parametrize("name", BUILDS)
def test_a_consumer_stopped_inside_its_claim_holds_back_only_its_own_slots(
    programs: dict[str, Path], seed: int, name: str, capacity: int
) -> None:
    options = ("--scenario", "stall", "--capacity", capacity, "--rounds", 20 * LONG, "--seed", seed)
    assert figures(run(programs[name], *options)) == {"seed": seed, "rounds": 20 * LONG}


def test_thread_sanitizer_sees_an_order_that_is_too_weak(tmp_path: Path, programs: dict[str, Path], seed: int) -> None:
    header = (ENGINE / "ring.hpp").read_text()
    assert header.count("WS_ORDER(ring_publish, release)") == 1
    weak = header.replace("WS_ORDER(ring_publish, release)", "WS_ORDER(ring_publish, relaxed)")
    for path in ENGINE.glob("*.hpp"):
        shutil.copy(path, tmp_path)
    (tmp_path / "ring.hpp").write_text(weak)
    done = run(build(tmp_path, BUILDS["tsan"], tmp_path), "--millis", MILLIS, "--seed", seed)
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--capacity", "3"], "--capacity wants a power of two from 2 on"),
        (["--consumers", "0"], "--producers and --consumers want at least 1"),
        (["--scenario", "flood"], "--scenario wants flow or stall, not 'flood'"),
        (["--consumer", "2"], "'--consumer' is unknown"),
        (["--seed"], "'--seed' lacks its value"),
    ],
)
def test_the_program_refuses_wrong_options(programs: dict[str, Path], options: list[str], complaint: str) -> None:
    done = run(programs["fast"], *options)
    assert done.returncode == 2
    assert complaint in done.stderr
