"""What a producer's frame handler may do to its connections: reply, fail, and have told what was dropped.

Called by the pipeline's dispatcher (FrameHandler.sessions), for one generation of a connection each time. When a handler is
called is the dispatcher's matter, what becomes of a failed connection the supervisor's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsengine.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.websocket.connection import Connection
    from wsengine.websocket.supervisor import Supervisor

__all__ = ["ProducerSessions"]


class ProducerSessions:
    """The connections of one producer, as its frame handler's results reach them."""

    def __init__(self, connections: Sequence[Connection], supervisor: Supervisor) -> None:
        self._connections = connections
        self._supervisor = supervisor

    def reply(self, index: int, epoch: int, frames: Sequence[str | bytes], /) -> int:
        """Send frames in order; how many were not, as the generation is over. TimeoutError: the peer does not read."""
        for sent, frame in enumerate(frames):
            try:
                self._connections[index].send(frame, epoch=epoch)
            except ConnectionClosed:
                return len(frames) - sent
        return 0

    def fail(self, index: int, epoch: int, error: BaseException, /) -> None:
        """Have the connection closed and told as failed, if it is still that generation."""
        self._supervisor.fail(index, epoch, error)

    def dropped(self, index: int, epoch: int, count: int, /) -> None:
        """Have told that so many messages were dropped behind a failure."""
        self._supervisor.tell_dropped(index, epoch, count)
