"""What the demo shows while it runs: the figures of one moment, and plain lines of them.

The live table for a terminal stands in live.py. Nothing is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from wsengine.pipeline.stats import PipelineStats, ProcessorStats

__all__ = ["PlainView", "Snapshot", "View", "milliseconds", "size_text"]

#: Processors whose numbers are shown one by one; the others are shown as a sum.
SHOWN = 16


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one moment.

    Attributes:
        elapsed, seconds: how long the demo runs already, and shall run.
        rate: messages a second since the snapshot before.
        handled, failed: messages so far.
        depth: messages in the ring that wait to be claimed.
        held_messages, held_bytes, max_queue, max_queue_bytes: what the pipeline holds, against its bounds.
        max_demand: messages that one processor holds at the most.
        processors: each by itself.
        state: of the connection; "paused" while the socket is not read because the pipeline is full, "ended" once it
            will not come back.
        round_trip: seconds from ping to pong, None before the first.
        reconnects: so far.
    """

    elapsed: float
    seconds: float
    rate: float
    handled: int
    failed: int
    depth: int
    held_messages: int
    held_bytes: int
    max_queue: int
    max_queue_bytes: int
    max_demand: int
    processors: tuple[ProcessorStats, ...]
    state: str
    round_trip: float | None
    reconnects: int

    @classmethod
    def of(cls, stats: PipelineStats, *, elapsed: float, seconds: float, rate: float, max_demand: int,
           ended: bool) -> Snapshot:
        """Take what is shown from the figures of a pipeline on one connection; `ended`: it will not come back.

        `rate` is given, because that of the figures counts from when anybody last asked for them.
        """
        connection = stats.producers[0]["connections"][0]
        state = "paused" if connection["state"] == "ready" and connection["paused"] else connection["state"]
        return cls(
            elapsed=elapsed, seconds=seconds, rate=rate, handled=stats.successful, failed=stats.failed,
            depth=stats.depth, held_messages=stats.held_messages, held_bytes=stats.held_bytes, max_queue=stats.max_queue,
            max_queue_bytes=stats.max_queue_bytes, max_demand=max_demand, processors=stats.processors,
            state="ended" if ended else state, round_trip=connection["latency"],
            reconnects=connection["reconnects"])


class View(Protocol):
    """Where the demo shows itself; used in the main thread, inside `with`.

    Attributes:
        period: seconds between two snapshots.
    """

    period: float

    def show(self, snapshot: Snapshot) -> None:
        """Show the figures of a new moment."""

    def note(self, text: str) -> None:
        """Tell what has happened."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...


class PlainView:
    """A line each second, for files, pipes and simple terminals."""

    period = 1.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, snapshot: Snapshot) -> None:
        outstanding = [one.outstanding for one in snapshot.processors]
        shown = " ".join(map(str, outstanding[:SHOWN]))
        more = f" and {sum(outstanding[SHOWN:]):,} in {len(outstanding) - SHOWN} more" if outstanding[SHOWN:] else ""
        self.note(
            f"{snapshot.elapsed:6.1f} s  {snapshot.rate:11,.0f} msg/s  handled {snapshot.handled:,}  "
            f"outstanding {shown}{more}  ring {snapshot.depth:,}  held {size_text(snapshot.held_bytes)}  "
            f"round trip {milliseconds(snapshot.round_trip)}  reconnects {snapshot.reconnects}  {snapshot.state}")

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        return None


def milliseconds(value: float | None) -> str:
    """A time in seconds for people; a dash for none."""
    if value is None:
        return "-"
    return f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.1f} s"


def size_text(count: int) -> str:
    """A number of bytes for people."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
