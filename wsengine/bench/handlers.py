"""What the handler of a benchmark does with each payload: nothing, a parser, a stretch of computing, or of waiting.

    "none"      it only counts the message
    "json"      json.loads
    "orjson"    orjson.loads
    "spin:N"    computes for N microseconds of CPU time, in Python
    "sleep:N"   waits for N milliseconds, as for a disk or another server
"""

from __future__ import annotations

import json
import math
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checked_cost", "work_of"]

PLAIN = ("none", "json", "orjson")
#: The largest N of each: one second.
LONGEST = {"spin": 1e6, "sleep": 1e3}
REMEDY = "give none, json, orjson, spin:MICROSECONDS or sleep:MILLISECONDS, of a second at the most"


def checked_cost(cost: object) -> str:
    """Check a cost; ConfigurationError if it is none, or its parser is not installed."""
    _parsed(cost)
    if cost == "orjson" and find_spec("orjson") is None:
        raise ConfigurationError("case.cost", cost, "install it first (pip install orjson), or give json")
    return str(cost)


def work_of(cost: str) -> Callable[[bytes], object] | None:
    """What is done with a payload; None for nothing."""
    kind, amount = _parsed(cost)
    if kind == "none":
        return None
    if kind == "json":
        return json.loads
    if kind == "orjson":
        import orjson

        loads: Callable[[bytes], object] = orjson.loads
        return loads
    if kind == "sleep":
        return lambda payload: time.sleep(amount / 1e3)
    return lambda payload: _spin(int(amount * 1e3))


def _spin(ns: int) -> None:
    clock = time.thread_time_ns
    until = clock() + ns
    while clock() < until:
        pass


def _parsed(cost: object) -> tuple[str, float]:
    if cost in PLAIN:
        return str(cost), 0.0
    kind, colon, amount = str(cost).partition(":")
    try:
        number = float(amount)
    except ValueError:
        number = math.nan
    if not colon or kind not in LONGEST or not 0 < number <= LONGEST[kind]:
        raise ConfigurationError("case.cost", cost, REMEDY)
    return kind, number
