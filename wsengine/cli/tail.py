"""`wsengine tail`: what a server sends, as it comes, on standard output; what happens on the way, on standard error.

How a message is written stands in output.py, the connection's events in trace.py, the options of the server in server.py.

    connect ─▶ send ─▶ show … until --count, --timeout, a signal, or the end of the connection ─▶ close ─▶ status
       ▲                                                          │
       └──────────────────────── with --reconnect ────────────────┘

    0    --count messages came, --timeout is over, or the server closed with 1000 or 1001
    1    the connection failed, or ended in another way, or before --count messages had come
    2    a wrong option
    130  ended by Ctrl-C, 143 by SIGTERM; 141 when nobody reads the output any more
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsengine.cli.arguments import duration, text, whole_number
from wsengine.cli.harmless import one_line
from wsengine.cli.output import Output
from wsengine.cli.server import Server, add_server, command_words, in_words_of_the_command
from wsengine.cli.trace import Trace
from wsengine.errors import ConfigurationError, ConnectionClosed, ConnectionClosedOK, InvalidURI, WebSocketException
from wsengine.options import whole
from wsengine.websocket.client import ClientConnection, Settings
from wsengine.websocket.dial import dial
from wsengine.websocket.extensions import check_compression
from wsengine.websocket.retry import Backoff, RetryBudget
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

if TYPE_CHECKING:
    import argparse
    from types import FrameType, TracebackType
    from typing import Self, TextIO

__all__ = ["add_options", "in_words_of_the_command", "run"]

#: Seconds between looks at what has happened beside messages.
SLICE = 0.1
#: Seconds that the closing handshake may take, so that Ctrl-C ends within one.
CLOSE_TIMEOUT = 0.7
#: Seconds that a message to send may wait for room.
SEND_TIMEOUT = 10.0
LARGEST = 2**24
DONE, FAILED = 0, 1


class Interrupted(KeyboardInterrupt):
    """A signal asks for the end. Attribute: `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """SIGINT and SIGTERM as `Interrupted`, wherever the main thread is: it may wait for a reader of its output."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def _take(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Options:
    """Of the command, beside those of the server."""

    send: tuple[str, ...]
    count: int | None
    timeout: float | None
    open_timeout: float
    keepalive: float
    max_size: int
    compression: str | None
    reconnect: bool

    @classmethod
    def of(cls, given: argparse.Namespace) -> Options:
        """From the parsed arguments. Raises ConfigurationError."""
        count = None if given.count is None else whole("count", given.count, minimum=1)
        return cls(tuple(given.send), count, given.timeout, given.open_timeout, given.keepalive,
                   whole("max_size", given.max_size, minimum=1, maximum=2**32 - 1),
                   "deflate" if given.compression else None, given.reconnect)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_server(parser)
    option = parser.add_argument
    option("--send", action="append", default=[], type=text, metavar="TEXT",
           help="a text message to send after the open; may be given again")
    option("--count", type=whole_number, metavar="N", help="end after so many messages")
    option("--timeout", type=duration, metavar="S",
           help="end so many seconds after the open; with --count that is a failure")
    option("--open-timeout", type=duration, default=10.0, metavar="S", help="for DNS, TCP, TLS and upgrade (%(default)g)")
    option("--keepalive", type=duration, default=20.0, metavar="S", help="between pings of ours (%(default)g)")
    option("--max-size", type=whole_number, default=LARGEST, metavar="BYTES", help="of a message at most (%(default)d)")
    option("--compression", action="store_true", help="offer permessage-deflate")
    option("--raw", action="store_true", help="write payloads as they are, each with a line feed, for pipes")
    option("--trace", action="store_true", help="tell each event of the connection and each frame on standard error")
    option("--trace-payloads", action="store_true",
           help="the same, with the beginning of each frame's payload, which may hold secrets")
    option("--reconnect", action="store_true", help="connect again when the connection ends, with growing pauses")
    option("--insecure", action="store_true", help="do not verify the server's certificate; for tests only")


def run(given: argparse.Namespace, stream: TextIO) -> int:
    """Run the command; returns its exit status. Main thread only.

    Raises:
        ConfigurationError, InvalidURI: an option is wrong.
        BrokenPipeError: nobody reads the output any more. OSError: it cannot be written.
    """
    return Tail(Server.of(given), Options.of(given), Output(stream, raw=given.raw),
                Trace(on=given.trace or given.trace_payloads, payloads=given.trace_payloads)).run()


class Tail:
    """One run of the command."""

    def __init__(self, server: Server, options: Options, output: Output, trace: Trace) -> None:
        self._server = server
        self._options = options
        self._output = output
        self._trace = trace
        self._budget = RetryBudget(Backoff())
        self._connection: ClientConnection | None = None
        self._left = options.count  # messages still to come, None for no bound
        self._deadline: float | None = None  # from the first open on
        # What it would say is said here, in the words of the command.
        logger = logging.Logger("wsengine.cli.tail", logging.CRITICAL + 1)
        self._uri = parse_uri(server.url)
        self._settings = Settings(
            keepalive=options.keepalive, ws_timeout=60.0, pong_timeout=0.0, close_timeout=CLOSE_TIMEOUT, max_queue=1024,
            max_queue_bytes=max(LARGEST, options.max_size), overflow="block", write_limit=2**20,
            compression=check_compression("compression", options.compression), logger=logger, max_size=options.max_size)

    def run(self) -> int:
        """From the first attempt to the end."""
        way = Way(self._uri, **self._server.way())
        way.check_headers(list(self._server.headers))
        if self._server.insecure:
            tell("WARNING: certificates are not verified (--insecure): anybody on the way can read and change everything")
        with Signals():
            try:
                return self._sessions(way)
            except Interrupted as end:
                return self._interrupted(end.number)
            finally:
                self._close()

    def _sessions(self, way: Way) -> int:
        while True:
            error = self._session(way)
            if error is None:
                return self._verdict()
            self._drop(error)
            delay = self._budget.failed(time.monotonic(), error) if self._options.reconnect else None
            if delay is None:
                return self._failed(error)
            tell(f"{_in_words(error)}; next attempt in {delay:.1f} s")
            self._rest(delay)
            if self._is_over:
                return self._verdict()

    def _session(self, way: Way) -> Exception | None:
        """One connection; how it failed or ended, None if enough has come of it."""
        options = self._options
        try:
            self._trace.connecting(self._server)
            self._connection = connection = self._open(way)
        except (ConfigurationError, InvalidURI):
            raise
        except (OSError, WebSocketException) as error:
            return error
        self._budget.ready(time.monotonic())
        if self._deadline is None and options.timeout is not None:
            self._deadline = time.monotonic() + options.timeout
        return self._send(connection) or self._follow(connection)

    def _open(self, way: Way) -> ClientConnection:
        """As `wsengine.connect` does it, in whose midst the trace is let in: behind the dial, before the first frame."""
        dialed = dial(self._uri, way, **self._server.request(), compression=self._settings.compression,
                      open_timeout=self._options.open_timeout)
        try:
            connected = self._trace.opened(dialed)
        except BaseException:
            dialed.sock.close()
            raise
        return ClientConnection(self._uri, connected, self._settings)

    def _send(self, connection: ClientConnection) -> Exception | None:
        try:
            for text in self._options.send:
                connection.send(text, timeout=SEND_TIMEOUT)
        except (TimeoutError, ConnectionClosed) as error:
            return error
        return None

    def _follow(self, connection: ClientConnection) -> Exception | None:
        """Show messages until it is over; how the connection ended, None if it has not."""
        while not self._is_over:
            left = SLICE if self._deadline is None else self._deadline - time.monotonic()
            try:
                message = connection.recv(timeout=min(max(left, 0), SLICE))
            except TimeoutError:
                self._output.check()
                self._trace.look(connection)
                continue
            except ConnectionClosed as end:
                return end
            self._trace.look(connection)
            self._output.show(message)
            if self._left is not None:
                self._left -= 1
        return None

    @property
    def _is_over(self) -> bool:
        return self._left == 0 or (self._deadline is not None and time.monotonic() >= self._deadline)

    def _rest(self, delay: float) -> None:
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0 and not self._is_over:
            time.sleep(min(left, SLICE))
            self._output.check()

    def _drop(self, error: Exception) -> None:
        """Let go of the connection that has ended, or that still is open where a message found no room in time."""
        if self._connection is not None:
            self._connection.close()
        self._trace.ended(self._connection, error)
        self._connection = None

    def _close(self) -> None:
        """The closing handshake, if there is still a connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._trace.ended(connection, None)

    # --------------------------------------------------------------------------------------------------- how it ends

    def _verdict(self) -> int:
        """Enough messages have come, or the time is over."""
        return self._missing(f"within {self._options.timeout:g} s" if self._options.timeout is not None else "")

    def _missing(self, when: str) -> int:
        if not self._left:
            return DONE
        tell(f"{self._options.count - self._left} of {self._options.count} messages came {when}")  # type: ignore[operator]
        return FAILED

    def _failed(self, error: Exception) -> int:
        if isinstance(error, ConnectionClosedOK):
            tell(f"the server closed the connection with {_close_words(error.code, error.reason)}")
            return self._missing("before")
        tell(_in_words(error))
        return FAILED

    def _interrupted(self, number: int) -> int:
        connection = self._connection
        if connection is None:
            tell(f"ended by {signal.Signals(number).name}, without a connection")
        else:
            self._close()
            code = connection.close_code
            tell(f"ended by {signal.Signals(number).name}; closed with {_close_words(code, connection.close_reason)}")
        return 128 + number


def tell(text: str) -> None:
    """Say something on standard error, if there is one."""
    if sys.stderr is not None:
        print(f"wsengine tail: {one_line(text)}\n", end="", file=sys.stderr, flush=True)


def _close_words(code: int | None, reason: str | None) -> str:
    if code == 1006:
        return "1006 (the server did not answer the Close in time)"
    return f"{code}" + (f" ({reason})" if reason else "")


def _in_words(error: Exception) -> str:
    """The failure in one line, with what is behind it."""
    cause = error.__cause__ if isinstance(error, ConnectionClosed) else None
    behind = "" if cause is None or str(cause) == str(error) else f": {command_words(cause)}"
    return command_words(error) + behind
