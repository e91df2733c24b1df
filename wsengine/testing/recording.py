"""Reads a recorded feed: gzip-compressed JSON lines, each `[seconds since the first message, payload]`.

What is recorded is what a server once sent as text messages. Writing such files, and playing them, is not done here.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Recording", "load_recording"]


@dataclass(frozen=True)
class Recording:
    """Text messages with the time at which each came. Both sequences have the same length, at least 1.

    Attributes:
        times: seconds since the first message, never falling.
        payloads: UTF-8 as it came.
    """

    times: Sequence[float]
    payloads: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return self.times[-1] - self.times[0]


def load_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording whole into memory.

    Raises:
        ConfigurationError: the file is missing or unreadable, is not gzip, is cut short, or a line is not a recorded
            message; the error names the file and, where there is one, the line.
    """
    name = os.fspath(path)
    times: list[float] = []
    payloads: list[bytes] = []
    try:
        with gzip.open(name, "rb") as lines:
            for number, line in enumerate(lines, 1):
                seconds, payload = _parse(name, number, line, times[-1] if times else 0.0)
                times.append(seconds)
                payloads.append(payload)
    except FileNotFoundError:
        remedy = "there is no such file; give the path of a .jsonl.gz recording"
        raise ConfigurationError("recording", name, remedy) from None
    except (OSError, EOFError, zlib.error) as error:
        remedy = f"cannot be read as a gzip file ({error}); record or copy it again"
        raise ConfigurationError("recording", name, remedy) from None
    if not times:
        raise ConfigurationError("recording", name, "the file holds no message; record it again")
    return Recording(times, payloads)


def _parse(name: str, number: int, line: bytes, earliest: float) -> tuple[float, bytes]:
    try:
        seconds, payload = json.loads(line)
        encoded = payload.encode()
        later = not isinstance(seconds, bool) and math.isfinite(seconds) and seconds >= earliest
    except (ValueError, TypeError, AttributeError):
        later = False
    if not later:
        remedy = 'each line must be [seconds since the first message, "text"], in order of time; record it again'
        raise ConfigurationError("recording", f"{name}, line {number}", remedy)
    return float(seconds), encoded
