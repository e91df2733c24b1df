"""The bytes a test server puts on the wire and takes off it: the opening handshake and frames, seen from the server.

It is written from RFC 6455 alone and shares no code with the engine, so that an error of the engine cannot hide behind
the same error here. It does no I/O and rules nothing out: building wrong frames is its purpose.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "ClientFrame",
    "ClientFrames",
    "Request",
    "ServerDeflate",
    "accept_response",
    "build_server_frame",
    "close_payload",
    "http_response",
    "parse_request",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: RFC 6455 §1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def build_server_frame(opcode: int, payload: bytes, fin: bool = True, rsv: int = 0, mask: bytes | None = None) -> bytes:
    """Build one frame (RFC 6455 §5.2), right or wrong.

    Args:
        opcode: 0 to 15, also the reserved ones.
        payload: not limited for control frames.
        fin: the FIN bit.
        rsv: the three reserved bits, 0 to 7, RSV1 being 4.
        mask: four bytes make it a masked frame, which a server must never send.

    Raises:
        ValueError: a number does not fit its field.
    """
    if not 0 <= opcode <= 15:
        raise ValueError(f"opcode={opcode}: give a number from 0 to 15")
    if not 0 <= rsv <= 7:
        raise ValueError(f"rsv={rsv}: give a number from 0 to 7")
    if mask is not None and len(mask) != 4:
        raise ValueError(f"mask={mask!r}: give four bytes, or None")
    masked = 0 if mask is None else 0x80
    first = fin << 7 | rsv << 4 | opcode
    size = len(payload)
    if size < 126:
        head = bytes((first, masked | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    return head + payload if mask is None else head + mask + apply_mask(payload, mask)


class ServerDeflate:
    """What a server compresses for one connection (RFC 7692 §7.2.1), with Python's zlib. Not thread-safe.

    Args:
        takeover: messages refer back to earlier ones.
        window_bits: 9 to 15.
        level: 0 to 9.
    """

    #: What compressors end a flush with, and senders cut off.
    TAIL = b"\x00\x00\xff\xff"

    def __init__(self, *, takeover: bool = True, window_bits: int = 15, level: int = 6) -> None:
        self._takeover = takeover
        self._fresh = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
        self._stream = self._fresh.copy()

    def compress(self, payload: bytes) -> bytes:
        """The payload of a compressed message, with RSV1 on its first frame."""
        if not self._takeover:
            self._stream = self._fresh.copy()
        if not payload:
            return b"\x00"  # §7.2.3.6
        return (self._stream.compress(payload) + self._stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(self.TAIL)

    def frames(self, opcode: int, payload: bytes, fragment: int | None = None) -> bytes:
        """A compressed message on the wire, in one frame or in frames of `fragment` bytes each."""
        data = self.compress(payload)
        size = fragment or len(data)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        last = len(pieces) - 1
        return b"".join(
            build_server_frame(CONTINUATION if at else opcode, piece, fin=at == last, rsv=0 if at else 4)
            for at, piece in enumerate(pieces)
        )


def close_payload(code: int | None, reason: str = "") -> bytes:
    """The payload of a Close frame (RFC 6455 §5.5.1); no code gives an empty one, whatever the reason."""
    return b"" if code is None else struct.pack("!H", code) + reason.encode()


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask (RFC 6455 §5.3)."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class ClientFrame(NamedTuple):
    """A frame as it came from the client, unmasked. `mask` is its masking key, None if it was (wrongly) not masked."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int
    mask: bytes | None


class ClientFrames:
    """Takes frames out of the bytes of a client, however they are cut. Not thread-safe."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[ClientFrame]:
        """Add bytes; return the frames that are complete by now."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> ClientFrame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, at = buffer[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(buffer) < 2 + width:
                return None
            size, at = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
        key_size = 4 if buffer[1] & 0x80 else 0
        end = at + key_size + size
        if len(buffer) < end:
            return None
        mask = bytes(buffer[at : at + key_size]) if key_size else None
        payload = bytes(buffer[at + key_size : end])
        frame = ClientFrame(
            opcode=buffer[0] & 0x0F,
            payload=payload if mask is None else apply_mask(payload, mask),
            fin=bool(buffer[0] & 0x80),
            rsv=buffer[0] >> 4 & 7,
            mask=mask,
        )
        del buffer[:end]
        return frame


class Request(NamedTuple):
    """The head of an upgrade request: its first line and its header fields in order, as they came."""

    line: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        """The value of the first field of that name in any case, None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def parse_request(data: bytes) -> tuple[Request, bytes] | None:
    """Split bytes into a request head and what follows it; None while the head is incomplete."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    line, *fields = head.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    return Request(line, tuple((name, value.strip()) for name, _, value in pairs)), rest


def accept_response(
    key: str, headers: Sequence[Sequence[str]] = (), without: Collection[str] = (), accept: str | None = None
) -> bytes:
    """Build the 101 for a Sec-WebSocket-Key (RFC 6455 §4.2.2).

    Args:
        key: as the client sent it.
        headers: further fields, each a name and a value.
        without: names of the three required fields to leave out, in any case.
        accept: a Sec-WebSocket-Accept to send instead of the right one.
    """
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    required = (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept or base64.b64encode(digest).decode()),
    )
    left_out = {name.lower() for name in without}
    fields = [field for field in required if field[0].lower() not in left_out]
    return _head("HTTP/1.1 101 Switching Protocols", [*fields, *headers])


def http_response(status: int, headers: Sequence[Sequence[str]] = (), body: bytes = b"", reason: str = "") -> bytes:
    """Build a response other than 101; it gets a Content-Length unless `headers` has one or a Transfer-Encoding."""
    fields = list(headers)
    if not any(field[0].lower() in ("content-length", "transfer-encoding") for field in fields):
        fields.append(("Content-Length", str(len(body))))
    return _head(f"HTTP/1.1 {status} {reason}".rstrip(), fields) + body


def _head(line: str, fields: Sequence[Sequence[str]]) -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in fields), "", ""]).encode("latin-1")
