"""Signals that ask a program to end, noted while a pipeline runs in the main thread. What follows is its matter."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["signals_counted"]


@contextlib.contextmanager
def signals_counted() -> Iterator[list[int]]:
    """Have SIGINT and SIGTERM noted in a list, and do nothing else, until the block ends. In the main thread only."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
