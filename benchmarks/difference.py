"""Two sets of figures as a table: each figure of both, their ratio, and whether it changed by more than its spread.

That it did means here: the least of one side is above the greatest of the other. Chance alone does that to one figure in ten
with three rounds of each, and to one in 126 with five; with fewer than three nothing is marked. Nothing is measured here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.figures import MORE_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsengine.bench.statistics import Spread

__all__ = ["LEAST_ROUNDS", "Figures", "Row", "missing", "rows", "table", "verdict"]

#: Figures by benchmark and unit.
Figures = dict[tuple[str, str], "Spread"]
#: Below so many rounds of either side, nothing is said to have changed.
LEAST_ROUNDS = 3


class Row(NamedTuple):
    """A line of the table. What is None is not there; a ratio is not, where a side is missing or 0."""

    name: str
    unit: str
    base: Spread | None
    head: Spread | None
    ratio: Spread | None
    verdict: str


def rows(base: Figures, head: Figures, ratios: Figures, rounds: int) -> list[Row]:
    """All figures that either side has. `ratios`: of the head over the base; `rounds`: the fewer of both sides'."""
    found = []
    for key in dict.fromkeys([*base, *head]):
        mine, other = base.get(key), head.get(key)
        said = verdict(mine, other, key[1]) if mine and other and rounds >= LEAST_ROUNDS else ""
        found.append(Row(*key, mine, other, ratios.get(key), said))
    return found


def verdict(base: Spread, head: Spread, unit: str) -> str:
    """ "better", "worse", or nothing for a change within the spread."""
    if head.least > base.greatest:
        return "better" if unit in MORE_IS_BETTER else "worse"
    if head.greatest < base.least:
        return "worse" if unit in MORE_IS_BETTER else "better"
    return ""


def table(found: list[Row], base: str, head: str) -> Iterator[str]:
    """The rows as aligned lines under headings."""
    cells = [["", "unit", base, head, f"{head} / {base}", ""]]
    cells += [[row.name, row.unit, figure(row.base), figure(row.head), ratio(row.ratio), row.verdict] for row in found]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        named = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(line[2:5], widths[2:5], strict=True)]
        yield "  ".join([*named, *numbers, line[5]]).rstrip()


def figure(value: Spread | None) -> str:
    """The median, to four digits."""
    if value is None:
        return "not there"
    return f"{value.median:,.0f}" if abs(value.median) >= 1000 else f"{value.median:.4g}"


def ratio(value: Spread | None) -> str:
    """Median (least … greatest)."""
    return "" if value is None else f"{value.median:.2f} ({value.least:.2f} … {value.greatest:.2f})"


def missing(reasons: Mapping[str, str], side: str) -> Iterator[str]:
    """Why figures of a side are not there, a line each."""
    for name, reason in reasons.items():
        yield f"not there in {side}: {name}: {reason}"
