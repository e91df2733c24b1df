"""Bytes to and from a peer before the engine has the connection: send, receive and TLS handshake, under one deadline.

The bytes go through a layer: a non-blocking `socket.socket`, an `ssl.SSLSocket`, or a `TlsLayer`. Here belongs what is the
same for all three: waiting for what they ask for, and errors that name phase and peer. What the bytes mean is the matter of
who talks (handshake, proxy).
"""

from __future__ import annotations

import select
import socket
import ssl
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from wsengine.websocket.deadline import Deadline
from wsengine.websocket.tls import described, is_end, open_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.websocket.attempt import Attempt
    from wsengine.websocket.tls import Layer

__all__ = ["Channel", "Talk"]

#: Bytes per recv while an answer arrives; what is behind its head is handed over with the socket.
CHUNK = 64 * 1024
#: Seconds that the body of a refusal may take: it is for a message, and the status is known.
BODY_WAIT = 2.0
# A program around us may have given SIGPIPE its default action, which is death.
_SEND_FLAGS: int = getattr(socket, "MSG_NOSIGNAL", 0)

T = TypeVar("T")
Answer = TypeVar("Answer", covariant=True)


class Talk(Protocol[Answer]):
    """One request and its answer, sans-IO. `refused`: it is decided, and only the body of the refusal is missing."""

    @property
    def refused(self) -> bool: ...
    def request(self) -> bytes: ...
    def feed(self, data: bytes) -> Answer | None: ...
    def eof(self) -> Exception: ...


class Channel:
    """A connected socket and the layer on it. Owns both; used by one thread.

    Attributes:
        sock: owns the descriptor; an SSLSocket on path A.
        remote_address: whereto it is connected.
        layer: through which bytes go; `sock` itself, but on path B.
        tls_path: "A" or "B", None without TLS (see `wsengine.websocket.tls`).
        tls_reason: why it is B, else None.
    """

    def __init__(self, attempt: Attempt, sock: socket.socket, remote_address: Any) -> None:
        self.sock = sock
        self.remote_address = remote_address
        self.layer: Layer = sock
        self.tls_path: str | None = None
        self.tls_reason: str | None = None
        self._attempt = attempt
        self._host = ""  # for which the present TLS layer was made

    def close(self) -> None:
        """Close the socket; idempotent."""
        self.sock.close()

    def begin_tls(self, context: ssl.SSLContext, host: str, phase: str = "the TLS handshake") -> None:
        """Put TLS on what there is, and make its handshake. `host`: the name of SNI and of the certificate."""
        with self._attempt.timed("tls", phase):
            self._host = host
            try:
                made = open_tls(self.layer, context, host)
            except OSError as error:  # the socket was reset before
                raise described(error, phase, self._attempt.peer, host) from error
            self.sock, self.layer, self.tls_path, self.tls_reason = made.sock, made.layer, made.path, made.reason
            self._on_layer(made.layer.do_handshake, select.POLLIN)
            self.tls_path, self.tls_reason = made.verdict()

    def check(self) -> None:
        """Raise if the attempt is over, as `Attempt.check`."""
        self._attempt.check()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        rest = memoryview(data)
        layer = self.layer
        flags = _SEND_FLAGS if type(layer) is socket.socket else 0  # TLS takes none
        while rest:
            self._attempt.check()
            sent = self._on_layer(lambda: layer.send(rest, flags), select.POLLOUT)  # noqa: B023
            rest = rest[sent or 0:]

    def receive(self, size: int = CHUNK, limit: Deadline | None = None) -> bytes | None:
        """What arrives next, b"" at the end, None if `limit` expires first."""
        self._attempt.check()
        return self._on_layer(lambda: self.layer.recv(size), select.POLLIN, limit)

    def converse(self, talk: Talk[T], name: str, sending: str, waiting: str) -> T:
        """Send the request and read until the answer is decided; its time is the timing `name`.

        Raises:
            Whatever `talk` raises or returns from `eof`; OSError; and as `Attempt.check`. What breaks off the body of a
            refusal does not hide the refusal, nor does a failed send what the peer had said before it went.
        """
        with self._attempt.timed(name, sending):
            failed = self._try_to_send(talk.request())
        if failed is not None:
            with self._attempt.timed(name, waiting):
                raise self._last_words(talk, failed)
        with self._attempt.timed(name, waiting):
            limit = None
            while True:
                try:
                    data = self.receive(limit=limit)
                except OSError:
                    if talk.refused:
                        raise talk.eof() from None
                    raise
                if not data:
                    raise talk.eof()
                answer = talk.feed(data)
                if answer is not None:
                    return answer
                if limit is None and talk.refused:
                    limit = Deadline(BODY_WAIT)

    def _try_to_send(self, data: bytes) -> OSError | None:
        """Send all of it; the error where the peer is gone, and other errors raised."""
        try:
            self.send(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError) as error:
            return error
        return None

    def _last_words(self, talk: Talk[Any], failed: OSError) -> Exception:
        """Why the peer went, as far as it has said so: an alert (the refusal of a client certificate comes behind a TLS 1.3
        handshake that we take for done), or an early answer. What cannot be read leaves it at `failed`."""
        limit = Deadline(BODY_WAIT)
        try:
            while data := self.receive(limit=limit):
                if talk.feed(data) is not None:  # to a request that it does not have
                    return failed
        except ssl.SSLError as error:
            return failed if is_end(error) else error
        except OSError:  # the reset itself; or the deadline
            pass
        return talk.eof() if talk.refused else failed

    def _on_layer(self, call: Callable[[], T], events: int, limit: Deadline | None = None) -> T | None:
        """Do a call on the layer, waiting as often as it asks; None if `limit` expires first."""
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            except BlockingIOError:
                wanted = events
            except OSError as error:
                raise described(error, self._attempt.phase, self._attempt.peer, self._host) from error
            if not self._attempt.wait(self.sock.fileno(), wanted, limit):
                return None
