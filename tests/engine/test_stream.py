"""Behaviour of a connection's bytes: what the peer sends becomes messages and answers, whatever its cut and size.

The peer is the other end of a socket pair, so that a test decides over every byte. Pausing, closing, failing and how a
connection ends are tests of the reader, due times those of the keepalive.
"""

import os
import random
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.engine.line import Line
from tests.waiting import until
from wsengine.engine.control import ControlBlock
from wsengine.engine.keepalive import KeepaliveTimer
from wsengine.engine.receiver import Receiver
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.engine.stream import Stream
from wsengine.errors import EngineError
from wsengine.testing.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, ClientFrames, build_server_frame

MIB = 2**20


def message(payload, opcode=BINARY):
    return build_server_frame(opcode, payload)


def fragments(payload, size, opcode=BINARY, between=b""):
    """A message in frames of `size` bytes, with `between` behind each but the last."""
    pieces = [payload[at:at + size] for at in range(0, len(payload), size)] or [b""]
    return between.join(build_server_frame(opcode if at == 0 else CONTINUATION, piece, fin=at == len(pieces) - 1)
                        for at, piece in enumerate(pieces))


# ------------------------------------------------------------------------------------------------------------ delivery

#: Every form of a head, texts with long characters, fragments with empty ones and pings between them.
MIXED = [b"", b"a", "grün €𐍈".encode(), bytes(range(125)), bytes(126), b"parts of it", "é€".encode() * 3, b"end"]
MIXED_WIRE = b"".join([
    message(MIXED[0]), message(MIXED[1], TEXT), message(MIXED[2], TEXT), message(MIXED[3]), message(MIXED[4]),
    fragments(MIXED[5], 3, between=build_server_frame(PING, b"?")), fragments(MIXED[6], 1, TEXT),
    build_server_frame(BINARY, b"", fin=False), build_server_frame(CONTINUATION, b"", fin=False),
    build_server_frame(CONTINUATION, MIXED[7]),
])


@pytest.mark.parametrize("slab_bytes", [4096, 2**18])
def test_messages_sent_at_once_arrive_whole_and_in_order(slab_bytes):
    with Line(slab_bytes=slab_bytes) as line:
        line.peer.sendall(MIXED_WIRE)
        assert line.claim(len(MIXED)) == MIXED


@pytest.mark.parametrize("slab_bytes", [4096, 2**18])
def test_messages_cut_in_two_at_every_byte_arrive_whole_and_in_order(slab_bytes):
    with Line(slab_bytes=slab_bytes) as line:
        for cut in range(1, len(MIXED_WIRE)):
            line.send_read(MIXED_WIRE[:cut])
            line.peer.sendall(MIXED_WIRE[cut:])
            assert line.claim(len(MIXED)) == MIXED, f"cut before byte {cut}"
            line.received(3)


def test_messages_sent_byte_by_byte_arrive_whole_and_in_order():
    with Line(slab_bytes=4096) as line:
        for at in range(len(MIXED_WIRE)):
            line.send_read(MIXED_WIRE[at:at + 1])
        assert line.claim(len(MIXED)) == MIXED
        assert line.received(3) == [(PONG, b"?")] * 3


SIZES = [0, 1, 2, 125, 126, 127, 1000, 1023, 1024, 1025, 4080, 4095, 4096, 4097, 8192, 16383, 16384, 16385,
         65535, 65536, 65537, 2**18 - 1, 2**18, 2**18 + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]


@pytest.mark.parametrize("slab_bytes", [4096, 65536, 2**18])
def test_sizes_from_nothing_to_megabytes_arrive_exactly_once_and_in_order(slab_bytes, seed):
    chance = random.Random(seed)
    sizes = SIZES + [chance.choice(SIZES[:20]) for _ in range(200)] + [chance.randint(0, 9000) for _ in range(200)]
    chance.shuffle(sizes)
    payloads = [chance.randbytes(size) for size in sizes]
    wire = b"".join(
        message(payload) if chance.random() < 0.7 else
        fragments(payload, chance.randint(len(payload) // 9 + 1, len(payload) + 1)) for payload in payloads)
    with Line(slab_bytes=slab_bytes) as line:
        at = 0
        while at < len(wire):
            size = chance.choice([1, 10, 1000, 4096, 60_000, 500_000])
            line.peer.sendall(wire[at:at + size])
            at += size
        taken = line.claim(len(payloads))
        assert [len(one) for one in taken] == sizes
        assert taken == payloads
        assert line.control.counts()["messages"] == len(payloads)
        assert line.control.counts()["bytes"] == sum(sizes)


@pytest.mark.parametrize("slab_bytes", [4096, 2**18])
@pytest.mark.parametrize("size", [5 * MIB, MIB + 1, 300_000])
def test_a_message_larger_than_any_buffer_arrives_whole(slab_bytes, size, seed):
    payload = random.Random(seed).randbytes(size)
    with Line(slab_bytes=slab_bytes) as line:
        for wire in (message(payload), fragments(payload, 100_000), fragments(payload, 2 * MIB)):
            line.peer.sendall(wire + message(b"behind it"))
            assert line.claim(2) == [payload, b"behind it"]


def test_a_message_in_very_many_fragments_costs_time_in_proportion_to_its_size():
    payload = bytes(range(256)) * 4096
    with Line() as line:
        wire = fragments(payload, 4)
        started = time.thread_time(), time.process_time()
        line.peer.sendall(wire)
        assert line.claim(1, timeout=60) == [payload]
        readers = (time.process_time() - started[1]) - (time.thread_time() - started[0])
    assert readers < 0.6, f"the reader worked {readers:.1f} s on a megabyte"


def test_a_message_of_exactly_max_size_is_taken():
    with Line(max_size=5000) as line:
        line.peer.sendall(message(b"x" * 5000) + fragments(b"y" * 5000, 999))
        assert line.claim(2) == [b"x" * 5000, b"y" * 5000]


def test_a_character_may_be_cut_by_fragments_and_reads():
    text = "aé€𐍈" * 50
    with Line(slab_bytes=4096) as line:
        for size in (1, 2, 3, 5, 7):
            for piece in (fragments(text.encode(), size, TEXT),):
                for at in range(0, len(piece), 11):
                    line.peer.sendall(piece[at:at + 11])
            assert line.claim(1) == [text.encode()]


def test_messages_claimed_late_are_not_overwritten_by_later_ones(seed):
    chance = random.Random(seed)
    payloads = [chance.randbytes(chance.randint(0, 3000)) for _ in range(2000)]
    with Line(slab_bytes=4096) as line:
        line.peer.sendall(b"".join(message(payload) for payload in payloads))
        assert line.claim(len(payloads)) == payloads
        assert line.claim(0) == []


def test_slabs_are_given_back_as_messages_are_claimed():
    with Line(slab_bytes=4096) as line:
        for _ in range(20):
            line.peer.sendall(message(b"x" * 1000) * 50)
            line.claim(50)
            assert line.ring.slabs == 1
            assert line.account.bytes == line.idle_bytes == 4096


# ----------------------------------------------------------------------------------- bytes that came with the handshake

@pytest.mark.parametrize("slab_bytes", [4096, 2**18])
@pytest.mark.parametrize("cut", [1, 2, 5, 700, 40_000, 10**9])
@pytest.mark.parametrize("full", [False, True], ids=["with room", "when full"])
def test_bytes_behind_the_handshake_come_first(slab_bytes, cut, full):
    payloads = [b"%d" % number * (number % 300) for number in range(300)] + [b"z" * 10_000]
    wire = b"".join(message(payload) for payload in payloads)
    with Line(slab_bytes=slab_bytes, leftover=wire[:cut], max_messages=500, full=full) as line:
        line.peer.sendall(wire[cut:])
        if full:
            until(lambda: line.control.paused)
            assert line.ring.depth == 0
            line.account.release(500, 0)
        assert line.claim(len(payloads)) == payloads


def test_bytes_behind_the_handshake_need_no_further_byte_to_be_delivered():
    with Line(leftover=message(b"first") + build_server_frame(PING, b"early")) as line:
        assert line.claim(1) == [b"first"]
        assert line.received(1) == [(PONG, b"early")]


@pytest.mark.parametrize("full", [False, True], ids=["with room", "when full"])
@pytest.mark.parametrize("taken", [(0,), (2, 5), (7,), tuple(range(8)), tuple(range(0, 8, 2))], ids=str)
def test_messages_that_somebody_has_taken_before_are_passed_over_and_keep_their_numbers(taken, full):
    """Whole ones, fragmented ones with pings between, and empty ones; what follows comes as if nothing had been there."""
    later = [b"%d" % number for number in range(200)]
    with Line(leftover=MIXED_WIRE, consumed=taken, full=full, max_messages=500) as line:
        line.peer.sendall(b"".join(message(payload) for payload in later))
        if full:
            until(lambda: line.control.paused)
            line.account.release(500, 0)
        assert line.received(3) == [(PONG, b"?")] * 3
        expected = [payload for number, payload in enumerate(MIXED) if number not in taken]
        assert line.claim(len(expected) + 200) == expected + later
        assert line.control.counts()["messages"] == len(MIXED) + 200


def test_a_stream_shows_its_leftover_and_is_given_away_once():
    with Line() as line:
        one, other = socket.socketpair()
        with one, other:
            stream = Stream(one.fileno(), line.control, 1, 1, 100, b"left")
            assert stream.leftover == b"left"
            line.receiver.add(stream)
            with pytest.raises(EngineError, match="given to a reader already"):
                line.receiver.add(stream)
            line.receiver.release(1, 1)
            line.added.append((1, 1))     # has to end, too
            until(lambda: any(note.index == 1 for note in line.notes("ended")))


def test_a_stream_needs_a_control_block_and_may_be_dropped_without_being_used():
    with pytest.raises(TypeError):
        Stream(0, None, 0, 1, 100)
    for _ in range(100):
        Stream(0, ControlBlock(), 0, 1, 100, b"never parsed")


def ended_well(code):
    """Run code in an interpreter of its own that overwrites freed memory, so that a use of it shows."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "MALLOC_PERTURB_": "165"}
    if getattr(sys, "_is_gil_enabled", lambda: True)():  # without a GIL, there is no other
        environment["PYTHONMALLOC"] = "malloc"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment,
                          check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stream_in_a_cycle_of_garbage_is_collected_without_harm():
    ended_well("import gc\nfrom wsengine.engine.control import ControlBlock\nfrom wsengine.engine.stream import Stream\n"
               "for _ in range(20):\n"
               "    cycle = [Stream(0, ControlBlock(), 0, 1, 100)]\n    cycle.append(cycle)\n    del cycle\n"
               "    gc.collect()\n")


@pytest.mark.parametrize("order", ["control, receiver, ring", "receiver, ring, control", "ring, control, receiver"])
def test_a_receiver_that_no_thread_ever_ran_can_be_dropped_in_any_order(order):
    ended_well("import gc\nfrom wsengine.engine.control import *\nfrom wsengine.engine.ring import *\n"
               "from wsengine.engine.stream import *\n"
               "from wsengine.engine.receiver import Receiver\n"
               "ring = Ring(64, Account(64, 2**20), Parker())\nreceiver = Receiver(ring, Parker(), Parker())\n"
               "control = ControlBlock()\n"
               "for index in range(20):\n    receiver.add(Stream(0, control, index, 1, 100, b'left'))\n"
               f"receiver.close(0, 1, 1000, b'bye')\n{''.join(f'del {name}; ' for name in order.split(', '))}\n")


# ------------------------------------------------------------------------------------------------------ pings and pongs

@pytest.mark.parametrize("size", [0, 1, 8, 124, 125])
def test_a_ping_is_answered_with_its_payload(size, seed):
    payload = random.Random(seed).randbytes(size)
    with Line() as line:
        line.peer.sendall(build_server_frame(PING, payload))
        assert line.received(1) == [(PONG, payload)]
        assert line.control.counts()["pings_heard"] == 1


def test_each_ping_of_a_peer_that_reads_is_answered_in_order_between_messages():
    payloads = [b"%d" % number for number in range(300)]
    with Line() as line:
        for at in range(0, 300, 20):
            line.peer.sendall(b"".join(message(one) + build_server_frame(PING, one) for one in payloads[at:at + 20]))
            assert line.received(20) == [(PONG, one) for one in payloads[at:at + 20]]
        assert line.claim(300) == payloads
        assert line.control.counts()["pings_heard"] == 300


def test_a_ping_cut_at_every_byte_is_answered_once():
    ping = build_server_frame(PING, b"0123456789")
    with Line() as line:
        for cut in range(1, len(ping)):
            line.send_read(ping[:cut])
            line.peer.sendall(ping[cut:])
            assert line.received(1) == [(PONG, b"0123456789")]


def test_a_ping_within_a_large_message_is_answered_before_the_message_ends():
    with Line() as line:
        line.peer.sendall(build_server_frame(BINARY, b"x" * MIB, fin=False) + build_server_frame(PING, b"in between"))
        assert line.received(1) == [(PONG, b"in between")]
        line.peer.sendall(build_server_frame(CONTINUATION, b"y"))
        assert line.claim(1) == [b"x" * MIB + b"y"]


@pytest.mark.parametrize("payloads", [[b"p" * 125], [b"p" * 125, b""], [b"", b"p" * 60, b"p" * 125, b"p"]],
                         ids=["of one size", "long and empty", "of several sizes"])
def test_a_peer_that_pings_and_does_not_read_gets_a_bounded_number_of_pongs(payloads):
    rounds = 60_000 // len(payloads)
    with Line() as line:
        line.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        line.peer.sendall(b"".join(build_server_frame(PING, one) for one in payloads) * rounds)
        line.peer.sendall(build_server_frame(PING, b"the last") + message(b"behind"))
        line.claim(1)
        assert line.control.counts()["pings_heard"] == rounds * len(payloads) + 1
        pongs = []
        while not pongs or pongs[-1] != (PONG, b"the last"):
            pongs += line.received(1)
            assert len(pongs) < 5000, "pongs were kept without bound for a peer that does not read"
        line.peer.sendall(build_server_frame(PING, b"again"))
        assert line.received(1) == [(PONG, b"again")]


def test_a_pong_is_matched_with_the_ping_that_it_answers():
    with Line(loud=True) as line:
        assert line.control.round_trip is None
        began = time.monotonic_ns()
        line.timer.tick(began + 3_601_000_000_000)     # puts out a ping whose send time lies in the future
        [(opcode, payload)] = line.received(1)
        assert opcode == PING
        assert payload == b"\0\0\0\1" + b"\0\0\0\1"
        line.peer.sendall(build_server_frame(PONG, payload))
        until(lambda: line.notes("pong"))
        [pong] = line.notes("pong")
        assert (pong.index, pong.epoch, pong.text) == (0, 1, payload)
        assert -3601 <= pong.round_trip < -3590


def test_the_round_trip_is_the_time_from_ping_to_pong():
    with Line() as line:
        line.control.begin(1, keepalive=1e-9, ws_timeout=0, pong_timeout=0, close_timeout=1)
        line.timer.tick(time.monotonic_ns())
        [(_, payload)] = line.received(1)
        time.sleep(0.1)
        line.peer.sendall(build_server_frame(PONG, payload))
        until(lambda: line.control.round_trip is not None)
        assert 0.1 <= line.control.round_trip < 2
        assert line.control.counts()["pings_sent"] == 1


@pytest.mark.parametrize("payload", [b"", b"abc", b"\0\0\0\1\0\0\0\2", b"\0\0\0\1\0\0\0\0", b"\0\0\0\2\0\0\0\1",
                                     b"\0\0\0\1\xff\xff\xff\xff", b"\0\0\0\1\0\0\0\1x"])
def test_a_pong_that_answers_no_ping_is_no_round_trip(payload):
    with Line(loud=True) as line:
        line.timer.tick(time.monotonic_ns() + 3_601_000_000_000)
        line.received(1)
        line.peer.sendall(build_server_frame(PONG, payload) + message(b"behind"))
        line.claim(1)
        assert line.control.round_trip is None
        [note] = line.notes("pong")
        assert note.text == payload
        assert note.round_trip < 0


def test_control_frames_are_noted_only_if_asked_for():
    for loud in (False, True):
        with Line(loud=loud) as line:
            line.peer.sendall(build_server_frame(PING, b"ping") + build_server_frame(PONG, b"pong") + message(b"m"))
            line.claim(1)
            seen = [(note.kind, note.text) for note in line.notes()]
            assert seen == ([("ping", b"ping"), ("pong", b"pong")] if loud else [])


def test_notes_of_control_frames_are_bounded_until_they_are_taken():
    with Line(loud=True) as line:
        line.peer.sendall(build_server_frame(PONG, b"x") * 5000 + message(b"m"))
        line.claim(1)
        assert len(line.notes()) == 1024
        line.peer.sendall(build_server_frame(PONG, b"y") + message(b"m"))
        line.claim(1)
        assert line.notes()[-1].text == b"y"


def test_a_ping_put_out_for_an_earlier_generation_is_not_sent_to_the_next_one():
    control, receiver_parker = ControlBlock(), Parker()
    ring = Ring(64, Account(64, 2**20), Parker())
    receiver = Receiver(ring, Parker(), receiver_parker)
    timer = KeepaliveTimer(receiver, [control], receiver_parker)
    control.begin(1, keepalive=1, ws_timeout=0, pong_timeout=0, close_timeout=1)
    timer.tick(time.monotonic_ns() + 5_000_000_000)
    control.end()
    control.begin(2, keepalive=0, ws_timeout=0, pong_timeout=0, close_timeout=1)
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with ours, peer:
        peer.settimeout(10)
        thread = threading.Thread(target=receiver.run)
        thread.start()
        receiver.add(Stream(ours.fileno(), control, 0, 2, 100, build_server_frame(PING, b"now")))
        try:
            [frame, *_] = ClientFrames().feed(peer.recv(1000))
        finally:
            receiver.stop()
            thread.join(10)
    assert (frame.opcode, frame.payload) == (PONG, b"now")


def test_a_failure_with_the_end_of_the_stream_right_behind_it_is_still_answered_with_a_close():
    with Line(max_size=100) as line:
        line.peer.sendall(message(b"before") + message(bytes(101)))
        line.peer.shutdown(socket.SHUT_WR)
        assert line.claim(1) == [b"before"]
        [(opcode, payload)] = line.received(1)
    assert opcode == CLOSE
    assert payload[:2] == (1009).to_bytes(2, "big")


# ------------------------------------------------------------------------------------------------------------- figures

def test_figures_count_messages_payload_bytes_and_frames():
    with Line() as line:
        line.peer.sendall(message(b"12345") + fragments(b"123456", 2) + build_server_frame(PING, b"p"))
        line.claim(2)
        until(lambda: line.control.counts()["pings_heard"])
        assert line.control.counts() == {"messages": 2, "bytes": 11, "wire_bytes": 22, "frames": 5, "discarded": 0,
                                         "dropped": 0,
                                         "pauses": 0, "pings_heard": 1, "pings_sent": 0}
        assert abs(time.monotonic_ns() - line.control.heard_ns) < 5_000_000_000
        assert line.control.paused is False


def test_nothing_is_read_behind_a_close():
    with Line() as line:
        line.peer.sendall(message(b"before") + build_server_frame(CLOSE, b"\x03\xe8") + message(b"behind") * 100
                          + build_server_frame(PING, b"behind"))
        assert line.claim(1) == [b"before"]
        assert line.received(1) == [(CLOSE, b"\x03\xe8")]
        assert line.peer.recv(100) == b""
