"""How a connection ended: from the reader's note to telemetry's event and an exception.

Only that. What follows from it is decided by the supervisor and by clients.
"""

from __future__ import annotations

import errno
import os
from ssl import SSLError
from typing import TYPE_CHECKING

from wsengine.errors import ConnectionClosedError, ConnectionClosedOK, PayloadTooBig, ProtocolError, QueueOverflow

if TYPE_CHECKING:
    from wsengine.engine.receiver import Note

__all__ = ["outcome"]


def outcome(note: Note, max_size: int, behind: BaseException | None = None) -> tuple[str, BaseException]:
    """The telemetry event and the error for the way in which a connection ended; `behind` failed behind its pump."""
    text = note.text.decode("utf-8", "replace")
    if note.cause == "closed":
        kind = ConnectionClosedOK if note.code in (1000, 1001) else ConnectionClosedError
        return "disconnected", kind(note.code, text)
    if note.cause == "failed":
        if note.code == 1009:
            return "failure", PayloadTooBig(note.detail, max_size)
        return "failure", ProtocolError(note.code, text)
    if note.cause == "error":
        return "disconnected", OSError(note.error, os.strerror(note.error))
    if note.cause == "idle":
        return "timeout", TimeoutError(errno.ETIMEDOUT, "nothing was received for ws_timeout")
    if note.cause == "pong":
        return "timeout", TimeoutError(errno.ETIMEDOUT, "keepalive ping timeout")
    if note.cause == "overflow":
        return "failure", QueueOverflow('the pipeline was full, and overflow is "error"')
    if note.cause == "tls":
        return "disconnected", SSLError(text)
    if note.cause == "eof" and behind is not None:
        return "disconnected", behind
    if note.cause == "memory":
        return "failure", MemoryError("no memory for a message")
    return "disconnected", ConnectionClosedError(1006)
