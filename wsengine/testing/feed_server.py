"""The process of the embedded feed: `python -m wsengine.testing.feed_server`, started and controlled by `Feed`.

It listens, gives each connection a thread and a lane, and answers its parent. How a connection is served stands in
feed_connection.py.
"""

from __future__ import annotations

import contextlib
import heapq
import resource
import socket
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from wsengine.errors import ConfigurationError
from wsengine.testing.child import serve
from wsengine.testing.feed_connection import FeedConnection
from wsengine.testing.images import message_image, trade_image
from wsengine.testing.lane import FlatOut, Lane, Recorded, Steady
from wsengine.testing.recording import load_recording
from wsengine.testing.tls import server_context
from wsengine.testing.wire import TEXT, ServerDeflate

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from wsengine.testing.lane import Pace

__all__ = ["FeedServer", "allow_many_files", "build", "listen", "main"]


def listen(port: int) -> socket.socket:
    """Listen on the loopback interface.

    Raises:
        ConfigurationError: the port is taken, or may not be used.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        remedy = f"cannot listen on it ({error.strerror}); end what uses the port, or give 0 for a free one"
        raise ConfigurationError("port", port, remedy) from None
    return sock


def allow_many_files() -> None:
    """Raise the limit of open files: a connection takes three, and the usual soft limit is 1,024."""
    wanted = 16_384
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def build(settings: dict[str, Any]) -> Callable[[int], Lane]:
    """Prebuild the image of a kind of feed; return what makes a lane of a given number on it."""
    total: int | None = settings["count"]
    times = None
    compression: str | None = settings["compression"]
    deflate = None if compression is None else ServerDeflate(takeover=compression == "context_takeover")
    if settings["kind"] == "trades":
        image = trade_image(settings["size"], settings["seed"])
    elif settings["kind"] == "payloads":
        image = message_image([(opcode, payload) for opcode, payload in settings["payloads"]], settings["repeat"],
                              deflate)
    else:
        recording = load_recording(settings["path"])
        times = recording.times
        image = message_image([(TEXT, payload) for payload in recording.payloads], settings["repeat"], deflate)
        total = None if settings["repeat"] else len(recording)

    def pace() -> Pace:
        if settings["rate"] is not None:
            return Steady(settings["rate"])
        if times is not None and settings["speed"] is not None:
            return Recorded(times, settings["speed"])
        return FlatOut()

    return lambda number: Lane(number, image, pace(), total)


class FeedServer:
    """Accepts connections and streams to each.

    Two connections at the same time are two lanes, each with sequences of its own; a lane that is free again goes on
    with the next connection, so that a client that reconnects meets the sequence after the last one sent.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        allow_many_files()
        threading.stack_size(256 * 1024)  # a thread a connection, and there may be a thousand
        self._new_lane = build(settings)
        self._resume: bool = settings["resume"]
        self._ping_interval: float | None = settings["ping_interval"]
        self._context: ssl.SSLContext | None = None if settings["tls"] is None else server_context(settings["tls"])
        self._compression: str | None = settings["compression"]
        self._lock = threading.Lock()  # guards the next three
        self._connections: list[FeedConnection] = []
        self._free: list[tuple[int, Lane]] = []
        self._lanes = count()
        self._listener = listen(settings["port"])
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="feed:accept", daemon=True).start()

    def log(self) -> dict[str, Any]:
        """A record of each connection, in order."""
        with self._lock:
            connections = list(self._connections)
        return {"now_ns": time.monotonic_ns(), "connections": [one.snapshot() for one in connections]}

    def end(self, how: str) -> list[int]:
        """Order each connection that is alive to end; return their indices."""
        with self._lock:
            connections = list(self._connections)
        return [index for index, one in enumerate(connections) if one.order(how)]

    def stop(self) -> dict[str, Any]:
        """End all connections and the listening; return the last log."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake the thread in accept
        self._listener.close()
        self.end("stop")
        deadline = time.monotonic() + 2
        while True:
            log = self.log()
            if all(one["ended"] for one in log["connections"]) or time.monotonic() >= deadline:
                return log
            time.sleep(0.005)

    def _accept(self) -> None:
        for index in count():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # closed by stop
            connection = FeedConnection(index, sock, self._claim, self._give_back, self._ping_interval,
                                        self._context, self._compression)
            with self._lock:
                self._connections.append(connection)
            threading.Thread(target=connection.run, name=f"feed:{index}", daemon=True).start()

    def _claim(self) -> Lane:
        with self._lock:
            return heapq.heappop(self._free)[1] if self._free else self._new_lane(next(self._lanes))

    def _give_back(self, lane: Lane) -> None:
        with self._lock:
            heapq.heappush(self._free, (lane.number, lane if self._resume else self._new_lane(lane.number)))


def main() -> None:
    """Serve as the parent says, to the end of its pipe."""
    server: FeedServer

    def start(settings: dict[str, Any]) -> dict[str, int]:
        nonlocal server
        server = FeedServer(settings)
        return {"port": server.port}

    serve(start, {
        "log": lambda: server.log(),
        "end": lambda how: server.end(how),
        "stop": lambda: server.stop(),
    })


if __name__ == "__main__":
    main()
