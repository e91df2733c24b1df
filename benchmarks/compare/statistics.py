"""What is made of the rounds: medians with their spread, ratios round by round, and warnings. Nothing is run or printed."""

from __future__ import annotations

import os
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Spread", "column", "ratios", "spread", "warnings"]

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
    server = min(column(rounds, "server_idle_share"))
    if server < BUSY:
        said.append(f"{name}: the server set the figure in at least one round, it was idle for {server:.0%} only")
    busy = sum(one["machine_idle_share"] < BUSY for one in rounds)
    if busy:
        said.append(f"{name}: the machine set the figure in {busy} of {len(rounds)} rounds: all {os.cpu_count()} cores "
                    f"were busy, with this client, the server and whatever else runs; with more cores it differs")
    return said
