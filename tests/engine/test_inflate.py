"""Behaviour of the inflater: whatever a server's compressor makes of messages becomes these messages again, or is refused.

The compressor of these tests is Python's zlib, used as RFC 7692 §7.2.1 says; wsproto's extension is a second one. What a
connection does with the messages is tested with the stream.
"""

import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, RsvBits

from wsengine.engine.inflate import HAVE_ZLIB, MessageInflater
from wsengine.testing.wire import ServerDeflate

TAIL = b"\x00\x00\xff\xff"


def raw(data, *, bits=15, level=6, flush=zlib.Z_SYNC_FLUSH, strategy=zlib.Z_DEFAULT_STRATEGY):
    """One message's payload from a compressor of its own, with the tail."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -bits, 8, strategy)
    return stream.compress(data) + stream.flush(flush)


def cut_at(data, places):
    return [data[start:stop] for start, stop in itertools.pairwise([0, *sorted(places), len(data)])]


def inflated(inflater, pieces, room=65536):
    """One message that comes in pieces."""
    return b"".join(inflater.feed(piece, last=at == len(pieces) - 1, room=room) for at, piece in enumerate(pieces))


def test_this_build_has_zlib():
    assert HAVE_ZLIB is True


# ---- the examples of RFC 7692 §7.2.3

HELLO = bytes.fromhex("f248cdc9c90700")


@pytest.mark.parametrize("pieces", [
    [HELLO], [HELLO[:3], HELLO[3:]], [HELLO[at:at + 1] for at in range(7)], [b"", HELLO[:1], b"", HELLO[1:], b""],
], ids=["whole", "two fragments", "bytes", "empty fragments"])
def test_one_compressed_message_of_7_2_3_1(pieces):
    assert inflated(MessageInflater(), pieces) == b"Hello"


def test_the_window_is_shared_as_in_7_2_3_2():
    inflater = MessageInflater()
    assert inflater.feed(HELLO) == b"Hello"
    assert inflater.feed(bytes.fromhex("f200110000")) == b"Hello"


def test_without_context_takeover_earlier_messages_cannot_be_referred_to():
    inflater = MessageInflater(15, False)
    assert [inflater.feed(HELLO), inflater.feed(HELLO)] == [b"Hello", b"Hello"]
    with pytest.raises(ValueError, match="corrupt"):
        inflater.feed(bytes.fromhex("f200110000"))


def test_a_block_without_compression_of_7_2_3_3():
    assert MessageInflater().feed(bytes.fromhex("000500faff48656c6c6f00")) == b"Hello"


FINAL = bytes.fromhex("f348cdc9c90700")      # one block with BFINAL


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("behind", [b"\x00", b""], ids=["7.2.3.4", "nothing behind it"])
def test_a_final_block_ends_no_more_than_itself(behind, takeover):
    for pieces in ([FINAL + behind], [FINAL, behind], [FINAL[:4], FINAL[4:] + behind], [FINAL, b"", behind]):
        for room in (1, 5, 6, 100):
            inflater = MessageInflater(15, takeover)
            for _ in range(3):
                assert inflated(inflater, pieces, room) == b"Hello"
                assert inflater.feed(HELLO, room=room) == b"Hello"


def test_the_window_outlives_a_final_block():
    inflater = MessageInflater()
    assert inflater.feed(FINAL + b"\x00") == b"Hello"
    assert inflater.feed(bytes.fromhex("f200110000")) == b"Hello"


def test_two_blocks_in_one_message_of_7_2_3_5():
    assert MessageInflater().feed(bytes.fromhex("f248050000 00ffff cac9c90700")) == b"Hello"


@pytest.mark.parametrize("empty", [b"\x00", b"", b"\x02\x00", b"\x03\x00\x00"],
                         ids=["7.2.3.6", "nothing", "fixed block", "final fixed block"])
def test_an_empty_message_is_empty_and_leaves_the_stream_in_order(empty):
    inflater = MessageInflater()
    assert inflater.feed(HELLO) == b"Hello"
    for _ in range(3):
        assert inflater.feed(empty) == b""
    assert inflater.feed(bytes.fromhex("f200110000")) == b"Hello"


# ---- any message, any compressor, any cut

PAYLOADS = st.lists(st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(str.encode),
    st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=20), st.integers(1, 3000)),
), min_size=1, max_size=8)


@settings(max_examples=400, deadline=None)
@given(payloads=PAYLOADS, takeover=st.booleans(), bits=st.integers(9, 15), wider=st.integers(0, 6), level=st.integers(0, 9),
       room=st.sampled_from([1, 2, 7, 64, 1000, 65536]), data=st.data())
def test_what_zlib_compresses_comes_back(payloads, takeover, bits, wider, level, room, data):
    """C41."""
    server = ServerDeflate(takeover=takeover, window_bits=bits, level=level)
    inflater = MessageInflater(min(bits + wider, 15), takeover)
    for payload in payloads:
        sent = server.compress(payload)
        cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=4))
        assert inflated(inflater, cut_at(sent, cuts), max(room, len(payload) // 100)) == payload


@settings(max_examples=100, deadline=None)
@given(payloads=PAYLOADS, flushes=st.lists(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH]),
                                           min_size=8, max_size=8),
       strategy=st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]))
def test_messages_may_be_made_of_several_streams_in_any_flush(payloads, flushes, strategy):
    sent = b"".join(raw(payload, flush=flush, strategy=strategy) for payload, flush in zip(payloads, flushes, strict=False))
    inflater = MessageInflater()
    for _ in range(2):
        assert inflater.feed(sent + b"\x00") == b"".join(payloads)


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("room", [1, 3, 4096])
def test_a_message_may_be_cut_at_every_byte_and_into_single_bytes(takeover, room):
    server, inflater = ServerDeflate(takeover=takeover), MessageInflater(15, takeover)
    text = b'{"type":"ticker","product_id":"BTC-USD","price":"%d"}'
    for number in range(3):
        sent = server.compress(text % number)
        assert inflated(inflater, [sent[at:at + 1] for at in range(len(sent))], room) == text % number
    for cut in range(60):
        sent = server.compress(text % cut)
        assert inflated(inflater, [sent[:cut], sent[cut:]], room) == text % cut


def test_many_messages_with_one_context_are_exact():
    server, inflater = ServerDeflate(), MessageInflater()
    for number in range(20_000):
        payload = b'{"sequence":%d,"price":"%d.%02d","side":"%s"}' % (
            number, 40_000 + number * 7919 % 1000, number % 100, b"buy" if number % 3 else b"sell")
        assert inflater.feed(server.compress(payload)) == payload


def test_a_server_that_agreed_on_8_bits_and_uses_9_is_understood():
    server, inflater = ServerDeflate(window_bits=9), MessageInflater(8)
    payload = bytes(range(256)) * 8
    for _ in range(3):
        assert inflater.feed(server.compress(payload)) == payload


def test_a_reference_beyond_the_agreed_window_is_refused():
    far = b"0123456789abcdef" + bytes(at * 7919 % 251 for at in range(5000)) + b"0123456789abcdef"
    assert MessageInflater(15).feed(raw(far).removesuffix(TAIL)) == far
    stream = raw(far, bits=15).removesuffix(TAIL)
    inflater = MessageInflater(9)
    with pytest.raises(ValueError, match="corrupt"):
        inflated(inflater, [stream[at:at + 100] for at in range(0, len(stream), 100)], 100)


@settings(max_examples=100, deadline=None)
@given(payloads=PAYLOADS, takeover=st.booleans(), bits=st.integers(9, 15))
def test_what_wsproto_compresses_comes_back(payloads, takeover, bits):
    theirs = PerMessageDeflate(server_max_window_bits=bits, server_no_context_takeover=not takeover)
    protocol = FrameProtocol(client=False, extensions=[theirs])
    inflater = MessageInflater(bits, takeover)
    for payload in payloads:
        _, sent = theirs.frame_outbound(protocol, Opcode.BINARY, RsvBits(False, False, False), payload, True)
        assert inflater.feed(sent) == payload


# ---- what is not DEFLATE


@pytest.mark.parametrize("sent", [
    b"\xff", b"\x07", b"\x06\x00", HELLO[:-1] + b"\x07", b"\x00\x05\x00\x00\x00Hello\x00", b"\xf3\x48",
    bytes.fromhex("f200110000"), bytes(range(255, 0, -1)),
], ids=["block type 3", "final block type 3", "block type 3 behind", "broken end", "length and its complement",
        "letters cut short, then tail", "reference to nothing", "nonsense"])
def test_what_is_corrupt_is_refused(sent):
    with pytest.raises(ValueError, match=r"corrupt|unfinished"):
        MessageInflater().feed(sent)


@pytest.mark.parametrize("payload", [b"Hello", b"x" * 1000, bytes(range(256)) * 40])
@pytest.mark.parametrize("level", [0, 1, 6])
def test_a_message_that_was_cut_short_is_refused_wherever_the_cut(payload, level):
    sent = raw(payload, level=level).removesuffix(TAIL)
    for end in [*range(1, min(len(sent), 300)), len(sent) - 1]:
        try:
            got = MessageInflater().feed(sent[:end])
        except ValueError:
            continue
        # Two cuts of stored blocks cannot be seen: the first byte by itself is an empty message, and what stands in for
        # the last four bytes of a block is the tail.
        assert level == 0
        assert got in (b"", payload[:-4] + TAIL)


@settings(max_examples=300, deadline=None)
@given(sent=st.binary(min_size=1, max_size=200), room=st.sampled_from([1, 10, 1000]))
def test_any_bytes_either_inflate_as_zlib_says_or_are_refused(sent, room):
    theirs = zlib.decompressobj(-15)
    try:
        expected = theirs.decompress(sent + TAIL)
    except zlib.error:
        expected = None
    try:
        got = MessageInflater().feed(sent, room=room)
    except ValueError:
        got = None
    if got is not None and not theirs.unused_data and not theirs.eof:
        assert got == expected
    if expected is None:
        assert got is None


@settings(max_examples=300, deadline=None)
@given(payload=st.binary(min_size=1, max_size=300), place=st.integers(0), bit=st.integers(0, 7), pieces=st.integers(1, 5))
def test_a_flipped_bit_gives_a_verdict_that_does_not_depend_on_the_cut(payload, place, bit, pieces):
    sent = bytearray(raw(payload).removesuffix(TAIL))
    sent[place % len(sent)] ^= 1 << bit
    size = len(sent) // pieces + 1
    verdicts = []
    for parts in ([bytes(sent)], [bytes(sent[at:at + size]) for at in range(0, len(sent), size)]):
        for room in (1, 50, 100_000):
            try:
                verdicts.append(inflated(MessageInflater(), parts, room))
            except ValueError:
                verdicts.append(None)
    assert verdicts.count(verdicts[0]) == len(verdicts)


# ---- arguments


@pytest.mark.parametrize("bits", [7, 16, 0, -15])
def test_a_window_that_deflate_does_not_have_is_refused(bits):
    with pytest.raises(ValueError, match=f"server_max_window_bits={bits}: give a number from 8 to 15"):
        MessageInflater(bits)


def test_room_for_nothing_is_refused():
    with pytest.raises(ValueError, match="room=0"):
        MessageInflater().feed(HELLO, room=0)


@pytest.mark.parametrize("wrong", ["text", None, 3, memoryview(b"abcd")[::2]])
def test_what_is_no_contiguous_buffer_is_refused_and_changes_nothing(wrong):
    inflater = MessageInflater()
    begun = inflater.feed(HELLO[:3], last=False)
    with pytest.raises((TypeError, BufferError)):
        inflater.feed(wrong)
    assert begun + inflater.feed(HELLO[3:]) == b"Hello"
