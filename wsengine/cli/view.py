"""Which view of the demo fits the output: the live table (live.py) or plain lines (table.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from wsengine.cli.table import PlainView

if TYPE_CHECKING:
    from wsengine.cli.table import View

__all__ = ["open_view"]


def open_view(stream: TextIO, *, plain: bool) -> View:
    """The live table where the output is a terminal that can show it, plain lines everywhere else."""
    if plain or not stream.isatty():
        return PlainView(stream)
    try:
        from wsengine.cli.live import LiveView, can_show
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        print("For a live table: pip install 'wsengine[cli]'. Here are plain lines.", file=stream, flush=True)
        return PlainView(stream)
    return LiveView(stream) if can_show(stream) else PlainView(stream)
