"""Behaviour of a connection on which permessage-deflate was agreed: compressed messages become messages, or end it.

The peer is the other end of a socket pair, and compresses with Python's zlib. What the inflater takes is tested with it,
uncompressed messages with the stream.
"""

import contextlib
import gc
import itertools
import json
import random
import subprocess
import sys
import threading
import time
import zlib

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.line import Line
from tests.waiting import until
from wsengine.engine.control import ControlBlock
from wsengine.engine.inflate import DeflateParameters
from wsengine.engine.stream import Stream
from wsengine.testing.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ClientFrames,
    ServerDeflate,
    build_server_frame,
    close_payload,
)

MIB = 2**20
TAIL = b"\x00\x00\xff\xff"


class DeflateLine(Line):
    """A line on which permessage-deflate was agreed on, unless `deflate` says otherwise."""

    def __init__(self, agreed=None, *, deflate=True, **options):
        super().__init__(deflate=(agreed or DeflateParameters()) if deflate else None, **options)

    def send(self, data):
        """Send from a thread of its own: the reader may stop reading before all is sent."""
        thread = threading.Thread(target=self.try_to_send, args=(data,), daemon=True)
        thread.start()
        return thread

    def try_to_send(self, data):
        with contextlib.suppress(OSError):
            self.peer.sendall(data)

    def fails_with(self, code, problem):
        """Assert that the connection fails: the Close that the server gets, and the note."""
        [(opcode, payload)] = self.received(1)
        assert (opcode, payload) == (CLOSE, close_payload(code, problem))
        self.peer.close()
        until(lambda: self.notes())
        [note] = self.notes()
        assert (note.kind, note.cause, note.code, note.text.decode()) == ("ended", "failed", code, problem)
        return note


def agreed(server):
    """What is agreed on with a ServerDeflate of these arguments."""
    return DeflateParameters(server_no_context_takeover=not server.get("takeover", True),
                             server_max_window_bits=server.get("window_bits", 15))


# ------------------------------------------------------------------------------------------------------------ delivery

TEXTS = ["", "a", "grün €𐍈", "x" * 124, "x" * 126, '{"type":"ticker","price":"42000.00"}', "é€" * 300, "end"]


def mixed(server):
    """Compressed and other messages, texts with long characters, fragments with pings between them; what comes of it."""
    pings = build_server_frame(PING, b"?")
    wire = [server.frames(TEXT, text.encode(), fragment) for text, fragment in zip(TEXTS, itertools.cycle([None, 1, 2, 5]))]
    plain = [build_server_frame(TEXT, b"plain"), build_server_frame(BINARY, b"pl", fin=False)
             + build_server_frame(CONTINUATION, b"ain")]
    first, *rest = (build_server_frame(frame.opcode, frame.payload, frame.fin, frame.rsv)
                    for frame in ClientFrames().feed(server.frames(BINARY, b"parts of it, " * 9, 4)))
    return (b"".join(wire) + b"".join(plain) + pings.join([first, *rest]) + server.frames(BINARY, bytes(3000)),
            [text.encode() for text in TEXTS] + [b"plain", b"plain", b"parts of it, " * 9, bytes(3000)], len(rest))


@pytest.mark.parametrize("slab_bytes", [4096, 2**18])
@pytest.mark.parametrize("takeover", [True, False])
def test_compressed_and_other_messages_arrive_whole_and_in_order(slab_bytes, takeover):
    wire, messages, pings = mixed(ServerDeflate(takeover=takeover))
    with DeflateLine(agreed({"takeover": takeover}), slab_bytes=slab_bytes) as line:
        line.peer.sendall(wire)
        assert line.claim(len(messages)) == messages
        assert line.received(pings) == [(PONG, b"?")] * pings


@pytest.mark.parametrize("slab_bytes", [4096, 2**18])
def test_messages_cut_in_two_at_every_byte_arrive_whole_and_in_order(slab_bytes):
    """C41."""
    server = ServerDeflate()
    wire, messages, _ = mixed(server)
    with DeflateLine(slab_bytes=slab_bytes) as line:
        for cut in range(1, len(wire)):
            if cut > 1:
                wire, messages, _ = mixed(server)
            line.send_read(wire[:cut])
            line.peer.sendall(wire[cut:])
            assert line.claim(len(messages)) == messages, f"cut before byte {cut}"


def test_messages_sent_byte_by_byte_arrive_whole_and_in_order():
    wire, messages, _ = mixed(ServerDeflate())
    with DeflateLine(slab_bytes=4096) as line:
        for at in range(len(wire)):
            line.send_read(wire[at:at + 1])
        assert line.claim(len(messages)) == messages


PAYLOADS = st.lists(st.tuples(
    st.one_of(
        st.binary(max_size=300),
        st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=20), st.integers(1, 8000)),
    ),
    st.sampled_from([None, None, 1, 7, 100]),          # bytes of a fragment
    st.booleans(),                                     # compressed
), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(payloads=PAYLOADS, takeover=st.booleans(), bits=st.integers(9, 15), slab=st.sampled_from([4096, 2**16, 2**18]),
       cuts=st.lists(st.integers(0, 4000), max_size=4), ahead=st.integers(0, 500))
def test_any_messages_in_any_fragments_and_any_cut_arrive_whole_and_in_order(payloads, takeover, bits, slab, cuts, ahead):
    """C41."""
    server = ServerDeflate(takeover=takeover, window_bits=bits)
    wire = b"".join(server.frames(BINARY, payload, fragment) if compressed else build_server_frame(BINARY, payload)
                    for payload, fragment, compressed in payloads)
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    with DeflateLine(agreed({"takeover": takeover, "window_bits": bits}), slab_bytes=slab, leftover=wire[:ahead]) as line:
        for start, stop in itertools.pairwise(max(place, min(ahead, len(wire))) for place in places):
            line.send_read(wire[start:stop]) if stop > start else None
        assert line.claim(len(payloads)) == [payload for payload, _, _ in payloads]


SIZES = [0, 1, 125, 126, 1000, 1023, 1024, 4055, 4056, 4057, 4096, 16384, 65535, 65536, 2**18 - 40, 2**18, 2**18 + 1, MIB,
         3 * MIB + 7]


@pytest.mark.parametrize("slab_bytes", [4096, 65536, 2**18])
def test_sizes_from_nothing_to_megabytes_arrive_exactly_once_and_in_order(slab_bytes, seed):
    chance = random.Random(seed)
    sizes = SIZES + [chance.choice(SIZES[:14]) for _ in range(150)]
    chance.shuffle(sizes)
    payloads = [bytes(size) if chance.random() < 0.5 else chance.randbytes(size) for size in sizes]
    server = ServerDeflate(level=1)
    wire = b"".join(server.frames(BINARY, payload, chance.choice([None, None, len(payload) // 5 + 1]))
                    for payload in payloads)
    with DeflateLine(slab_bytes=slab_bytes) as line:
        line.send(wire)
        taken = line.claim(len(payloads))
        assert [len(one) for one in taken] == sizes
        assert taken == payloads
        counts = line.control.counts()
        assert (counts["messages"], counts["bytes"], counts["wire_bytes"]) == (len(sizes), sum(sizes), len(wire))


def test_many_messages_with_one_context_are_exact():
    server = ServerDeflate(level=1)
    payloads = [b'{"sequence":%d,"price":"%d.%02d"}' % (at, 40_000 + at * 7919 % 1000, at % 100) for at in range(50_000)]
    wire = b"".join(server.frames(TEXT, payload) for payload in payloads)
    with DeflateLine() as line:
        line.send(wire)
        assert line.claim(len(payloads)) == payloads


def test_recordings_come_back_as_they_were_recorded(recordings):
    from wsengine.testing import load_recording
    for path in sorted(recordings.glob("*.jsonl.gz")):
        payloads = load_recording(path).payloads
        server = ServerDeflate()
        wire = b"".join(server.frames(TEXT, payload) for payload in payloads)
        with DeflateLine() as line:
            line.send(wire)
            assert line.claim(len(payloads)) == list(payloads), path.name


def test_what_came_behind_the_handshake_is_inflated_too():
    server = ServerDeflate()
    first, second = server.frames(TEXT, b"Hello " * 50), server.frames(TEXT, b"Hello " * 60)
    for cut in range(1, len(first + second)):
        server = ServerDeflate()
        wire = server.frames(TEXT, b"Hello " * 50) + server.frames(TEXT, b"Hello " * 60)
        with DeflateLine(leftover=wire[:cut]) as line:
            line.peer.sendall(wire[cut:])
            assert line.claim(2) == [b"Hello " * 50, b"Hello " * 60]


def test_a_small_message_takes_memory_of_the_slab_that_is_being_filled():
    server = ServerDeflate()
    with DeflateLine() as line:
        for number in range(100):
            line.send_read(server.frames(TEXT, b"%d" % number * 20))
        assert line.ring.depth == 100
        assert line.ring.slabs == 1
        assert line.claim(100) == [b"%d" % number * 20 for number in range(100)]


# ------------------------------------------------------------------------------------------------------------- bounds

def bomb(size, server=None):
    """A message of so many zeros, made a piece at a time; 1 GiB is 1 MiB on the wire."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = bytes(min(size, 2**22))
    data = b"".join(stream.compress(chunk) for _ in range(size // len(chunk)))
    data += stream.compress(bytes(size % len(chunk))) + stream.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(TAIL)


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 2**18, MIB])
@pytest.mark.parametrize("fragment", [None, 3])
def test_a_message_of_max_size_is_taken_and_one_byte_more_is_refused(size, fragment):
    """C42."""
    with DeflateLine(max_size=max(size, 1)) as line:
        line.send(ServerDeflate().frames(BINARY, bytes(max(size, 1)), fragment))
        assert line.claim(1) == [bytes(max(size, 1))]
    with DeflateLine(max_size=max(size, 1)) as line:
        line.send(ServerDeflate().frames(BINARY, bytes(max(size, 1) + 1), fragment))
        assert line.fails_with(1009, "message above max_size").detail == max(size, 1) + 1
        assert line.ring.claim(1) == []


PEAK = """
import json, socket, sys, threading, psutil
sys.path.insert(0, {root!r})
from tests.engine.test_stream_deflate import *
wire = build_server_frame(BINARY, bomb(2**30), rsv=4)
process, peak, over = psutil.Process(), [0], threading.Event()
def watch():
    while not over.is_set():
        peak[0] = max(peak[0], process.memory_info().rss)
before = process.memory_info().rss
watcher = threading.Thread(target=watch)
watcher.start()
with DeflateLine(max_size=MIB) as line:
    line.send(wire)
    detail = line.fails_with(1009, "message above max_size").detail
    most = line.account.bytes
over.set()
watcher.join()
print(json.dumps([len(wire), detail, peak[0] - before]))
"""


def test_a_gibibyte_of_zeros_is_stopped_at_max_size_in_bounded_memory(request):
    """C42. Measured in a process of its own, from before the connection to its end; the bound has room for its buffers: two
    receive buffers, and the message moved to twice its size on its way up to max_size."""
    program = PEAK.format(root=str(request.config.rootpath))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    wire, detail, grown = json.loads(done.stdout)
    assert wire < 2 * MIB
    assert detail == MIB + 1
    assert grown < 16 * MIB, f"{grown / MIB:.1f} MiB for a message of at most 1 MiB"


def test_a_read_full_of_small_bombs_stops_at_the_bound_of_the_pipeline():
    """C44. Two hundred messages of 1 MiB each come in one read of 256 KiB, and the pipeline holds 8 MiB."""
    server, payload = ServerDeflate(level=9), bytes(MIB)
    wire = b"".join(server.frames(BINARY, payload) for _ in range(200))
    with DeflateLine(max_bytes=8 * MIB, max_size=MIB) as line:
        line.send(wire)
        until(lambda: line.control.paused)
        assert line.account.bytes < 8 * MIB + 4 * MIB
        taken = 0
        deadline = time.monotonic() + 60
        while taken < 200:
            assert line.account.bytes < 12 * MIB
            got = line.ring.claim(4)
            assert all(one == payload for one in got)
            taken += len(got)
            assert time.monotonic() < deadline


def test_a_compressed_message_may_be_twice_max_size_on_the_wire_and_no_more():
    """C42."""
    empty = b"\x00\x00\x00\xff\xff"
    most = 2 * 1000 + 1024
    with DeflateLine(max_size=1000) as line:
        line.send(build_server_frame(BINARY, empty * ((most - 1) // 5) + b"\x00", rsv=4))
        assert line.claim(1) == [b""]
        line.send(build_server_frame(BINARY, b"", fin=False, rsv=4)
                  + build_server_frame(CONTINUATION, empty * 10, fin=False) * (most // 50 + 1))
        assert line.fails_with(1009, "compressed message above twice max_size").detail > most
    with DeflateLine(max_size=1000) as line:
        line.send(build_server_frame(BINARY, bytes(most + 1), rsv=4)[:4])     # its head is enough
        assert line.fails_with(1009, "compressed message above twice max_size").detail == most + 1


def test_what_does_not_compress_fits_as_long_as_the_message_does(seed):
    payload = random.Random(seed).randbytes(MIB)
    for level, memory in ((0, 9), (1, 1), (6, 1)):
        stream = zlib.compressobj(level, zlib.DEFLATED, -9, memory)
        sent = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
        with DeflateLine(max_size=MIB) as line:
            line.send(build_server_frame(BINARY, sent.removesuffix(TAIL), rsv=4))
            assert line.claim(1) == [payload]


@pytest.mark.parametrize("max_size", [2**32 - 1, 2**63 - 1])
def test_without_a_limit_a_message_is_taken_as_it_comes(max_size):
    with DeflateLine(max_size=max_size) as line:
        line.send(ServerDeflate().frames(BINARY, bytes(9 * MIB)))
        assert line.claim(1) == [bytes(9 * MIB)]


# ------------------------------------------------------------------------------------------------------- what is refused

CORRUPT = "compressed message that is not DEFLATE data"
UNFINISHED = "compressed message that ends inside a DEFLATE block"


@pytest.mark.parametrize(("sent", "problem"), [
    (b"\xff", CORRUPT), (b"\x07", CORRUPT), (bytes.fromhex("f200110000"), CORRUPT),
    (bytes.fromhex("f248cdc9"), UNFINISHED), (bytes.fromhex("000500faff"), UNFINISHED),
], ids=["block type", "final block type", "reference to nothing", "cut short", "stored block cut short"])
@pytest.mark.parametrize("fragment", [None, 1])
def test_what_is_not_deflate_data_is_refused_with_1007(sent, problem, fragment):
    """C43."""
    pieces = [sent] if fragment is None else [sent[at:at + 1] for at in range(len(sent))]
    wire = b"".join(build_server_frame(CONTINUATION if at else BINARY, piece, fin=at == len(pieces) - 1, rsv=0 if at else 4)
                    for at, piece in enumerate(pieces))
    with DeflateLine() as line:
        line.send(ServerDeflate().frames(TEXT, b"g") + wire + build_server_frame(TEXT, b"never seen"))
        line.fails_with(1007, problem)
        assert line.ring.claim(10) == [b"g"]


@pytest.mark.parametrize("takeover", [True, False])
def test_a_lost_message_is_noticed_where_context_matters(takeover):
    server = ServerDeflate(takeover=takeover)
    server.compress(b"the quick brown fox jumps over the lazy dog")
    wire = server.frames(TEXT, b"the quick brown fox jumps over the lazy dog")
    with DeflateLine(agreed({"takeover": takeover})) as line:
        line.send(wire)
        if takeover:
            line.fails_with(1007, CORRUPT)
        else:
            assert line.claim(1) == [b"the quick brown fox jumps over the lazy dog"]


@pytest.mark.parametrize("fragment", [None, 1])
@pytest.mark.parametrize(("payload", "problem"), [
    (b"good \xff" + b"!" * 50, "text message that is not UTF-8"),
    (b"caf\xc3", "text message that ends within a character"),
    (b"\xed\xa0\x80", "text message that is not UTF-8"),
])
def test_text_that_is_not_utf_8_is_refused_and_as_binary_it_is_taken(payload, problem, fragment):
    with DeflateLine() as line:
        line.send(ServerDeflate().frames(BINARY, payload, fragment))
        assert line.claim(1) == [payload]
    with DeflateLine() as line:
        line.send(ServerDeflate().frames(TEXT, payload, fragment))
        line.fails_with(1007, problem)


def test_text_that_is_not_utf_8_is_refused_before_its_end():
    """C43."""
    wire = ServerDeflate().frames(TEXT, bytes(range(97, 123)) * 4 + b"\xff" + random.Random(1).randbytes(1000), 20)
    with DeflateLine() as line:
        line.send(wire[:-200])
        line.fails_with(1007, "text message that is not UTF-8")


def test_long_characters_may_be_cut_anywhere():
    text = "a€𐍈é" * 200
    for fragment in (1, 2, 3):
        with DeflateLine(slab_bytes=4096) as line:
            line.send(ServerDeflate(level=0).frames(TEXT, text.encode(), fragment))
            assert line.claim(1) == [text.encode()]


NOT_AGREED = "frame with a reserved bit set, and no extension was negotiated"


@pytest.mark.parametrize(("wire", "deflate", "problem"), [
    (build_server_frame(TEXT, b"x", rsv=4), False, NOT_AGREED),
    (build_server_frame(TEXT, b"x", rsv=2), True, "frame with a reserved bit set that permessage-deflate does not use"),
    (build_server_frame(BINARY, b"x", rsv=1), True, "frame with a reserved bit set that permessage-deflate does not use"),
    (build_server_frame(TEXT, b"x", rsv=6), True, "frame with a reserved bit set that permessage-deflate does not use"),
    (build_server_frame(PING, b"x", rsv=4), True, "control frame that is marked as compressed"),
    (build_server_frame(CLOSE, b"", rsv=4), True, "control frame that is marked as compressed"),
    (build_server_frame(TEXT, b"", fin=False, rsv=4) + build_server_frame(CONTINUATION, b"\x00", rsv=4), True,
     "continuation frame that is marked as compressed"),
    (build_server_frame(TEXT, b"", fin=False) + build_server_frame(CONTINUATION, b"\x00", rsv=4), True,
     "continuation frame that is marked as compressed"),
    (build_server_frame(3, b"x", rsv=4), True, "frame with an unknown data opcode"),
    (build_server_frame(TEXT, b"x", rsv=4, mask=b"abcd"), True, "masked frame from a server"),
])
def test_a_reserved_bit_where_it_must_not_be_is_refused_with_1002(wire, deflate, problem):
    """C43."""
    for leftover in (b"", wire):
        with DeflateLine(deflate=deflate, leftover=leftover) as line:
            if not leftover:
                line.peer.sendall(wire)
            line.fails_with(1002, problem)


# ------------------------------------------------------------------------------------------------------------ the flow

def test_pausing_and_resuming_loses_nothing_and_keeps_the_context():
    server = ServerDeflate()
    payloads = [b'{"sequence":%06d}' % at * (at % 7 + 1) for at in range(5000)]
    wire = b"".join(server.frames(TEXT, payload, (None, 5)[at % 50 == 0]) for at, payload in enumerate(payloads))
    with DeflateLine(max_messages=16) as line:
        line.send(wire)
        until(lambda: line.control.paused)
        taken = []
        deadline = time.monotonic() + 60
        while len(taken) < len(payloads):
            taken += line.ring.claim(5)
            assert time.monotonic() < deadline
        assert taken == payloads
        assert line.control.counts()["pauses"] > 10


def test_a_full_pipeline_holds_compressed_bytes_as_they_came_and_goes_on_behind_them():
    """C44."""
    server = ServerDeflate()
    payloads = [bytes([at]) * 5000 for at in range(30)]
    with DeflateLine(full=True, leftover=server.frames(BINARY, payloads[0])) as line:
        line.peer.sendall(b"".join(server.frames(BINARY, payload) for payload in payloads[1:]))
        until(lambda: line.control.paused)
        assert line.control.counts()["messages"] == 0
        line.account.release(2**16, 0)
        assert line.claim(30) == payloads


@pytest.mark.parametrize("fragment", [None, 2])
def test_after_discarding_begins_nothing_is_inflated_and_control_frames_are_answered(fragment):
    server = ServerDeflate()
    wire = server.frames(TEXT, b"before " * 30, fragment)
    with DeflateLine() as line:
        line.send_read(wire[:10])
        line.receiver.discard()
        until(lambda: line.receiver.quiet)
        # what follows is not even DEFLATE: it is not looked at
        line.peer.sendall(wire[10:] + build_server_frame(TEXT, b"\xff\xff", rsv=4) + build_server_frame(PING, b"hello"))
        assert line.received(1) == [(PONG, b"hello")]
        assert line.ring.claim(1) == []
        assert line.control.counts()["discarded"] == 2
        assert line.account.bytes == line.idle_bytes


def test_a_message_under_way_when_the_peer_goes_is_dropped():
    wire = ServerDeflate().frames(BINARY, bytes(100_000), 50)
    with DeflateLine() as line:
        line.send_read(wire[:-1])
        line.peer.close()
        until(lambda: line.notes())
        assert line.notes()[0].cause == "eof"
        assert line.ring.claim(1) == []


def test_a_stream_that_no_reader_takes_gives_its_memory_back():
    control = ControlBlock()
    process = psutil.Process()

    def make(count):
        for _ in range(count):
            Stream(0, control, 0, 1, 100, deflate=DeflateParameters())
        gc.collect()

    make(100)
    before = process.memory_info().rss
    make(20_000)
    assert process.memory_info().rss - before < 16 * MIB, "20,000 inflaters are 140 MiB at least"
