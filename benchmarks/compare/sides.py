"""wsengine beside itself: sides that differ in options of its driver take turns, and each is told as a multiple of the
first.

Which sides there are, and what is allowed, is said by the programs that use this. A side is a name and arguments of
`benchmarks.drivers.wsengine_client`; each run has a feed of its own in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.runs import drive_feed
from wsengine.bench.statistics import column, ratios, spread
from wsengine.bench.table import machine
from wsengine.testing import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["all_rounds", "heading", "lines", "parser", "shown"]

#: A run of each side, round by round.
Rounds = dict[str, list[dict[str, Any]]]


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with what these programs have in common."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--seconds", type=float, default=0.7, help="measured of each side in each round")
    made.add_argument("--warmup", type=float, default=0.3, help="seconds before them")
    made.add_argument("--size", type=int, default=128, help="bytes of each payload, at least 96")
    return made


def all_rounds(sides: Mapping[str, Sequence[object]], options: argparse.Namespace) -> Rounds:
    """So many rounds of all sides; DriverFailed if one fails."""
    rounds: Rounds = {name: [] for name in sides}
    for number in range(options.rounds):
        # Every other round goes the other way, so that no side always runs behind the same one.
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            rounds[name].append(drive_feed(
                Feed.trades(size=options.size), "wsengine_client", "--size", options.size, "--warmup", options.warmup,
                *sides[name], seconds=options.seconds))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return rounds


def heading(options: argparse.Namespace) -> str:
    """What the figures depend on."""
    about = machine()
    return (f"{about['cores']} cores, {about['system']} {about['architecture']}, Python {about['python']}, load "
            f"{about['load']}; {options.rounds} rounds of {options.seconds:g} s; {options.size} B, text\n"
            "Ratios are those of a round: median (least … greatest) of the rounds.")


def lines(rounds: Rounds) -> Iterator[str]:
    """A line for each side. "time" is that from message to message under the flood, "CPU" that of the whole process for a
    message; the loss is that of messages a second."""
    first = next(iter(rounds))
    for name, runs in rounds.items():
        rate = spread(column(runs, "messages_per_second"))
        cpu = spread(column(runs, "cpu_seconds_per_million"))
        yield f"  {name}: {rate.median / 1e6:.2f} M/s, {cpu.median * 1000:.0f} ns of CPU a message"
        if name == first:
            continue
        yield (f"    over {first}: time {shown(ratios(rounds[first], runs, 'messages_per_second'))} ×, CPU "
               f"{shown(ratios(runs, rounds[first], 'cpu_seconds_per_million'))} ×; loss "
               + shown([100 * (1 - one) for one in ratios(runs, rounds[first], 'messages_per_second')], "{:.0f}") + " %")


def shown(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Median (least … greatest)."""
    one = spread(values)
    return f"{form.format(one.median)} ({form.format(one.least)} … {form.format(one.greatest)})"
