"""How a connection ended: from a close code, or the reader's note, to telemetry's event and an exception.

Only that. What follows from it is decided by the supervisor and by clients.
"""

from __future__ import annotations

import errno
import os
from ssl import SSL_ERROR_SSL, SSLError
from typing import TYPE_CHECKING

from wsengine.errors import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    ProtocolError,
    QueueOverflow,
)
from wsengine.wording import told

if TYPE_CHECKING:
    from wsengine.engine.receiver import Note

__all__ = ["afresh", "closed", "ending", "outcome"]

#: Close codes of a session that was to end; 1005 stands for a Close without a code, as `websockets` takes it.
GOOD = (1000, 1001, 1005)


def closed(code: int, reason: str) -> ConnectionClosed:
    """The error that stands for a Close frame."""
    return (ConnectionClosedOK if code in GOOD else ConnectionClosedError)(code, reason)


def ending(error: BaseException) -> ConnectionClosed:
    """What those who use a connection get for the way in which it ended."""
    if isinstance(error, ConnectionClosed):
        return error
    end = ConnectionClosedError(1006, told(error))
    end.__cause__ = error
    return end


def afresh(end: ConnectionClosed) -> ConnectionClosed:
    """An error of his own for each who asks: tracebacks are not shared."""
    error = type(end)(end.code, end.reason)
    error.__cause__ = end.__cause__
    return error


def outcome(note: Note, max_size: int, behind: BaseException | None = None) -> tuple[str, BaseException]:
    """The telemetry event and the error for the way in which a connection ended; `behind` failed behind its pump."""
    text = note.text.decode("utf-8", "replace")
    if note.cause == "closed":
        return "disconnected", closed(note.code, text)
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
        return "failure", QueueOverflow('there was no room for a message, and overflow is "error"')
    if note.cause == "tls":
        return "disconnected", _tls_error(text)
    if note.cause == "eof" and behind is not None:
        return "disconnected", behind
    if note.cause == "memory":
        return "failure", MemoryError("no memory for a message")
    return "disconnected", ConnectionClosedError(1006)


def _tls_error(text: str) -> SSLError:
    """The error for OpenSSL's text of a reason, with the name of that reason as ssl gives it: it may be fatal (failures)."""
    error = SSLError(SSL_ERROR_SSL, text)
    error.reason = text.upper().replace(" ", "_")
    return error
