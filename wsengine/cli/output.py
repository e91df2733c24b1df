"""How `tail` writes messages: for people, one a line and without harm to a terminal; raw, for pipes.

    text      as it is, control characters escaped
    binary    [5 bytes] 68656c6c6f
    raw       the payload, whatever it is, and a line feed
"""

from __future__ import annotations

import os
import select
from typing import TextIO

from wsengine.cli.harmless import harmless

__all__ = ["Output"]

#: What a poll reports of an output that nobody reads any more.
GONE = select.POLLERR | select.POLLNVAL


class Output:
    """Writes to the descriptor of a stream, past its buffers: nothing is left to be written when the process is told to end.

    Raises (all methods): BrokenPipeError if nobody reads any more; OSError if it cannot be written.
    """

    def __init__(self, stream: TextIO, *, raw: bool) -> None:
        stream.flush()
        self._fd = stream.fileno()
        self._encoding = stream.encoding
        self._raw = raw
        self._poll = select.poll()
        self._poll.register(self._fd, 0)

    def show(self, message: str | bytes) -> None:
        """Write a message."""
        rest = memoryview(self._line(message))
        while rest:
            rest = rest[os.write(self._fd, rest):]

    def check(self) -> None:
        """Look whether there is still somebody who reads, where nothing is to be written."""
        if any(events & GONE for _, events in self._poll.poll(0)):
            raise BrokenPipeError

    def _line(self, message: str | bytes) -> bytes:
        if self._raw:
            return (message.encode() if isinstance(message, str) else message) + b"\n"
        if isinstance(message, str):
            return f"{harmless(message)}\n".encode(self._encoding, "backslashreplace")
        return f"[{len(message)} byte{'s' if len(message) != 1 else ''}] {message.hex()}\n".encode("ascii")
