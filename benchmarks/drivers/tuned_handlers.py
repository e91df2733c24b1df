"""Handlers that `wsengine tune` is tried on. It knows nothing of them but their names."""

from __future__ import annotations

import random
import time

_chance = random.Random(1)


def computes(message):
    """Some 10 µs of Python."""
    total = 0
    for number in range(200):
        total += number * number


def parses(message):
    """A parser in C that is fast, and keeps the GIL."""
    import orjson

    orjson.loads(message.data)


def waits(message):
    """2 ms for something outside."""
    time.sleep(0.002)


def mixes(message):
    """Both: 0.5 ms outside, and some 15 µs of Python."""
    for _ in range(500):
        pass
    time.sleep(0.0005)


def raises(message):
    """As the first, but one call in a hundred fails."""
    if _chance.random() < 0.01:
        raise ValueError("one in a hundred")
    for _ in range(200):
        pass
