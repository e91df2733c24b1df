"""The files of a report: the page, its pictures, and the figures. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsengine.tune.page import page
from wsengine.tune.plots import pictures

if TYPE_CHECKING:
    from pathlib import Path

    from wsengine.tune.found import Found
    from wsengine.tune.reason import Reason

__all__ = ["write"]


def write(folder: Path, found: Found, reason: Reason, first: Reason, *, about: str, figures: str,
          rate: float | None = None) -> Path:
    """Write a report into a folder that is there, over what is there already; where its page is. OSError as files do."""
    drawn = pictures(found, rate)
    for name, (data, _) in drawn.items():
        (folder / f"{name}.png").write_bytes(data)
    (folder / "report.json").write_text(figures + "\n", encoding="utf-8")
    path = folder / "report.html"
    path.write_text(page(found, reason, first, about=about, pictures=drawn), encoding="utf-8")
    return path
