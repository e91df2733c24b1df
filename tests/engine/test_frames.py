"""Behaviour of the frame parser, rule by rule of RFC 6455: what a client takes, what it refuses, with which code, when.

Frames of servers are written out here by hand, so that nothing of the package says what a frame is. The comparison with
another parser on generated streams is in the oracle's tests, and the building of frames in theirs.
"""

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsengine.engine.frames import FrameParser, build_frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CONTROL = (CLOSE, PING, PONG)
LARGEST = 2**63 - 1         # the largest length that a head can announce

#: Lengths around every change of the head's form.
LENGTHS = [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537, 100_000]


def head(opcode, size, *, fin=True, form=None):
    """A frame head without mask; `form` forces a length of 7, 16 or 64 bits, even where it is not minimal."""
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    first = (0x80 if fin else 0) | opcode
    if form == 7:
        return struct.pack("!BB", first, size)
    return struct.pack("!BBH" if form == 16 else "!BBQ", first, 126 if form == 16 else 127, size)


def frame(opcode, payload=b"", *, fin=True):
    return head(opcode, len(payload), fin=fin) + payload


def close(code, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


def parsed(*pieces, max_size=2**20):
    """All events that the pieces bring."""
    parser = FrameParser(max_size)
    return [event for piece in pieces for event in parser.feed(piece)]


def byte_by_byte(data, max_size=2**20):
    """All events that the bytes bring one by one, and how many bytes it took until the Close or failure, if any."""
    parser = FrameParser(max_size)
    events = []
    for at in range(len(data)):
        events += parser.feed(data[at:at + 1])
        if events and events[-1][0] in ("close", "fail"):
            return events, at + 1
    return events, None


def without_problem(events):
    """The events without the wording of a failure, which may differ where one and the same byte breaks two rules."""
    return [event[:2] if event[0] == "fail" else event for event in events]


def refused(data, code, word, *, seen=None, before=(), max_size=2**20):
    """Assert that the bytes fail with the code and a problem that holds the word, whole, in any two pieces and singly.

    `seen`: bytes after which it must show, by default all; `before`: events that come first.
    """
    seen = len(data) if seen is None else seen
    events, taken = byte_by_byte(data, max_size)
    assert taken == seen, events
    kind, found, problem = events[-1]
    assert (kind, found) == ("fail", code), problem
    assert word in problem
    assert events[:-1] == list(before)
    assert parsed(data, max_size=max_size) == events
    for cut in {1, 2, 3, seen - 1, seen, len(data) - 1} & set(range(len(data))):
        assert parsed(data[:cut], data[cut:], max_size=max_size) == events, cut


# ---- whole messages


@pytest.mark.parametrize(("data", "event"), [
    (b"\x81\x05Hello", ("text", b"Hello")),
    (b"\x01\x03Hel\x80\x02lo", ("text", b"Hello")),
    (b"\x89\x05Hello", ("ping", b"Hello")),
    (b"\x82\x7e\x01\x00" + bytes(256), ("binary", bytes(256))),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536), ("binary", bytes(65536))),
], ids=["unmasked text", "fragmented text", "ping", "256 bytes", "64 KiB"])
def test_the_unmasked_examples_of_rfc_6455_5_7_are_taken(data, event):
    assert parsed(data) == [event]


@pytest.mark.parametrize("size", LENGTHS)
@pytest.mark.parametrize(("opcode", "kind"), [(TEXT, "text"), (BINARY, "binary")])
def test_a_message_of_any_length_is_taken_whole_and_in_pieces(opcode, kind, size):
    payload = bytes(at % 127 for at in range(size))
    data = frame(opcode, payload)
    for step in (len(data), 1000, 64, 7):
        pieces = [data[at:at + step] for at in range(0, len(data), step)]
        assert parsed(*pieces) == [(kind, payload)]
    for cut in range(1, min(len(data), 20)):
        assert parsed(data[:cut], data[cut:]) == [(kind, payload)]
        assert parsed(data[:-cut]) == []
        assert parsed(data[:-cut], data[-cut:]) == [(kind, payload)]


def test_a_message_comes_with_its_last_byte_and_not_before():
    for data in (frame(BINARY, b"abc"), frame(TEXT, "é".encode()), frame(TEXT), frame(PING, b"x"), close(1000)):
        assert parsed(data[:-1]) == []
        assert len(parsed(data)) == 1


def test_many_frames_in_one_piece_come_in_their_order():
    data = b"".join(frame(TEXT, b"%d" % at) + frame(PING, b"%d" % at) + frame(BINARY, bytes([at])) for at in range(200))
    expected = [event for at in range(200)
                for event in (("text", b"%d" % at), ("ping", b"%d" % at), ("binary", bytes([at])))]
    assert parsed(data) == expected
    assert byte_by_byte(data) == (expected, None)


def test_nothing_comes_of_no_bytes():
    assert parsed() == []
    assert parsed(b"", b"") == []
    assert parsed(b"\x81", b"", b"\x02", b"", b"h", b"", b"i", b"") == [("text", b"hi")]
    assert parsed(b"\x89", b"", b"\x02", b"", b"h", b"", b"i", b"") == [("ping", b"hi")]


def test_empty_messages_are_messages():
    assert parsed(frame(TEXT) + frame(BINARY) + frame(TEXT)) == [("text", b""), ("binary", b""), ("text", b"")]


def test_payloads_are_copies_that_the_caller_may_overwrite():
    parser = FrameParser()
    buffer = bytearray(frame(BINARY, b"whole") + head(BINARY, 4) + b"ha")
    events = parser.feed(buffer)
    buffer[:] = bytes(len(buffer))
    assert events == [("binary", b"whole")]
    assert parser.feed(memoryview(b"lf")) == [("binary", b"half")]


@pytest.mark.parametrize(("wrong", "error"), [("text", TypeError), (None, TypeError), (3, TypeError),
                                              (memoryview(b"abcd")[::2], BufferError)])
def test_what_is_no_contiguous_buffer_is_refused_and_changes_nothing(wrong, error):
    parser = FrameParser()
    parser.feed(b"\x81\x02h")
    with pytest.raises(error):
        parser.feed(wrong)
    assert parser.feed(b"i") == [("text", b"hi")]


# ---- fragments (RFC 6455 §5.4)


def test_fragments_are_put_together_with_empty_ones_anywhere():
    for cuts in itertools.combinations_with_replacement(range(6), 3):
        pieces = [b"hello"[start:stop] for start, stop in itertools.pairwise([0, *cuts, 5])]
        for opcode, kind in ((TEXT, "text"), (BINARY, "binary")):
            data = frame(opcode, pieces[0], fin=False)
            data += b"".join(frame(CONTINUATION, piece, fin=False) for piece in pieces[1:-1])
            data += frame(CONTINUATION, pieces[-1])
            assert parsed(data) == [(kind, b"hello")]
            assert byte_by_byte(data) == ([(kind, b"hello")], None)


def test_a_message_of_only_empty_fragments_is_an_empty_message():
    data = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 3
    assert parsed(data) == []
    assert parsed(data + frame(CONTINUATION)) == [("text", b"")]


def test_control_frames_between_fragments_come_before_the_message():
    data = (frame(TEXT, b"a", fin=False) + frame(PING, b"1") + frame(CONTINUATION, b"b", fin=False) + frame(PONG)
            + frame(PING, b"2" * 125) + frame(CONTINUATION, b"c") + frame(BINARY, b"d"))
    expected = [("ping", b"1"), ("pong", b""), ("ping", b"2" * 125), ("text", b"abc"), ("binary", b"d")]
    assert parsed(data) == expected
    assert byte_by_byte(data) == (expected, None)
    for cut in range(len(data)):
        assert parsed(data[:cut], data[cut:]) == expected


def test_a_close_between_fragments_ends_all():
    data = frame(TEXT, b"a", fin=False) + close(1001, b"bye") + frame(CONTINUATION, b"b")
    assert parsed(data) == [("close", 1001, "bye")]


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_of_nothing_is_refused_at_its_head(fin):
    refused(frame(CONTINUATION, b"abc", fin=fin), 1002, "continuation", seen=2)
    refused(frame(TEXT, b"a") + frame(CONTINUATION, b"b", fin=fin), 1002, "continuation", seen=5,
            before=[("text", b"a")])
    refused(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b") + frame(CONTINUATION, fin=fin), 1002,
            "continuation", before=[("text", b"ab")])
    refused(frame(PING, b"a") + frame(CONTINUATION, fin=fin), 1002, "continuation", before=[("ping", b"a")])


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize(("first", "second"), [(TEXT, TEXT), (TEXT, BINARY), (BINARY, TEXT), (BINARY, BINARY)])
def test_a_new_message_inside_a_fragmented_one_is_refused_at_its_head(first, second, fin):
    start = frame(first, b"a", fin=False)
    refused(start + frame(second, b"b", fin=fin), 1002, "new message", seen=5)
    refused(start + frame(CONTINUATION, fin=False) + frame(second, b"b" * 200, fin=fin), 1002, "new message", seen=7)
    refused(start + frame(PONG) + frame(second, fin=fin), 1002, "new message", before=[("pong", b"")])


# ---- heads (RFC 6455 §5.2)


def taken_by_rfc(first, second, in_message):
    """Whether a client may take a frame with these first two bytes, without an extension."""
    opcode, final, size = first & 0x0F, first >= 0x80, second & 0x7F
    if first & 0x70 or second & 0x80:
        return False
    if opcode in CONTROL:
        return final and size <= 125
    return opcode == CONTINUATION if in_message else opcode in (TEXT, BINARY)


@pytest.mark.parametrize("in_message", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_each_of_the_65536_first_two_bytes_is_taken_or_refused_at_once(in_message, cut):
    start = frame(BINARY, b"a", fin=False) if in_message else b""
    wrong = []
    for first, second in itertools.product(range(256), range(256)):
        data = bytes([first, second])
        parser = FrameParser()
        events = parser.feed(start)
        events = parser.feed(data[:1]) + parser.feed(data[1:]) if cut else parser.feed(data)
        failed = [event[:2] for event in events] == [("fail", 1002)]
        if failed is taken_by_rfc(first, second, in_message):
            wrong.append((first, second, events))
    assert wrong == []


@pytest.mark.parametrize("opcode", [TEXT, BINARY, *CONTROL])
def test_a_masked_frame_is_refused_at_its_head(opcode):
    refused(build_frame(opcode, b"", mask=b"abcd"), 1002, "masked", seen=2)
    refused(build_frame(opcode, b"x" * 50), 1002, "masked", seen=2)
    refused(frame(TEXT, b"ok") + build_frame(opcode, b"", mask=bytes(4)), 1002, "masked", seen=6,
            before=[("text", b"ok")])


@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, *CONTROL])
def test_a_reserved_bit_is_refused_at_its_head(opcode, bit):
    data = bytearray(frame(opcode, b"x" * 20))
    data[0] |= bit
    refused(bytes(data), 1002, "reserved", seen=2)


@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
def test_a_reserved_bit_is_refused_on_a_continuation_too(bit):
    data = bytearray(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"))
    data[3] |= bit
    refused(bytes(data), 1002, "reserved", seen=5)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("fin", [True, False])
def test_an_unknown_opcode_is_refused_at_its_head(opcode, fin):
    refused(frame(opcode, b"xyz", fin=fin), 1002, "unknown", seen=2)
    refused(frame(opcode, b"x" * 300, fin=fin), 1002, "unknown", seen=2)
    refused(frame(TEXT, b"a", fin=False) + frame(opcode, fin=fin), 1002, "unknown")


# ---- lengths (RFC 6455 §5.2)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_length_is_taken_only_in_its_shortest_form(opcode):
    for size in range(126):
        refused(head(opcode, size, form=16) + bytes(size), 1002, "minimal", seen=4)
    for size in (0, 1, 125, 126, 127, 255, 256, 65534, 65535):
        refused(head(opcode, size, form=64), 1002, "minimal", seen=10)
    assert len(parsed(head(opcode, 126, form=16) + bytes(126))) == 1
    assert len(parsed(head(opcode, 65536, form=64) + bytes(65536))) == 1


def test_a_length_with_its_top_bit_set_is_refused_whatever_the_limit():
    for size in (2**63, 2**63 + 5, 2**64 - 1):
        for limit in (0, 2**20, 2**64 - 1):
            refused(head(BINARY, size, form=64), 1002, "top bit", max_size=limit)


def test_a_length_of_63_bits_is_a_length():
    assert parsed(head(BINARY, LARGEST) + b"abc", max_size=LARGEST) == []
    refused(head(BINARY, LARGEST), 1009, "max_size", max_size=LARGEST - 1)
    refused(head(BINARY, LARGEST), 1009, "max_size")


def test_the_lengths_of_a_continuation_follow_the_same_rules():
    start = frame(TEXT, b"ab", fin=False)
    refused(start + head(CONTINUATION, 125, form=16), 1002, "minimal")
    refused(start + head(CONTINUATION, 65535, form=64), 1002, "minimal")
    refused(start + head(CONTINUATION, 2**63, form=64), 1002, "top bit")
    assert parsed(start + frame(CONTINUATION, b"c" * 126)) == [("text", b"ab" + b"c" * 126)]


# ---- max_size


@pytest.mark.parametrize("limit", [1, 2, 125, 126, 65535, 65536, 70_000])
def test_a_message_of_exactly_max_size_is_taken_and_one_byte_more_is_refused_at_the_head(limit):
    for opcode, kind in ((TEXT, "text"), (BINARY, "binary")):
        payload = b"a" * limit
        assert parsed(frame(opcode, payload), max_size=limit) == [(kind, payload)]
        too_long = head(opcode, limit + 1)
        refused(too_long, 1009, "max_size", max_size=limit)
        refused(too_long + b"a" * 10, 1009, "max_size", seen=len(too_long), max_size=limit)


def test_fragments_count_together_and_are_refused_at_the_head_that_goes_beyond():
    start = frame(TEXT, b"a" * 60, fin=False) + frame(CONTINUATION, b"b" * 40, fin=False)
    assert parsed(start + frame(CONTINUATION), max_size=100) == [("text", b"a" * 60 + b"b" * 40)]
    assert parsed(start + frame(CONTINUATION, fin=False) * 9, max_size=100) == []
    refused(start + frame(CONTINUATION, b"c", fin=False), 1009, "max_size", seen=len(start) + 2, max_size=100)
    refused(start + head(CONTINUATION, 70_000), 1009, "max_size", max_size=100)
    refused(start, 1009, "max_size", seen=64, max_size=99)


def test_the_sum_of_the_fragments_cannot_wrap_around():
    start = frame(BINARY, b"a" * 16, fin=False)
    for size in (LARGEST, LARGEST - 1, LARGEST - 15):
        refused(start + head(CONTINUATION, size), 1009, "max_size", max_size=LARGEST)
    assert parsed(start + head(CONTINUATION, LARGEST - 16) + b"b", max_size=LARGEST) == []


def test_the_count_starts_anew_with_each_message():
    data = frame(TEXT, b"a" * 10) + frame(BINARY, b"b" * 6, fin=False) + frame(CONTINUATION, b"c" * 4)
    expected = [("text", b"a" * 10), ("binary", b"b" * 6 + b"c" * 4)]
    assert parsed(data * 3, max_size=10) == expected * 3
    assert byte_by_byte(data * 3, max_size=10) == (expected * 3, None)


def test_control_frames_do_not_count():
    data = frame(PING, b"p" * 125) + frame(TEXT, fin=False) + frame(PONG, b"q" * 125) + frame(CONTINUATION)
    assert parsed(data + close(1000, b"bye"), max_size=0) == [
        ("ping", b"p" * 125), ("pong", b"q" * 125), ("text", b""), ("close", 1000, "bye")]
    refused(frame(BINARY, b"x"), 1009, "max_size", seen=2, max_size=0)


def test_a_limit_that_is_no_64_bit_number_is_an_error():
    for wrong in (-1, 2**64):
        with pytest.raises(OverflowError):
            FrameParser(wrong)


# ---- UTF-8 (RFC 6455 §8.1)

#: (bytes, how many of them it takes to see that they are not UTF-8)
BROKEN_TEXT = [
    (b"\x80abc", 1), (b"\xff\xff", 1), (b"\xc0\xaf", 1), (b"\xc3(", 2), (b"\xe0\x80\x80", 2), (b"\xed\xa0\x80", 2),
    (b"\xe2\x82(", 3), (b"\xf0\x80\x80\x80", 2), (b"\xf4\x90\x80\x80", 2), (b"\xf0\x9f\x98\xff", 4),
    ("κόσμε".encode() + b"\xf4\x90\x80\x80edited", len("κόσμε".encode()) + 2), (b"a" * 200 + b"\xf8", 201),
]


def test_a_text_may_be_cut_into_fragments_and_pieces_within_its_characters():
    payload = "aé€😀".encode()
    for cuts in itertools.combinations(range(len(payload) + 1), 2):
        first, second, third = (payload[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(payload)]))
        data = frame(TEXT, first, fin=False) + frame(PING, b"\xff") + frame(CONTINUATION, second, fin=False)
        data += frame(CONTINUATION, fin=False) + frame(PONG) + frame(CONTINUATION, third)
        expected = [("ping", b"\xff"), ("pong", b""), ("text", payload)]
        assert parsed(data) == expected
        assert byte_by_byte(data) == (expected, None)


@pytest.mark.parametrize(("payload", "seen"), BROKEN_TEXT)
def test_a_broken_text_is_refused_at_the_first_byte_that_shows_it(payload, seen):
    size = len(frame(TEXT, payload)) - len(payload)
    refused(frame(TEXT, payload), 1007, "UTF-8", seen=size + seen)
    refused(head(TEXT, 5000) + payload, 1007, "UTF-8", seen=4 + seen)
    refused(frame(TEXT, payload, fin=False), 1007, "UTF-8", seen=size + seen)
    for cut in range(max(0, seen - 4), seen):
        data = frame(TEXT, payload[:cut], fin=False) + frame(CONTINUATION, payload[cut:])
        refused(data, 1007, "UTF-8", seen=len(data) - len(payload) + seen)


@pytest.mark.parametrize("unfinished", [b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x98"])
def test_a_text_that_ends_within_a_character_is_refused_at_its_end(unfinished):
    for before in (b"", b"a" * 64, "é".encode() * 70):
        payload = before + unfinished
        assert parsed(frame(TEXT, payload, fin=False)) == []
        refused(frame(TEXT, payload, fin=False) + frame(PONG) + frame(CONTINUATION), 1007, "within a character",
                before=[("pong", b"")])
        events = [parsed(frame(TEXT, payload)), parsed(frame(TEXT, fin=False) + frame(CONTINUATION, payload)),
                  byte_by_byte(frame(TEXT, payload))[0]]
        assert [without_problem(one) for one in events] == [[("fail", 1007)]] * 3
        assert byte_by_byte(frame(TEXT, payload))[1] == len(frame(TEXT, payload))


def test_each_text_is_judged_from_its_own_beginning():
    good = frame(TEXT, "é".encode()[:1], fin=False) + frame(CONTINUATION, "é".encode()[1:])
    assert parsed(good + frame(BINARY, b"\xc3") + good + frame(TEXT, b"a")) == [
        ("text", "é".encode()), ("binary", b"\xc3"), ("text", "é".encode()), ("text", b"a")]
    refused(good + frame(TEXT, b"\xa9"), 1007, "UTF-8", before=[("text", "é".encode())])


def test_binary_messages_pings_and_pongs_may_hold_any_bytes():
    junk = b"\xff\xfe\xc0\x80\xed\xa0\x80\xc3"
    data = (frame(BINARY, junk) + frame(BINARY, junk, fin=False) + frame(PING, junk) + frame(CONTINUATION, junk)
            + frame(PONG, junk))
    expected = [("binary", junk), ("ping", junk), ("binary", junk * 2), ("pong", junk)]
    assert parsed(data) == expected
    assert byte_by_byte(data) == (expected, None)


# ---- control frames (RFC 6455 §5.5)


@pytest.mark.parametrize(("opcode", "kind"), [(PING, "ping"), (PONG, "pong")])
def test_pings_and_pongs_of_up_to_125_bytes_come_in_any_cut(opcode, kind):
    for size in range(126):
        payload = bytes(range(size))
        data = frame(opcode, payload)
        assert parsed(data) == [(kind, payload)]
        for cut in range(0, len(data), 1 if size in (0, 1, 2, 124, 125) else 9):
            assert parsed(data[:cut], data[cut:]) == [(kind, payload)]


def test_control_frames_in_pieces_do_not_mix():
    data = frame(PING, b"a" * 125) + frame(PONG, b"b" * 125) + frame(PING) + frame(PONG, b"c") + close(1000, b"d" * 123)
    expected = [("ping", b"a" * 125), ("pong", b"b" * 125), ("ping", b""), ("pong", b"c"), ("close", 1000, "d" * 123)]
    assert parsed(data) == expected
    assert byte_by_byte(data) == (expected, len(data))
    for cut in range(len(data)):
        assert parsed(data[:cut], data[cut:]) == expected


@pytest.mark.parametrize("opcode", CONTROL)
def test_a_control_frame_above_125_bytes_is_refused_at_its_head(opcode):
    refused(frame(opcode, bytes(126)), 1002, "125", seen=2)
    refused(head(opcode, 65536), 1002, "125", seen=2)
    refused(head(opcode, 5, form=16), 1002, "125", seen=2)
    refused(frame(TEXT, b"a", fin=False) + frame(opcode, bytes(126)), 1002, "125", seen=5)


@pytest.mark.parametrize("opcode", CONTROL)
def test_a_fragmented_control_frame_is_refused_at_its_head(opcode):
    refused(frame(opcode, b"ab", fin=False), 1002, "fragmented", seen=2)
    refused(frame(opcode, fin=False) + frame(CONTINUATION), 1002, "fragmented", seen=2)


# ---- Close (RFC 6455 §5.5.1, §7.4)

#: What an endpoint may send: RFC 6455 §7.4.1 without 1004-1006 and 1015; 1012-1014 of the IANA registry; §7.4.2.
CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, *range(3000, 5000)}


def test_a_close_without_a_code_is_1005():
    assert parsed(b"\x88\x00") == [("close", 1005, "")]
    assert parsed(b"\x88", b"\x00") == [("close", 1005, "")]


@pytest.mark.parametrize("byte", [0, 3, 255])
def test_a_close_of_one_byte_is_refused(byte):
    refused(frame(CLOSE, bytes([byte])), 1002, "one byte")


@pytest.mark.parametrize("reason", [b"", b"why"])
def test_every_close_code_is_taken_or_refused_by_the_rfc_and_the_registry(reason):
    taken = set()
    for code in range(65536):
        [event] = parsed(close(code, reason))
        if event == ("close", code, reason.decode()):
            taken.add(code)
        else:
            assert event[:2] == ("fail", 1002), code
            assert "code" in event[2]
    assert taken == CODES


def test_a_close_reason_comes_as_text_of_up_to_123_bytes_in_any_cut():
    for reason in ("", "a", "geschlossen · 終了 😀", "x" * 123, "é" * 61):
        data = close(4999, reason.encode())
        for cut in range(len(data)):
            assert parsed(data[:cut], data[cut:]) == [("close", 4999, reason)]


@pytest.mark.parametrize(("reason", "seen"), BROKEN_TEXT[:-1])
def test_a_close_reason_that_is_not_utf_8_is_refused(reason, seen):
    refused(close(1000, reason), 1007, "close reason")
    refused(close(3000, reason[:seen]), 1007, "close reason")
    refused(frame(TEXT, b"a") + close(1000, "é".encode()[:1]), 1007, "close reason", before=[("text", b"a")])


def test_a_forbidden_code_goes_before_a_broken_reason():
    refused(close(1005, b"\xff"), 1002, "code")


# ---- the end


ENDINGS = {
    "Close": b"\x88\x00",
    "Close with a code": close(1000, b"bye"),
    "masked frame": build_frame(TEXT, b""),
    "wrong length": head(TEXT, 3, form=16),
    "too long": head(TEXT, 2**30),
    "broken text": frame(TEXT, b"\xff"),
    "broken text in pieces": frame(TEXT, b"a", fin=False) + head(CONTINUATION, 9) + b"\xff",
    "broken close": frame(CLOSE, b"x"),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_nothing_follows_a_close_or_a_failure(ending):
    after = frame(TEXT, b"late") + frame(PING, b"late") + close(1000) + b"\xff" * 20
    parser = FrameParser()
    assert parser.feed(frame(TEXT, b"before")) == [("text", b"before")]
    [event] = parser.feed(ending + after)
    assert event[0] in ("close", "fail")
    for piece in (b"", after, after[:1], after[1:], frame(TEXT, b"more"), frame(CONTINUATION, b"x")):
        assert parser.feed(piece) == []


def test_parsers_share_nothing():
    one, two = FrameParser(), FrameParser()
    assert one.feed(frame(TEXT, b"\xc3", fin=False)) == []
    assert two.feed(frame(CONTINUATION))[0][:2] == ("fail", 1002)
    assert one.feed(frame(CONTINUATION, b"\xa9")) == [("text", "é".encode())]


# ---- independence of the cut


SOME_FRAME = st.builds(frame, st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]),
                       st.one_of(st.binary(max_size=12), st.text(max_size=6).map(str.encode),
                                 st.sampled_from([b"\x03\xe8ok", b"\x03\xe8", b"a" * 125, b"a" * 126, b"a" * 300])),
                       fin=st.booleans())


@settings(deadline=None, max_examples=200)
@given(data=st.lists(st.one_of(SOME_FRAME, st.binary(max_size=6)), max_size=8).map(b"".join),
       cuts=st.lists(st.integers(0, 400), max_size=8), max_size=st.sampled_from([5, 130, 2**20]))
def test_the_cut_of_the_input_changes_nothing(data, cuts, max_size):
    places = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[start:stop] for start, stop in itertools.pairwise([0, *places, len(data)])]
    whole = without_problem(parsed(data, max_size=max_size))
    assert without_problem(parsed(*pieces, max_size=max_size)) == whole
    assert without_problem(byte_by_byte(data, max_size)[0]) == whole


# ---- compressed messages (RFC 7692 §6), where the extension was agreed on; the parser does not look into them


def deflated(opcode, payload, *, fin=True, rsv=4):
    data = frame(opcode, payload, fin=fin)
    return bytes([data[0] | rsv << 4]) + data[1:]


def with_deflate(*pieces, max_size=2**20):
    parser = FrameParser(max_size, True)
    return [event for piece in pieces for event in parser.feed(piece)]


def test_rsv1_marks_a_compressed_message_which_is_told_as_it_was_sent():
    data = (deflated(TEXT, b"\xff\xfe") + frame(TEXT, b"plain") + deflated(BINARY, b"a", fin=False) + frame(PING, b"?")
            + frame(CONTINUATION, b"b", fin=False) + frame(CONTINUATION, b"c") + deflated(TEXT, b"")
            + frame(BINARY, b"d", fin=False) + frame(CONTINUATION, b"e") + deflated(BINARY, bytes(70_000)))
    expected = [("deflated text", b"\xff\xfe"), ("text", b"plain"), ("ping", b"?"), ("deflated binary", b"abc"),
                ("deflated text", b""), ("binary", b"de"), ("deflated binary", bytes(70_000))]
    assert with_deflate(data) == expected
    assert with_deflate(*(data[at:at + 1] for at in range(len(data)))) == expected
    for cut in range(60):
        assert with_deflate(data[:cut], data[cut:]) == expected


def test_text_behind_a_compressed_message_is_checked_as_ever():
    assert with_deflate(deflated(TEXT, b"\xc3") + frame(TEXT, b"\xa9"))[-1][:2] == ("fail", 1007)
    assert with_deflate(deflated(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"") + frame(TEXT, "é".encode())) == [
        ("deflated text", b"\xc3"), ("text", "é".encode())]


@pytest.mark.parametrize(("data", "word"), [
    (deflated(TEXT, b"x", rsv=2), "does not use"), (deflated(TEXT, b"x", rsv=5), "does not use"),
    *((deflated(opcode, b""), "control frame that is marked") for opcode in CONTROL),
    (deflated(CONTINUATION, b"x"), "continuation frame that is marked"),
    (deflated(3, b"x"), "unknown data opcode"),
])
def test_reserved_bits_elsewhere_are_refused_at_the_head(data, word):
    for before in (b"", deflated(TEXT, b"x") if data[0] & 15 else deflated(TEXT, b"x", fin=False)):
        event = with_deflate(before + data[:2])[-1]
        assert event[:2] == ("fail", 1002)
        assert word in event[2]
        assert with_deflate(before, data[:1], data[1:])[-1] == event


@pytest.mark.parametrize("first", [0x40, 0x20, 0x10, 0x70])
def test_without_the_extension_every_reserved_bit_is_refused(first):
    refused(bytes([0x81 | first, 1]) + b"x", 1002, "no extension was negotiated", seen=2)


def test_the_size_of_a_compressed_message_is_bounded_at_its_head_by_twice_max_size_and_a_kibibyte():
    most = 2 * 100 + 1024
    assert with_deflate(deflated(BINARY, bytes(most)), max_size=100) == [("deflated binary", bytes(most))]
    assert with_deflate(deflated(BINARY, bytes(most + 1))[:4], max_size=100)[0][:2] == ("fail", 1009)
    assert with_deflate(deflated(BINARY, bytes(most), fin=False) + frame(CONTINUATION, b"x")[:2],
                        max_size=100)[0][:2] == ("fail", 1009)
    assert with_deflate(frame(BINARY, bytes(101))[:2], max_size=100)[0][:2] == ("fail", 1009)
    assert with_deflate(deflated(BINARY, b"x", fin=False) + frame(CONTINUATION, b"y"), max_size=LARGEST) == [
        ("deflated binary", b"xy")]
