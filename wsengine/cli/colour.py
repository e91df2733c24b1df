"""Lines whose first word has a colour, by rich. Imported only where there is a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["coloured_line"]


def coloured_line(stream: TextIO) -> Callable[[str, str, str], None]:
    """A function (coloured, colour, rest) that writes a line, which the terminal may wrap."""
    console = Console(file=stream, highlight=False)

    def write(coloured: str, colour: str, rest: str) -> None:
        console.print(Text.assemble((coloured, colour), rest), soft_wrap=True)

    return write
