"""Connections that need no look-up: a socket that the user has connected, and the path of a Unix socket.

Here belongs how the options `sock` and `unix` are checked, and what is taken for the machine's own. What goes over such a
socket is the same as over any other.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from wsengine.errors import ConfigurationError

if TYPE_CHECKING:
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["Supply", "check_sock", "check_unix", "is_local", "is_loopback", "is_loopback_address", "take_sock"]

#: What the option `sock` takes: a connected socket, which serves once, or a callable that makes one for each attempt.
Supply: TypeAlias = socket.socket | Callable[[], socket.socket] | None

#: Bytes of a Unix socket's path at most, with its NUL; Linux has 108, others less.
LONGEST_UNIX_PATH = 107


def check_sock(path: str, value: object) -> None:
    """Check the option `sock`. Raises ConfigurationError."""
    if isinstance(value, socket.socket):
        _check_connected(path, value)
    elif value is not None and not callable(value):
        raise ConfigurationError(path, value, "give a connected socket, or a callable () -> socket that makes one for each "
                                              "attempt")


def take_sock(path: str, supply: socket.socket | Callable[[], socket.socket]) -> socket.socket:
    """Return the connected socket, made non-blocking; the caller owns it.

    Raises:
        OSError: of the callable's, as it is.
        ConfigurationError: the callable raised something else, or returned something that is no connected socket.
    """
    if isinstance(supply, socket.socket):
        sock = supply
    else:
        try:
            sock = supply()
        except OSError:
            raise
        except Exception as error:
            raise ConfigurationError(path, supply, f"the callable raised {type(error).__name__}; return a connected socket, "
                                                   "or raise OSError for another attempt") from error
    try:
        if not isinstance(sock, socket.socket):
            raise ConfigurationError(path, sock, "the callable returned this; return a connected socket.socket")
        _check_connected(path, sock)
        sock.setblocking(False)
    except BaseException:
        if isinstance(sock, socket.socket):
            sock.close()
        raise
    return sock


def _check_connected(path: str, sock: socket.socket) -> None:
    if isinstance(sock, ssl.SSLSocket):
        raise ConfigurationError(path, sock, "give the socket below the TLS; with a wss:// url TLS is made here")
    if sock.type != socket.SOCK_STREAM:
        raise ConfigurationError(path, sock, "give a stream socket (SOCK_STREAM)")
    try:
        sock.getpeername()
    except OSError as error:
        raise ConfigurationError(path, sock, f"give a socket that is connected ({error.strerror})") from None


def check_unix(path: str, value: object) -> str | None:
    """Check the option `unix`: the path of a Unix socket; "\\0name" is one of Linux's abstract names.

    Raises:
        ConfigurationError: it is not one, it is too long, or this platform has none.
    """
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigurationError(path, value, "give the path of a Unix socket, as str or os.PathLike")
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(path, value, "this platform has no Unix sockets")
    text: str = os.fspath(value)
    if not isinstance(text, str) or "\0" in text[1:] or len(os.fsencode(text)) > LONGEST_UNIX_PATH:
        raise ConfigurationError(path, value, f"give a path of at most {LONGEST_UNIX_PATH} bytes, without NUL")
    return text


def is_loopback(uri: WebSocketURI) -> bool:
    """Whether the host of a URI is this machine by its name: localhost (RFC 6761 §6.3), 127.0.0.0/8, or ::1."""
    host = uri.host.rstrip(".")
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host)


def is_local(sock: socket.socket) -> bool:
    """Whether a connected socket ends on this machine: a Unix socket, or a loopback address."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return True
    with contextlib.suppress(OSError):
        return is_loopback_address(str(sock.getpeername()[0]))
    return False


def is_loopback_address(text: str) -> bool:
    """Whether a text is a loopback address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)
