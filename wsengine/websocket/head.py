"""The head of a response, collected as its bytes arrive, with every line judged as it completes.

Here belongs what makes bytes an HTTP/1.1 head, and how long one may be. Whether the response is the right one does not
(handshake).
"""

from __future__ import annotations

import re

from wsengine.errors import InvalidMessage
from wsengine.websocket.response import Response

__all__ = ["LONGEST_QUOTE", "MAX_HEAD", "HeadCollector"]

#: Bytes of the response head at most, informational responses before it included. A few cookies of the 4 KiB and more that
#: browsers take each must have room, beside a policy header or two.
MAX_HEAD = 64 * 1024
#: Characters of a text from the server that go into an error at most.
LONGEST_QUOTE = 100

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (.*))?", re.DOTALL)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HTTP = b"HTTP/1."


class HeadCollector:
    """Collects lines up to the end of a response head, and judges each as it completes.

    Attributes:
        arrived: bytes fed so far.
        minor_version: y of the last status line's HTTP/1.y.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.minor_version = 1
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that have no line end
        self._taken = 0  # bytes of complete lines, over all heads
        self._status: tuple[int, str] | None = None
        self._headers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> tuple[Response | None, bytes]:
        """Return the final response and the bytes behind it, or None and nothing while it is incomplete."""
        self.arrived += len(data)
        self._buffer += data
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                self._check_beginning()
                return None, b""
            line = self._take_line(end + 1)
            if line:
                self._add(line)
                continue
            response = self._finish()
            if response.status_code == 101 or response.status_code >= 200:
                return response, bytes(self._buffer)

    def _take_line(self, length: int) -> bytes:
        self._check_size(length)
        line = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._taken += length
        self._searched = 0
        # A bare CR or LF, or a NUL, means different things to different parsers (RFC 9112 §2.2): none of them is taken.
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            raise InvalidMessage(f"{self._place()} is not HTTP: it does not end with CR LF, or has a CR or NUL inside")
        return line[:-2]

    def _check_beginning(self) -> None:
        """Refuse an incomplete line as soon as it cannot become one that we take."""
        self._check_size(len(self._buffer))
        if self._status is None:
            beginning = bytes(self._buffer[:len(_HTTP)])
            if not _HTTP.startswith(beginning):
                raise InvalidMessage(_not_http(beginning))

    def _check_size(self, length: int) -> None:
        if self._taken + length > MAX_HEAD:
            raise InvalidMessage(f"the response head is larger than {MAX_HEAD} bytes")

    def _add(self, line: bytes) -> None:
        if self._status is None:
            match = _STATUS_LINE.fullmatch(line)
            if match is None:
                raise InvalidMessage(_not_http(line))
            self.minor_version = int(match[1])
            self._status = int(match[2]), _printable(match[3] or b"")
        elif line[:1] in (b" ", b"\t") and self._headers:  # a folded line (RFC 9112 §5.2)
            name, value = self._headers.pop()
            self._headers.append((name, value + b" " + line.strip(b" \t")))
        else:
            name, colon, value = line.partition(b":")
            if not colon or _NAME.fullmatch(name) is None:
                raise InvalidMessage(f"{self._place()} is not an HTTP header")
            # Not by the expression: what backtracks over a server's white space takes seconds for some.
            self._headers.append((name, value.strip(b" \t")))

    def _finish(self) -> Response:
        if self._status is None:
            raise InvalidMessage("the response begins with an empty line instead of an HTTP/1.1 status line")
        headers = tuple((name.decode("ascii"), value.decode("iso-8859-1")) for name, value in self._headers)
        response = Response(*self._status, headers)
        self._status = None
        self._headers = []
        return response

    def _place(self) -> str:
        # The number and never the text: the line may be a cookie, or an echo of our own request.
        return "the status line" if self._status is None else f"header line {len(self._headers) + 1} of the response"


def _not_http(line: bytes) -> str:
    if line[:1] in (b"\x15", b"\x16"):  # the record types alert and handshake (RFC 8446 §5.1)
        return "the answer is not HTTP but TLS; use wss:// for this port"
    # Four bytes name a protocol ("SSH-", "GET ") and are too few to show a secret.
    return f"the answer is not HTTP/1.1; it begins with {line[:4]!r}"


def _printable(raw: bytes) -> str:
    # Goes into the text of errors, so into logs and terminals: no escape sequences, no endless lines.
    text = raw.decode("iso-8859-1").strip()[:LONGEST_QUOTE]
    return "".join(one if one.isprintable() else "?" for one in text)
