"""The case that `doctor` examines: the server, what is known of it so far, and connections to it.

The steps that find it out stand in approach.py, encryption.py and session.py; each writes what the later ones need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsengine.cli.report import FAILED, Finding
from wsengine.cli.server import command_words
from wsengine.errors import ConfigurationError, WebSocketException
from wsengine.websocket.attempt import Attempt
from wsengine.websocket.channel import Channel
from wsengine.websocket.proxy import pass_proxy
from wsengine.websocket.racing import connect

if TYPE_CHECKING:
    from wsengine.cli.server import Server
    from wsengine.websocket.addresses import Address
    from wsengine.websocket.proxy import Proxy
    from wsengine.websocket.uri import WebSocketURI
    from wsengine.websocket.way import Way

__all__ = ["FAILURES", "Case", "line"]

#: What a step may fail with.
FAILURES = (OSError, WebSocketException)


class Case:
    """One examination. Used by one thread.

    Args:
        server: as the user says.
        timeout: seconds for each step.
        listen: seconds to wait for pings of the server.

    Attributes:
        halted: why no further step can be done, "" while it can.
        url: without secrets, once it is known to be one; "" before.
        uri: from the step "URL" on.
        way, proxy: from the step "proxy" on; no proxy is None.
        addresses: of the server or its proxy, from the step "DNS" on; from "TCP" on those that answer.
    """

    uri: WebSocketURI
    way: Way

    def __init__(self, server: Server, timeout: float, listen: float) -> None:
        self.server = server
        self.timeout = timeout
        self.listen = listen
        self.halted = ""
        self.url = ""
        self.proxy: Proxy | None = None
        self.addresses: list[Address] = []

    def fail(self, step: str, error: BaseException, remedy: str, halted: str, **facts: Any) -> Finding:
        """The finding of a step without which no other can be done; `halted` is what the others say."""
        self.halted = halted
        return Finding(step, FAILED, line(error), remedy, facts)

    @property
    def peer(self) -> tuple[str, int, str]:
        """Host, port and authority of what we connect to."""
        one = self.uri if self.proxy is None else self.proxy
        return one.host, one.port, one.authority

    def attempt(self) -> Attempt:
        """For one connection to it."""
        return Attempt(self.peer[2], self.timeout, None)

    def channel(self, attempt: Attempt) -> Channel:
        """A connection to the server, past the proxy, without TLS of its own. Raises FAILURES."""
        channel = Channel(attempt, *connect(attempt, self.addresses, self.way.socket_options))
        try:
            if self.proxy is not None:
                if self.proxy.scheme == "https":
                    channel.begin_tls(self.way.proxy_context(), self.proxy.host, "the TLS handshake with the proxy")
                pass_proxy(attempt, channel, self.proxy, self.uri, None)
                attempt.peer = self.uri.authority
        except BaseException:
            channel.close()
            raise
        return channel


def line(error: BaseException) -> str:
    """A failure as the text of a finding."""
    if isinstance(error, ConfigurationError):
        return f"{error.path}: not usable"
    return command_words(error)
