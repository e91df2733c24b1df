"""The report as one page of HTML that opens from disk: its pictures are within it, and it asks nobody for anything."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

from wsengine.tune.report import said, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsengine.tune.found import Found
    from wsengine.tune.reason import Reason

__all__ = ["page"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.about, figcaption { color: #666; } code { background: #f4f4f4; padding: 0.1em 0.3em; border-radius: 3px; }
.answer { border-left: 4px solid #CC3311; padding: 0.2rem 1rem; margin: 1.5rem 0; }
.answer code { font-size: 1.15rem; } figure { margin: 2rem 0; } img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
tr.best { background: #fbeeee; font-weight: 600; } .scroll { overflow-x: auto; }
"""
COLUMNS = ("processors", "min_demand", "max_demand", "max_queue", "messages/s", "measured", "p50", "p99", "failed",
           "running", "GIL", "core", "outside", "idle")


def page(found: Found, reason: Reason, first: Reason, *, about: str, pictures: Mapping[str, tuple[bytes, str]]) -> str:
    """The page.

    Args:
        found, reason, first: as of `report.lines`. about: what was tuned, and on what.
        pictures: by name the bytes of a PNG, and what is said of it.
    """
    recommended, *sentences = said(found, reason, first)
    parts = [
        "<!doctype html>", '<html lang="en">', '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">', "<title>wsengine tune</title>",
        f"<style>{STYLE}</style>", "<h1>wsengine tune</h1>", f'<p class="about">{html.escape(about)}</p>',
        f'<div class="answer"><p><code>{html.escape(recommended)}</code></p>',
        *(f"<p>{html.escape(sentence)}</p>" for sentence in sentences), "</div>",
        *(_picture(name, *picture) for name, picture in pictures.items()),
        "<h2>All measurements</h2>", '<div class="scroll"><table>', *_rows(found), "</table></div>",
        "<p>Times are from receive to acknowledgement, flat out unless a rate was given; the shares are those of the "
        "processors' time: running, waiting for the GIL, for a core, for something outside, for work.</p>", "</html>",
    ]
    return "\n".join(parts) + "\n"


def _picture(name: str, data: bytes, text: str) -> str:
    source = base64.b64encode(data).decode()
    return (f'<figure id="{name}"><img alt="{html.escape(text)}" src="data:image/png;base64,{source}">'
            f"<figcaption>{html.escape(text)}</figcaption></figure>")


def _rows(found: Found) -> Iterator[str]:
    yield "<tr>" + "".join(f"<th>{column}</th>" for column in COLUMNS) + "</tr>"
    for setting in found.settings():
        numbers = [f"{value:,}" for value in setting.settings().values()]
        points = found.of(setting)
        if not points:
            problem = next(point.problem for point in found.points if point.setting == setting)
            yield (f"<tr>{''.join(f'<td>{one}</td>' for one in numbers)}"
                   f'<td colspan="{len(COLUMNS) - len(numbers)}">{html.escape(problem)}</td></tr>')
            continue
        point = found.typical(setting)
        share = point.shares.get("processor")
        shares = [""] * 5 if share is None else [f"{one:.0%}" for one in (
            share.running, share.gil, share.core, share.blocked, share.idle)]
        cells = [*numbers, f"{found.rate(setting):,.0f}", str(len(points)), time_text(point.latency_p50),
                 time_text(point.latency_p99), f"{point.failed:.1%}", *shares]
        kind = ' class="best"' if setting == found.best else ""
        yield f"<tr{kind}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
