"""`DummyProducer`: a source that is quiet until a test speaks through it.

It brings nothing by itself, so a pipeline on it handles exactly what `Pipeline.push_messages` or `emit` puts in. A
server to connect to is something else: see feed.py and scripted.py.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from wsengine.errors import EngineStopped
from wsengine.pipeline.source import Inbox, Producer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsengine.message import Message
    from wsengine.pipeline.source import Host

__all__ = ["DummyProducer"]


class DummyProducer(Producer):
    """A producer that never emits until it is told to. All methods are thread-safe.

    ::

        with MyPipeline(DummyProducer()) as pipeline:
            pipeline.push_messages([Message(b"1"), Message(b"2")])

    Source: Broadway's DummyProducer; `emit` and `finish` are additions.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._error: BaseException | None = None

    def emit(self, messages: Message | Iterable[Message], timeout: float | None = None) -> int:
        """Bring messages in as this producer; blocks while the pipeline is full. Returns how many were taken.

        Args:
            messages: one Message or several.
            timeout: seconds for all of them; None waits for ever.

        Raises:
            EngineStopped: the pipeline has not been started, or is stopping, or `finish` was called.
            ConfigurationError: something that is not a Message, or a time-out that is no number.
        """
        if self._thread is None:
            raise EngineStopped("the pipeline of this DummyProducer has not been started; start it first")
        return self._inbox.push(messages, timeout)

    def finish(self, error: BaseException | None = None) -> None:
        """Bring nothing more, as if the source had come to its end or, with an error, had failed.

        When all producers of a pipeline have finished, or one has failed, it handles what it has and stops;
        `StopResult.error` is the error.

        Raises:
            EngineStopped: the pipeline has not been started.
        """
        if self._thread is None:
            raise EngineStopped("the pipeline of this DummyProducer has not been started; start it first")
        self._error = error
        self.drain()

    def attach(self, host: Host) -> None:
        """A pipeline may be started again, and then the producer begins anew."""
        super().attach(host)
        self._over.clear()
        self._error = None

    def run(self, inbox: Inbox) -> None:
        """Wait for the end."""
        self._over.wait()
        if self._error is not None:
            raise self._error

    def drain(self) -> None:
        """Take no more from `emit`."""
        super().drain()
        self._over.set()
