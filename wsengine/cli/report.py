"""What `doctor` has found, and how it is shown: a line for each finding, the remedy below it; or JSON.

How it is found stands in doctor.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from wsengine.cli.harmless import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["FAILED", "NOTE", "OK", "SKIPPED", "Finding", "show", "show_json"]

OK, NOTE, FAILED, SKIPPED = "ok", "note", "failed", "skipped"
COLOURS = {OK: "green", NOTE: "yellow", FAILED: "bold red", SKIPPED: "dim"}


@dataclass(frozen=True)
class Finding:
    """Of one step.

    Attributes:
        step: its name.
        status: "ok"; "note": it works, and there is something to know; "failed"; "skipped".
        text: what was found, in plain words.
        remedy: what to do, "" for nothing.
        facts: the figures, for JSON.
    """

    step: str
    status: str
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def show(findings: Iterable[Finding], stream: TextIO) -> bool:
    """Show each finding as it comes; whether none has failed."""
    write = _writer(stream)
    failed = []
    for one in findings:
        write(f"{one.status:<8} ", COLOURS[one.status], f"{one.step:<13} {one_line(one.text)}")
        if one.remedy:
            write(" " * 23, "", f"→ {one_line(one.remedy)}")
        if one.status == FAILED:
            failed.append(one.step)
    write("", "", "")
    if failed:
        write("Not well: ", COLOURS[FAILED], f"{', '.join(dict.fromkeys(failed))} failed.")
    else:
        write("All is well.", COLOURS[OK], "")
    return not failed


def show_json(url: str, findings: Sequence[Finding], stream: TextIO) -> bool:
    """Show all findings as one JSON object; whether none has failed."""
    well = all(one.status != FAILED for one in findings)
    steps = [{"step": one.step, "status": one.status, "text": one_line(one.text), "remedy": one_line(one.remedy),
              "facts": one.facts} for one in findings]
    print(json.dumps({"url": url, "ok": well, "steps": steps}, indent=2), file=stream, flush=True)
    return well


def _writer(stream: TextIO) -> Callable[[str, str, str], None]:
    """A function (coloured, colour, rest): with colours where the output is a terminal and rich is there."""
    if stream.isatty():
        try:
            from wsengine.cli.colour import coloured_line
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "rich":
                raise
        else:
            return coloured_line(stream)

    def write(coloured: str, colour: str, rest: str) -> None:
        line = f"{coloured}{rest}".rstrip()
        encoding = stream.encoding or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)

    return write
