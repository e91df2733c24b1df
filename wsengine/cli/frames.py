"""Frames as they stand on the wire (RFC 6455 §5.2), found in the bytes of one direction, for the trace.

Nothing is judged here, and nothing put together: a trace is asked for where something is wrong, so reserved bits and
opcodes, masks on the wrong side and broken lengths are told like any others. That is why the parsers that there are do not
do: the engine's tells messages and ends at the first error, and wsproto's ends there, too, and tells neither mask nor
reserved bits. How a frame is worded stands in trace.py.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "KEPT", "PING", "PONG", "TEXT", "Frame", "FrameFinder"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1 = 4
#: Bytes of a payload that are kept: a control frame has no more (RFC 6455 §5.5).
KEPT = 125


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. Immutable.

    Attributes:
        opcode: 0 to 15.
        fin: the FIN bit.
        rsv: the three reserved bits, RSV1 being 4.
        masked: whether it has a masking key.
        size: bytes of the payload, as the head says.
        came: of them on the wire; fewer where the connection ended within it.
        beginning: of the payload, unmasked, at most `KEPT` bytes.
        readable: whether the payload is text, or the part of one, and not compressed.
    """

    opcode: int
    fin: bool
    rsv: int
    masked: bool
    size: int
    came: int
    beginning: bytes
    readable: bool


class FrameFinder:
    """Finds the frames in the bytes of one direction, however they are cut. Not thread-safe."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._kept = bytearray()  # of the payload, as on the wire
        self._size = self._came = 0
        self._in_payload = False
        self._text = False  # the present message is text, and not compressed: a continuation does not say so

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that are complete with these bytes."""
        rest = memoryview(data)
        found = []
        while rest:
            rest = self._take_payload(rest) if self._in_payload else self._take_head(rest)
            if self._in_payload and self._came == self._size:
                found.append(self._frame())
                self._in_payload = False
                self._head.clear()
        return found

    def unfinished(self) -> Frame | int | None:
        """What has been begun: a frame without the end of its payload, or so many bytes of a head; None for nothing."""
        return self._frame() if self._in_payload else len(self._head) or None

    def _take_head(self, data: memoryview) -> memoryview:
        missing = self._head_size() - len(self._head)
        self._head += data[:missing]
        if len(self._head) == self._head_size():
            self._begin_payload()
        return data[missing:]

    def _head_size(self) -> int:
        """Bytes of the head, as far as what there is of it tells."""
        if len(self._head) < 2:
            return 2
        return 2 + {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0) + (4 if self._head[1] & 0x80 else 0)

    def _begin_payload(self) -> None:
        short = self._head[1] & 0x7F
        self._size = int.from_bytes(self._head[2: {126: 4, 127: 10}[short]], "big") if short > 125 else short
        self._came = 0
        self._kept.clear()
        self._in_payload = True
        opcode = self._head[0] & 0x0F
        if CONTINUATION < opcode < CLOSE:
            self._text = opcode == TEXT and not self._head[0] >> 4 & RSV1

    def _take_payload(self, data: memoryview) -> memoryview:
        taken = data[:self._size - self._came]
        self._came += len(taken)
        self._kept += taken[:KEPT - len(self._kept)]
        return data[len(taken):]

    def _frame(self) -> Frame:
        first, second = self._head[0], self._head[1]
        opcode, masked = first & 0x0F, bool(second & 0x80)
        beginning = bytes(self._kept)
        if masked:
            key = self._head[-4:]
            beginning = bytes(byte ^ key[at % 4] for at, byte in enumerate(beginning))
        return Frame(opcode, bool(first & 0x80), first >> 4 & 7, masked, self._size, self._came, beginning,
                     opcode < CLOSE and self._text)
