"""The messages that suites work on: recorded feeds, and trades of this package's own making for where there are none."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from wsengine.testing import load_recording
from wsengine.testing.images import SYMBOLS, trade

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FEEDS", "TRADES", "recorded", "trades"]

#: The feed that needs no recording.
TRADES = "trades"
FEEDS = (TRADES, "coinbase", "kraken", "bitfinex")
#: Messages of a feed at the most, so that a round is short.
MOST = 5000


def trades(count: int = MOST, size: int = 160) -> list[bytes]:
    """So many trades as a Feed makes them, the same ones each time. The hexadecimal id in each does not compress."""
    source = random.Random(1)
    return [trade(size, source.choice(SYMBOLS), source.uniform(20_000, 90_000), source) for _ in range(count)]


def recorded(path: Path) -> list[bytes]:
    """The first messages of a recording."""
    return list(load_recording(path).payloads)[:MOST]
