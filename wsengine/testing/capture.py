"""Capturing telemetry in a test: a context manager that records events and waits for them.

Here lives only what a test needs in order to see which events were executed. Attaching, order and failure of handlers
are the business of `wsengine.telemetry`.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from wsengine import telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsengine.telemetry import Event

__all__ = ["Capture", "CapturedEvent", "capture"]

_numbers = itertools.count(1)


class CapturedEvent(NamedTuple):
    """One execution of an event; the two mappings are copies made at that moment, their values are not."""

    event: Event
    measurements: dict[str, Any]
    metadata: dict[str, Any]


@contextmanager
def capture(*events: Event) -> Iterator[Capture]:
    """Record every execution of `events`, by any thread, until the context is left; what was recorded stays readable.

    ::

        with capture(telemetry.connection_event("feed", "success")) as seen:
            pipeline.start()
            [success] = seen.wait(telemetry.connection_event("feed", "success"))

    Several captures may be active at once, of the same events too.

    Raises:
        TypeError, ValueError: no events, one of them twice, or something that is not an event.
    """
    recorded = Capture(events)
    handler_id = f"wsengine.testing.capture-{next(_numbers)}"
    telemetry.attach_many(handler_id, events, recorded._record)
    try:
        yield recorded
    finally:
        telemetry.detach(handler_id)


class Capture:
    """What `capture` has recorded so far. Every method may be called from any thread."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self._wanted = events
        self._recorded: list[CapturedEvent] = []  # written and read under _arrival
        self._arrival = threading.Condition()

    @property
    def events(self) -> list[CapturedEvent]:
        """A list of all that was recorded, in the order of execution; it does not change afterwards."""
        with self._arrival:
            return self._recorded.copy()

    def of(self, event: Event) -> list[CapturedEvent]:
        """Return what was recorded of `event`, in the order of execution.

        Raises:
            ValueError: this event is not captured, so the list would be empty whatever happens.
        """
        self._check_captured(event)
        return [one for one in self.events if one.event == event]

    def wait(self, event: Event, count: int = 1, timeout: float = 5.0) -> list[CapturedEvent]:
        """Wait until `event` was recorded `count` times in all, and return what was recorded of it, maybe more.

        Args:
            event: one of those captured.
            count: at least 1; executions before the call count too, unless cleared.
            timeout: in seconds.

        Raises:
            TimeoutError: it was not, within `timeout`; the text names what was recorded instead.
            ValueError: this event is not captured, or the count is below 1.
        """
        self._check_captured(event)
        if count < 1:
            raise ValueError(f"count={count!r}: give at least 1; of(event) tells without waiting")
        with self._arrival:
            if self._arrival.wait_for(lambda: len(self.of(event)) >= count, timeout):
                return self.of(event)
            raise TimeoutError(f"waited {timeout} s for {count} of {event!r}; recorded: {self._summary()}")

    def clear(self) -> None:
        """Forget what was recorded so far."""
        with self._arrival:
            self._recorded.clear()

    def _record(
        self, event: Event, measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: object
    ) -> None:
        one = CapturedEvent(event, dict(measurements), dict(metadata))
        with self._arrival:
            self._recorded.append(one)
            self._arrival.notify_all()

    def _check_captured(self, event: Event) -> None:
        if event not in self._wanted:
            raise ValueError(f"{event!r} is not captured here; captured are " + ", ".join(map(repr, self._wanted)))

    def _summary(self) -> str:
        seen = Counter(one.event for one in self._recorded)
        return ", ".join(f"{count} of {event!r}" for event, count in seen.items()) or "nothing"
