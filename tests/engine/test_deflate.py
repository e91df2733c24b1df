"""Behaviour of the compressor of what we send: any server understands it, and it costs nothing before its first use."""

import ctypes
import random
import threading
import zlib

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, RsvBits

from wsengine.engine.deflate import Deflater
from wsengine.engine.inflate import MessageInflater
from wsengine.errors import EngineError

TAIL = b"\x00\x00\xff\xff"


class Server:
    """What a server does with Python's zlib."""

    def __init__(self, bits=15, takeover=True):
        self.bits, self.takeover = bits, takeover
        self.stream = zlib.decompressobj(-bits)

    def inflate(self, sent):
        if not self.takeover:
            self.stream = zlib.decompressobj(-self.bits)
        data = self.stream.decompress(sent + TAIL)
        assert not self.stream.eof
        assert not self.stream.unconsumed_tail
        return data


PAYLOADS = st.lists(st.one_of(
    st.binary(max_size=300), st.text(max_size=100).map(str.encode),
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=20), st.integers(1, 3000)),
), min_size=1, max_size=10)


@settings(max_examples=400, deadline=None)
@given(payloads=PAYLOADS, takeover=st.booleans(), bits=st.integers(9, 15), level=st.integers(0, 9), memory=st.integers(1, 9))
def test_a_server_gets_what_we_compressed(payloads, takeover, bits, level, memory):
    deflater = Deflater(window_bits=bits, takeover=takeover, level=level, memory_level=memory)
    server, ours = Server(bits, takeover), MessageInflater(bits, takeover)
    for payload in payloads:
        sent = deflater.compress(payload)
        assert sent
        assert not sent.endswith(TAIL) or level == 0, "the tail is cut off"
        assert server.inflate(sent) == payload
        assert ours.feed(sent) == payload


@settings(max_examples=50, deadline=None)
@given(payloads=PAYLOADS, takeover=st.booleans())
def test_wsproto_gets_what_we_compressed(payloads, takeover):
    theirs = PerMessageDeflate(client_no_context_takeover=not takeover)
    protocol = FrameProtocol(client=False, extensions=[theirs])
    deflater = Deflater(takeover=takeover)
    for payload in payloads:
        theirs.frame_inbound_header(protocol, Opcode.BINARY, RsvBits(True, False, False), 0)
        got = theirs.frame_inbound_payload_data(protocol, deflater.compress(payload))
        assert got + theirs.frame_inbound_complete(protocol, True) == payload


def test_the_example_of_rfc_7692_7_2_3_2():
    deflater = Deflater()
    assert deflater.compress(b"Hello") == bytes.fromhex("f248cdc9c90700")
    assert deflater.compress(b"Hello") == bytes.fromhex("f200110000")


def test_without_takeover_each_message_stands_by_itself():
    deflater = Deflater(takeover=False)
    assert [deflater.compress(b"Hello") for _ in range(3)] == [bytes.fromhex("f248cdc9c90700")] * 3


def test_an_empty_message_is_one_byte_and_may_stand_anywhere():
    deflater, server = Deflater(), Server()
    for payload in (b"", b"", b"Hello", b"", b"Hello", b""):
        sent = deflater.compress(payload)
        assert server.inflate(sent) == payload
        assert payload or sent == b"\x00"


@pytest.mark.parametrize("size", [0, 1, 99])
def test_what_is_below_the_threshold_is_left_as_it_is(size):
    deflater, server = Deflater(threshold=100), Server()
    assert deflater.compress(b"a" * size) is None
    for _ in range(2):
        assert server.inflate(deflater.compress(b"a" * 100)) == b"a" * 100
        assert deflater.compress(b"a" * size) is None


def test_after_a_reset_nothing_refers_back():
    deflater = Deflater()
    deflater.reset()
    first = deflater.compress(b"Hello, " * 20)
    deflater.compress(b"never sent; Hello, " * 20)
    deflater.reset()
    server = Server()
    assert server.inflate(first) == b"Hello, " * 20
    for _ in range(2):
        assert server.inflate(deflater.compress(b"never sent; Hello, " * 20)) == b"never sent; Hello, " * 20


@pytest.mark.parametrize("size", [4095, 4096, 2**20, 5 * 2**20])
def test_large_messages_that_do_not_compress_come_through(size, seed):
    payload = random.Random(seed).randbytes(size)
    deflater, server = Deflater(level=1), Server()
    for _ in range(2):
        sent = deflater.compress(payload)
        assert len(sent) < size + size // 100 + 100
        assert server.inflate(sent) == payload


def test_nothing_is_allocated_before_the_first_message_that_is_compressed():
    process = psutil.Process()
    before = process.memory_info().rss
    idle = [Deflater(memory_level=9, threshold=1000) for _ in range(2000)]
    assert all(one.compress(b"short") is None for one in idle)
    assert process.memory_info().rss - before < 32 * 2**20, "2,000 compressors would take 768 MiB"


def _compress(deflater, payload, sent, done):
    sent.append(deflater.compress(payload))
    done.set()


def test_a_large_message_is_compressed_without_the_gil():
    """Another Python thread goes on: it holds the GIL in one C call until it is told that the compressor has run. On a busy
    machine it may not get a core in that time, so there are ten attempts."""
    payload, steps = bytes(range(256)) * 2**14, 0
    for _ in range(10):
        deflater, done, sent = Deflater(level=9), threading.Event(), []
        thread = threading.Thread(target=_compress, args=(deflater, payload, sent, done))
        thread.start()
        while not done.is_set():
            steps += 1
            ctypes.pythonapi.Py_GetVersion()
        thread.join()
        if steps:
            break
    assert steps > 0
    assert Server().inflate(sent[0]) == payload


def test_two_threads_at_once_get_an_error_and_break_nothing():
    deflater, payload = Deflater(level=9), bytes(range(256)) * 2**16
    begin, made, errors = threading.Barrier(2), [], []

    def compress():
        begin.wait()
        for _ in range(20):
            try:
                made.append(deflater.compress(payload))
            except EngineError as error:
                errors.append(error)

    threads = [threading.Thread(target=compress) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) + len(errors) == 40
    assert errors, "two threads were never in it at once"
    assert "one lock" in str(errors[0])
    sizes = sorted(map(len, made))
    assert sizes[-1] < len(payload)
    deflater.reset()
    assert Server().inflate(deflater.compress(payload)) == payload


@pytest.mark.parametrize(("option", "value"), [
    ("window_bits", 8), ("window_bits", 16), ("level", -1), ("level", 10), ("memory_level", 0), ("memory_level", 10)])
def test_a_number_out_of_bounds_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"^{option}={value}: "):
        Deflater(**{option: value})


def test_what_it_was_made_with_can_be_read():
    one = Deflater(window_bits=9, takeover=False, level=1, memory_level=2, threshold=3)
    assert (one.window_bits, one.takeover, one.level, one.memory_level, one.threshold) == (9, False, 1, 2, 3)


@pytest.mark.parametrize("wrong", ["text", None, 3])
def test_what_is_no_buffer_is_refused(wrong):
    with pytest.raises(TypeError):
        Deflater().compress(wrong)
