"""A reader under test: its ring and its timer, the connections that it is given, and the peers at their other ends.

What a test of the engine needs in order to be the peer of a real reader thread belongs here, and what has to hold at the end
of every such test, which is checked when the `with` is left. What only one kind of test does stands with that: TLS,
permessage-deflate, many connections, a timer that is ticked by hand. What is sent and what must come of it is the tests'.
"""

import socket
import struct
import threading
import time

from tests.waiting import DEADLINE, until
from wsengine.engine.control import ControlBlock
from wsengine.engine.keepalive import KeepaliveTimer
from wsengine.engine.receiver import Receiver
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.engine.stream import Stream
from wsengine.testing.wire import ClientFrames

__all__ = ["Line", "Peer", "Reader"]

#: Bytes of a message at the most, where a test says nothing.
MAX_SIZE = 8 * 2**20


class Peer:
    """The server's end of a connection, and what it has got from the client."""

    def __init__(self, sock):
        self.sock = sock
        self.frames = ClientFrames()
        self.ready = []        # frames that have come and that no test has asked for yet
        sock.settimeout(DEADLINE)

    def send(self, data):
        self.sock.sendall(data)

    def flood(self, chunk, quiet=0.2):
        """Send copies of `chunk` until the window has been shut for `quiet` seconds; returns the bytes sent."""
        self.sock.setblocking(False)
        sent, last = 0, time.monotonic()
        while time.monotonic() - last < quiet:
            try:
                sent += self.sock.send(chunk[sent % len(chunk):])
                last = time.monotonic()
            except BlockingIOError:
                time.sleep(0.002)
        self.sock.settimeout(DEADLINE)
        return sent

    def next_frames(self, count=1):
        """The next `count` frames of the client, as (opcode, payload)."""
        while len(self.ready) < count:
            data = self.sock.recv(65536)
            assert data, f"the stream ended after {self.ready}"
            self.take(data)
        got, self.ready = self.ready[:count], self.ready[count:]
        return got

    def rest(self):
        """All frames up to the end of the stream."""
        while data := self.sock.recv(65536):
            self.take(data)
        got, self.ready = self.ready, []
        return got

    def take(self, data):
        frames = self.frames.feed(data)
        assert all(frame.mask is not None and frame.fin and frame.rsv == 0 for frame in frames), frames
        self.ready += [(frame.opcode, frame.payload) for frame in frames]

    def reset(self):
        """End the TCP connection by a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Reader:
    """Ring, reader and timer, of which the reader runs. At the end it holds that nothing is lost and nothing is left."""

    def __init__(self, *, places=1, room=0, max_messages=2**16, max_bytes=2**28, slab_bytes=2**18, loud=False):
        self.account, self.parker, self.supervisor = Account(max_messages, max_bytes), Parker(), Parker()
        capacity = max(2, 1 << (max_messages - 1).bit_length())
        self.ring = Ring(capacity, self.account, self.parker, slab_bytes=slab_bytes)
        self.timer_parker = Parker()
        self.receiver = Receiver(self.ring, self.supervisor, self.timer_parker, loud=loud)
        self.controls = [ControlBlock() for _ in range(places)]
        self.timer = KeepaliveTimer(self.receiver, self.controls, self.timer_parker, room=room)
        self.idle_bytes = self.account.bytes
        self.added, self.sockets, self.peers, self.seen = [], {}, [], []
        self.threads = []
        self.start(self.receiver.run, "reader under test")

    def start(self, run, name):
        self.threads.append(threading.Thread(target=run, name=name))
        self.threads[-1].start()

    def begin(self, index=0, epoch=1, *, keepalive=0, ws_timeout=0, pong_timeout=0, close_timeout=5):
        """Begin a generation; returns (earliest, latest) time of its start."""
        earliest = time.monotonic_ns()
        self.controls[index].begin(epoch, keepalive=keepalive, ws_timeout=ws_timeout, pong_timeout=pong_timeout,
                                   close_timeout=close_timeout)
        return earliest, time.monotonic_ns()

    def hand_over(self, ours, index=0, epoch=1, leftover=b"", consumed=(), *, max_size=MAX_SIZE, deflate=None, tls=None,
                  inflow=None, **times):
        """Begin a generation with a connection; returns as `begin`."""
        ours.setblocking(False)
        started = self.begin(index, epoch, **times)
        self.timer.wake()
        self.receiver.add(Stream(ours.fileno(), self.controls[index], index, epoch, max_size, leftover, consumed,
                                 deflate=deflate, tls=tls), inflow)
        self.added.append((index, epoch))
        self.sockets[index, epoch] = ours
        return started

    def claim(self, count, timeout=30.0):
        """The next `count` messages."""
        taken, deadline = [], time.monotonic() + timeout
        while len(taken) < count:
            taken += self.ring.claim(min(count - len(taken), 256))
            assert time.monotonic() < deadline, f"{len(taken)} of {count} messages after {timeout:g} s; {self.notes()}"
            if len(taken) < count:
                self.parker.wait(lambda: self.ring.depth, 0.05)
        return taken

    def notes(self, kind=None):
        """What has been noted since the beginning."""
        self.seen += self.receiver.notes()
        return [note for note in self.seen if kind in (None, note.kind)]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.receiver.stop()
        self.timer.stop()
        for thread in self.threads:
            thread.join(DEADLINE)
        for sock in [*self.sockets.values(), *(peer.sock for peer in self.peers)]:
            sock.close()
        assert not any(thread.is_alive() for thread in self.threads), "a thread does not stop"
        if kind is None:
            self.settled()
        self.receiver.dispose()

    def settled(self):
        ended = sorted((note.index, note.epoch) for note in self.notes("ended"))
        assert ended == sorted(self.added), "each connection ends in exactly one note"
        while self.ring.claim(256):
            pass
        assert self.ring.slabs == 1, "receive buffers are lost"
        assert (self.account.messages, self.account.bytes) == (0, self.idle_bytes)


class Line(Reader):
    """A reader with one connection, and the peer at its other end: by default those of a socket pair, (ours, theirs).

    Nothing is due on it, unless a test ticks the timer. `full`: somebody else has taken all of `max_messages`.
    """

    def __init__(self, ends=None, *, leftover=b"", consumed=(), max_size=MAX_SIZE, deflate=None, tls=None, full=False,
                 **options):
        super().__init__(**options)
        self.control = self.controls[0]
        if full:
            self.account.charge(self.account.max_messages, 0)
        self.ours, self.peer = ends or socket.socketpair()
        self.peers.append(Peer(self.peer))
        self.hand_over(self.ours, 0, 1, leftover, consumed, max_size=max_size, deflate=deflate, tls=tls, keepalive=3600,
                       close_timeout=1)

    def claim(self, count, timeout=30.0):
        """The next `count` messages; then a look that there is no further one."""
        taken = super().claim(count, timeout)
        assert self.ring.claim(1) == []
        return taken

    def send_read(self, data):
        """Send, and wait until the reader has parsed it."""
        before = self.control.counts()["wire_bytes"]
        self.peer.sendall(data)
        until(lambda: self.control.counts()["wire_bytes"] >= before + len(data))

    def received(self, count):
        """The next `count` frames of the client, as (opcode, payload)."""
        return self.peers[0].next_frames(count)

    def ended(self):
        """The note with which the connection has ended."""
        until(lambda: self.notes("ended"))
        return self.notes("ended")[0]

    def settled(self):
        super().settled()
        assert self.peers[0].ready == [], "frames that the test did not expect"
