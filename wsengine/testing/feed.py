"""The embedded feed, seen from the program that uses it: what to send, how to end connections, and the log of both.

The server runs in a process of its own (feed_server.py), so that it shares neither the GIL nor the clock of a handler
with what is measured. For a server that misbehaves see scripted.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsengine.errors import ConfigurationError
from wsengine.options import boolean, choice, seconds, whole
from wsengine.testing.child import wait_until
from wsengine.testing.embedded import EmbeddedServer
from wsengine.testing.images import MINIMUM_TRADE
from wsengine.testing.recording import load_recording
from wsengine.testing.tls import ServerTLS, tls_settings
from wsengine.testing.wire import BINARY, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

__all__ = ["Feed", "FeedConnectionLog", "FeedLog", "PingSeen", "PongSeen"]

#: Bytes of the largest payload: what is sent is held in memory by both processes.
MAXIMUM_PAYLOAD = 1 << 28


@dataclass(frozen=True)
class PingSeen:
    """A ping of the client, answered with a pong. `at_ns`: when it was read, on `time.monotonic_ns`."""

    at_ns: int
    payload: bytes


@dataclass(frozen=True)
class PongSeen:
    """A pong of the client. `delay`: seconds since the ping of the server it answers, None if it answers none."""

    at_ns: int
    delay: float | None


@dataclass(frozen=True)
class FeedConnectionLog:
    """What the server did on one connection. Times in ns are on `time.monotonic_ns`, the same clock in all processes.

    Attributes:
        index: counts the connections of the feed from 0.
        lane: which run of sequence numbers it sent; None before the opening handshake is done.
        opened_ns, ended_ns: when it was accepted and closed; the latter None while it is open.
        ended: how: "closed by client", "client ended without Close", "connection reset by client", "cut", "reset",
            "stopped", "not an upgrade request", "request head too large", "permessage-deflate was not offered"; None
            while it is open.
        messages: how many messages the kernel has taken with all their bytes.
        first_sequence, last_sequence: of those messages, both included; None if there are none.
        bytes_written: taken by the kernel in all, with the opening handshake, control frames and a message cut short.
        client_messages: data messages of the client.
        pings, pongs: of the client.
        close_code, close_reason: of the client's Close; None if there was none, 1005 if it held no code.
        blocked_seconds: spent waiting for the client to take more.
        idle_seconds: spent waiting because nothing was due.
        seconds: since it was accepted, up to its end or to this log.
    """

    index: int
    lane: int | None
    opened_ns: int
    ended_ns: int | None
    ended: str | None
    messages: int
    first_sequence: int | None
    last_sequence: int | None
    bytes_written: int
    client_messages: int
    pings: tuple[PingSeen, ...]
    pongs: tuple[PongSeen, ...]
    close_code: int | None
    close_reason: str
    blocked_seconds: float
    idle_seconds: float
    seconds: float

    @property
    def open(self) -> bool:
        """Whether it is open."""
        return self.ended is None


@dataclass(frozen=True)
class FeedLog:
    """What the server did, a record for each connection in the order in which they came."""

    connections: tuple[FeedConnectionLog, ...]

    @property
    def messages(self) -> int:
        """Messages sent whole, over all connections."""
        return sum(one.messages for one in self.connections)

    @property
    def bytes_written(self) -> int:
        """Bytes taken by the kernel, over all connections."""
        return sum(one.bytes_written for one in self.connections)

    @property
    def last_sequence(self) -> int | None:
        """The highest sequence sent whole, None if there is none."""
        return max((one.last_sequence for one in self.connections if one.last_sequence is not None), default=None)

    @property
    def idle_share(self) -> float:
        """The share of its time that the server waited, 0 to 1: near 0, it was the bottleneck and not the client."""
        total = sum(one.seconds for one in self.connections)
        waited = sum(one.blocked_seconds + one.idle_seconds for one in self.connections)
        return min(1.0, waited / total) if total else 1.0


def _connection_log(record: dict[str, Any], now_ns: int) -> FeedConnectionLog:
    first = record["first_sequence"]
    return FeedConnectionLog(**{
        **record,
        "last_sequence": None if first is None else first + record["messages"] - 1,
        "pings": tuple(PingSeen(*one) for one in record["pings"]),
        "pongs": tuple(PongSeen(*one) for one in record["pongs"]),
        "seconds": ((record["ended_ns"] or now_ns) - record["opened_ns"]) / 1e9,
    })


class Feed(EmbeddedServer):
    """A WebSocket server in a process of its own, made by `trades`, `recording`, `payloads` or `binary`; use `with`.

    All kinds take these options:
        port: of 127.0.0.1 to listen on; 0 takes a free one.
        ping_interval: seconds between the server's own pings while a connection is open, None for none.
        resume: a connection goes on where the last one ended, beginning with a message that was cut in the middle;
            without it each connection begins at the first message. Connections open at the same time are separate
            lanes, each with all the messages.
        tls: ServerTLS(...) makes it a wss:// server. What the log then counts as sent, TLS has taken: up to 64 KiB of it
            may wait for the kernel.

    `recording` and `payloads` also take:
        compression: "no_context_takeover" compresses each message by itself, "context_takeover" with all before it in
            mind (permessage-deflate, RFC 7692); None does not compress. A client that does not offer the extension is
            answered 400. The messages are compressed once, ahead, so with "context_takeover" each connection must begin
            at the first: give resume=False.

    Thread-safe.
    """

    _module = "wsengine.testing.feed_server"
    _noun = "feed"

    def __init__(
        self, *, port: int = 0, ping_interval: float | None = None, resume: bool = True, tls: ServerTLS | None = None,
        **kind: object,
    ) -> None:
        super().__init__({
            "rate": None, "count": None, "repeat": False, "compression": None, **kind,
            "port": whole("port", port, maximum=65535),
            "ping_interval": seconds("ping_interval", ping_interval),
            "resume": boolean("resume", resume),
            "tls": tls_settings(tls),
        })
        self._final = FeedLog(())

    @classmethod
    def trades(
        cls, *, size: int = 128, count: int | None = None, rate: float | None = None, seed: int = 1,
        port: int = 0, ping_interval: float | None = None, resume: bool = True, tls: ServerTLS | None = None,
    ) -> Self:
        """Synthetic market trades: text messages of JSON, each with its sequence number and the time of its sending.

        Args:
            size: bytes of each payload, at least 96.
            count: how many there are, None for endlessly many; after the last the connection stays open, and quiet.
            rate: messages a second, evenly; None is flat out, in sends of some 256 KiB that share one time stamp.
            seed: of the prices.

        A trade is `{"seq": …, "ts": …, "sym": …, "px": …, "qty": …, "id": …}`; `seq` counts from 0, `ts` is
        `time.monotonic_ns()`. `stamp.read_sequence` and `stamp.read_stamp` read both without parsing the JSON.
        """
        return cls(
            kind="trades", size=whole("size", size, minimum=MINIMUM_TRADE, maximum=MAXIMUM_PAYLOAD),
            count=None if count is None else whole("count", count), rate=_rate(rate), seed=whole("seed", seed),
            port=port, ping_interval=ping_interval, resume=resume, tls=tls,
        )

    @classmethod
    def recording(
        cls, path: str | os.PathLike[str], *, speed: float | None = 1.0, loop: bool = False,
        compression: str | None = None, port: int = 0, ping_interval: float | None = None, resume: bool = True,
        tls: ServerTLS | None = None,
    ) -> Self:
        """A recorded feed (see `load_recording`) as text messages.

        Args:
            path: of the recording.
            speed: 1 is its own pace, 50 is fifty times as fast, None is flat out.
            loop: begin again after the last message instead of falling quiet.
        """
        load_recording(path)  # so that a wrong file is an error here, not in the process that plays it
        return cls(
            kind="recording", path=os.path.abspath(path), repeat=boolean("loop", loop),
            speed=_positive("speed", speed, "times its own pace"), compression=_compression(compression, resume),
            port=port, ping_interval=ping_interval, resume=resume, tls=tls,
        )

    @classmethod
    def payloads(
        cls, payloads: Iterable[tuple[int, bytes]], *, count: int | None = None, loop: bool = False,
        rate: float | None = None, compression: str | None = None,
        port: int = 0, ping_interval: float | None = None, resume: bool = True, tls: ServerTLS | None = None,
    ) -> Self:
        """Any messages, in order.

        Args:
            payloads: opcode (1 text, 2 binary) and payload of each. None at all makes a server that is quiet.
            count: messages in all, the list repeated as needed.
            loop: repeat the list endlessly. Without either, each message is sent once.
            rate: messages a second, None is flat out.
        """
        messages = _messages(payloads)
        total = len(messages)
        if count is not None:
            total = whole("count", count)
        endless = boolean("loop", loop)
        if endless and count is not None:
            raise ConfigurationError("loop", loop, "give count or loop, not both: one ends the feed, one does not")
        if count and not messages:
            raise ConfigurationError("count", count, "there is nothing to repeat; give at least one payload")
        return cls(
            kind="payloads", payloads=messages, repeat=endless or total > len(messages),
            count=None if endless else total, rate=_rate(rate), compression=_compression(compression, resume),
            port=port, ping_interval=ping_interval, resume=resume, tls=tls,
        )

    @classmethod
    def binary(
        cls, size: int, *, count: int | None = None, rate: float | None = None,
        port: int = 0, ping_interval: float | None = None, resume: bool = True, tls: ServerTLS | None = None,
    ) -> Self:
        """Binary messages of `size` zero bytes each, from 0 bytes to 256 MiB; endlessly many without `count`."""
        payload = bytes(whole("size", size, maximum=MAXIMUM_PAYLOAD))
        return cls.payloads(
            [(BINARY, payload)], count=count, loop=count is None, rate=rate,
            port=port, ping_interval=ping_interval, resume=resume, tls=tls,
        )

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError before the start and after the stop."""
        return self._running().pid

    def log(self) -> FeedLog:
        """What was sent so far, exactly; after `stop`, what was sent in all."""
        return self._final if self._over else _log(self._running().request("log"))

    def wait(self, condition: Callable[[FeedLog], object], timeout: float = 10.0) -> FeedLog:
        """Wait until the log fulfils the condition; return it. Raises TimeoutError after `timeout` seconds."""
        return wait_until(self.log, condition, timeout, "the log of the feed did not fulfil the condition")

    def cut(self, timeout: float = 10.0) -> int:
        """End all present connections by FIN after the message on the wire, without Close; return how many there were.

        Nothing is lost by it: the server reads on until the client has read everything and closed its side, and this
        call waits for that. It is how a server that goes away looks to a client.

        Raises:
            TimeoutError: a client did not close its side within `timeout` seconds.
        """
        return self._end("cut", timeout)

    def reset(self, timeout: float = 10.0) -> int:
        """End all present connections by RST, wherever they are; return how many there were.

        What the kernel had taken and the client had not read is lost, though the log counts it as sent.
        """
        return self._end("reset", timeout)

    def stop(self) -> FeedLog:
        """End the server: connections between two messages get Close 1001, then all are closed. Return the last log."""
        super().stop()
        return self._final

    def _keep(self, answer: dict[str, Any] | None) -> None:
        self._final = FeedLog(()) if answer is None else _log(answer)

    def _end(self, how: str, timeout: float) -> int:
        indices: list[int] = self._running().request("end", how=how)
        wait_until(
            self.log, lambda log: all(log.connections[index].ended for index in indices), timeout,
            f"the connections are not all ended by the {how}",
        )
        return len(indices)


def _log(answer: dict[str, Any]) -> FeedLog:
    return FeedLog(tuple(_connection_log(record, answer["now_ns"]) for record in answer["connections"]))


def _rate(value: float | None) -> float | None:
    return _positive("rate", value, "messages a second")


def _compression(value: str | None, resume: bool) -> str | None:
    if value is None:
        return None
    if choice("compression", value, ("no_context_takeover", "context_takeover")) == "context_takeover" and resume:
        raise ConfigurationError("resume", resume, "give False with context_takeover: a connection that began in the middle "
                                                   "could not be understood")
    return value


def _positive(path: str, value: object, unit: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1e9:
        raise ConfigurationError(path, value, f"give {unit}, above 0 and at most 1e9, or None for flat out")
    return float(value)


def _messages(payloads: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    messages = []
    for index, one in enumerate(payloads):
        if not isinstance(one, (tuple, list)) or len(one) != 2:
            raise ConfigurationError(f"payloads[{index}]", one, "give an opcode, 1 or 2, and a payload, as in (2, b'...')")
        opcode, payload = one
        if opcode not in (TEXT, BINARY):
            raise ConfigurationError(f"payloads[{index}]", opcode, "give 1 for text or 2 for binary as the opcode")
        if not isinstance(payload, bytes) or len(payload) > MAXIMUM_PAYLOAD:
            raise ConfigurationError(f"payloads[{index}]", type(payload), "give bytes of at most 256 MiB")
        messages.append((opcode, payload))
    return messages
