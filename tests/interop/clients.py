"""The clients that can be run against the servers: both faces of this package, and one of another for comparison.

The tests use what a client opens in a `with` statement, by the names of `websockets`: `recv(timeout=)`, `send`, `ping`,
`close`, `response` and so on.
"""

from __future__ import annotations

import importlib
import itertools
import queue
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import wsengine
from wsengine import Backoff, ConnectionClosed, ConnectionClosedError, Pipeline, WebSocketProducer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

__all__ = ["Client", "client"]

TEXT = 1
#: Seconds between two looks at whether a pipeline has ended.
SLICE = 0.005

_numbers = itertools.count()


class Client(NamedTuple):
    """How to open a connection, where the errors are, what two of its options are called, and options of its own."""

    connect: Callable[..., Any]
    errors: ModuleType
    keepalive: str
    headers: str
    options: dict[str, Any]


class Arriving(Pipeline):
    """Keeps its messages until they are asked for."""

    def __init__(self, source: WebSocketProducer) -> None:
        super().__init__(source, name=f"interop {next(_numbers)}")
        self.arrived: queue.SimpleQueue[str | bytes] = queue.SimpleQueue()

    def handle_message(self, message: Any) -> None:
        self.arrived.put(message.text if message.opcode == TEXT else message.data)


class Fed:
    """The one connection of a running pipeline. What is not about its messages is the connection's: sending, pings, ..."""

    def __init__(self, pipeline: Arriving, connection: Any) -> None:
        self._pipeline = pipeline
        self._connection = connection

    def await_ready(self) -> None:
        """Return when it is connected, also where it has ended since; raise why it could not be."""
        while not self._connection.is_ready and (result := self._pipeline.join(SLICE)) is None:
            pass
        if self._connection.response is None:
            assert result is not None
            raise result.error.last

    def recv(self, timeout: float) -> str | bytes:
        """The next message; once there is none, how the connection ended."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self._pipeline.join(0)
            try:
                return self._pipeline.arrived.get(timeout=SLICE)
            except queue.Empty:
                pass
            if ended is not None:
                last = ended.error.last
                raise last if isinstance(last, ConnectionClosed) else ConnectionClosedError(1006, str(last)) from last
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no message within {timeout} s")

    def close(self, code: int, reason: str) -> None:
        """Close, and wait until it is."""
        self._connection.close(code, reason)
        self._pipeline.join()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@contextmanager
def connect_by_pipeline(url: str, **options: Any) -> Iterator[Fed]:
    """A connection of a pipeline that does not connect again, once it is ready; stopped at the end."""
    source = WebSocketProducer(url, retry=Backoff(max_retries=0), **options)
    with Arriving(source) as pipeline:
        fed = Fed(pipeline, source.connections[0])
        fed.await_ready()
        yield fed


def client(name: str) -> Client:
    """The client of this name: "wsengine", "pipeline" or "websockets"."""
    if name == "websockets":
        connect = importlib.import_module("websockets.sync.client").connect
        return Client(connect, importlib.import_module("websockets.exceptions"), "ping_interval", "additional_headers", {})
    if name == "pipeline":
        return Client(connect_by_pipeline, wsengine, "keepalive", "headers", {})
    # What `connect` buffers must hold the largest message.
    return Client(wsengine.connect, wsengine, "keepalive", "headers", {"max_queue_bytes": 64 << 20})
