"""The answer to a request that asks for something else than HTTP: its head, and where it refuses, the body of the refusal.

Both the server's answer to the upgrade and a proxy's to CONNECT are such answers. Where a body ends is h11's knowledge
(RFC 9112 §6); what a head is stands in head, what an accepted answer must say with those who ask.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import h11

from wsengine.websocket.head import HeadCollector
from wsengine.websocket.response import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.websocket.response import Response

__all__ = ["AnswerCollector"]


class AnswerCollector:
    """Collects one answer. Sans-IO; not thread-safe.

    Args:
        accepts: whether a status is the one that was asked for.

    Attributes:
        refusal: the response with what there is of its body, once the head has refused.
        head: its collector.
    """

    def __init__(self, accepts: Callable[[int], bool]) -> None:
        self.head = HeadCollector()
        self.refusal: Response | None = None
        self._accepts = accepts
        self._body: _Body | None = None

    def feed(self, data: bytes) -> tuple[Response, bytes] | None:
        """Return the response and the bytes behind its head, None while it is incomplete; a refusal comes with its body.

        Raises:
            InvalidMessage: a line of the head is not HTTP/1.1, or the head is too large.
        """
        if self._body is None or self.refusal is None:
            response, data = self.head.feed(data)
            if response is None:
                return None
            if self._accepts(response.status_code):
                return response, data
            self._body = _Body(response)
            self.refusal = response
        complete = self._body.feed(data)
        self.refusal = replace(self.refusal, body=bytes(self._body.data[:MAX_BODY]))
        return (self.refusal, b"") if complete else None


class _Body:
    """Takes the body out of its transfer coding, up to `MAX_BODY` bytes."""

    def __init__(self, response: Response) -> None:
        self.data = bytearray()
        self._framing = h11.Connection(h11.CLIENT)
        self._framing.send(h11.Request(method="GET", target="/", headers=[("Host", "-")]))
        self._framing.send(h11.EndOfMessage())
        lines = [f"{name}: {value}\r\n" for name in ("Transfer-Encoding", "Content-Length") for value in response.all(name)]
        status = response.status_code if response.status_code >= 200 else 200  # a 101 that nobody wants: to the end
        self._broken = False
        try:
            self._framing.receive_data(f"HTTP/1.1 {status} x\r\n{''.join(lines)}\r\n".encode("latin-1"))
            self._framing.next_event()  # the head; the headers above may make no sense
        except h11.RemoteProtocolError:
            self._broken = True

    def feed(self, data: bytes) -> bool:
        """Add bytes; return whether the body is complete, or enough."""
        if self._broken:
            self.data += data  # as it came
            return True
        try:
            if data:
                self._framing.receive_data(data)
            return self._take()
        except h11.RemoteProtocolError:
            return True

    def _take(self) -> bool:
        while len(self.data) < MAX_BODY:
            event = self._framing.next_event()
            if isinstance(event, h11.Data):
                self.data += event.data
            else:
                return event is not h11.NEED_DATA
        return True
