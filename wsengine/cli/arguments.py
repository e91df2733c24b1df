"""How the command's arguments are read: the parser that says what is wrong in one line, and the types of numbers.

Which options a subcommand has stands with the subcommand.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["WRONG_OPTION", "Parser", "duration", "header", "items", "rate", "text", "whole_number"]

T = TypeVar("T")

LONGEST = 86400.0
FASTEST = 1e9
WRONG_OPTION = 2


#: The name of an option, without a value that is written close to it.
_NAME = re.compile(r"--[A-Za-z][A-Za-z-]*|-[A-Za-z]")
_URL_AS_CHOICE = re.compile(r"(invalid choice): '[^']*:.*' \(", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse prints the usage as well; and shows no value that may be a secret."""

    def parse_arguments(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """As `parse_args`. What it does not know may be a mistyped --header, whose value it would print."""
        given, unknown = self.parse_known_args(arguments)
        if unknown:
            names = [found[0] for found in map(_NAME.match, unknown) if found is not None]
            what = f"unrecognized arguments: {' '.join(names)}" if names else (
                f"{len(unknown)} argument{'s' * (len(unknown) > 1)} too many")
            prog = " ".join(filter(None, [self.prog, getattr(given, "command", None)]))
            self.exit(WRONG_OPTION, f"{prog}: {what} (see {prog} --help)\n")
        return given

    def error(self, message: str) -> NoReturn:
        message = _URL_AS_CHOICE.sub(r"\1 (", message)  # somebody has left out the command
        self.exit(WRONG_OPTION, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole_number(text: str) -> int:
    """The type of an option; the bounds are checked by whoever takes the number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def items(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    """The type of an option that takes a list, a comma between its items, each of the type `one`."""

    def read(text: str) -> list[T]:
        try:
            return [one(item.strip()) for item in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def duration(text: str) -> float:
    """Seconds, as an option."""
    value = _number(text)
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} does not do; give seconds above 0, and {LONGEST:.0f} at the most")
    return value


def rate(text: str) -> float:
    """Messages a second, as an option."""
    value = _number(text)
    if not 0 <= value <= FASTEST:
        raise argparse.ArgumentTypeError(f"{text!r} does not do; give messages a second up to {FASTEST:.0f}, "
                                         "or 0 for as fast as the pipeline takes them")
    return value


def header(text: str) -> tuple[str, str]:
    """A header of the upgrade request; the error does not show it, since it may be a secret."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("give it as 'Name: value'")
    return name.strip(), value.strip()


def text(given: str) -> str:
    """A text that goes over the wire, which is UTF-8 there; the error does not show it, since it may be a secret."""
    try:
        given.encode()
    except UnicodeEncodeError:  # what the shell gave was not in the encoding of the locale
        raise argparse.ArgumentTypeError("it is not text; give it in UTF-8 (or in the encoding of the locale)") from None
    return given


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value
