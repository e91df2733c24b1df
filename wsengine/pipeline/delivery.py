"""`Delivery`: what becomes of messages that were put into a running pipeline to see what becomes of them.

It is given by `Pipeline.test_message` and `test_batch`; how messages are put in is not known here.
"""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING, Any

from wsengine.message import Message
from wsengine.options import function, patience
from wsengine.pipeline.acknowledger import CallerAcknowledger

if TYPE_CHECKING:
    from collections.abc import Callable

    AcknowledgerFunction = Callable[[Any, tuple[CallerAcknowledger, object]], tuple[Any, Any, Any] | None]

__all__ = ["Delivery"]


class Delivery:
    """Messages on their way through a pipeline, and how they were acknowledged. Thread-safe.

    Attributes:
        ref: the `ack_ref` of the messages; each delivery has one of its own.
        count: how many messages there are.
        caller: the CallerAcknowledger that reports here.

    Source: Broadway.test_message/3, whose caller receives {:ack, ref, successful, failed} as often as there are groups.
    """

    def __init__(self) -> None:
        self.ref = object()
        self.count = 0
        self.caller = CallerAcknowledger(self)
        self._changed = threading.Condition()
        self._acks: list[tuple[list[Message], list[Message]]] = []

    def messages(self, data: list[object], flush: bool, metadata: dict[str, Any] | None,
                 acknowledger: AcknowledgerFunction | None) -> list[Message]:
        """Make the messages, one for each of `data`; arguments as of `Pipeline.test_message`."""
        function("test_message.acknowledger", acknowledger, "(data, (caller, ref))")
        own = (self.caller, self.ref)
        self.count = len(data)
        return [Message(one, metadata=copy.copy(metadata), batch_mode="flush" if flush else "bulk",
                        acknowledger=(*own, None) if acknowledger is None else acknowledger(one, own)) for one in data]

    def put(self, report: tuple[Any, ...]) -> None:
        """What the acknowledger reports; reports of other deliveries, and of options, are none of ours."""
        if report[0] is self.ref:
            with self._changed:
                self._acks.append(report[1:])
                self._changed.notify_all()

    @property
    def acks(self) -> list[tuple[list[Message], list[Message]]]:
        """The calls of the acknowledger so far: (successful, failed) of each."""
        with self._changed:
            return list(self._acks)

    @property
    def successful(self) -> list[Message]:
        """Messages acknowledged as successful so far, in that order."""
        return [message for good, _ in self.acks for message in good]

    @property
    def failed(self) -> list[Message]:
        """Messages acknowledged as failed so far, in that order."""
        return [message for _, bad in self.acks for message in bad]

    @property
    def done(self) -> bool:
        """Whether all messages have been acknowledged."""
        return sum(len(good) + len(bad) for good, bad in self.acks) >= self.count

    def wait(self, timeout: float | None = 5.0) -> tuple[list[Message], list[Message]]:
        """Wait until all messages have been acknowledged.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            The successful and the failed ones, each in the order of acknowledgement.

        Raises:
            TimeoutError: they were not. ConfigurationError: for a wrong time-out.
        """
        limit = patience("wait.timeout", timeout)
        deadline = None if limit is None else time.monotonic() + limit
        with self._changed:
            while not self.done:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    good, bad = len(self.successful), len(self.failed)
                    raise TimeoutError(f"{good + bad} of {self.count} messages were acknowledged within {limit} s: {good} "
                                       f"successful, {bad} failed")
                self._changed.wait(0.1 if left is None else min(left, 0.1))
        return self.successful, self.failed

    def __repr__(self) -> str:
        return f"<Delivery of {self.count}: {len(self.successful)} successful, {len(self.failed)} failed>"
