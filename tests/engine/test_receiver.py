"""Behaviour of the reader thread: pausing and resuming, how connections end, closing, discarding, sharing, letting go.

What bytes become is tested with the stream, due times with the keepalive. Peers are the other ends of socket pairs, or
of TCP connections where the kernel's windows and resets matter; one test runs against the feed server.
"""

import ctypes
import errno
import gc
import json
import random
import socket
import struct
import threading
import time

import pytest

from tests.engine.line import Peer, Reader
from tests.waiting import until
from wsengine.engine.control import ControlBlock
from wsengine.engine.receiver import CAUSES, KINDS, Inflow, Receiver
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.engine.stream import Stream
from wsengine.errors import ConfigurationError, EngineError
from wsengine.testing import Feed
from wsengine.testing.wire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    build_server_frame,
    close_payload,
)
from wsengine.websocket.dial import dial
from wsengine.websocket.uri import parse_uri

KIB, MIB = 2**10, 2**20


def message(payload, opcode=BINARY):
    return build_server_frame(opcode, payload)


def numbered(first, count):
    return [b"%06d" % number for number in range(first, first + count)]


def wire(payloads):
    return b"".join(map(message, payloads))


class Engine(Reader):
    """Several connections, and the timer runs, too."""

    def __init__(self, *, places=4, max_messages=2**14, **options):
        super().__init__(places=places, max_messages=max_messages, **options)
        self.start(self.timer.run, "timer under test")

    def connect(self, index=0, *, epoch=1, tcp=False, **options):
        ours, theirs = tcp_pair() if tcp else socket.socketpair()
        self.peers.append(Peer(theirs))
        self.hand_over(ours, index, epoch, **options)
        return self.peers[-1]

    def claim_until_ended(self, index=0, epoch=1):
        """Everything up to the note that the connection has ended."""
        taken = []
        until(lambda: taken.extend(self.ring.claim(256)) or self.endings(index, epoch))
        return taken + self.claim(self.ring.depth)

    def endings(self, index=0, epoch=1):
        return [note for note in self.notes("ended") if (note.index, note.epoch) == (index, epoch)]

    def ended(self, index=0, epoch=1):
        """The note that the connection has ended; then its place is cleared, as a supervisor does."""
        until(lambda: self.endings(index, epoch))
        self.controls[index].end()
        return self.endings(index, epoch)[0]

    def paused(self, index=0):
        until(lambda: self.controls[index].paused)


def tcp_pair():
    """Both ends of a TCP connection over the loopback, (ours, theirs)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


# -------------------------------------------------------------------------------------------------- how connections end

BAD_FRAMES = {
    "reserved bit": (build_server_frame(TEXT, b"x", rsv=4), 1002, b"reserved bit"),
    "unknown opcode": (build_server_frame(3, b"x"), 1002, b"unknown data opcode"),
    "masked": (build_server_frame(TEXT, b"x", mask=b"1234"), 1002, b"masked frame"),
    "fragmented ping": (build_server_frame(PING, b"x", fin=False), 1002, b"fragmented control frame"),
    "close code 1005": (build_server_frame(CLOSE, close_payload(1005)), 1002, b"code that must not be sent"),
    "bad UTF-8": (build_server_frame(TEXT, b"ab\xffcd"), 1007, b"not UTF-8"),
    "bad UTF-8 in a reason": (build_server_frame(CLOSE, b"\x03\xe8\xff"), 1007, b"not UTF-8"),
    "too big": (build_server_frame(BINARY, bytes(1001)), 1009, b"above max_size"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
@pytest.mark.parametrize("cut", [None, 1, 2])
def test_a_peer_that_breaks_the_protocol_is_told_and_blamed_once(name, cut):
    bad, code, problem = BAD_FRAMES[name]
    with Engine() as engine:
        peer = engine.connect(max_size=1000)
        data = message(b"good") + bad * 20 + message(b"behind it")
        if cut:
            peer.send(data[:6 + cut])
            time.sleep(0.005)
            data = data[6 + cut:]
        peer.send(data)
        [(opcode, payload)] = peer.rest()
        assert opcode == CLOSE
        assert payload[:2] == struct.pack("!H", code)
        assert problem in payload[2:]
        assert not engine.endings(), "the connection ends when its stream has ended"
        peer.sock.close()
        note = engine.ended()
        assert (note.cause, note.code, note.error) == ("failed", code, 0)
        assert problem in note.text
        assert note.text == payload[2:]
        assert note.detail == (1001 if code == 1009 else 0)
        assert engine.claim(1) == [b"good"]
        assert engine.ring.depth == 0


@pytest.mark.parametrize("announced", [1001, 65536, 2**40, 2**63 - 1])
def test_a_message_above_max_size_is_refused_when_it_is_announced(announced):
    with Engine() as engine:
        peer = engine.connect(max_size=1000)
        peer.send(struct.pack("!BBH", 0x82, 126, announced) if announced < 65536 else
                  struct.pack("!BBQ", 0x82, 127, announced))
        assert peer.rest() == [(CLOSE, struct.pack("!H", 1009) + b"message above max_size")]
        peer.sock.close()
        assert engine.ended().detail == announced


@pytest.mark.parametrize("code", [1000, 1001, 1012, 1013, 4003, None])
def test_the_peers_close_is_answered_and_noted(code):
    reason = "" if code is None else "später"
    with Engine() as engine:
        peer = engine.connect()
        peer.send(message(b"last words") + build_server_frame(CLOSE, close_payload(code, reason)))
        assert peer.rest() == [(CLOSE, close_payload(code))]
        peer.sock.close()
        note = engine.ended()
        assert (note.cause, note.code, note.text) == ("closed", 1005 if code is None else code, reason.encode())
        assert engine.claim(1) == [b"last words"]


@pytest.mark.parametrize("how", ["half", "whole"])
def test_an_end_of_stream_without_a_close_is_noted_as_such(how):
    with Engine() as engine:
        peer = engine.connect()
        peer.send(message(b"whole") + message(b"cut off")[:5])
        if how == "half":
            peer.sock.shutdown(socket.SHUT_WR)
        else:
            peer.sock.close()
        note = engine.ended()
        assert (note.cause, note.code, note.error, note.text) == ("eof", 0, 0, b"")
        assert engine.claim(1) == [b"whole"]


def test_a_reset_is_noted_with_its_error_after_what_was_sent_before_it():
    with Engine() as engine:
        peer = engine.connect(tcp=True)
        peer.send(wire(numbered(0, 50)))
        assert engine.claim(50) == numbered(0, 50)
        peer.reset()
        note = engine.ended()
        assert (note.cause, note.error) == ("error", errno.ECONNRESET)


def test_a_silent_peer_is_lost_after_ws_timeout_and_told_so():
    with Engine() as engine:
        started = time.monotonic()
        peer = engine.connect(ws_timeout=0.2)
        note = engine.ended()
        assert 0.2 <= time.monotonic() - started < 0.6
        assert (note.cause, note.code, note.error) == ("idle", 0, 0)
        engine.sockets[0, 1].close()
        assert peer.rest() == [(CLOSE, close_payload(1001, "idle timeout"))]


def test_any_byte_is_a_sign_of_life():
    signs = message(b"m") + build_server_frame(PING, b"") + build_server_frame(PONG, b"")
    with Engine() as engine:
        peer = engine.connect(ws_timeout=0.25)
        for at in range(len(signs)):
            peer.send(signs[at:at + 1])
            time.sleep(0.1)
        assert engine.endings() == []
        assert engine.ended().cause == "idle"


def test_a_peer_that_sends_data_and_answers_no_ping_is_lost_after_pong_timeout():
    with Engine() as engine:
        started = time.monotonic()
        peer = engine.connect(keepalive=0.1, pong_timeout=0.2, ws_timeout=30)
        while not engine.endings():
            assert time.monotonic() - started < 5
            peer.send(message(b"busy"))
            time.sleep(0.01)
        assert 0.3 <= time.monotonic() - started < 0.8
        note = engine.ended()
        assert note.cause == "pong"
        engine.sockets[0, 1].close()
        frames = peer.rest()
        assert frames[-1] == (CLOSE, close_payload(1011, "keepalive ping timeout"))
        assert {opcode for opcode, _ in frames[:-1]} == {PING}


def test_a_peer_that_answers_its_pings_is_not_lost():
    with Engine() as engine:
        peer = engine.connect(keepalive=0.05, pong_timeout=0.2, ws_timeout=0.3)
        for _ in range(15):
            [(opcode, payload)] = peer.next_frames()
            assert opcode == PING
            peer.send(build_server_frame(PONG, payload))
        assert engine.endings() == []
        assert 0 < engine.controls[0].round_trip < 1


def test_an_older_pong_behind_a_newer_one_does_not_take_the_answer_back():
    with Engine(loud=True) as engine:
        peer = engine.connect(keepalive=0.1)
        for _, payload in reversed(peer.next_frames(3)):
            peer.send(build_server_frame(PONG, payload))
        until(lambda: len(engine.notes("pong")) == 3)
        trips = [note.round_trip for note in engine.notes("pong")]
        assert trips == sorted(trips)
        assert trips[2] > 0.19
        assert engine.controls[0].round_trip == trips[0], "it is that of the newest ping that was answered"


def test_a_peer_that_does_not_answer_our_close_is_let_go_after_close_timeout():
    with Engine() as engine:
        peer = engine.connect(close_timeout=0.2)
        started = time.monotonic()
        engine.receiver.close(0, 1, 1000, b"bye")
        assert peer.next_frames() == [(CLOSE, close_payload(1000, "bye"))]
        note = engine.ended()
        assert 0.2 <= time.monotonic() - started < 0.6
        assert (note.cause, note.code) == ("released", 0)


@pytest.mark.parametrize(("last_word", "cause", "code"), [
    (build_server_frame(CLOSE, close_payload(1001)), "closed", 1001),
    (build_server_frame(3, b""), "failed", 1002),
])
def test_a_peer_that_keeps_its_end_open_is_let_go_after_close_timeout_with_the_first_cause(last_word, cause, code):
    with Engine() as engine:
        peer = engine.connect(close_timeout=0.2)
        started = time.monotonic()
        peer.send(last_word)
        assert len(peer.rest()) == 1
        note = engine.ended()
        assert 0.2 <= time.monotonic() - started < 0.6
        assert (note.cause, note.code) == (cause, code)


def test_release_lets_go_at_once_and_the_descriptor_is_free():
    with Engine() as engine:
        peer = engine.connect()
        peer.send(message(b"one"))
        assert engine.claim(1) == [b"one"]
        engine.receiver.release(0, 1)
        assert engine.ended().cause == "released"
        peer.send(message(b"never read"))
        engine.sockets.pop((0, 1)).close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            peer.send(message(b"never read"))
        again = engine.connect(epoch=2)
        again.send(message(b"two"))
        assert engine.claim(1) == [b"two"]
        assert len(engine.notes()) == 1


def test_stop_lets_go_of_every_connection():
    with Engine() as engine:
        peers = [engine.connect(index) for index in range(4)]
        for index, peer in enumerate(peers):
            peer.send(message(b"%d" % index))
        assert sorted(engine.claim(4)) == [b"0", b"1", b"2", b"3"]
        engine.receiver.stop()
        engine.threads[0].join(10)
        assert [note.cause for note in engine.notes("ended")] == ["released"] * 4


@pytest.mark.parametrize("order", ["add, stop", "stop, add"])
def test_a_connection_handed_over_around_a_stop_ends_in_a_note(order):
    ring = Ring(64, Account(64, MIB), Parker())
    receiver, control = Receiver(ring, Parker(), Parker()), ControlBlock()
    control.begin(1, keepalive=0, ws_timeout=0, pong_timeout=0, close_timeout=1)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        steps = {"add": lambda: receiver.add(Stream(ours.fileno(), control, 0, 1, 100)), "stop": receiver.stop}
        for step in order.split(", "):
            steps[step]()
        receiver.run()
        notes = receiver.notes()
    assert [(note.kind, note.cause) for note in notes] == [("ended", "released")]


def test_orders_for_connections_that_are_not_there_do_nothing():
    with Engine() as engine:
        peer = engine.connect(epoch=7)
        for index, epoch in ((0, 6), (0, 8), (1, 7)):
            engine.receiver.release(index, epoch)
            engine.receiver.close(index, epoch, 1000)
        peer.send(build_server_frame(PING, b"still here"))
        assert peer.next_frames() == [(PONG, b"still here")]
        assert engine.notes() == []


def test_notes_name_kinds_and_causes_of_the_tables():
    assert KINDS == ("ended", "high", "low", "drop", "ping", "pong")
    assert CAUSES == ("none", "closed", "failed", "eof", "error", "idle", "pong", "released", "memory", "tls", "overflow")


def test_the_supervisor_is_woken_by_a_note():
    with Engine() as engine:
        peer = engine.connect()
        until(lambda: engine.controls[0].heard_ns)
        threading.Timer(0.1, peer.sock.close).start()
        started = time.monotonic()
        while not engine.endings():
            engine.supervisor.wait(lambda: False, 20)
        assert time.monotonic() - started < 5


# -------------------------------------------------------------------------------------------------------- closing by us

def test_our_close_ends_with_the_peers_and_takes_what_it_sent_before():
    with Engine() as engine:
        peer = engine.connect()
        engine.receiver.close(0, 1, 1000, "über".encode())
        assert peer.next_frames() == [(CLOSE, close_payload(1000, "über"))]
        peer.send(wire(numbered(0, 10)) + build_server_frame(PING, b"late"))
        peer.send(build_server_frame(CLOSE, close_payload(1000)))
        assert peer.rest() == [], "nothing follows a Close"
        peer.sock.close()
        note = engine.ended()
        assert (note.cause, note.code) == ("closed", 1000)
        assert engine.claim(10) == numbered(0, 10)


def test_a_second_close_changes_nothing():
    with Engine() as engine:
        peer = engine.connect(close_timeout=0.2)
        for code in (1000, 1001, 1011):
            engine.receiver.close(0, 1, code)
        engine.ended()
        engine.sockets[0, 1].close()
        assert peer.rest() == [(CLOSE, close_payload(1000))]


def test_a_close_without_a_code_has_no_payload():
    with Engine() as engine:
        peer = engine.connect(close_timeout=0.1)
        engine.receiver.close(0, 1, 1005, b"dropped")
        assert peer.next_frames() == [(CLOSE, b"")]
        engine.ended()


def test_a_reason_too_long_for_a_close_is_cut_between_characters():
    with Engine() as engine:
        peer = engine.connect(close_timeout=0.1)
        engine.receiver.close(0, 1, 1000, ("é" * 100).encode())
        [(_, payload)] = peer.next_frames()
        assert len(payload) <= 125
        assert payload[2:].decode() == "é" * 61
        engine.ended()


def test_a_closing_peer_that_goes_on_sending_is_let_go_after_close_timeout():
    with Engine() as engine:
        peer = engine.connect(close_timeout=0.3)
        engine.receiver.close(0, 1, 1000)
        started, sent = time.monotonic(), 0
        while not engine.endings():
            assert time.monotonic() - started < 5
            peer.send(message(b"%06d" % sent))
            sent += 1
            time.sleep(0.005)
        assert engine.ended().cause == "released"
        taken = engine.claim(engine.ring.depth)
        assert taken == numbered(0, len(taken))
        assert len(taken) >= sent - 5


def test_a_connection_that_is_paused_can_be_closed():
    with Engine(max_messages=8) as engine:
        peer = engine.connect(close_timeout=0.2)
        peer.send(wire(numbered(0, 30)))
        engine.paused()
        engine.receiver.close(0, 1, 1000)
        assert peer.next_frames() == [(CLOSE, close_payload(1000))]
        assert engine.ended().cause == "released"


# ------------------------------------------------------------------------------------------------- pausing and resuming

@pytest.mark.parametrize("slab_bytes", [4096, 2**18])
def test_reading_pauses_at_max_messages_and_goes_on_at_half(slab_bytes):
    with Engine(max_messages=8, slab_bytes=slab_bytes) as engine:
        peer = engine.connect()
        peer.send(wire(numbered(0, 20)))
        engine.paused()
        assert (engine.account.messages, engine.ring.depth) == (8, 8)
        taken = engine.claim(3)
        time.sleep(0.05)
        assert engine.controls[0].paused, "5 of 8 are held: above half"
        assert engine.ring.depth == 5
        taken += engine.claim(1)
        until(lambda: engine.account.messages == 8)
        assert engine.controls[0].counts()["pauses"] >= 2
        taken += engine.claim(16)
        assert taken == numbered(0, 20)
        until(lambda: not engine.controls[0].paused)


@pytest.mark.parametrize("max_messages", [1, 2, 3, 7])
def test_the_smallest_bounds_let_everything_through_one_after_the_other(max_messages):
    with Engine(max_messages=max_messages, slab_bytes=4096) as engine:
        peer = engine.connect()
        peer.send(wire(numbered(0, 500)) + message(b"z" * 20_000))
        for number in range(500):
            assert engine.account.messages <= max_messages
            assert engine.claim(1) == [b"%06d" % number]
        assert engine.claim(1) == [b"z" * 20_000]


@pytest.mark.parametrize("size", [10, 1000, 30_000])
def test_a_full_pipeline_stops_the_sender_and_never_holds_more_than_its_bound_and_one_read(size, seed):
    max_bytes, slab_bytes = 256 * KIB, 16 * KIB
    with Engine(max_bytes=max_bytes, slab_bytes=slab_bytes) as engine:
        peer = engine.connect(tcp=True)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * KIB)
        payload = random.Random(seed).randbytes(size)
        frame = message(payload)
        highest, over = [0], threading.Event()

        def watch():
            while not over.is_set():
                highest[0] = max(highest[0], engine.account.bytes)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            sent = peer.flood(frame * (8 * KIB // len(frame) + 1))  # returns only when the window has stayed shut
            assert engine.controls[0].paused
            held = engine.account.bytes
            assert engine.claim(1) == [payload]
        finally:
            over.set()
            watcher.join()
        assert held > max_bytes / 2 or engine.account.messages > 2**13
        assert highest[0] <= max_bytes + slab_bytes + len(frame)
        peer.sock.shutdown(socket.SHUT_WR)
        rest = engine.claim_until_ended()
        assert len(rest) >= sent // len(frame) - 1
        assert set(rest) == {payload}


def test_the_bound_in_bytes_holds_while_our_close_is_under_way():
    with Engine(max_bytes=256 * KIB, slab_bytes=16 * KIB) as engine:
        peer = engine.connect(close_timeout=0.3)
        engine.receiver.close(0, 1, 1000)
        peer.next_frames()
        payload = bytes(32 * KIB)
        peer.flood(message(payload), quiet=0.1)
        assert engine.account.bytes <= 256 * KIB + 16 * KIB + len(payload)
        assert engine.ended().cause in ("released", "error")


def test_a_message_larger_than_the_bound_passes_when_nothing_is_held():
    with Engine(max_bytes=64 * KIB, slab_bytes=4096) as engine:
        peer = engine.connect()
        data = message(b"small") + message(bytes(MIB)) + message(b"end")
        for _ in range(3):
            sender = threading.Thread(target=peer.send, args=(data,))
            sender.start()
            assert engine.claim(1) == [b"small"]
            assert engine.claim(1) == [bytes(MIB)]
            assert engine.claim(1) == [b"end"]
            sender.join(10)


def test_everything_sent_arrives_exactly_once_across_many_pauses(seed):
    chance = random.Random(seed)
    payloads = [b"%06d" % number + bytes(chance.choice([0, 10, 500, 9000])) for number in range(3000)]
    with Engine(max_messages=50, max_bytes=256 * KIB, slab_bytes=4096) as engine:
        peer = engine.connect()
        sender = threading.Thread(target=peer.send, args=(wire(payloads),))
        sender.start()
        taken = []
        while len(taken) < len(payloads):
            taken += engine.claim(min(chance.randint(1, 60), len(payloads) - len(taken), max(1, engine.ring.depth)))
            assert engine.account.messages <= 50
            if chance.random() < 0.2:       # a claimer that comes late
                until(lambda: engine.controls[0].paused or not sender.is_alive())
        sender.join(10)
        assert taken == payloads
        assert engine.controls[0].counts()["pauses"] > 10


def cpu_of_half_a_second():
    """CPU seconds of this process while its Python threads sleep for half a second."""
    before = time.process_time()
    time.sleep(0.5)
    return time.process_time() - before


@pytest.mark.parametrize("keepalive", [0, 0.02], ids=["quiet", "pinging"])
def test_a_peer_that_resets_while_we_are_paused_costs_no_cpu_and_loses_nothing(keepalive):
    with Engine(max_messages=8) as engine:
        peer = engine.connect(tcp=True, keepalive=keepalive)
        peer.send(wire(numbered(0, 100)))
        engine.paused()
        peer.send(wire(numbered(100, 100)))
        time.sleep(0.05)
        peer.reset()
        assert cpu_of_half_a_second() < 0.1
        assert engine.endings() == [], "what it sent has not been read yet"
        assert engine.claim_until_ended() == numbered(0, 200)
        note = engine.ended()
        assert note.cause in ("error", "eof"), note
        if not keepalive:
            assert note.error == errno.ECONNRESET


def test_a_peer_that_ends_while_we_wait_for_room_to_write_costs_no_cpu():
    with Engine(max_messages=8) as engine:
        peer = engine.connect(tcp=True)
        engine.sockets[0, 1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        pings = build_server_frame(PING, b"p" * 125) * 1000
        sender = threading.Thread(target=peer.send, args=(pings * 60 + wire(numbered(0, 100)),))
        sender.start()
        sender.join(20)
        engine.paused()
        peer.reset()
        assert cpu_of_half_a_second() < 0.1
        assert engine.claim_until_ended() == numbered(0, 100)


@pytest.mark.parametrize("last_word", [b"", build_server_frame(CLOSE, close_payload(1000))], ids=["FIN", "Close"])
def test_what_lies_in_the_socket_at_a_clean_end_while_we_are_paused_all_arrives(last_word):
    payloads = numbered(0, 2000)
    with Engine(max_messages=8, slab_bytes=4096) as engine:
        peer = engine.connect(tcp=True)
        peer.send(wire(payloads[:100]))
        engine.paused()
        peer.send(wire(payloads[100:]) + last_word)
        peer.sock.shutdown(socket.SHUT_WR)
        assert cpu_of_half_a_second() < 0.1
        assert engine.endings() == []
        assert engine.claim_until_ended() == payloads
        assert engine.ended().cause == ("closed" if last_word else "eof")


@pytest.mark.parametrize(("cause", "times"), [
    ("idle", {"ws_timeout": 0.2}),
    ("pong", {"keepalive": 0.05, "pong_timeout": 0.2}),
])
def test_silence_while_we_are_paused_is_not_held_against_the_peer(cause, times):
    with Engine(max_messages=8) as engine:
        peer = engine.connect(**times)
        peer.send(wire(numbered(0, 30)))
        engine.paused()
        time.sleep(0.4)
        assert engine.endings() == []
        resumed = time.monotonic()
        assert engine.claim(30) == numbered(0, 30)
        assert engine.ended().cause == cause
        assert 0.19 < time.monotonic() - resumed < 0.6, "the clock began anew when reading did"


@pytest.mark.parametrize("slow", [True, False], ids=["again and again", "once"])
def test_pongs_that_wait_behind_data_because_of_us_are_not_overdue(slow):
    with Engine(max_messages=8 if slow else 2000, slab_bytes=4096) as engine:
        peer = engine.connect(keepalive=0.05, pong_timeout=0.1)
        peer.send(wire(numbered(0, 4000)))
        engine.paused()
        over = threading.Event()

        def answer():
            while not over.is_set():
                peer.sock.settimeout(0.05)
                try:
                    frames = peer.next_frames()
                except TimeoutError:
                    continue
                peer.sock.settimeout(10)     # half of a pong would end the connection
                peer.send(b"".join(build_server_frame(PONG, payload) for _, payload in frames))

        answering = threading.Thread(target=answer)
        answering.start()
        taken = []
        time.sleep(0.3)
        try:
            while len(taken) < 4000 and not engine.endings():
                taken += engine.ring.claim(256)
                time.sleep(0.002 if slow else 0.0002)
        finally:
            over.set()
            answering.join(10)
        assert [note.cause for note in engine.endings()] == []
        assert taken == numbered(0, 4000)


def test_our_pings_go_out_while_we_are_paused():
    with Engine(max_messages=8) as engine:
        peer = engine.connect(keepalive=0.05)
        peer.send(wire(numbered(0, 30)))
        engine.paused()
        assert [opcode for opcode, _ in peer.next_frames(4)] == [PING] * 4
        assert engine.controls[0].paused


def test_a_reader_that_rests_delivers_and_answers_and_costs_no_cpu():
    payloads = numbered(0, 4000)
    with Engine() as engine:
        engine.account.charge(0, 8 * MIB)         # far more than caches hold, and nobody waits for work: it rests
        peer = engine.connect(tcp=True)
        for first in range(0, 4000, 500):
            peer.send(wire(payloads[first:first + 500]) + build_server_frame(PING, b"%d" % first))
            assert peer.next_frames() == [(PONG, b"%d" % first)]
        assert engine.claim(4000) == payloads
        assert cpu_of_half_a_second() < 0.1
        assert not engine.controls[0].paused
        engine.account.release(0, 8 * MIB)        # and wakes the reader, if it rests just then
        peer.send(wire(payloads))
        assert engine.claim(4000) == payloads


def test_high_and_low_are_noted_once_for_a_pause():
    with Engine(max_messages=8) as engine:
        peer = engine.connect(2)
        peer.send(wire(numbered(0, 10)))
        until(lambda: engine.notes())
        [high] = engine.notes()
        assert (high.kind, high.index, high.epoch) == ("high", 2, 1)
        assert high.detail >> 40 == 8
        assert engine.claim(10) == numbered(0, 10)
        until(lambda: len(engine.notes()) == 2)
        assert [note.kind for note in engine.notes()] == ["high", "low"]


def test_high_is_noted_for_a_lasting_pause_soon_after_a_short_one():
    with Engine(max_messages=8) as engine:
        peer = engine.connect()
        peer.send(wire(numbered(0, 10)))
        engine.paused()
        engine.claim(10)
        until(lambda: engine.notes("low"))
        peer.send(wire(numbered(10, 10)))
        engine.paused()
        time.sleep(0.3)
        assert [note.kind for note in engine.notes()] == ["high", "low", "high"]


def test_many_short_pauses_are_noted_ten_times_a_second_at_most():
    with Engine(max_messages=8) as engine:
        peer = engine.connect()
        started, taken = time.monotonic(), []
        peer.send(wire(numbered(0, 404)))
        for _ in range(50):
            until(lambda: engine.ring.depth == 8 and engine.controls[0].paused)
            taken += engine.claim(8)
        assert taken + engine.claim(4) == numbered(0, 404)
        until(lambda: not engine.controls[0].paused)
        tenths = (time.monotonic() - started) * 10 + 1
        assert engine.controls[0].counts()["pauses"] >= 50
        assert 1 <= len(engine.notes("high")) <= tenths
        assert 0 <= len(engine.notes("high")) - len(engine.notes("low")) <= 1


# ----------------------------------------------------------------------------------------------------------- discarding

def test_a_message_cut_by_the_order_to_discard_is_counted_and_what_was_claimed_stays():
    with Engine() as engine:
        peer = engine.connect()
        cut = message(b"cut by it")
        peer.send(wire(numbered(0, 10)) + cut[:5])
        assert engine.claim(10) == numbered(0, 10)
        engine.receiver.discard()
        peer.send(cut[5:] + wire(numbered(10, 7)) + build_server_frame(PING, b"p"))
        assert peer.next_frames() == [(PONG, b"p")]
        assert engine.ring.depth + engine.controls[0].counts()["discarded"] == 8
        while engine.ring.claim(256):
            pass


def test_a_connection_handed_over_after_the_order_to_discard_is_delivered():
    with Engine() as engine:
        engine.connect(0)
        engine.receiver.discard()
        peer = engine.connect(1)
        peer.send(message(b"new"))
        assert engine.claim(1) == [b"new"]


@pytest.mark.parametrize("paused", [False, True])
def test_what_is_discarded_is_counted_and_pings_are_answered_even_when_full(paused):
    with Engine(max_messages=8 if paused else 1000) as engine:
        peer = engine.connect()
        peer.send(wire(numbered(0, 30)) + build_server_frame(PING, b"one"))
        if paused:
            engine.paused()
        else:
            assert peer.next_frames() == [(PONG, b"one")]
        held = engine.ring.depth
        engine.receiver.discard()
        for word in (b"x", b"y") if not paused else ():    # behind the second answer the order has been obeyed
            peer.send(build_server_frame(PING, word))
            assert peer.next_frames() == [(PONG, word)]
        peer.send(wire(numbered(30, 20)) + message(bytes(MIB)) + build_server_frame(BINARY, b"a", fin=False)
                  + build_server_frame(0, b"b") + build_server_frame(PING, b"two"))
        if paused:
            assert peer.next_frames() == [(PONG, b"one")]
        assert peer.next_frames() == [(PONG, b"two")]
        assert engine.ring.depth == held
        counts = engine.controls[0].counts()
        assert (counts["messages"], counts["discarded"]) == (held, 52 - held)
        assert engine.claim(held) == numbered(0, held)
        assert not engine.controls[0].paused


# ----------------------------------------------------------------------------------------------- sharing and letting go

def test_many_connections_deliver_each_in_order_and_exactly_once():
    connections, count = 60, 40
    with Engine(places=connections, max_messages=200, slab_bytes=4096) as engine:
        peers = [engine.connect(index) for index in range(connections)]

        def send():
            for number in range(count):
                for index, peer in enumerate(peers):
                    peer.send(message(b"%d %d" % (index, number)))

        sender = threading.Thread(target=send)
        sender.start()
        taken = [tuple(map(int, payload.split())) for payload in engine.claim(connections * count)]
        sender.join(10)
        for index in range(connections):
            assert [number for one, number in taken if one == index] == list(range(count))


def test_a_flood_on_one_connection_leaves_the_others_their_turns():
    with Engine(places=2, max_bytes=8 * MIB) as engine:
        loud, quiet = engine.connect(0), engine.connect(1)
        over, seen = threading.Event(), []

        def flood():
            loud.sock.setblocking(False)
            chunk, at = wire([b"f" * 100]) * 5000, 0
            while not over.is_set():
                try:
                    at = (at + loud.sock.send(chunk[at:])) % len(chunk)
                except BlockingIOError:
                    time.sleep(0)

        def consume():
            while not over.is_set():
                now = time.monotonic()
                seen.extend((now, one) for one in engine.ring.claim(256) if not one.startswith(b"f"))

        threads = [threading.Thread(target=work) for work in (flood, consume)]
        for thread in threads:
            thread.start()
        sent = []
        for number in range(40):
            time.sleep(0.01)
            sent.append(time.monotonic())
            quiet.send(message(b"%06d" % number))
        until(lambda: len(seen) == 40)
        over.set()
        for thread in threads:
            thread.join(10)
        assert [one for _, one in seen] == numbered(0, 40)
        delays = sorted(at - begun for (at, _), begun in zip(seen, sent, strict=True))
        assert delays[20] < 0.1, f"half of the messages took longer than {delays[20]:.3f} s"
        assert engine.controls[0].counts()["messages"] > 10_000


def test_all_connections_resume_after_a_pause():
    with Engine(places=4, max_messages=16) as engine:
        peers = [engine.connect(index) for index in range(4)]
        for index, peer in enumerate(peers):
            peer.send(wire([b"%d" % index] * 500))
        taken = engine.claim(2000)
        assert {payload: taken.count(payload) for payload in set(taken)} == {b"%d" % index: 500 for index in range(4)}


def test_a_failing_connection_leaves_the_others_alone():
    with Engine(places=2) as engine:
        bad, good = engine.connect(0), engine.connect(1)
        for number in range(20):
            good.send(message(b"%06d" % number))
            if number == 10:
                bad.send(build_server_frame(3, b""))
                bad.rest()
                bad.sock.close()
                engine.ended(0)
        assert engine.claim(20) == numbered(0, 20)
        assert engine.endings(1) == []


def test_a_place_is_used_again_and_again_with_new_generations():
    with Engine() as engine:
        for epoch in range(1, 40):
            peer = engine.connect(epoch=epoch)
            peer.send(message(b"%d" % epoch))
            peer.sock.close()
            assert engine.ended(0, epoch).cause == "eof"
            assert engine.claim(1) == [b"%d" % epoch]
            engine.sockets.pop((0, epoch)).close()
        assert engine.controls[0].counts()["messages"] == 39


def test_a_pipeline_takes_64_readers_and_names_the_limit():
    account, parker = Account(10, MIB), Parker()
    receivers = [Receiver(Ring(16, account, parker), parker, parker) for _ in range(64)]
    with pytest.raises(EngineError, match="at most 64 producers"):
        Receiver(Ring(16, account, parker), parker, parker)
    assert account.doors == 64
    del receivers
    assert account.bytes == 0


def test_two_readers_of_one_account_pause_and_resume_together():
    account, parker = Account(16, 2**26), Parker()
    rings = [Ring(16, account, parker) for _ in range(2)]
    receivers = [Receiver(ring, Parker(), Parker()) for ring in rings]
    controls = [ControlBlock() for _ in rings]
    pairs = [socket.socketpair() for _ in rings]
    threads = [threading.Thread(target=receiver.run) for receiver in receivers]
    try:
        for index, (ours, theirs) in enumerate(pairs):
            ours.setblocking(False)
            controls[index].begin(1, keepalive=0, ws_timeout=0, pong_timeout=0, close_timeout=1)
            receivers[index].add(Stream(ours.fileno(), controls[index], 0, 1, 1000))
            threads[index].start()
            theirs.sendall(wire([b"%d" % index] * 300))
        taken = []

        def claim_all():
            for ring in rings:
                taken.extend(ring.claim(5))
            return len(taken) == 600

        until(claim_all)
        assert taken.count(b"0") == taken.count(b"1") == 300
    finally:
        for receiver in receivers:
            receiver.stop()
        for thread in threads:
            thread.join(10)
        for pair in pairs:
            for end in pair:
                end.close()
    assert account.messages == 0


def test_a_bound_in_messages_above_the_rings_capacity_is_refused():
    account, parker = Account(1000, 2**26), Parker()
    with pytest.raises(ConfigurationError, match=r"capacity=4.*1000"):
        Receiver(Ring(4, account, parker), Parker(), Parker())


# ------------------------------------------------------------------------------------------- a ring to a connection

def guest(max_messages=64, max_bytes=2**24):
    """A ring that one connection has to itself."""
    return Ring(max(2, 1 << (max_messages - 1).bit_length()), Account(max_messages, max_bytes), Parker(), guest=True)


def connect_to(engine, ring, index, epoch=1):
    """A connection whose messages go to that ring, and its peer."""
    return engine.connect(index, epoch=epoch, inflow=Inflow(ring, engine.receiver))


def taken_from(ring, count):
    got = []
    until(lambda: got.extend(ring.claim(256)) or len(got) >= count)
    return got


def test_a_connection_with_a_ring_of_its_own_brings_nothing_into_the_others():
    with Engine() as engine:
        rings = [guest(), guest()]
        peers = [connect_to(engine, ring, index) for index, ring in enumerate(rings)]
        common = engine.connect(2)
        for index, peer in enumerate([*peers, common]):
            peer.send(wire([b"%d %d" % (index, number) for number in range(40)]))
        for index, ring in enumerate(rings):
            assert taken_from(ring, 40) == [b"%d %d" % (index, number) for number in range(40)]
        assert engine.claim(40) == [b"2 %d" % number for number in range(40)]


def test_a_ring_that_is_full_holds_back_its_own_connection_alone():
    with Engine() as engine:
        full, other = guest(max_messages=8), guest(max_messages=8)
        first, second = connect_to(engine, full, 0), connect_to(engine, other, 1)
        first.send(wire(numbered(0, 50)))
        engine.paused(0)
        assert full.account.messages == 8
        for number in range(50):
            second.send(message(b"%06d" % number))
            assert taken_from(other, 1) == [b"%06d" % number]
        assert engine.controls[0].paused
        assert taken_from(full, 50) == numbered(0, 50)


def test_full_rings_go_on_one_by_one_as_each_has_room():
    with Engine(places=6) as engine:
        rings = [guest(max_messages=4) for _ in range(6)]
        for index, ring in enumerate(rings):
            connect_to(engine, ring, index).send(wire(numbered(0, 30)))
            engine.paused(index)
        for index in (3, 0, 5, 1, 4, 2):
            assert taken_from(rings[index], 30) == numbered(0, 30)
            until(lambda index=index: not engine.controls[index].paused)


def test_what_a_connection_brought_outlives_it_and_its_buffer_goes_when_it_is_forgotten():
    with Engine() as engine:
        ring = guest()
        peer = connect_to(engine, ring, 0)
        peer.send(wire(numbered(0, 10)))
        peer.sock.close()
        assert engine.ended(0).cause == "eof"
        engine.receiver.forget(engine.controls[0])
        assert taken_from(ring, 10) == numbered(0, 10)
        assert (ring.slabs, ring.account.messages, ring.account.bytes) == (0, 0, 0)


def test_a_ring_is_kept_until_its_connection_is_forgotten_and_no_longer():
    with Engine() as engine:
        ring = guest()
        account = ring.account
        connect_to(engine, ring, 0).send(message(b"held"))
        del ring
        gc.collect()
        until(lambda: account.messages == 1)
        held = account.bytes
        assert held > 0, "the ring has gone below the reader"
        engine.peers[0].sock.close()
        engine.ended(0)
        engine.receiver.forget(engine.controls[0])
        gc.collect()
        assert account.bytes == 0


def test_forgetting_what_was_never_given_or_twice_does_nothing():
    with Engine() as engine:
        engine.receiver.forget(engine.controls[0])
        peer = connect_to(engine, guest(), 0)
        peer.sock.close()
        engine.ended(0)
        for _ in range(3):
            engine.receiver.forget(engine.controls[0])
        ring = guest()
        connect_to(engine, ring, 0, epoch=2).send(message(b"again"))
        assert taken_from(ring, 1) == [b"again"]


def test_a_ring_smaller_than_its_account_is_refused_for_an_inflow():
    with Engine() as engine:
        with pytest.raises(ConfigurationError, match="as many slots"):
            Inflow(Ring(16, Account(17, MIB), Parker(), guest=True), engine.receiver)


# ----------------------------------------------------------------------------------------------------- against a server

def test_a_feed_over_tcp_arrives_exactly_once_and_in_order_and_its_pings_are_answered(no_leaks):
    payloads = [(TEXT, json.dumps({"number": number}).encode()) for number in range(20_000)]
    with Feed.payloads(payloads, ping_interval=0.05) as feed, Engine(max_messages=1000) as engine:
        dialled = dial(parse_uri(feed.url))
        engine.hand_over(dialled.sock, 0, 1, dialled.leftover, keepalive=0.05)
        taken = engine.claim(20_000)
        assert [json.loads(one)["number"] for one in taken] == list(range(20_000))
        time.sleep(0.2)
        engine.receiver.close(0, 1, 1000)
        assert engine.claim_until_ended() == []
        assert engine.ended().cause == "closed"
        [log] = feed.log().connections
        assert log.messages == 20_000
        assert log.pings
        assert log.pongs
        assert all(pong.delay is not None for pong in log.pongs)
        assert engine.controls[0].round_trip is not None


def test_the_reader_needs_no_gil_to_deliver():
    with Engine(slab_bytes=4096) as engine:
        peer = engine.connect()
        payloads = numbered(0, 5000)
        peer.send(wire(payloads))
        ctypes.PyDLL(None).usleep(300_000)      # holds the GIL all the while
        let_go = time.monotonic_ns()
        assert engine.controls[0].counts()["messages"] == 5000
        assert let_go - engine.controls[0].heard_ns > 100_000_000, "it waited for the GIL"
        assert engine.claim(5000) == payloads
