"""The TCP connect as a race between addresses (RFC 8305, "Happy Eyeballs"), and the connect to a Unix socket.

Here belongs who starts when, who wins, and that the losers are closed: at most one socket is left. Which addresses there
are, and in which order, is `addresses`'.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from wsengine.websocket.addresses import interleaved
from wsengine.websocket.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.websocket.addresses import Address
    from wsengine.websocket.attempt import Attempt
    from wsengine.websocket.socket_options import SocketOptions

__all__ = ["ATTEMPT_DELAY", "connect", "connect_unix"]

#: Seconds that an address gets before the next one is tried beside it (RFC 8305 §5, Connection Attempt Delay).
ATTEMPT_DELAY = 0.25
#: Seconds between two tries on a Unix socket whose backlog is full: no poll tells when it has room.
UNIX_PAUSE = 0.01


def connect(attempt: Attempt, addresses: Sequence[Address], options: SocketOptions) -> tuple[socket.socket, tuple[Any, ...]]:
    """Connect to the first address that answers; return the non-blocking socket and its address.

    Addresses are tried in turn, families interleaved. The next one starts when the one before has failed, or has not
    answered for `ATTEMPT_DELAY`; those before it go on.

    Raises:
        OSError: all failed; with the errno of the last, and all reasons in the text. And as `Attempt.check`.
    """
    race = _Race(attempt, addresses, options)
    try:
        with attempt.timed("tcp", "the TCP connect"):
            return race.run()
    finally:
        race.close()


class _Race:
    """The attempts that are under way. `close` closes all that have not won."""

    def __init__(self, attempt: Attempt, addresses: Sequence[Address], options: SocketOptions) -> None:
        self._attempt = attempt
        self._waiting = deque(interleaved(addresses))
        self._options = options
        self._running: dict[int, tuple[socket.socket, tuple[Any, ...]]] = {}
        self._next = Deadline(0)
        self._last: OSError | None = None

    def run(self) -> tuple[socket.socket, tuple[Any, ...]]:
        while self._waiting or self._running:
            if self._waiting and (self._next.expired or not self._running):
                self._next = Deadline(ATTEMPT_DELAY)
                self._start(*self._waiting.popleft())
            interests = dict.fromkeys(self._running, select.POLLOUT)
            limit = self._next if self._waiting else None
            for fd in self._attempt.wait_any(interests, limit) if interests else ():
                sock, address = self._running[fd]
                try:
                    _finish(sock)
                except OSError as error:
                    self._failed(sock, address, error)
                    continue
                del self._running[fd]
                return sock, address
        self._attempt.check()
        number = errno.EADDRNOTAVAIL if self._last is None else self._last.errno
        notes = "; ".join(self._attempt.notes) or "it has no address"
        raise OSError(number, f"cannot connect to {self._attempt.peer} ({notes})") from self._last

    def close(self) -> None:
        for sock, _ in self._running.values():
            sock.close()
        self._running.clear()

    def _start(self, family: int, protocol: int, address: tuple[Any, ...]) -> None:
        """Begin to connect; whatever comes of it, also at once, a poll reports."""
        self._attempt.check()
        try:
            sock = socket.socket(family, socket.SOCK_STREAM, protocol)  # closed on exec (PEP 446)
        except OSError as error:  # such as a family that this machine does not have
            self._failed(None, address, error)
            return
        self._running[sock.fileno()] = sock, address
        try:
            sock.setblocking(False)
            self._options.apply(sock)
            number = sock.connect_ex(address)
            if number not in (0, errno.EINPROGRESS):
                raise OSError(number, os.strerror(number))
        except OSError as error:
            self._failed(sock, address, error)

    def _failed(self, sock: socket.socket | None, address: tuple[Any, ...], error: OSError) -> None:
        self._last = error
        self._attempt.notes.append(f"{address[0]}: {error.strerror}")
        self._next = Deadline(0)
        if sock is not None:
            del self._running[sock.fileno()]
            sock.close()


def _finish(sock: socket.socket) -> None:
    """Raise if the connect that a poll has reported came to nothing."""
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))
    try:
        itself = sock.getsockname() == sock.getpeername()
    except OSError as error:  # reset between the two calls: it is not connected any more, and the cause is taken
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from error
    if itself:
        # TCP's simultaneous open: a dial to a free local port can be given that very port as its source.
        raise OSError(errno.ECONNREFUSED, "connected to itself; nobody listens on this port")


def connect_unix(attempt: Attempt, path: str, options: SocketOptions) -> socket.socket:
    """Connect to a Unix socket; return the non-blocking socket. Raises OSError, and as `Attempt.check`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with attempt.timed("tcp", "the connect"):
            sock.setblocking(False)
            options.apply(sock)
            while (number := sock.connect_ex(path)) == errno.EAGAIN:
                attempt.wait_any({}, Deadline(UNIX_PAUSE))
            if number:
                raise OSError(number, f"cannot connect to {attempt.peer}: {os.strerror(number)}")
    except BaseException:
        sock.close()
        raise
    return sock
