"""How far a feed has got, and what it may send next: a position in an image, under a pace and a count.

A lane hands out bytes and is told how many of them were taken; it does no I/O, and time enters as an argument. One
connection at a time drives it, so it needs no lock; it goes on at the next connection where this one stopped.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wsengine.testing.stamp import SEQUENCE_OFFSET, stamp_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.testing.images import Image

__all__ = ["FlatOut", "Lane", "Pace", "Recorded", "Steady"]

#: Bytes offered to one send: at this size a call costs little beside its copying, and control frames wait little.
SLICE = 256 * 1024


class Pace(Protocol):
    """When which message is due, in ns on the clock of the caller. Sequences count from the feed's first message."""

    def begin(self, sequence: int, now: int) -> None:
        """A connection starts with this message now; what it missed before is not caught up."""

    def allowed(self, now: int) -> int:
        """The first sequence that is not due yet."""

    def due(self, sequence: int) -> int:
        """When this message is due."""


class FlatOut:
    """Everything is due at once."""

    def begin(self, sequence: int, now: int) -> None:
        """Nothing depends on it."""

    def allowed(self, now: int) -> int:
        """Sequences have no end."""
        return 1 << 62

    def due(self, sequence: int) -> int:
        """Always."""
        return 0


class Steady:
    """`rate` messages a second, evenly; what a slow receiver holds up is caught up as soon as it reads again."""

    def __init__(self, rate: float) -> None:
        self._interval = 1e9 / rate
        self._first = self._start = 0

    def begin(self, sequence: int, now: int) -> None:
        """The first is due at once."""
        self._first, self._start = sequence, now

    def allowed(self, now: int) -> int:
        """One at the start, and one more each interval."""
        # The division rounds otherwise than the product in `due`, which alone decides: start too high, and come down.
        sequence = self._first + 2 + int((now - self._start) / self._interval)
        while self.due(sequence - 1) > now:
            sequence -= 1
        return sequence

    def due(self, sequence: int) -> int:
        """Counted from the start, so that errors do not add up."""
        return self._start + int((sequence - self._first) * self._interval)


class Recorded:
    """The pace of a recording, `speed` times as fast; repeats follow without a gap."""

    def __init__(self, times: Sequence[float], speed: float) -> None:
        self._times = [int((seconds - times[0]) * 1e9 / speed) for seconds in times]
        # The first message of a repeat comes as long after the last as messages are apart on average.
        self._period = self._times[-1] + max(1, self._times[-1] // len(times))
        self._offset = 0

    def begin(self, sequence: int, now: int) -> None:
        """The message to start with is due at once, the rest relative to it."""
        self._offset = 0
        self._offset = now - self.due(sequence)

    def allowed(self, now: int) -> int:
        """All whose time has come."""
        rounds, elapsed = divmod(now - self._offset, self._period)
        return rounds * len(self._times) + bisect_right(self._times, elapsed)

    def due(self, sequence: int) -> int:
        """Its time in the recording, in the round that it belongs to."""
        rounds, index = divmod(sequence, len(self._times))
        return self._offset + rounds * self._period + self._times[index]


@dataclass
class Lane:
    """A position in an endless or counted run of messages.

    Attributes:
        number: tells the lanes of one feed apart.
        image: what is sent, from the start again after its end.
        pace: when.
        count: how many messages there are, None for endlessly many.
        sequence: of the first message that is not wholly taken yet.
        offset: how many bytes of that message are.
    """

    number: int
    image: Image
    pace: Pace
    count: int | None
    sequence: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        self._wire = memoryview(self.image.wire)
        self._ready = self.sequence  # all below are stamped, and may be sent
        if len(self.image) == 0:
            self.count = 0

    def begin(self, now: int) -> None:
        """Start a connection: a message that the last one cut in the middle is sent again from its first byte."""
        self.offset = 0
        self._ready = self.sequence
        self.pace.begin(self.sequence, now)

    def rest(self) -> memoryview:
        """What is missing of a message that is partly taken; empty between messages."""
        if not self.offset:
            return self._wire[:0]
        index = self.sequence % len(self.image)
        return self._wire[self.image.starts[index] + self.offset : self.image.starts[index + 1]]

    def take(self, now: int) -> memoryview:
        """The next bytes to send, of whole messages but for the first, about `SLICE` of them; empty if none is due."""
        if self.sequence >= self._ready:
            self._prepare(now)
            if self.sequence >= self._ready:
                return self._wire[:0]
        index = self.sequence % len(self.image)
        starts = self.image.starts
        return self._wire[starts[index] + self.offset : starts[index + self._ready - self.sequence]]

    def advance(self, size: int) -> None:
        """`size` bytes of what was taken are sent."""
        index = self.sequence % len(self.image)
        starts = self.image.starts
        at = starts[index] + self.offset + size
        reached = bisect_right(starts, at) - 1
        self.sequence += reached - index
        self.offset = at - starts[reached]

    def next_due(self) -> int | None:
        """When the next message is due, None if there is none any more."""
        return None if self.count is not None and self.sequence >= self.count else self.pace.due(self.sequence)

    def _prepare(self, now: int) -> None:
        due = self.pace.allowed(now) if self.count is None else min(self.pace.allowed(now), self.count)
        if due <= self.sequence:
            return
        starts = self.image.starts
        index = self.sequence % len(self.image)
        end = max(index + 1, bisect_right(starts, starts[index] + SLICE) - 1)
        run = min(end - index, len(self.image) - index, due - self.sequence)
        if self.image.stamped is not None:
            if self._wire.readonly:
                # Each lane stamps a copy of its own, made when it first sends: an idle connection costs none.
                self._wire = memoryview(bytearray(self.image.wire))
            at = starts[index] + self.image.stamped + SEQUENCE_OFFSET
            stamp_block(self._wire, at, starts[1], run, self.sequence, now)
        self._ready = self.sequence + run
