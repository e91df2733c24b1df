"""From a host's name to its addresses, in the order in which they are to be tried.

Here live the look-up, in a thread that may be left behind, and RFC 8305's order. The connecting is `racing`'s.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import signal
import socket
import threading
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.websocket.attempt import Attempt

__all__ = ["Address", "interleaved", "is_ip", "resolve"]

#: family, protocol number, and the address as the socket module writes it
Address: TypeAlias = tuple[int, int, tuple[Any, ...]]


def resolve(attempt: Attempt, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[Address]:
    """Return the addresses of the host in the order of the resolver (RFC 6724), each once.

    Raises:
        socket.gaierror: the resolver's, with host and port in its text; and as `Attempt.check`.
    """
    attempt.phase = "the DNS lookup"
    if is_ip(host):
        found = _lookup(host, port, attempt.peer, family, socket.AI_NUMERICHOST)
    else:
        with attempt.timed("dns", attempt.phase):
            found = _lookup_in_thread(attempt, host, port, family)
    return list(dict.fromkeys((family, protocol, address) for family, _, protocol, _, address in found))


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The same addresses with the families in turn, the family of the first one leading (RFC 8305 §4)."""
    families: dict[int, list[Address]] = {}
    for one in addresses:
        families.setdefault(one[0], []).append(one)
    return [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]


def is_ip(host: str) -> bool:
    """Whether a host is an IP address, so that nothing has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _lookup_in_thread(attempt: Attempt, host: str, port: int, family: int) -> list[Any]:
    """Look up in a thread of its own, since getaddrinfo takes neither a deadline nor a cancellation.

    The thread knows the box, the write end of the pipe and the address, and nothing of the engine: it may outlive
    the dial by the resolver's own time-out, and only then is its end of the pipe closed.
    """
    read_fd, write_fd = os.pipe()
    box: list[list[Any] | BaseException] = []
    try:
        thread = threading.Thread(target=_fill, args=(box, write_fd, host, port, attempt.peer, family),
                                  name="wsengine:dns", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had: out of memory or of processes
            os.close(write_fd)
            raise OSError(errno.EAGAIN, f"cannot look up {attempt.peer}: {error}") from error
        attempt.wait(read_fd, select.POLLIN)
    finally:
        os.close(read_fd)
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]


def _fill(box: list[list[Any] | BaseException], write_fd: int, host: str, port: int, peer: str, family: int) -> None:
    """Run in the look-up thread: put the answer or the error into the box, then say so on the pipe."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are for the main thread
    try:
        box.append(_lookup(host, port, peer, family))
    except BaseException as error:  # raised again by the dial
        box.append(error)
    try:
        os.write(write_fd, b"\0")
    except OSError:  # the dial has gone and closed its end
        pass
    finally:
        os.close(write_fd)


def _lookup(host: str, port: int, peer: str, family: int, flags: int = 0) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"cannot look up {peer}: {error.strerror}") from error
