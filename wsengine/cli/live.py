"""The live table of the demo, drawn by rich. This file and colour.py are the only ones that need it, and are imported only
where it is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wsengine.cli.table import SHOWN, Snapshot, milliseconds, size_text

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["LiveView", "can_show", "render"]

#: The colour of each state of the connection.
COLOURS = {"ready": "green", "paused": "yellow", "backoff": "red", "dialing": "yellow"}
BAR = 30


def can_show(stream: TextIO) -> bool:
    """Whether the terminal can redraw what it shows."""
    console = Console(file=stream)
    return console.is_terminal and not console.is_dumb_terminal


class LiveView:
    """A table that is redrawn in place, with what has happened above it. Main thread only."""

    period = 0.25

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        # Drawn when there is something new, by the thread that has it: no thread beside those of the pipeline.
        self._live = Live(console=self._console, auto_refresh=False)

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(render(snapshot), refresh=True)

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._live.stop()


def render(snapshot: Snapshot) -> Group:
    """The table of one moment."""
    return Group(_facts(snapshot), Text(), _processors(snapshot))


def _facts(snapshot: Snapshot) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(justify="right", min_width=14)
    facts.add_column()
    facts.add_row("time", f"{snapshot.elapsed:.1f} s", _bar(snapshot.elapsed, snapshot.seconds))
    facts.add_row("rate", f"{snapshot.rate:,.0f} msg/s", "")
    facts.add_row("handled", f"{snapshot.handled:,}", f"{snapshot.failed:,} failed" if snapshot.failed else "")
    facts.add_row("ring", f"{snapshot.depth:,} waiting", "")
    facts.add_row("held", f"{snapshot.held_messages:,} messages", _bar(snapshot.held_messages, snapshot.max_queue))
    facts.add_row("", size_text(snapshot.held_bytes), _bar(snapshot.held_bytes, snapshot.max_queue_bytes))
    facts.add_row("connection", Text(snapshot.state, style=COLOURS.get(snapshot.state, "")),
                  f"round trip {milliseconds(snapshot.round_trip)}, reconnects {snapshot.reconnects}")
    return facts


def _processors(snapshot: Snapshot) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("processor", justify="right")
    table.add_column("outstanding", justify="right")
    table.add_column("", min_width=BAR)
    table.add_column("handled", justify="right", min_width=14)
    for one in snapshot.processors[:SHOWN]:
        table.add_row(str(one.index), str(one.outstanding), _bar(one.outstanding, snapshot.max_demand),
                      f"{one.successful:,}")
    others = snapshot.processors[SHOWN:]
    if others:
        outstanding = sum(one.outstanding for one in others)
        table.add_row(f"{len(others)} more", str(outstanding), _bar(outstanding, snapshot.max_demand * len(others)),
                      f"{sum(one.successful for one in others):,}")
    return table


def _bar(value: float, most: float) -> ProgressBar:
    return ProgressBar(total=most, completed=min(value, most), width=BAR)
