"""What is made of the rounds: medians with their spread, ratios round by round, and warnings. Nothing is run or printed."""

from __future__ import annotations

import os
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MACHINE", "Spread", "column", "machine_set", "ratios", "server_set", "spread", "warnings"]

#: Below this share of idle time, a server or a machine is taken to have set the figure.
BUSY = 0.05


class Spread(NamedTuple):
    """A median with the least and the greatest value of the rounds."""

    median: float
    least: float
    greatest: float


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    ordered = sorted(values)
    return Spread(median(ordered), ordered[0], ordered[-1])


def column(rounds: Sequence[dict[str, Any]], key: str) -> list[float]:
    """One figure of each round."""
    return [one[key] for one in rounds]


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], key: str) -> list[float]:
    """Our figure over theirs, each from one round: rounds are minutes apart, the two of one round are not."""
    return [mine[key] / other[key] for mine, other in zip(ours, theirs, strict=True)]


def warnings(name: str, rounds: Sequence[dict[str, Any]]) -> list[str]:
    """Where something other than the client set its figure."""
    said = []
    if server_set(rounds):
        idle = min(column(rounds, "server_idle_share"))
        said.append(f"{name}: the server set the figure in at least one round, it was idle for {idle:.0%} only")
    busy = machine_set(rounds)
    if busy:
        said.append(f"{name}: the machine set the figure in {busy} of {len(rounds)} rounds: {MACHINE}")
    return said


#: What it means that the machine set a figure.
MACHINE = (f"all {os.cpu_count()} cores were busy, with this client, the server and whatever else runs; with more cores it "
           "differs")


def server_set(rounds: Sequence[dict[str, Any]]) -> int:
    """In how many rounds the server was what the client waited for; none where nothing is known of the server."""
    return sum(one["server_idle_share"] is not None and one["server_idle_share"] < BUSY for one in rounds)


def machine_set(rounds: Sequence[dict[str, Any]]) -> int:
    """In how many rounds no core was idle."""
    return sum(one["machine_idle_share"] < BUSY for one in rounds)
