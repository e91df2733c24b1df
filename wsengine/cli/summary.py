"""What the demo says at its end: whether the sum is proven, and the figures of the run.

The proof compares two logs that know nothing of each other: that of the server, which counts what the kernel has taken,
and the ledger, in which the handlers enter the numbers of what they were given. Nothing is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsengine.cli.table import milliseconds

if TYPE_CHECKING:
    from wsengine.cli.ledger import Reckoning
    from wsengine.testing import FeedLog

__all__ = ["Figures", "faults", "summarize"]

#: Runs of missing numbers that are named; the others are counted.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a whole run.

    Attributes:
        seconds: from the start of the pipeline until everything was handled.
        cpu_seconds: of this process in that time, all threads.
        size: bytes of a message.
        failed: messages that the pipeline counts as failed.
        reconnects: of the connection.
        round_trip: the last, in seconds, None if there was no pong.
        p50, p99: seconds from the server's stamp to the handler, None if nothing was handled.
    """

    seconds: float
    cpu_seconds: float
    size: int
    failed: int
    reconnects: int
    round_trip: float | None
    p50: float | None
    p99: float | None


def faults(log: FeedLog, reckoning: Reckoning, failed: int) -> list[str]:
    """Everything that disagrees, in words; empty means proven."""
    found = []
    if log.last_sequence is not None and log.last_sequence + 1 != log.messages:
        found.append(f"the server's log counts {log.messages:,} messages, but the last has number {log.last_sequence:,}: "
                     "somebody else was connected to it, too")
    if reckoning.handled != log.messages:
        found.append(f"{log.messages:,} were sent, but {reckoning.handled:,} handled")
    if reckoning.missing:
        named = ", ".join(_run(*run) for run in reckoning.missing[:NAMED])
        more = f", and {len(reckoning.missing) - NAMED:,} more runs" if reckoning.missing[NAMED:] else ""
        found.append(f"{reckoning.missing_count:,} are missing: {named}{more}")
    if reckoning.twice:
        found.append(f"{reckoning.twice:,} came again, having been handled before")
    if reckoning.unsent:
        found.append(f"{reckoning.unsent:,} were handled that the server does not know of")
    if failed:
        found.append(f"{failed:,} failed")
    return found


def summarize(log: FeedLog, reckoning: Reckoning, figures: Figures) -> list[str]:
    """The lines of the summary."""
    found = faults(log, reckoning, figures.failed)
    per_second = reckoning.handled / max(figures.seconds, 1e-9)
    million = reckoning.handled / 1e6
    cpu = f"{figures.cpu_seconds / million:.2f} s for a million messages (this process, drawing and checking included)"
    opened = len([one for one in log.connections if one.lane is not None])
    latency = f"half within {milliseconds(figures.p50)}, 99 % within {milliseconds(figures.p99)} (p50, p99)"
    rows = [
        ("sent", f"{log.messages:,} messages on {opened} connection{'s' if opened != 1 else ''}, by the server's own log"),
        ("handled", f"{reckoning.handled:,} messages in {figures.seconds:.1f} s"),
        ("rate", f"{per_second:,.0f} msg/s, {per_second * figures.size / 1e6:,.1f} MB/s"),
        ("CPU", cpu if million else "-"),
        ("latency", f"{latency}, from the server's stamp to the handler, of the oldest of each chunk"),
        ("round trip", milliseconds(figures.round_trip)),
        ("reconnects", str(figures.reconnects)),
    ]
    lines = ["", *(f"{name:<12}{text}" for name, text in rows), ""]
    if found:
        return [*lines, "NOT proven, the sum does not come out:", *(f"  - {fault}" for fault in found)]
    return [*lines, "Proven: each message sent was handled exactly once; none is missing, none came twice, none failed."]


def _run(first: int, last: int) -> str:
    return f"number {first:,}" if first == last else f"numbers {first:,} to {last:,}"
