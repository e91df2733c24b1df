"""A pipeline that keeps what it is given, for tests of producers and of what feeds them. It judges nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from wsengine.pipeline.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.message import Message
    from wsengine.pipeline.source import Producer

__all__ = ["Collector"]


class Collector(Pipeline):
    """A pipeline that keeps every message, successful, in `received`.

    Args:
        producers, options: as of `Pipeline`.

    Attributes:
        received: the messages in the order of handling, which with one processor is that of the wire. They stay, so this
            is not for endless feeds.
    """

    def __init__(self, producers: Producer | Sequence[Producer], **options: Any) -> None:
        super().__init__(producers, **options)
        self.received: list[Message] = []
        self._arrival = threading.Condition()

    def handle_messages(self, messages: list[Message]) -> None:
        """Keep them."""
        with self._arrival:
            self.received += messages
            self._arrival.notify_all()

    def wait(self, count: int, timeout: float = 10.0) -> list[Message]:
        """Wait until `count` messages have come; returns all that have. Thread-safe.

        Raises:
            TimeoutError: fewer came within `timeout` seconds.
        """
        with self._arrival:
            if not self._arrival.wait_for(lambda: len(self.received) >= count, timeout):
                raise TimeoutError(f"{len(self.received)} of {count} messages came within {timeout} seconds")
            return list(self.received)
