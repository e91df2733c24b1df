"""Acknowledgement: each message once, in groups of one acknowledger and one ack_ref, whatever the acknowledgers do.

Here is how messages are grouped and handed over. Which messages are to be acknowledged, and when, the processor decides.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.message import Message

__all__ = ["CallerAcknowledger", "NoopAcknowledger", "acknowledge"]

logger = logging.getLogger("wsengine.pipeline")


def acknowledge(messages: Sequence[Message]) -> None:
    """Call each group's acknowledger once, with its successful and failed messages in order.

    Groups are by identity of the acknowledger and by ack_ref (by equality, or by identity where it has no hash). A group
    whose acknowledger raises is logged and does not touch the others (reference B-1).
    """
    groups: dict[tuple[int, Any], tuple[Any, Any, list[Message], list[Message]]] = {}
    for message in messages:
        triple = message.acknowledger
        if triple is None:
            continue
        acknowledger, ref, _ = triple
        try:
            key: tuple[int, Any] = (id(acknowledger), ("by value", ref))
            group = groups.get(key)
        except TypeError:
            key = (id(acknowledger), ("by identity", id(ref)))
            group = groups.get(key)
        if group is None:
            group = groups[key] = (acknowledger, ref, [], [])
        (group[3] if message.failed else group[2]).append(message)
    for acknowledger, ref, successful, failed in groups.values():
        try:
            acknowledger.ack(ref, successful, failed)
        except BaseException:
            logger.exception(
                "acknowledger %r raised for ack_ref %r; its %d successful and %d failed messages count as acknowledged",
                acknowledger, ref, len(successful), len(failed),
            )


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
