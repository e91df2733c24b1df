"""A server that does what a script says, seen from the test that uses it: its scripts, and its record of each client.

What a script can say stands in steps.py, how it is done in scripted_server.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsengine.errors import ConfigurationError
from wsengine.options import whole
from wsengine.testing.child import wait_until
from wsengine.testing.embedded import EmbeddedServer
from wsengine.testing.steps import Step
from wsengine.testing.tls import ServerTLS, tls_settings
from wsengine.testing.wire import build_server_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ReceivedFrame", "ScriptedRecord", "ScriptedServer", "build_server_frame"]


@dataclass(frozen=True)
class ReceivedFrame:
    """A frame of the client, unmasked.

    Attributes:
        at_ns: when the server read it, on `time.monotonic_ns`.
        mask: its masking key, None if it was (wrongly) not masked.
    """

    at_ns: int
    opcode: int
    payload: bytes
    fin: bool
    rsv: int
    mask: bytes | None

    @property
    def masked(self) -> bool:
        """Whether it was masked."""
        return self.mask is not None


@dataclass(frozen=True)
class ScriptedRecord:
    """What one connection saw.

    Attributes:
        index: counts the connections from 0.
        opened_ns, ended_ns: when it was accepted and closed, on `time.monotonic_ns`; the latter None while it is open.
        ended: how: "script done", "cut", "reset", "closed by client", "ended by client", "receive timed out",
            "no Close in time", "no EOF in time", "no Sec-WebSocket-Key to accept", "TLS handshake failed (…)",
            "compressed without accept_deflate" or "connection lost (…)"; None while it is open.
        step: the step it is at, or was at when it ended; None before the first.
        request_line, headers: of the upgrade request, as they came.
        frames: of the client, as far as steps have read them.
        tls: "version", "server_name" (of SNI), "alpn" and "client" (common name of its certificate), each None where there
            is none; None itself without TLS, or before its handshake is done.
    """

    index: int
    opened_ns: int
    ended_ns: int | None
    ended: str | None
    step: str | None
    request_line: str | None
    headers: tuple[tuple[str, str], ...]
    frames: tuple[ReceivedFrame, ...]
    tls: dict[str, str | None] | None

    def header(self, name: str) -> str | None:
        """The value of the first header field of that name in any case, None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def open(self) -> bool:
        """Whether it is open."""
        return self.ended is None


class ScriptedServer(EmbeddedServer):
    """A server in a process of its own that behaves, or misbehaves, as told. Used in a `with`. Thread-safe.

    Args:
        scripts: one list of steps for each connection, in the order in which they come; the last is that of all later
            ones as well.
        port: of 127.0.0.1 to listen on; 0 takes a free one.
        tls: ServerTLS(...) makes it a wss:// server; None is plain.

    Raises:
        ConfigurationError: there is no script, a step is not one, or, when started, the port is taken.
    """

    _module = "wsengine.testing.scripted_server"
    _noun = "server"

    def __init__(self, scripts: Sequence[Sequence[Step]], *, port: int = 0, tls: ServerTLS | None = None) -> None:
        if not scripts:
            raise ConfigurationError("scripts", scripts, "give at least one script, a list of steps")
        for index, script in enumerate(scripts):
            if (isinstance(script, Step) or not isinstance(script, (list, tuple))
                    or not all(isinstance(step, Step) for step in script)):
                path = f"scripts[{index}]"
                raise ConfigurationError(path, script, "give a list of steps, as made by steps.accept() and others")
        super().__init__({"scripts": [list(script) for script in scripts], "port": whole("port", port, maximum=65535),
                          "tls": tls_settings(tls)})
        self._final: dict[str, Any] = {"connections": [], "live": 0, "most_live": 0}

    def _keep(self, answer: dict[str, Any] | None) -> None:
        self._final = answer or self._final

    @property
    def connections(self) -> list[ScriptedRecord]:
        """A record of each connection so far, in order."""
        return [_record(one) for one in self._snapshot()["connections"]]

    @property
    def live(self) -> int:
        """How many connections neither side has ended by now."""
        live: int = self._snapshot()["live"]
        return live

    @property
    def most_live(self) -> int:
        """How many connections there were at the same time at most, counted whenever one came."""
        most: int = self._snapshot()["most_live"]
        return most

    def wait(self, condition: Callable[[list[ScriptedRecord]], object], timeout: float = 10.0) -> list[ScriptedRecord]:
        """Wait until the records fulfil the condition; return them. Raises TimeoutError after `timeout` seconds."""
        return wait_until(lambda: self.connections, condition, timeout, "the connections did not fulfil the condition")

    def wait_connections(self, count: int, timeout: float = 10.0) -> list[ScriptedRecord]:
        """Wait until `count` connections have come. Raises TimeoutError after `timeout` seconds."""
        return self.wait(lambda records: len(records) >= count, timeout)

    def wait_ended(self, count: int, timeout: float = 10.0) -> list[ScriptedRecord]:
        """Wait until `count` connections have come and ended. Raises TimeoutError after `timeout` seconds."""
        return self.wait(lambda records: sum(not one.open for one in records) >= count, timeout)

    def _snapshot(self) -> Any:
        return self._final if self._over else self._running().request("snapshot")


def _record(record: dict[str, Any]) -> ScriptedRecord:
    return ScriptedRecord(**{
        **record,
        "headers": tuple((name, value) for name, value in record["headers"]),
        "frames": tuple(ReceivedFrame(*frame) for frame in record["frames"]),
    })
