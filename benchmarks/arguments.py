"""Kinds of arguments that the commands of this folder have in common; what argparse prints where one is wrong is a line."""

from __future__ import annotations

import argparse

__all__ = ["above_zero", "positive", "positives"]


def positive(value: str) -> int:
    """A whole number above 0."""
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value}: give a whole number above 0")
    return number


def positives(value: str) -> list[int]:
    """Whole numbers above 0, a comma between them."""
    return [positive(one) for one in value.split(",")]


def above_zero(value: str) -> float:
    """A number above 0, but not infinity."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value}: give a number above 0")
    return number
