"""The steps of a scripted server: what it can be told to do on a connection, one function for each.

A step is data: a name and arguments that travel to the server's process. What a step does is written in
scripted_server.py, under the same name.

The first step meets a connection whose TLS handshake is done and whose request head has been read; only after
`skip_request` it has not, and after `skip_tls` neither is done. Steps that
wait for the client read its frames, and those frames are recorded; the other steps leave them unread. After the last
step the connection is ended by FIN, as by `cut`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wsengine.testing import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Step", "accept", "accept_deflate", "accept_glued", "binary", "close", "compressed", "cut", "drip", "echo_close",
    "frame", "ping", "pong", "raw", "read_until_close", "receive", "reset", "respond", "send", "serve", "skip_request",
    "skip_tls", "stall", "text", "truncate", "until_eof", "wait", "wrong_accept",
]


class Step(NamedTuple):
    """One step. `arguments` are those of the function of the same name in scripted_server.py."""

    action: str
    arguments: dict[str, object]


def skip_request() -> Step:
    """As the first step: do not read the request head."""
    return Step("skip_request", {})


def skip_tls() -> Step:
    """As the first step, on a server with TLS: neither make its handshake nor read a request; what follows is plain."""
    return Step("skip_tls", {})


def accept(
    *, headers: Sequence[tuple[str, str]] = (), without: Sequence[str] = (), glued: bytes = b"",
    chunk: int | None = None, interval: float = 0.0,
) -> Step:
    """Answer with a 101.

    Args:
        headers: further header fields, also wrong ones such as an extension nobody offered.
        without: required fields to leave out: "Upgrade", "Connection", "Sec-WebSocket-Accept".
        glued: bytes behind the head, in the same send.
        chunk: send that many bytes at a time, None for all at once.
        interval: seconds between chunks.
    """
    return Step("accept", {
        "headers": list(headers), "without": list(without), "glued": glued, "chunk": chunk, "interval": interval,
        "accept": None,
    })


def accept_glued(wire_bytes: bytes) -> Step:
    """Answer with a 101 and these bytes in one send."""
    return accept(glued=wire_bytes)


def accept_deflate(
    parameters: str = "", *, takeover: bool = True, window_bits: int = 15, level: int = 6
) -> Step:
    """Answer with a 101 that agrees to permessage-deflate (RFC 7692), and make the compressor of `compressed`.

    Args:
        parameters: that the answer gives, such as "server_no_context_takeover; server_max_window_bits=10".
        takeover, window_bits, level: of the compressor, also where they contradict the answer.
    """
    answer = "permessage-deflate" + (f"; {parameters}" if parameters else "")
    return Step("accept_deflate", {
        "answer": answer, "takeover": takeover, "window_bits": window_bits, "level": level,
    })


def wrong_accept() -> Step:
    """Answer with a 101 whose Sec-WebSocket-Accept belongs to another key."""
    step = accept()
    return Step(step.action, {**step.arguments, "accept": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="})


def respond(status: int, headers: Sequence[tuple[str, str]] = (), body: bytes = b"", reason: str = "") -> Step:
    """Answer with another status; a Content-Length is added unless `headers` says how the body ends."""
    return send(wire.http_response(status, list(headers), body, reason))


def raw(data: bytes) -> Step:
    """Send any bytes, such as garbage in place of the 101 or of a frame."""
    return send(data)


def send(data: bytes) -> Step:
    """Send bytes, such as several frames of `build_server_frame` in one piece; wait until the kernel has taken them."""
    return Step("send", {"data": data})


def drip(data: bytes, chunk: int = 1, interval: float = 0.01) -> Step:
    """Send bytes `chunk` at a time, `interval` seconds apart."""
    return Step("drip", {"data": data, "chunk": chunk, "interval": interval})


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, masked: bool = False) -> Step:
    """Send one frame, right or wrong; see `build_server_frame`."""
    return send(wire.build_server_frame(opcode, payload, fin, rsv, b"\x12\x34\x56\x78" if masked else None))


def text(message: str) -> Step:
    """Send a text message."""
    return frame(wire.TEXT, message.encode())


def binary(message: bytes) -> Step:
    """Send a binary message."""
    return frame(wire.BINARY, message)


def compressed(message: str | bytes, fragment: int | None = None) -> Step:
    """Send a compressed message, text for a str, in frames of `fragment` bytes if given; after `accept_deflate`."""
    opcode, payload = (wire.TEXT, message.encode()) if isinstance(message, str) else (wire.BINARY, message)
    return Step("compressed", {"opcode": opcode, "payload": payload, "fragment": fragment})


def ping(payload: bytes = b"") -> Step:
    """Send a ping; the answer is recorded by a later step that reads."""
    return frame(wire.PING, payload)


def pong(payload: bytes = b"") -> Step:
    """Send a pong that answers nothing."""
    return frame(wire.PONG, payload)


def close(code: int | None = 1000, reason: str = "") -> Step:
    """Send a Close with any code from 0 to 65535, or None for an empty one. Does not wait for the answer."""
    return frame(wire.CLOSE, wire.close_payload(code, reason))


def receive(count: int = 1, timeout: float = 10.0) -> Step:
    """Read until `count` further data frames have come; answer pings. Ends the connection after `timeout` seconds."""
    return Step("receive", {"count": count, "timeout": timeout})


def wait(seconds: float) -> Step:
    """Read and answer nothing, for a time."""
    return Step("serve", {"seconds": seconds, "answer": False, "echo": False})


def serve(seconds: float | None = None, echo: bool = False) -> Step:
    """Be a proper server for a time, or until the connection ends: answer pings and Close, and echo if told."""
    return Step("serve", {"seconds": seconds, "answer": True, "echo": echo})


def read_until_close(timeout: float = 10.0) -> Step:
    """Read up to the client's Close and do not answer it. Ends the connection after `timeout` seconds."""
    return Step("await_close", {"timeout": timeout, "answer": False})


def echo_close(timeout: float = 10.0) -> Step:
    """Read up to the client's Close and answer it with its payload. Ends the connection after `timeout` seconds."""
    return Step("await_close", {"timeout": timeout, "answer": True})


def until_eof(timeout: float = 10.0) -> Step:
    """Read until the client ends its side. Ends the connection after `timeout` seconds."""
    return Step("until_eof", {"timeout": timeout})


def stall(seconds: float | None = None) -> Step:
    """Neither read nor write, until the client has ended the connection or, if given, for a time."""
    return Step("stall", {"seconds": seconds})


def cut(linger: float = 5.0) -> Step:
    """End the connection by FIN, without Close; reads on for at most `linger` seconds, so that nothing sent is lost."""
    return Step("cut", {"linger": linger})


def truncate(linger: float = 5.0) -> Step:
    """End a TLS connection by FIN without the close_notify that RFC 8446 §6.1 asks for; as `cut` where there is no TLS."""
    return Step("truncate", {"linger": linger})


def reset() -> Step:
    """End the connection by RST."""
    return Step("reset", {})
