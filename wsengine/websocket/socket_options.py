"""How the kernel is to treat a connection's socket: keepalive, user time-out, delays, buffers.

Here belong the options and their names on each platform. Addresses and connecting do not (dial).
"""

from __future__ import annotations

import math
import socket
from dataclasses import dataclass, fields

from wsengine.errors import ConfigurationError
from wsengine.options import boolean, reject_unknown, seconds, whole

__all__ = ["SocketOptions"]


@dataclass(frozen=True, init=False)
class SocketOptions:
    """How the kernel is to treat the connection's socket. Immutable, so safe to share between threads.

    Args:
        keepalive_idle: whole seconds of silence before the kernel probes the peer (TCP_KEEPIDLE); None leaves it.
        keepalive_interval: whole seconds between two probes (TCP_KEEPINTVL); None leaves it.
        keepalive_count: probes without an answer before the connection is dead (TCP_KEEPCNT); None leaves it. Any of
            the three turns SO_KEEPALIVE on.
        user_timeout: seconds that sent data may stay unacknowledged (TCP_USER_TIMEOUT, Linux); None leaves it.
        nodelay: send small frames at once (TCP_NODELAY).
        receive_buffer: bytes of SO_RCVBUF, of which Linux takes the double; None leaves the kernel's auto-tuning on.

    Raises:
        ConfigurationError: an option is wrong, unknown, or not to be had on this platform.
    """

    keepalive_idle: int | None
    keepalive_interval: int | None
    keepalive_count: int | None
    user_timeout: float | None
    nodelay: bool
    receive_buffer: int | None

    def __init__(self, *, keepalive_idle: int | None = None, keepalive_interval: int | None = None,
                 keepalive_count: int | None = None, user_timeout: float | None = None, nodelay: bool = True,
                 receive_buffer: int | None = None, **unknown: object) -> None:
        reject_unknown("socket_options", unknown, [one.name for one in fields(self)], {})
        checked = {
            "keepalive_idle": _optional_whole("keepalive_idle", keepalive_idle, 32767),
            "keepalive_interval": _optional_whole("keepalive_interval", keepalive_interval, 32767),
            "keepalive_count": _optional_whole("keepalive_count", keepalive_count, 127),
            "user_timeout": seconds("socket_options.user_timeout", user_timeout),
            "nodelay": boolean("socket_options.nodelay", nodelay),
            "receive_buffer": _optional_whole("receive_buffer", receive_buffer, 2**30),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_platform()

    def apply(self, sock: socket.socket) -> None:
        """Set the options on a socket before it connects, since the announced window follows the receive buffer.

        A Unix socket gets the receive buffer only: the others are TCP's.
        """
        if self.receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        if sock.family == getattr(socket, "AF_UNIX", None):
            return
        if self.nodelay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kernel = self._kernel_options()
        if any(name != "user_timeout" for name, _, _ in kernel):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for _, option, value in kernel:
            assert option is not None  # _check_platform
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def _kernel_options(self) -> list[tuple[str, int | None, int]]:
        """Return name, number on this platform (None if it has none) and value of the TCP options that are set."""
        # macOS has TCP_KEEPIDLE under the name TCP_KEEPALIVE.
        idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
        milliseconds = None if self.user_timeout is None else min(math.ceil(self.user_timeout * 1000), 2**31 - 1)
        table = [("keepalive_idle", idle, self.keepalive_idle),
                 ("keepalive_interval", getattr(socket, "TCP_KEEPINTVL", None), self.keepalive_interval),
                 ("keepalive_count", getattr(socket, "TCP_KEEPCNT", None), self.keepalive_count),
                 ("user_timeout", getattr(socket, "TCP_USER_TIMEOUT", None), milliseconds)]
        return [(name, option, value) for name, option, value in table if value is not None]

    def _check_platform(self) -> None:
        for name, option, _ in self._kernel_options():
            if option is None:
                raise ConfigurationError(f"socket_options.{name}", getattr(self, name),
                                         "this platform has no such socket option; leave it None")


def _optional_whole(name: str, value: int | None, maximum: int) -> int | None:
    return None if value is None else whole(f"socket_options.{name}", value, minimum=1, maximum=maximum)
