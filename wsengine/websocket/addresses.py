"""From a host's name to its addresses, in the order in which they are to be tried.

Here live the look-up, in a thread that may be left behind (one at most for a host and port), and RFC 8305's order. The
connecting is `racing`'s.
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


class _Pending:
    """A look-up on its way, by a thread of its own.

    Attributes:
        answer: what getaddrinfo returned or raised; written once by the thread, under the lock, before it tells anybody.
        waiting: write ends of the pipes of those who wait; each adds and removes its own, under the lock.
    """

    def __init__(self) -> None:
        self.answer: list[Any] | BaseException = []
        self.waiting: set[int] = set()


_Key: TypeAlias = tuple[str, int, int]
# A dial whose time is up leaves its look-up behind, and the next one joins it instead of asking again: else a resolver that
# hangs would collect a thread for each attempt. The thread removes its look-up.
_lock = threading.Lock()
_pending: dict[_Key, _Pending] = {}


def _forget_in_child() -> None:
    """The threads, and perhaps the owner of the lock, are the parent's."""
    global _lock, _pending
    _lock, _pending = threading.Lock(), {}


os.register_at_fork(after_in_child=_forget_in_child)


def _lookup_in_thread(attempt: Attempt, host: str, port: int, family: int) -> list[Any]:
    """Look up in another thread, since getaddrinfo takes neither a deadline nor a cancellation; join one that asks the same.

    The thread knows the look-up and nothing of the engine: it may outlive the dial by the resolver's own time-out.
    """
    read_fd, write_fd = os.pipe()
    found: _Pending | None = None
    try:
        found = _join((host, port, family), write_fd, attempt.peer)
        attempt.wait(read_fd, select.POLLIN)
    finally:
        with _lock:
            if found is not None:
                found.waiting.discard(write_fd)
            os.close(write_fd)
        os.close(read_fd)
    if isinstance(found.answer, socket.gaierror):
        raise _described(found.answer, attempt.peer) from found.answer
    if isinstance(found.answer, BaseException):
        raise found.answer
    return found.answer


def _join(key: _Key, write_fd: int, peer: str) -> _Pending:
    """The look-up for this, begun if there is none; a byte into the pipe will say that it is done."""
    with _lock:
        found = _pending.get(key)
        if found is None:
            found = _Pending()
            try:
                threading.Thread(target=_look_up, args=(key, found), name="wsengine:dns", daemon=True).start()
            except RuntimeError as error:  # no thread to be had: out of memory or of processes
                raise OSError(errno.EAGAIN, f"cannot look up {peer}: {error}") from error
            _pending[key] = found
        found.waiting.add(write_fd)
        return found


def _look_up(key: _Key, pending: _Pending) -> None:
    """Run in the look-up thread: get the answer or the error, then tell who waits."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are for the main thread
    host, port, family = key
    answer: list[Any] | BaseException
    try:
        answer = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except BaseException as error:  # raised again by the dials
        answer = error
    with _lock:
        pending.answer = answer
        if _pending.get(key) is pending:
            del _pending[key]
        for fd in pending.waiting:  # each has its own byte to read, and takes it out under the lock before it closes it
            os.write(fd, b"\0")


def _lookup(host: str, port: int, peer: str, family: int, flags: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise _described(error, peer) from error


def _described(error: socket.gaierror, peer: str) -> socket.gaierror:
    return socket.gaierror(error.errno, f"cannot look up {peer}: {error.strerror}")
