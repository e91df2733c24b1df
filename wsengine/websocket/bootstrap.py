"""The bootstrap: what an `on_upgrade` hook may do with a connection between its 101 and READY.

It runs in the dialer's thread, within `open_timeout`. The hook sends frames, and may wait for messages, such as the
acknowledgement of a subscription. What it takes is its own; everything else that arrived meanwhile goes to the pipeline, in
order, ahead of what comes later. Nothing is read before the hook waits for something.

::

    hook waits ──▶ recv ──▶ data frame: kept as it came, and shown to the hook
                            ping: answered at once      pong: passed over
                            Close, broken frame, end of the stream: the attempt fails with that, whatever the hook does

How the socket came about is `dial`'s; what the reader does with what was kept, the engine's (stream).
"""

from __future__ import annotations

import contextlib
import os
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from wsengine.engine.frames import FrameParser, build_frame
from wsengine.engine.inflate import MessageInflater
from wsengine.errors import (
    BootstrapError,
    ConnectionClosedError,
    EngineError,
    PayloadTooBig,
    ProtocolError,
)
from wsengine.options import close_coroutine, seconds
from wsengine.pipeline.frame_handler import Fail
from wsengine.websocket.deadline import Cancelled, Deadline
from wsengine.websocket.outcome import closed
from wsengine.wording import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wsengine.websocket.channel import Channel
    from wsengine.websocket.handshake import Accepted
    from wsengine.websocket.response import Response

__all__ = ["Bootstrap", "Upgrade"]

TEXT, BINARY, CLOSE, PONG = 1, 2, 8, 10
#: Bytes that are inflated at a time.
ROOM = 64 * 1024
#: What a frame that is kept costs above its bytes, about: an empty one is not for nothing.
PER_FRAME = 256


@dataclass(slots=True)
class _Met:
    """A data message that arrived. `shown`: a wait has ended with it; `taken`: it does not go to the pipeline."""

    payload: bytes
    shown: bool = False
    taken: bool = False


class Upgrade:
    """The argument of `on_upgrade`: a connection whose upgrade is accepted and that is not READY yet.

    For the hook's thread only, and until the hook returns; EngineError after that. Every wait ends with the attempt's
    `open_timeout`. Once the connection has failed, nothing that the hook does keeps the attempt alive.

    Attributes:
        connection_index: which of the producer's connections, from 0.
        epoch: its generation, from 1.
        response: the 101, with its headers.
        subprotocol: that the server chose, None for none.
        url: without credentials and query.

    Source: OffBroadwayWebSocket's on_upgrade, with reference W-23 and W-26.
    """

    def __init__(self, index: int, epoch: int, url: str, accepted: Accepted, exchange: _Exchange) -> None:
        self.connection_index = index
        self.epoch = epoch
        self.url = url
        self.response: Response = accepted.response
        self.subprotocol = accepted.subprotocol
        self._exchange: _Exchange | None = exchange

    def send(self, frames: str | bytes | Iterable[str | bytes]) -> None:
        """Send frames in order, str as text and bytes as binary; returns when the system has taken them.

        Raises:
            TypeError: something is neither str nor bytes; what came before it has been sent.
            TimeoutError, OSError: as for the attempt as a whole.
        """
        exchange = self._usable()
        for one in [frames] if isinstance(frames, (str, bytes)) else frames:
            exchange.send_message(one)

    def wait_for(self, predicate: Callable[[bytes], object], timeout: float | None = None, *, keep: bool = False) -> bytes:
        """Wait for a message whose payload the predicate says yes to, such as an acknowledgement; return the payload.

        Messages that arrived earlier and with which no wait has ended are looked at first, in order, so acknowledgements
        may come in any order. The message found does not go to the pipeline (its `seq` is a gap there); all others do.

        Args:
            predicate: called with payloads, text as UTF-8.
            timeout: seconds; None waits as long as the attempt may. What has arrived is looked at in any case, so with 0
                this is a look.
            keep: let the pipeline have the message found as well, say for a `frame_handler` that reads channel ids of it.

        Raises:
            TimeoutError: no such message came in time.
            ConnectionClosed, ProtocolError, PayloadTooBig, OSError: the connection has failed.
        """
        exchange = self._usable()
        limit = None if timeout is None else Deadline(seconds("wait_for.timeout", timeout, zero=True))
        at = exchange.first
        read = False
        while True:
            while at < len(exchange.messages):
                met = exchange.messages[at]
                at += 1
                if not met.shown and predicate(met.payload):
                    exchange.show(met, keep)
                    return met.payload
            # of a feed that never pauses there is always more to read: its end is not waited for
            if (read and limit is not None and limit.expired) or not exchange.receive(limit):
                raise TimeoutError(f"no such message within {timeout} s")
            read = True

    def recv(self, timeout: float | None = None) -> bytes:
        """Take the next message, whatever it is: `wait_for` with a predicate that is always true."""
        return self.wait_for(lambda payload: True, timeout)

    def _usable(self) -> _Exchange:
        if self._exchange is None:
            raise EngineError("on_upgrade is over; send by the connection, answer by frame_handler's replies")
        self._exchange.check()
        return self._exchange

    def _end(self) -> None:
        self._exchange = None

    def __repr__(self) -> str:
        return f"<Upgrade of connection {self.connection_index} to {self.url}, generation {self.epoch}>"


class Bootstrap:
    """Runs the hook for one attempt.

    Args:
        hook: called with an Upgrade; returns None, a list of frames that are then sent in order, or a Fail.
        index, epoch, url: of the connection.
        max_size: bytes of a message at the most.
        most: bytes that may be held of what arrives while the hook waits, beside the first message.
    """

    def __init__(self, hook: Callable[[Upgrade], object], index: int, epoch: int, url: str, max_size: int,
                 most: int) -> None:
        self._hook = hook
        self._index = index
        self._epoch = epoch
        self._url = url
        self._max_size = max_size
        self._most = most

    def run(self, channel: Channel, accepted: Accepted) -> tuple[bytes, tuple[int, ...]]:
        """Have the hook do its work.

        Returns:
            What goes to the reader: the bytes of all data frames, as they came, and the numbers of the messages in them
            that the hook has taken.

        Raises:
            BootstrapError: the hook raised, returned a Fail, or something else that it must not.
            TimeoutError, Cancelled, OSError, ConnectionClosed, ProtocolError, PayloadTooBig: the connection failed.
        """
        exchange = _Exchange(channel, accepted, self._max_size, self._most)
        upgrade = Upgrade(self._index, self._epoch, self._url, accepted, exchange)
        try:
            self._call(upgrade)
        except BaseException as error:
            exchange.check()
            exchange.say_goodbye(1011)
            if isinstance(error, BootstrapError) or is_interrupt(error):
                raise
            raise BootstrapError(f"on_upgrade raised {type(error).__name__}{_place(error)}") from error
        finally:
            upgrade._end()
        exchange.check_all()
        return exchange.remainder(), exchange.taken()

    def _call(self, upgrade: Upgrade) -> None:
        result = self._hook(upgrade)
        if result is None:
            return
        if isinstance(result, Fail):
            told = f": {result.reason}" if isinstance(result.reason, str) else ""
            raise BootstrapError(f"on_upgrade failed the attempt{told}")
        if close_coroutine(result):
            raise BootstrapError("on_upgrade returned a coroutine; make it a plain function, without async, that returns "
                                 "None, a list of frames (str or bytes), or Fail(reason)")
        if not isinstance(result, list):
            raise BootstrapError(f"on_upgrade returned {type(result).__name__}; return None, a list of frames (str or "
                                 "bytes), or Fail(reason)")
        for one in result:  # all of them, before any is sent
            if not isinstance(one, (str, bytes)):
                raise BootstrapError(f"on_upgrade returned a list with {type(one).__name__} in it; a frame is str (text) or "
                                     "bytes (binary)")
        upgrade.send(result)


def _place(error: BaseException) -> str:
    """Where it was raised; not its text, which may hold a payload."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" in {frames[-1].name} ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""


class _Exchange:
    """Frames both ways over the dialed connection. Its first failure stands."""

    def __init__(self, channel: Channel, accepted: Accepted, max_size: int, most: int) -> None:
        self.messages: list[_Met] = []
        self.first = 0  # of those, the first that has not been shown
        self._channel = channel
        self._max_size = max_size
        self._most = most
        self._parser = FrameParser(max_size, deflate=accepted.deflate is not None)
        self._inflater = accepted.deflate and MessageInflater(
            accepted.deflate.server_max_window_bits, not accepted.deflate.server_no_context_takeover)
        self._unread = accepted.leftover  # came with the 101, and has not been looked at
        self._kept: list[bytes] = []  # whole data frames, as they came
        self._held = 0  # bytes: of frames kept, with what each costs, and of what was inflated of them
        self._alone = PER_FRAME  # of those, what the first message takes, with one frame's cost: it is not counted
        self._second = False  # the first message has arrived whole: what comes is of others
        self._tail = bytearray()  # of a frame that has not arrived whole
        self._fault: BaseException | None = None

    def check(self) -> None:
        """Raise what the connection has failed with."""
        if self._fault is not None:
            raise self._fault

    def check_all(self) -> None:
        """The same, and also raise if the attempt is over: out of time, or cancelled. The peer is told."""
        self.check()
        try:
            self._channel.check()
        except BaseException as error:
            self._leave(error)
            raise

    def _leave(self, error: BaseException) -> None:
        """The attempt ends with this, between two frames of ours: the peer hears of it, if it still can."""
        self._fault = error
        self.say_goodbye(1001 if isinstance(error, Cancelled) else 1011)

    def remainder(self) -> bytes:
        """All data frames so far, and what has arrived of the next frame."""
        return b"".join(self._kept) + bytes(self._tail) + self._unread

    def taken(self) -> tuple[int, ...]:
        """Which messages do not go to the pipeline, by their numbers."""
        return tuple(number for number, met in enumerate(self.messages) if met.taken)

    def show(self, met: _Met, keep: bool) -> None:
        """A wait has ended with this message."""
        met.shown = True
        met.taken = not keep
        while self.first < len(self.messages) and self.messages[self.first].shown:
            self.first += 1

    # Sending

    def send_message(self, payload: object) -> None:
        """Send one message; str as text, bytes as binary."""
        if not isinstance(payload, (str, bytes)):
            raise TypeError(f"a frame is str (text) or bytes (binary), not {type(payload).__name__}")
        self._send(build_frame(TEXT, payload.encode()) if isinstance(payload, str) else build_frame(BINARY, payload))

    def _send(self, data: bytes) -> None:
        self.check_all()  # before the first byte: behind a part of a frame there is no Close
        try:
            self._channel.send(data)
        except BaseException as error:
            self._fault = error
            raise

    def say_goodbye(self, code: int) -> None:
        """Tell the peer that we go, if the system takes it at once; without a reason."""
        with contextlib.suppress(OSError):  # SSLWantReadError and BlockingIOError among them
            self._channel.layer.send(build_frame(CLOSE, code.to_bytes(2, "big")))

    # Receiving

    def receive(self, limit: Deadline | None) -> bool:
        """Read once and take what came; False if the limit comes first."""
        data, self._unread = self._unread, b""
        if not data:
            got = self._receive(limit)
            if got is None:
                return False
            data = got
        self._keep(data)
        for event in self._parser.feed(data):
            self._take(event)
        return True

    def _take(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if kind in ("text", "binary"):
            self.messages.append(_Met(event[1]))
        elif kind in ("deflated text", "deflated binary"):
            self.messages.append(_Met(self._inflate(event[1], kind == "deflated text")))
        elif kind == "ping":
            self._send(build_frame(PONG, event[1]))
        elif kind == "close":
            _, code, reason = event
            self._send(build_frame(CLOSE, b"" if code == 1005 else code.to_bytes(2, "big")))
            self._fail(closed(code, reason))
        elif kind == "fail":
            self._refuse(event[1], event[2])

    def _inflate(self, payload: bytes, text: bool) -> bytes:
        assert self._inflater is not None
        try:
            inflated = self._inflater.feed(payload, room=min(self._max_size + 1, ROOM), most=self._max_size)
            if text:
                inflated.decode()
        except UnicodeDecodeError:
            self._refuse(1007, "text message that is not UTF-8")
        except ValueError as error:
            if str(error) == "large":
                self._refuse(1009, "message above max_size")
            self._refuse(1007, "compressed message that is not DEFLATE data")
        self._held += len(inflated)
        if not self.messages:
            self._alone += len(inflated)
        self._check_held()
        return inflated

    def _refuse(self, code: int, problem: str) -> NoReturn:
        """The peer broke the protocol (RFC 6455 §7.1.7)."""
        self._send(build_frame(CLOSE, code.to_bytes(2, "big") + problem.encode()[:123]))
        self._fail(PayloadTooBig(self._max_size + 1, self._max_size) if code == 1009 else ProtocolError(code, problem))

    def _keep(self, data: bytes) -> None:
        """Keep whole data frames as they came; control frames are seen to here. The parser judges what is wrong."""
        self._tail += data
        at = 0
        while (size := _frame_size(self._tail, at)) and at + size <= len(self._tail):
            if self._tail[at] & 0x08 == 0:
                self._kept.append(bytes(self._tail[at:at + size]))
                self._held += size + PER_FRAME
                if not self._second:
                    self._alone += size
                    self._second = self._tail[at] & 0x80 != 0
            at += size
        del self._tail[:at]
        self._check_held()

    def _check_held(self) -> None:
        """The first message is held whatever the bound, as the pipeline would: where `max_size` is about the bound, no
        attempt would succeed otherwise. Only what its fragments cost is counted."""
        alone = self._alone + (0 if self._second else len(self._tail))
        if self._held + len(self._tail) - alone > self._most:
            self.say_goodbye(1008)  # as a pipeline's overflow="error" does
            self._fail(BootstrapError(f"more than {self._most} bytes arrived while on_upgrade waited, beside the first "
                                      f"message, {PER_FRAME} counted for each frame, and what was compressed counted again "
                                      "as it is"))

    def _receive(self, limit: Deadline | None) -> bytes | None:
        try:
            data = self._channel.receive(limit=limit)
        except BaseException as error:  # the network's, or the dial is over: out of time, or cancelled
            self._leave(error)
            raise
        if data == b"":
            self._fail(ConnectionClosedError(1006))
        return data

    def _fail(self, error: BaseException) -> NoReturn:
        self._fault = error
        raise error


def _frame_size(data: Sequence[int], at: int) -> int:
    """Bytes of the server's frame that begins there, head included; 0 if its head is not complete (RFC 6455 §5.2)."""
    left = len(data) - at
    if left < 2:
        return 0
    size = data[at + 1] & 0x7F
    head = 2 if size < 126 else 4 if size == 126 else 10
    if left < head:
        return 0
    return head + (size if head == 2 else int.from_bytes(bytes(data[at + 2:at + head]), "big"))
