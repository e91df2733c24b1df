"""The engine's concurrent header under Relacy: as written in many schedules, and with each memory order weakened.

Here belong the generation of mutants from the header, the verdicts on them, and the list of orders that are kept though
no model needs them. The models themselves are in `models.hpp`. `WSENGINE_LONG=1` runs ten times as many schedules.
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
#: What the models check: the headers that two threads touch at once.
HEADERS = ("lead", "doorbell", "parker", "ring", "stack", "account", "outbox", "slab")
RELACY = Path("/usr/include/relacy/relacy.hpp")

LONG = 10 if os.environ.get("WSENGINE_LONG") == "1" else 1
#: Random schedules of each model, with the orders as written.
SCHEDULES = 100_000 * LONG
#: Schedules of each model in which a mutant must fail, tried one after the other: most fail within a hundred, the
#: hardest (of the parker's `waking_`) within some ten thousand.
MUTANT_SCHEDULES = (500, 20_000, 200_000 * LONG)
#: Schedules of each model that a kept order is shown to pass when it is weakened.
KEPT_SCHEDULES = 4_000 * LONG

MODELS = (
    "ring_1_2", "ring_2_2", "parker_1", "parker_2", "chain_2", "chain_3", "stop", "slabs", "mailbox",
    "account_1_2", "account_2_2", "admission_1", "admission_2", "lead", "lead_stuck", "shut", "outbox",
)  # fmt: skip

#: What each order may be weakened to. The weakest comes last.
WEAKER = {
    "acq_rel": ("acquire", "release", "relaxed"),
    "acquire": ("relaxed",),
    "release": ("relaxed",),
}

#: Mutants that pass every model, and why the order stands all the same. A row that fails a model, or whose order the
#: header no longer has, fails the tests: remove it.
KEPT = {
    "park_leave=release": "acq_rel can be release: a leaver always looks or prepares again before it sleeps",
    "park_leave=acquire": "the release half keeps the wait before the count falls; a model runs the wait in its place",
    "park_leave=relaxed": "as park_leave=acquire",
    "bell_answer=acquire": "the release half keeps lower(), a system call, before the flag falls, or it could swallow "
    "the next raise; a model runs system calls in their place",
    "ring_ready_peek=relaxed": "can be relaxed: prepare() orders the look, and pop() acquires what it reads",
    "park_waiters=acquire": "can be acquire: word_load and word_bump cover a notify that comes after it",
    "park_waking=acquire": "can be acquire: nothing that a waiter wrote is read by who sees waking_ cleared",
    "park_arrive=acquire": "can be acquire: as park_waking",
    "notify_waiters=release": "can be release: the notifier reads nothing that a waiter wrote but the count itself",
    "notify_waking=release": "can be release: as notify_waiters",
    "bell_ring=release": "the acquire half puts the look at the lead behind that of hand_over; a model's changes of one "
    "thread are never seen in another order",
    "bell_peek=relaxed": "as bell_ring: what it pairs with",
    "starve_set=acquire": "can be acquire: who takes the bit reads nothing of the source's",
    "starve_take=release": "can be release: as starve_set",
    "rest_set=relaxed": "can be relaxed while the bells are hung before the releasers start; sources may come later",
}


def orders() -> dict[str, str]:
    """The memory order of each tag, as the headers have it."""
    found: dict[str, str] = {}
    text = "".join((ENGINE / f"{header}.hpp").read_text() for header in HEADERS)
    for tag, order in re.findall(r"WS_ORDER\((\w+), (\w+)\)", text):
        if found.setdefault(tag, order) != order:
            pytest.fail(f"WS_ORDER({tag}, ...) has both {found[tag]} and {order}; give each order a tag of its own")
    return found


def mutants() -> list[str]:
    """Each order of the header weakened in each way, as `tag=order`."""
    return [f"{tag}={weaker}" for tag, order in orders().items() for weaker in WEAKER.get(order, ())]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs the models, compiled from the header as it is now."""
    if not RELACY.exists():
        pytest.skip("Relacy is not installed: the models need the Debian package relacy-dev")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the models need the Debian package g++")
    program = tmp_path_factory.mktemp("model") / "models"
    # -O1 and not -O2: it saves a third of the compile time, more than the models then lose.
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ENGINE}", f"-I{HERE}"]
    built = subprocess.run([*command, str(HERE / "runner.cpp"), "-o", str(program)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return program


def run(runner: Path, seed: int, schedules: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the models; a crash of the runner is neither a pass nor a verdict."""
    command = [str(runner), "--seed", str(seed), "--iterations", str(schedules), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170 * LONG)
    assert done.returncode in (0, 1, 3), f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


def weakened(names: list[str]) -> list[str]:
    """The runner's options for these mutants at once."""
    return [word for name in names for word in ("--mutant", name)]


@pytest.mark.timeout(180 * LONG)
@pytest.mark.parametrize("model", MODELS)
def test_the_header_as_written_passes_the_model(runner: Path, seed: int, model: str) -> None:
    done = run(runner, seed, SCHEDULES, "--model", model, "--history")
    assert done.returncode == 0, done.stdout
    assert f"{model}: passed after {SCHEDULES} schedules" in done.stdout


def test_every_model_of_the_runner_is_run(runner: Path) -> None:
    listed = subprocess.run([str(runner), "--list"], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(MODELS)


@pytest.mark.timeout(180 * LONG)
@pytest.mark.parametrize("mutant", [name for name in mutants() if name not in KEPT])
def test_a_weaker_order_fails_a_model(runner: Path, seed: int, mutant: str) -> None:
    for schedules in MUTANT_SCHEDULES:
        done = run(runner, seed, schedules, "--mutant", mutant)
        assert done.returncode != 3, f"no model comes past {mutant.split('=')[0]}"
        if done.returncode == 1:
            return
    pytest.fail(f"{mutant} passes every model: weaken the order in the header, or add a row with the reason to KEPT")


@pytest.mark.timeout(180 * LONG)
@pytest.mark.parametrize("mutant", sorted(KEPT))
def test_an_order_kept_for_its_written_reason_is_not_needed_by_a_model(runner: Path, seed: int, mutant: str) -> None:
    assert mutant in mutants(), f"the header has no order that {mutant} weakens: remove its row from KEPT"
    done = run(runner, seed, KEPT_SCHEDULES, "--mutant", mutant)
    assert done.returncode == 0, f"a model needs this order after all: remove its row from KEPT\n{done.stdout}"


@pytest.mark.timeout(180 * LONG)
def test_all_orders_that_may_be_weaker_may_be_so_together(runner: Path, seed: int) -> None:
    names = [name for name, reason in KEPT.items() if "can be" in reason]
    if not names:
        pytest.skip("KEPT has no order left that is stronger than needed")
    done = run(runner, seed, SCHEDULES // 5, *weakened(names))
    assert done.returncode == 0, done.stdout


def test_a_tag_that_no_model_comes_past_is_reported(runner: Path, seed: int) -> None:
    assert run(runner, seed, 10, "--mutant", "no_such_tag=relaxed").returncode == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--model", "rign"], "no model is called 'rign'"),
        (["--mutant", "ring_free"], "--mutant wants TAG=ORDER"),
        (["--iterations", "0"], "--iterations wants at least 1, not 0"),
        (["--seed", "x"], "--seed wants a number, not 'x'"),
    ],
)
def test_the_runner_refuses_wrong_options(runner: Path, options: list[str], complaint: str) -> None:
    done = subprocess.run([str(runner), *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert complaint in done.stderr
