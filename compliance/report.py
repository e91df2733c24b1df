"""What the fuzzing server's verdicts come to: a table by section, and the cases that do not hold.

Running cases does not belong here (run).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SECTIONS", "Case", "table"]

SECTIONS = {
    1: "framing", 2: "pings and pongs", 3: "reserved bits", 4: "opcodes", 5: "fragmentation", 6: "UTF-8", 7: "closing",
    9: "limits and performance", 10: "automatic fragmentation", 12: "deflate, payloads", 13: "deflate, parameters",
}

#: The verdicts that hold. NON-STRICT does not: it is what the suite gives a client that notices bad UTF-8 late.
GOOD = ("OK", "INFORMATIONAL")
#: The columns, in this order; verdicts that are not among them are counted as "other".
COLUMNS = ("OK", "INFORMATIONAL", "NON-STRICT", "FAILED", "MISSING")


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        number: such as "6.4.1".
        behavior, closing: the server's verdicts on the exchange and on how the connection was closed; MISSING without one.
        seconds: how long the client was at it.
        notes: what else is known of a case that does not hold: the server's words, the client's error.
        broken: the client failed in a way that the server cannot see: it hung, died, or raised what it must not.
    """

    number: str
    behavior: str
    closing: str
    seconds: float
    notes: list[str] = field(default_factory=list)
    broken: bool = False

    @property
    def section(self) -> int:
        """The first part of its number."""
        return int(self.number.partition(".")[0])

    @property
    def holds(self) -> bool:
        """Whether both verdicts are good, and nothing else is known against it."""
        return self.behavior in GOOD and self.closing in GOOD and not self.broken


def table(cases: Sequence[Case]) -> list[str]:
    """The lines of a Markdown table of behaviours by section, with the sums below."""
    rows = [("section", "cases", *COLUMNS, "other", "closing not OK", "seconds")]
    for section in sorted({one.section for one in cases}):
        title = f"{section} {SECTIONS.get(section, '')}".rstrip()
        rows.append((title, *_figures([one for one in cases if one.section == section])))
    rows.append(("all", *_figures(cases)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return ["| " + " | ".join(_padded(row, widths)) + " |" for row in rows]


def _figures(cases: Sequence[Case]) -> Iterable[str]:
    counts = Counter(one.behavior for one in cases)
    other = sum(count for behavior, count in counts.items() if behavior not in COLUMNS)
    closing = sum(one.closing not in GOOD for one in cases)
    seconds = sum(one.seconds for one in cases)
    return [str(len(cases)), *(str(counts[name]) for name in COLUMNS), str(other), str(closing), f"{seconds:.1f}"]


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    first, *rest = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]
