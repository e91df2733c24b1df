"""What is made of the rounds: medians with their spread, ratios round by round, and warnings. Nothing is run or printed."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from wsengine.testing.peers.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Spread", "column", "machine_set", "ratios", "server_set", "spread", "warnings", "why_machine"]

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
        said.append(f"{name}: the machine set the figure in {busy} of {len(rounds)} rounds: {why_machine()}")
    return said


def why_machine() -> str:
    """What it means that the machine set a figure."""
    cores = usable_cores()
    return (f"{cores:.3g} core{'' if cores == 1 else 's'}, all that may be used here, were busy with this client, the "
            "server and whatever else runs; with more cores it differs")


def server_set(rounds: Sequence[dict[str, Any]]) -> int:
    """In how many rounds the server was what the client waited for; none where nothing is known of the server."""
    return sum(one["server_idle_share"] is not None and one["server_idle_share"] < BUSY for one in rounds)


def machine_set(rounds: Sequence[dict[str, Any]]) -> int:
    """In how many rounds none of the cores was idle, or a quota was used up."""
    return sum(one["machine_idle_share"] < BUSY for one in rounds)
