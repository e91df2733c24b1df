"""Sending on a connection: messages become frames, one message at a time, and wait for room where too much is queued.

Here belongs what may be sent, when, and how long a sender waits. Masking, the queue and its bound are the engine's (sender,
outbox); which generation is open is the supervisor's word.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from wsengine.engine.turn import BUSY, Turn
from wsengine.errors import ConfigurationError, ConnectionClosed, ConnectionClosedError, EngineError
from wsengine.options import patience
from wsengine.websocket.outcome import afresh
from wsengine.websocket.pings import Pong, Pongs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsengine.engine.deflate import Deflater
    from wsengine.engine.inflate import DeflateParameters
    from wsengine.engine.sender import Sender
    from wsengine.websocket.extensions import PerMessageDeflate

__all__ = ["Data", "Outgoing", "Timeout", "check_close"]

#: What a message, or a fragment of one, is made of.
Data: TypeAlias = str | bytes | bytearray | memoryview

#: Seconds; None waits for ever, "close_timeout" as long as that option says.
Timeout: TypeAlias = float | Literal["close_timeout"] | None

CONTINUATION, TEXT, BINARY, PING = 0, 1, 2, 9
#: Close codes that an endpoint may send, below those that are an application's own (3000 to 4999).
SENDABLE = {*range(1000, 1004), *range(1007, 1015)}
#: Bytes of a frame at the most; more is to be sent in fragments.
LARGEST = 2**31
#: Seconds between two looks at whether a wait for room has become pointless, though nobody said so.
SLICE = 0.1
REMEDY = "give str, bytes, or an iterable of one of them; what is in a dictionary, say, goes as json.dumps makes it"


class Outgoing:
    """What one connection sends, in all its generations. Every method is thread-safe; handlers may call them.

    Args:
        sender: of the connection's place.
        timeout: seconds that a send waits for room where it is not told otherwise.
        why_full: says why the server may not be reading, for the time-out's text.
        abandon: called with a generation in which a message has been begun and will not be completed; it must end.
        compression: how whole messages are compressed in generations whose server has agreed; fragments are not.
    """

    def __init__(self, sender: Sender, timeout: float, why_full: Callable[[], str],
                 abandon: Callable[[int], None], compression: PerMessageDeflate | None = None) -> None:
        self._sender = sender
        self._timeout = timeout
        self._why_full = why_full
        self._abandon = abandon
        self._turn = Turn()  # had over all frames of a message: no other may come between them
        self._pinging = threading.RLock()  # a signal's handler may ping within a ping: sending one is a single call
        self._epoch = 0  # the generation that is open, 0: none; the supervisor, and close() by any thread
        self._compression = compression
        self._deflater: tuple[int, Deflater | None] = (0, None)  # of which generation; the supervisor, used in a turn
        self._closed: ConnectionClosed = ConnectionClosedError(1006, "not connected yet")  # while none is; the same
        self.pongs = Pongs(sender.await_pong)

    # ----------------------------------------------------------------------------------------------- the supervisor's

    def open(self, epoch: int, agreed: DeflateParameters | None = None) -> None:
        """A generation has begun, with what was agreed on about compression."""
        if self._compression is not None and agreed is not None:
            self._deflater = epoch, self._compression.deflater(agreed)
        self._epoch = epoch

    def shut(self, error: ConnectionClosed) -> None:
        """The generation has ended, or ends: whoever sends, waits to, or waits for a pong gets this error."""
        self._closed = error
        self._epoch = 0
        self._sender.wake()
        self.pongs.fail(error)

    # ----------------------------------------------------------------------------------------------------- anybody's

    @property
    def queued(self) -> int:
        """Bytes that wait for the socket to take them."""
        return self._sender.queued

    def send(self, message: Data | Iterable[Data], text: bool | None, epoch: int | None, timeout: Timeout) -> None:
        """Send a message; see `Connection.send`."""
        seconds = self._timeout if timeout == "close_timeout" else patience("send.timeout", timeout)
        begun = time.monotonic()
        deadline = None if seconds is None else begun + seconds
        epoch = self._check(epoch)
        if self._turn.mine:
            raise EngineError("this thread is in the middle of a message on this connection: send behind it, or, in a "
                              "signal's handler or the iterable that makes the message, leave it to another thread")
        while self._turn.take(_slice(deadline), self._send, message, text, epoch, deadline) is BUSY:
            self._check(epoch)
            if deadline is not None and time.monotonic() >= deadline:
                full = "" if self._sender.admits else f"; {self._why_full()}"
                raise TimeoutError(f"another message has been in the making for {time.monotonic() - begun:.1f} s{full}")

    def ping(self, data: str | bytes | None) -> Pong:
        """Send a ping; see `Connection.ping`."""
        epoch = self._check(None)
        payload, pong = self.pongs.expect(data)
        try:
            with self._pinging:
                self._sender.send(PING, payload, epoch)
            self._check(epoch)
        except BaseException:
            self.pongs.forget(payload)
            raise
        return pong

    def _check(self, epoch: int | None) -> int:
        now = self._epoch
        if now == 0 or (epoch is not None and epoch != now):
            raise afresh(self._closed)
        return now

    def _send(self, message: Data | Iterable[Data], text: bool | None, epoch: int, deadline: float | None) -> None:
        if isinstance(message, (str, bytes, bytearray, memoryview)):
            opcode, payload = _opcode(message, text), _payload(message)
            self._wait_for_room(epoch, deadline)
            self._put(opcode, payload, True, epoch)
        elif isinstance(message, Iterable) and not isinstance(message, Mapping):
            self._send_fragments(iter(message), text, epoch, deadline)
        else:
            raise ConfigurationError("send.message", type(message).__name__, REMEDY)

    def _send_fragments(self, fragments: Iterator[Data], text: bool | None, epoch: int, deadline: float | None) -> None:
        """Each is known to be the last only when there is no other, so each is sent one step late. What fails behind the
        first, the iterable included, leaves half a message, which nothing can follow: the connection ends with 1011."""
        first = next(fragments, None)
        if first is None:
            raise ConfigurationError("send.message", fragments, "give at least one fragment; an empty message is '' or b''")
        kind = opcode = _opcode(first, text)
        last, begun = _kept(first), False
        try:
            for one in fragments:
                if _opcode(one, text) != kind:
                    raise ConfigurationError("send.message", type(one).__name__, "give fragments all str, or all bytes")
                self._wait_for_room(epoch, deadline)
                begun = True                  # before: a signal's exception may come behind the call
                self._put(opcode, last, False, epoch)
                last, opcode = _kept(one), CONTINUATION
            self._wait_for_room(epoch, deadline)
            self._put(opcode, last, True, epoch)
        except BaseException:
            if begun:
                self._abandon(epoch)
            raise

    def _put(self, opcode: int, payload: bytes | memoryview, fin: bool, epoch: int) -> None:
        begun, deflater = self._deflater
        if begun == epoch and deflater is not None and fin and opcode != CONTINUATION:
            self._put_compressed(deflater, opcode, payload, epoch)
        else:
            self._sender.send(opcode, payload, epoch, fin=fin)

    def _put_compressed(self, deflater: Deflater, opcode: int, payload: bytes | memoryview, epoch: int) -> None:
        """Later messages refer back to this one, so it goes out, or they are made to stand by themselves."""
        try:
            sent = deflater.compress(payload)
            self._sender.send(opcode, payload if sent is None else sent, epoch, compressed=sent is not None)
        except BaseException:
            deflater.reset()
            raise

    def _wait_for_room(self, epoch: int, deadline: float | None) -> None:
        begun = time.monotonic()
        while True:
            self._check(epoch)
            if self._sender.admits:
                return
            left = SLICE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{self.queued} bytes have waited for {time.monotonic() - begun:.1f} s to be sent; "
                                   f"{self._why_full()}")
            self._sender.wait(lambda: self._epoch != epoch or self._sender.admits, min(left, SLICE))


def _payload(data: Data) -> bytes | memoryview:
    """What goes into a frame, copied only where it must be."""
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError("send.message", f"{data[error.start]!r} at {error.start}", "half of a character "
                                     "cannot be sent as text (RFC 6455 §5.6): mend the str, or send bytes") from None
    view = memoryview(data)
    if view.nbytes > LARGEST:
        raise ConfigurationError("send.message", f"{view.nbytes} bytes", "send it in fragments of at most 2 GiB")
    return view.cast("B") if view.nbytes and view.c_contiguous else view.tobytes()


def _kept(fragment: Data) -> bytes | memoryview:
    """The payload of a fragment, which is sent when its maker has gone on and may have filled the same buffer anew."""
    payload = _payload(fragment)
    return payload if isinstance(payload, bytes) or payload.readonly else payload.tobytes()


def _slice(deadline: float | None) -> float:
    """Seconds to wait until the next look at whether it has become pointless."""
    return SLICE if deadline is None else min(SLICE, max(deadline - time.monotonic(), 0.0))


def _opcode(data: Data, text: bool | None) -> int:
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise ConfigurationError("send.message", type(data).__name__, REMEDY)
    return TEXT if (isinstance(data, str) if text is None else text) else BINARY


def check_close(code: object, reason: object) -> tuple[int, bytes]:
    """Check what is to go into a Close frame (RFC 6455 §5.5.1, §7.4). Raises ConfigurationError."""
    if isinstance(code, bool) or not isinstance(code, int) or not (code in SENDABLE or 3000 <= code < 5000):
        raise ConfigurationError("close.code", code, "give 1000 to 1003, 1007 to 1014, or 3000 to 4999")
    remedy = "give a str of at most 123 bytes in UTF-8"
    if not isinstance(reason, str):
        raise ConfigurationError("close.reason", reason, remedy)
    try:
        encoded = reason.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("close.reason", reason, remedy) from None
    if len(encoded) > 123:
        raise ConfigurationError("close.reason", reason, remedy)
    return code, encoded
