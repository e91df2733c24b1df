"""The pictures of a report, by matplotlib: throughput and latency over concurrency, and where the threads' time goes.

Imported only where pictures are wanted. Which figures they show is decided here; how they come to be, elsewhere.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from wsengine.tune.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.tune.found import Found
    from wsengine.tune.setting import Point

__all__ = ["COLOURS", "pictures"]

#: Of a thread's time; told apart by those who see fewer colours, too (Okabe and Ito).
COLOURS = {"running": "#009E73", "gil": "#D55E00", "core": "#E69F00", "blocked": "#0072B2", "idle": "#D9D9D9"}
LABELS = {"running": "running", "gil": "waiting for the GIL", "core": "waiting for a core",
          "blocked": "waiting for something outside", "idle": "waiting for work"}
INK, PALE, ACCENT = "#222222", "#888888", "#CC3311"
#: Inches; at 110 dots each.
SIZE = (8.0, 4.2)
DOTS = 110
#: Of the highest value, so that the mark around it is whole.
ROOM = 1.12


def throughput(found: Found) -> Figure:
    """Messages a second over concurrency, each measurement a dot, the recommended setting marked."""
    settings = found.along_concurrency()
    figure, axes = _axes("Messages a second", [one.concurrency for one in settings])
    axes.plot([one.concurrency for one in settings], [found.rate(one) for one in settings], color=INK, zorder=2)
    dots = [(point.setting.concurrency, point.rate) for one in settings for point in found.of(one)]
    axes.scatter(*zip(*dots, strict=True), color=PALE, s=14, zorder=3)
    axes.axvline(found.best.concurrency, color=ACCENT, linestyle=":", zorder=1)
    axes.scatter([found.best.concurrency], [found.rate(found.best)], color=ACCENT, s=90, zorder=4, label="recommended")
    axes.set_ylim(0, ROOM * max(found.rate(found.best), *(rate for _, rate in dots)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.legend(frameon=False)
    return figure


def latency(found: Found) -> Figure:
    """From receive to acknowledgement over concurrency, for half of the messages and 99 of 100; at a pace if measured."""
    points = found.paced.points if found.paced else []
    points = points or [found.typical(one) for one in found.along_concurrency()]
    known = [(point.setting.concurrency, 1e3 * point.latency_p50, 1e3 * point.latency_p99) for point in points
             if point.latency_p50 is not None and point.latency_p99 is not None]
    figure, axes = _axes("Milliseconds from receive to acknowledgement", [number for number, *_ in known])
    for at, label, colour in ((1, "p50", INK), (2, "p99", PALE)):
        axes.plot([one[0] for one in known], [one[at] for one in known], color=colour, marker="o", label=label)
    axes.axvline(found.best.concurrency, color=ACCENT, linestyle=":")
    axes.set_ylim(0, ROOM * max((one[2] for one in known), default=1.0))
    axes.legend(frameon=False)
    return figure


def time_shares(found: Found) -> Figure:
    """Where the time of the processors goes, a column for each number of them; then the reader's at the recommended one."""
    columns = [(str(one.concurrency), found.typical(one).shares.get("processor", Shares()))
               for one in found.along_concurrency()]
    columns += [(_named(role), share) for role, share in _others(found.typical(found.best))]
    figure, axes = _plain("Share of the time")
    bottoms = [0.0] * len(columns)
    for name, colour in COLOURS.items():
        heights = [getattr(share, name) for _, share in columns]
        axes.bar(range(len(columns)), heights, bottom=bottoms, color=colour, label=LABELS[name], width=0.8)
        bottoms = [low + height for low, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(range(len(columns)), [label for label, _ in columns])
    axes.set_xlabel("processors: how many; then other threads, at the recommended setting")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def _others(point: Point) -> list[tuple[str, Shares]]:
    """The threads that are no processors and have something to do."""
    return [(role, share) for role, share in point.shares.items()
            if role != "processor" and (role == "reader" or role.startswith(("batch", "dispatcher", "partitioner")))]


def _named(role: str) -> str:
    return role.replace("_", " ").replace("batch processor", "batch\nprocessor")


def pictures(found: Found, rate: float | None = None) -> dict[str, tuple[bytes, str]]:
    """The pictures of a report by the names of their files: the bytes of a PNG, and what is said of it.

    `rate`: messages a second that were sent all the time, None for as many as were taken.
    """
    shown = {
        "throughput": (throughput, "Throughput over the number of processors. Each grey dot is a measurement."),
        "latency": (latency, _said_of_latency(found, rate)),
        "shares": (time_shares, "Where the time of the threads goes."),
    }
    return {name: (_png(draw(found)), text) for name, (draw, text) in shown.items()}


def _said_of_latency(found: Found, rate: float | None) -> str:
    said = "Latency over the number of processors"
    if found.paced is not None and found.paced.points:
        return (f"{said}, at {found.paced.rate:,.0f} messages a second, which is {found.paced.part} of what the recommended "
                "setting handles; those that could not keep up are left out.")
    if rate is not None:
        return f"{said}, at {rate:,.0f} messages a second."
    return f"{said}, flat out: how long what waits in the pipeline has waited."


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    FigureCanvasAgg(figure).print_png(written)
    return written.getvalue()


def _axes(label: str, numbers: Sequence[int]) -> tuple[Figure, Any]:
    figure, axes = _plain(label)
    numbers = sorted(set(numbers))
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("processors")
    return figure, axes


def _plain(label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=SIZE, dpi=DOTS, layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#EEEEEE", zorder=0)
    axes.set_axisbelow(True)
    return figure, axes
