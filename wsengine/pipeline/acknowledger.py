"""Acknowledgers that come with the package.

An acknowledger is any object with `ack(ack_ref, successful, failed)`. When it is called, and with what, chunk decides. It
may be called by several threads at once, and should return soon: the processor waits for it, and so may a stop
(docs/pipeline.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsengine.message import Message

__all__ = ["CallerAcknowledger", "NoopAcknowledger"]


class NoopAcknowledger:
    """Acknowledges to nobody; the same as no acknowledger at all (Broadway.NoopAcknowledger)."""

    def ack(self, ack_ref: object, successful: list[Message], failed: list[Message]) -> None:
        """Do nothing."""


class CallerAcknowledger:
    """Puts (ack_ref, successful, failed) into a queue (Broadway.CallerAcknowledger). For tests, and for callers that wait.

    Args:
        queue: anything with `put`, such as `queue.SimpleQueue`.
    """

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def ack(self, ack_ref: object, successful: list[Message], failed: list[Message]) -> None:
        self.queue.put((ack_ref, successful, failed))

    def configure(self, ack_ref: object, ack_data: object, options: dict[str, Any]) -> object:
        """Put ("configure", ack_ref, options) into the queue; the ack_data stays."""
        self.queue.put(("configure", ack_ref, options))
        return ack_data
