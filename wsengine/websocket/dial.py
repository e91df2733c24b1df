"""Dialing: from an address to a socket on which the upgrade is accepted, under one deadline and one cancellation.

Here live the look-up, the TCP connect, the exchange of the opening handshake, and the waiting between them. What the
bytes mean is `handshake`'s, what ends a wait `deadline`'s, when to dial again `retry`'s, and what becomes of the socket the
engine's. A dial holds at most one socket at a time, and none once it has failed.

::

    phase                                  ends by
    the headers callable                   its return (it cannot be interrupted; the deadline is looked at behind it)
    the DNS lookup                         an answer, the deadline, the cancellation
    the TCP connect                        the same, for each address in turn
    the sending of the upgrade request     the same
    the wait for the upgrade response      the same
"""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import select
import signal
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from wsengine.errors import ConfigurationError
from wsengine.options import seconds
from wsengine.websocket.deadline import Cancellation, Cancelled, Deadline
from wsengine.websocket.handshake import Accepted, Handshake
from wsengine.websocket.headers import USER_AGENT, Headers, resolve_headers
from wsengine.websocket.socket_options import SocketOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wsengine.websocket.response import Response
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["Dialed", "dial"]

#: Bytes per recv while the response arrives; what is behind the head is handed over with the socket.
CHUNK = 64 * 1024

# poll() takes its time-out as a C int of milliseconds; a longer wait is taken in slices.
LONGEST_POLL_MS = 3_600_000

#: family, protocol number, and the address as the socket module writes it
Address: TypeAlias = tuple[int, int, tuple[Any, ...]]


@dataclass(frozen=True)
class Dialed:
    """A connection whose upgrade is accepted; whoever gets it owns the socket.

    Attributes:
        sock: non-blocking, closed on exec.
        response: the 101.
        subprotocol: the agreed one, or None.
        leftover: bytes received behind the response head, which are the server's first frames.
        local_address: as `socket.getsockname` gives it.
        remote_address: the one of the server's addresses that answered.
        timings: seconds of "dns", "tcp", "upgrade" and "total"; "dns" is 0 for an IP address.
    """

    sock: socket.socket
    response: Response
    subprotocol: str | None
    leftover: bytes = field(repr=False)
    local_address: tuple[Any, ...]
    remote_address: tuple[Any, ...]
    timings: dict[str, float]


def dial(uri: WebSocketURI, *, headers: Headers = None, origin: str | None = None,
         subprotocols: Sequence[str] | None = None, user_agent_header: str | None = USER_AGENT,
         open_timeout: float | None = 10.0, socket_options: SocketOptions | None = None,
         cancellation: Cancellation | None = None) -> Dialed:
    """Connect to the server and have it accept the upgrade. Blocks; any number of threads may dial at the same time.

    Args:
        uri: from `parse_uri`.
        headers: extra request headers, or a callable that returns them, asked here once (see `resolve_headers`).
        origin: as for `Handshake`.
        subprotocols: as for `Handshake`.
        user_agent_header: as for `Handshake`.
        open_timeout: seconds for everything, from the headers callable to the 101; None for no limit.
        socket_options: default `SocketOptions()`.
        cancellation: ends the dial from another thread.

    Raises:
        TimeoutError: `open_timeout` is over; the text names the phase.
        OSError: the network failed, with errno; the text names host and port. `socket.gaierror` for the look-up.
        InvalidHandshake: the server's answer is not an acceptable 101 (see `Handshake.feed`).
        HeadersError: the headers callable failed.
        ConfigurationError: an option is wrong.
        Cancelled: the cancellation was called.
    """
    attempt = _Attempt(uri, seconds("open_timeout", open_timeout), cancellation)
    if socket_options is None:
        socket_options = SocketOptions()
    elif not isinstance(socket_options, SocketOptions):
        raise ConfigurationError("socket_options", socket_options, "give SocketOptions(...)")
    _refuse_tls(uri)
    handshake = Handshake(uri, resolve_headers(headers), origin=origin, subprotocols=subprotocols,
                          user_agent_header=user_agent_header)
    attempt.check()
    addresses = attempt.resolve()
    sock, remote = attempt.connect(addresses, socket_options)
    try:
        local = sock.getsockname()
        accepted = attempt.upgrade(sock, handshake)
    except BaseException:  # also KeyboardInterrupt: nobody else knows of the socket
        sock.close()
        raise
    attempt.timings["total"] = attempt.deadline.elapsed
    return Dialed(sock, accepted.response, accepted.subprotocol, accepted.leftover, local, remote, attempt.timings)


def _refuse_tls(uri: WebSocketURI) -> None:
    """Refuse wss:// before anything is looked up or sent: what asks for TLS must never go out in clear."""
    if uri.secure:
        raise ConfigurationError("url", uri.redacted, "wss:// is not available in this version; use ws://, or a TLS "
                                                      "proxy on this machine in front of the server")


class _Attempt:
    """One dial on its way: what its phases share. Used by one thread."""

    def __init__(self, uri: WebSocketURI, open_timeout: float | None, cancellation: Cancellation | None) -> None:
        self.deadline = Deadline(open_timeout)
        self.timings: dict[str, float] = {"dns": 0.0}
        self._uri = uri
        self._peer = uri.authority
        self._open_timeout = open_timeout
        self._cancellation = cancellation
        self._phase = "the headers callable"
        self._notes: list[str] = []  # the addresses that failed so far, with the reason

    # Waiting

    def check(self) -> None:
        """Raise if the dial is cancelled or out of time."""
        if self._cancellation is not None and self._cancellation.cancelled:
            raise Cancelled(f"cancelled during {self._phase} (to {self._peer})")
        if self.deadline.expired:
            notes = f"; before: {'; '.join(self._notes)}" if self._notes else ""
            raise TimeoutError(f"timed out during {self._phase} to {self._peer} after {self.deadline.elapsed:.1f} s "
                               f"(open_timeout={self._open_timeout}){notes}")

    def wait(self, fd: int, events: int, limit: Deadline | None = None) -> bool:
        """Wait until a poll reports `fd`; False if `limit` expires first. Raises as `check`."""
        poller = select.poll()
        poller.register(fd, events)
        if self._cancellation is not None:
            poller.register(self._cancellation.fileno(), select.POLLIN)
        while True:
            self.check()
            if limit is not None and limit.expired:
                return False
            ready = poller.poll(_milliseconds(limit or self.deadline))
            if any(one == fd for one, _ in ready):
                self.check()
                return True

    # DNS

    def resolve(self) -> list[Address]:
        """Return the addresses of the host in the order of the resolver (RFC 6724), each once."""
        self._phase = "the DNS lookup"
        before = self.deadline.elapsed
        if _is_ip(self._uri.host):
            found = _lookup(self._uri, socket.AI_NUMERICHOST)
        else:
            found = self._lookup_in_thread()
            self.timings["dns"] = self.deadline.elapsed - before
        return list(dict.fromkeys((family, protocol, address) for family, _, protocol, _, address in found))

    def _lookup_in_thread(self) -> list[Any]:
        """Look up in a thread of its own, since getaddrinfo takes neither a deadline nor a cancellation.

        The thread knows the box, the write end of the pipe and the address, and nothing of the engine: it may outlive
        the dial by the resolver's own time-out, and only then is its end of the pipe closed.
        """
        read_fd, write_fd = os.pipe()
        box: list[list[Any] | BaseException] = []
        try:
            thread = threading.Thread(target=_fill, args=(box, write_fd, self._uri), name="wsengine:dns", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread to be had: out of memory or of processes
                os.close(write_fd)
                raise OSError(errno.EAGAIN, f"cannot look up {self._peer}: {error}") from error
            self.wait(read_fd, select.POLLIN)
        finally:
            os.close(read_fd)
        if isinstance(box[0], BaseException):
            raise box[0]
        return box[0]

    # TCP

    def connect(self, addresses: list[Address], options: SocketOptions) -> tuple[socket.socket, tuple[Any, ...]]:
        """Try the addresses in turn; return the connected socket and its address.

        Each gets an equal share of the time left, so that one that drops packets does not take it from the others.
        """
        self._phase = "the TCP connect"
        before = self.deadline.elapsed
        last: OSError | None = None
        for at, (family, protocol, address) in enumerate(addresses):
            try:
                sock = self._connect_to(family, protocol, address, options, self.deadline.share(len(addresses) - at))
            except OSError as error:
                self.check()
                last = error
                self._notes.append(f"{address[0]}: {error.strerror}")
                continue
            self.timings["tcp"] = self.deadline.elapsed - before
            return sock, address
        self.check()
        number = errno.EADDRNOTAVAIL if last is None else last.errno
        notes = "; ".join(self._notes) or "it has no address"
        raise OSError(number, f"cannot connect to {self._peer} ({notes})") from last

    def _connect_to(self, family: int, protocol: int, address: tuple[Any, ...], options: SocketOptions,
                    limit: Deadline) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM, protocol)  # closed on exec (PEP 446)
        try:
            sock.setblocking(False)
            options.apply(sock)
            number = sock.connect_ex(address)
            if number == errno.EINPROGRESS:
                if not self.wait(sock.fileno(), select.POLLOUT, limit):
                    raise OSError(errno.ETIMEDOUT, f"no answer within {limit.elapsed:.1f} s")
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number))
            if sock.getsockname() == sock.getpeername():
                # TCP's simultaneous open: a dial to a free local port can be given that very port as its source.
                raise OSError(errno.ECONNREFUSED, "connected to itself; nobody listens on this port")
        except BaseException:
            sock.close()
            raise
        return sock

    # Upgrade

    def upgrade(self, sock: socket.socket, handshake: Handshake) -> Accepted:
        """Send the request and read until the handshake is decided."""
        before = self.deadline.elapsed
        self._phase = "the sending of the upgrade request"
        self._send(sock, handshake.request())
        self._phase = "the wait for the upgrade response"
        while True:
            self.wait(sock.fileno(), select.POLLIN)
            data = self._on_socket(sock.recv, CHUNK)
            if data == b"":
                raise handshake.eof()
            accepted = handshake.feed(data) if data else None
            if accepted is not None:
                self.timings["upgrade"] = self.deadline.elapsed - before
                return accepted

    def _send(self, sock: socket.socket, request: bytes) -> None:
        rest = memoryview(request)
        while rest:
            self.wait(sock.fileno(), select.POLLOUT)
            sent = self._on_socket(sock.send, rest, _SEND_FLAGS)
            rest = rest[sent or 0:]

    def _on_socket(self, call: Callable[..., Any], *arguments: object) -> Any:
        """Do a socket call and put host and port into its error; None if the socket is not ready after all."""
        try:
            return call(*arguments)
        except BlockingIOError:
            return None
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} during {self._phase} to {self._peer}") from error


# A program around us may have given SIGPIPE its default action, which is death.
_SEND_FLAGS: int = getattr(socket, "MSG_NOSIGNAL", 0)


def _lookup(uri: WebSocketURI, flags: int = 0) -> list[Any]:
    try:
        return socket.getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"cannot look up {uri.authority}: {error.strerror}") from error


def _fill(box: list[list[Any] | BaseException], write_fd: int, uri: WebSocketURI) -> None:
    """Run in the look-up thread: put the answer or the error into the box, then say so on the pipe."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are for the main thread
    try:
        box.append(_lookup(uri))
    except BaseException as error:  # raised again by the dial
        box.append(error)
    try:
        os.write(write_fd, b"\0")
    except OSError:  # the dial has gone and closed its end
        pass
    finally:
        os.close(write_fd)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _milliseconds(limit: Deadline) -> int | None:
    remaining = limit.remaining()
    # Rounded up: rounding down would poll without waiting through the last millisecond.
    return None if remaining is None else min(math.ceil(remaining * 1000), LONGEST_POLL_MS)
