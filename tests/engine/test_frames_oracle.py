"""The frame parser against an oracle: wsproto reads the same streams, whole ones and broken ones, in the same pieces.

Both must tell the same events and end at the same byte in the same way. Where wsproto is known to judge otherwise, the
table DIFFERENCES says so, with a reason and an example that a test of its own shows to be a difference. The rules one
by one are in the parser's own tests.
"""

import itertools
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from wsengine.engine.frames import FrameParser

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: wsproto has no limit of its own, so that ours must be out of reach: see DIFFERENCES.
UNLIMITED = 2**63 - 1

#: Bytes that bring a late failure of wsproto to light: they complete a length, begin a payload, break a character that
#: is cut, and end a fragmented text.
FILLER = b"\x80\x00" * 8

NAMES = {Opcode.TEXT: "text", Opcode.BINARY: "binary", Opcode.PING: "ping", Opcode.PONG: "pong"}


def head(first, size, form=None):
    """A frame head; `form` forces a length of 7, 16 or 64 bits."""
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    if form == 7:
        return struct.pack("!BB", first, size)
    return struct.pack("!BBH" if form == 16 else "!BBQ", first, 126 if form == 16 else 127, size)


def frame(opcode, payload=b"", *, fin=True):
    return head((0x80 if fin else 0) | opcode, len(payload)) + payload


def close(code, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


# ---- the two readers, with the same events: (kind, payload), ("close", code, reason), ("fail", code)


class Ours:
    """The parser under test; the wording of failures is not compared."""

    def __init__(self, max_size=UNLIMITED):
        self.parser = FrameParser(max_size)
        self.problem = ""

    def feed(self, data):
        events = self.parser.feed(data)
        if events and events[-1][0] == "fail":
            self.problem = events[-1][2]
            events[-1] = events[-1][:2]
        return events


class Theirs:
    """wsproto as a client; messages, which it hands out piece by piece, are put together."""

    def __init__(self):
        self.protocol = FrameProtocol(client=True, extensions=[])
        self.parts = []

    def feed(self, data):
        self.protocol.receive_bytes(data)
        events = []
        try:
            for one in self.protocol.received_frames():
                events += self.event(one)
        except ParseFailed as failure:
            events.append(("fail", int(failure.code)))
        return events

    def event(self, one):
        if one.opcode is Opcode.CLOSE:
            return [("close", int(one.payload[0]), one.payload[1])]
        if one.opcode.iscontrol():
            return [(NAMES[one.opcode], bytes(one.payload))]
        self.parts.append(one.payload.encode() if isinstance(one.payload, str) else bytes(one.payload))
        if not one.message_finished:
            return []
        whole, self.parts = b"".join(self.parts), []
        return [(NAMES[one.opcode], whole)]


def read(reader, *pieces):
    return [event for piece in pieces for event in reader.feed(piece)]


def ended(events):
    """The Close or the failure among the events, None if there is none."""
    return events[-1] if events and events[-1][0] in ("close", "fail") else None


def without_ending(events):
    """The events before the Close or the failure."""
    return events[:-1] if ended(events) else events


def cut_at(data, places):
    """The data in pieces, cut at the places that lie inside it."""
    inside = sorted(place for place in places if place <= len(data))
    return [data[start:stop] for start, stop in itertools.pairwise([0, *inside, len(data)])]


# ---- where wsproto is known to differ


class Difference(NamedTuple):
    """A judgement that wsproto does not share.

    `applies(seen, ending, problem)` recognises it by the bytes up to our ending, the ending, and its wording.
    `theirs` is wsproto's ending on the same bytes, None if it has none yet; then FILLER must bring it to ours.
    """

    reason: str
    example: bytes
    ours: tuple[object, ...]
    theirs: tuple[object, ...] | None
    applies: Callable[[bytes, tuple[object, ...], str], bool]


def ends_with_close_1014(seen, ending, problem):
    """Whether the bytes end with a Close frame of this code."""
    del ending, problem
    return any(seen[-size - 2:-size] == bytes([0x88, size]) and seen[-size:].startswith(b"\x03\xf6")
               for size in range(2, 126))


DIFFERENCES = {
    "1014 is a code": Difference(
        "wsproto lists 1012 and 1013 of the IANA registry, but not 1014 (bad gateway), and refuses it as reserved",
        close(1014, b"bad gateway"), ("close", 1014, "bad gateway"), ("fail", 1002),
        lambda seen, ending, problem: ending[:2] == ("close", 1014) and ends_with_close_1014(seen, ending, problem)),
    "1014 with a broken reason": Difference(
        "as the code is one to us, the reason is what we refuse; wsproto stops at the code",
        close(1014, b"\xff"), ("fail", 1007), ("fail", 1002),
        lambda seen, ending, problem: "close reason" in problem and ends_with_close_1014(seen, ending, problem)),
    "reserved bit, later": Difference(
        "wsproto looks at the reserved bits only when a longer length is complete, we at the first two bytes",
        b"\xc1\x7e", ("fail", 1002), None,
        lambda seen, ending, problem: "reserved" in problem and seen[-1] & 0x7F >= 126),
    "mask, later": Difference(
        "wsproto looks at the mask bit, too, only when a longer length is complete",
        b"\x81\xff", ("fail", 1002), None,
        lambda seen, ending, problem: "masked" in problem and seen[-1] & 0x7F >= 126),
    "wrong continuation, later": Difference(
        "wsproto judges the order of frames when the first payload byte comes, we at the head",
        b"\x80\x01", ("fail", 1002), None,
        lambda seen, ending, problem: "continuation" in problem and seen[-1] != 0),
    "new message inside another, later": Difference(
        "for the same reason",
        b"\x01\x00\x82\x7e", ("fail", 1002), None,
        lambda seen, ending, problem: "new message" in problem and seen[-1] != 0),
    "surrogate, later": Difference(
        "Python's incremental decoder takes the first two bytes of a surrogate and refuses the third",
        b"\x01\x02\xed\xa0", ("fail", 1007), None,
        lambda seen, ending, problem: problem == "text message that is not UTF-8" and 0xA0 <= seen[-1] <= 0xBF),
}


def explain(seen, pieces, ours, problem, theirs, oracle):
    """Assert that a different ending of wsproto is one of the table."""
    known = [name for name, one in DIFFERENCES.items() if ours and one.applies(seen, ours, problem)
             and (one.theirs is None) == (theirs is None) and one.theirs in (None, theirs)]
    assert known, f"{pieces}: ours {ours} {problem!r}, theirs {theirs}"
    if theirs is None:
        assert ended(oracle.feed(FILLER)) == ours, f"{pieces}: not even later, {known}"


def compare(data, *cuts):
    """Assert that both read the data alike, in the pieces that the cuts make, and that ours does not care for cuts."""
    ours = Ours()
    single, seen = [], len(data)
    for at in range(len(data)):
        single += ours.feed(data[at:at + 1])
        if ended(single):
            seen = at + 1
            break
    for places in cuts or [()]:
        assert read(Ours(), *cut_at(data, places)) == single, (data, places)
        agree(data[:seen], cut_at(data[:seen], places), single, ours.problem)
    return single


def agree(seen, pieces, events, problem):
    """Assert that wsproto has the same events after the same bytes, and has not ended before the last of them."""
    oracle = Theirs()
    theirs = read(oracle, *pieces)
    assert without_ending(theirs) == without_ending(events), pieces
    if ended(theirs) != ended(events):
        explain(seen, pieces, ended(events), problem, ended(theirs), oracle)
    if ended(events):
        assert ended(read(Theirs(), seen[:-1])) is None, f"wsproto sees it before: {pieces}"


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_known_difference_is_one(name):
    one = DIFFERENCES[name]
    ours, theirs = Ours(), Theirs()
    found = ended(read(ours, one.example)), ended(read(theirs, one.example))
    assert found == (one.ours, one.theirs)
    assert found[0] != found[1]
    assert one.applies(one.example, one.ours, ours.problem)
    if one.theirs is None:
        assert ended(theirs.feed(FILLER)) == one.ours
    compare(one.example, *([place] for place in range(len(one.example))))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_known_difference_excuses_nothing_else(name):
    others = [frame(TEXT, b"\xff"), frame(TEXT, b"\xc3"), close(1004), close(1000, b"\xff"), close(1000), b"\xc1\x05",
              b"\x81\x80", b"\x80\x00", b"\x01\x00\x81\x00", b"\x83\x00", b"\x09\x00", b"\x89\x7e", b"\x81\x7e\x00\x05"]
    for data in others:
        ours = Ours()
        ending = ended(read(ours, data))
        assert ending
        assert not DIFFERENCES[name].applies(data, ending, ours.problem), data


def test_wsproto_has_no_limit_of_its_own():
    data = frame(BINARY, bytes(100))
    assert read(Ours(max_size=99), data) == [("fail", 1009)]
    assert read(Theirs(), data) == read(Ours(max_size=100), data) == [("binary", bytes(100))]


def test_wsproto_hands_out_the_beginning_of_a_message_that_then_fails():
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(frame(TEXT, b"begun", fin=False))
    assert [one.payload for one in protocol.received_frames()] == ["begun"]
    assert read(Ours(), frame(TEXT, b"begun", fin=False)) == []
    assert read(Ours(), frame(TEXT, b"begun", fin=False) + frame(TEXT)) == [("fail", 1002)]


def test_wsproto_gives_text_as_str_and_we_give_its_bytes():
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(frame(TEXT, "é".encode()))
    assert [one.payload for one in protocol.received_frames()] == ["é"]
    assert read(Ours(), frame(TEXT, "é".encode())) == [("text", "é".encode())]


# ---- fixed streams, in every cut


SHORT = {
    "text": frame(TEXT, "aé€😀".encode()),
    "fragments": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION, b"b"),
    "cut character": frame(TEXT, b"\xf0\x9f", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"\x98\x80"),
    "controls": frame(PING) + frame(PONG, b"12") + frame(PING, b"3") + b"\x88\x00",
    "close": close(1000, "é".encode()) + frame(TEXT, b"x"),
    "close without code": frame(BINARY, b"\xff") + b"\x88\x00\x88\x00",
    "close of one byte": frame(CLOSE, b"\x03"),
    "close 1005": close(1005),
    "close 1014": close(1014, b"x"),
    "close 1014, broken": close(1014, b"\xff"),
    "broken reason": close(3000, b"\xe2\x82"),
    "broken text": frame(TEXT, b"ab\xffcd"),
    "unfinished text": frame(TEXT, b"ab\xe2\x82"),
    "unfinished fragments": frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82"),
    "surrogate": frame(TEXT, b"a\xed\xa0\x80b"),
    "surrogate in fragments": frame(TEXT, b"\xed", fin=False) + frame(CONTINUATION, b"\xbf", fin=False) + b"\x80\x01a",
    "surrogate, then close": frame(TEXT, b"\xed\xa0", fin=False) + close(1000),
    "too large a character": frame(TEXT, b"\xf4\x90\x80\x80"),
    "masked": b"\x81\x82abcdef",
    "masked, longer": b"\x82\xfe\x00\x7eabcd",
    "masked ping": b"\x89\x80abcd",
    "reserved bit": b"\xa1\x02hi",
    "reserved bit, longer": b"\x92\x7f" + bytes(8),
    "unknown opcodes": b"\x83\x01a",
    "unknown control": b"\x8b\x00",
    "fragmented ping": b"\x09\x00\x80\x00",
    "long ping": b"\x89\x7e\x00\x80",
    "nothing to continue": b"\x80\x05hello",
    "nothing to continue, empty": b"\x00\x00",
    "two messages": b"\x01\x01a\x81\x01b",
    "two messages, empty": b"\x01\x00\x82\x00",
    "two messages, longer": b"\x01\x00\x82\x7e\x01\x00\xff\xff",
    "length in 16 bits": head(0x82, 3, 16) + b"abc",
    "length in 64 bits": head(0x82, 300, 64) + b"ab",
    "top bit": head(0x81, 2**63, 64),
    "63 bits": head(0x82, 2**63 - 1) + b"abc",
    "invalid at the second": frame(TEXT, b"ok") + b"\x00",
}


@pytest.mark.parametrize("data", SHORT.values(), ids=SHORT.keys())
def test_a_short_stream_is_read_alike_at_every_split(data):
    compare(data, (), range(len(data)), *([place] for place in range(len(data) + 1)),
            *itertools.combinations(range(1, len(data)), 2))


@pytest.mark.parametrize("data", [data for data in SHORT.values() if len(data) <= 9],
                         ids=[name for name, data in SHORT.items() if len(data) <= 9])
def test_a_very_short_stream_is_read_alike_in_all_its_pieces(data):
    places = range(1, len(data))
    compare(data, *(cuts for count in range(len(data)) for cuts in itertools.combinations(places, count)))


#: Second bytes of heads, around all that they decide.
SECONDS = [0, 1, 2, 125, 126, 127, 128, 129, 253, 254, 255]


@pytest.mark.parametrize("start", [b"", frame(BINARY, b"a", fin=False), frame(TEXT, b"\xc3", fin=False)],
                         ids=["no message", "in a binary message", "in a text message"])
def test_every_first_byte_of_a_head_is_judged_alike(start):
    for first, second in itertools.product(range(256), SECONDS):
        compare(start + bytes([first, second]))
        compare(start + bytes([first, second]) + b"\x00\x00\x00\x00\x00\x01\x01\x01\xa9", ())


def test_every_close_code_is_judged_alike():
    for code in itertools.chain(range(950, 1100), range(2950, 3050), range(4950, 5050), range(0, 65536, 257)):
        compare(close(code))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 65537])
def test_every_form_of_a_length_is_judged_alike(size):
    for opcode, form in itertools.product((TEXT, BINARY, PING), (16, 64)):
        if form == 64 or size < 65536:
            compare(head(0x80 | opcode, size, form) + bytes(size), (), [1, 2, 3], range(13), [1000, 5000])
    for opcode in (TEXT, BINARY):
        assert compare(frame(opcode, b"x" * size), (), range(20))


# ---- generated streams


class Stream(NamedTuple):
    """What a sound server sends, and what it must come to."""

    data: bytes
    events: list[tuple[object, ...]]
    heads: list[int]        # where frames begin


TEXTS = st.one_of(st.text(max_size=12), st.text(st.sampled_from("aé€😀\x00"), max_size=40),
                  st.builds(lambda size, end: "x" * size + end, st.integers(50, 140), st.text(max_size=3)))
BODIES = st.one_of(st.binary(max_size=20), st.integers(100, 300).map(bytes))
CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.one_of(st.binary(max_size=6), st.just(b"\xff" * 125)))
CLOSES = st.one_of(
    st.just((b"", ("close", 1005, ""))),
    st.builds(lambda code, reason: (struct.pack("!H", code) + reason.encode(), ("close", code, reason)),
              st.sampled_from([1000, 1001, 1011, 1012, 1013, 1014, 3000, 4999]), st.text(max_size=10)))


@st.composite
def servers(draw, messages=3):
    """A stream of whole messages in any fragments, with control frames anywhere, and a Close at the end or none."""
    frames, events = [], []

    def control():
        opcode, payload = draw(CONTROLS)
        frames.append(frame(opcode, payload))
        events.append(("ping" if opcode == PING else "pong", payload))

    for _ in range(draw(st.integers(0, messages))):
        text = draw(st.booleans())
        payload = draw(TEXTS).encode() if text else draw(BODIES)
        pieces = cut_at(payload, draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        for at, piece in enumerate(pieces):
            for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
                control()
            opcode = CONTINUATION if at else TEXT if text else BINARY
            frames.append(frame(opcode, piece, fin=at == len(pieces) - 1))
        events.append(("text" if text else "binary", payload))
    if draw(st.booleans()):
        payload, event = draw(CLOSES)
        frames += [frame(CLOSE, payload), frame(TEXT, b"late")]
        events.append(event)
    heads = list(itertools.accumulate(map(len, frames), initial=0))
    return Stream(b"".join(frames), events, heads)


@st.composite
def broken_servers(draw, messages=3):
    """The bytes of a stream with up to three bytes changed, dropped or put in, half of them in the heads."""
    stream = draw(servers(messages))
    data = bytearray(stream.data)
    for _ in range(draw(st.integers(1, 3))):
        near = draw(st.sampled_from(stream.heads)) + draw(st.integers(0, 3)) if draw(st.booleans()) else None
        at = min(draw(st.integers(0, len(data))) if near is None else near, len(data))
        value = draw(st.one_of(st.integers(0, 255), st.sampled_from([0x00, 0x80, 0x88, 0x7E, 0x7F, 0xED, 0xA0, 0xF6])))
        match draw(st.sampled_from(["change", "flip", "drop", "put in"])):
            case "change":
                data[at:at + 1] = bytes([value])
            case "flip":
                data[at:at + 1] = bytes(byte ^ (1 << value % 8) for byte in data[at:at + 1])
            case "drop":
                del data[at:at + 1]
            case _:
                data.insert(at, value)
    return bytes(data)


#: Frames in no order, of any opcode and with any flag.
LOOSE = st.lists(st.builds(
    lambda opcode, fin, rsv, payload: bytes([(0x80 if fin else 0) | rsv | opcode]) + frame(0, payload)[1:],
    st.one_of(st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]), st.integers(0, 15)),
    st.booleans(), st.sampled_from([0] * 12 + [0x10, 0x20, 0x40]),
    st.one_of(st.text(max_size=4).map(str.encode), st.binary(max_size=5), st.just(b"a" * 126),
              st.sampled_from([b"\xc3", b"\xa9", b"\xed\xa0", b"\x80", b"\x03\xe8", b"\x03\xf6", b"\x03\xf6\xff"]))),
    max_size=7).map(b"".join)

CUTS = st.lists(st.lists(st.integers(0, 500), max_size=8), min_size=1, max_size=3)


@settings(deadline=None, max_examples=250)
@given(stream=servers(), cuts=CUTS)
def test_a_sound_server_is_understood_by_both_in_any_cut(stream, cuts):
    assert compare(stream.data, *cuts) == stream.events


@settings(deadline=None, max_examples=600)
@given(data=broken_servers(), cuts=CUTS)
def test_a_broken_server_is_judged_alike_in_any_cut(data, cuts):
    compare(data, *cuts)


@settings(deadline=None, max_examples=600)
@given(data=LOOSE, cuts=CUTS)
def test_loose_frames_are_judged_alike_in_any_cut(data, cuts):
    compare(data, *cuts)


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=40), cuts=CUTS)
def test_noise_is_judged_alike_in_any_cut(data, cuts):
    compare(data, *cuts)


@settings(deadline=None, max_examples=100)
@given(data=st.one_of(servers(messages=1).map(lambda stream: stream.data), broken_servers(messages=1), LOOSE))
def test_generated_streams_are_judged_alike_at_every_split(data):
    data = data[:80]
    compare(data, *([place] for place in range(len(data) + 1)))


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.sampled_from([0, 125, 126, 65535, 65536, 70_000]), min_size=1, max_size=3),
       step=st.sampled_from([3000, 4096, 65536, 10**6]), text=st.booleans())
def test_long_fragments_are_put_together_alike_in_pieces_of_any_size(sizes, step, text):
    # an even number of bytes in all ends the last "é"; an odd one leaves it open, and both must refuse the message
    whole = ("é".encode() if text else b"\xff\x00") * sum(sizes)
    pieces = [whole[stop - size:stop] for size, stop in zip(sizes, itertools.accumulate(sizes), strict=True)]
    data = b"".join(frame((TEXT if text else BINARY) if at == 0 else CONTINUATION, piece, fin=at == len(pieces) - 1)
                    for at, piece in enumerate(pieces)) + frame(PING, b"end")
    cuts = cut_at(data, range(step, len(data), step))
    assert read(Ours(), *cuts) == read(Theirs(), *cuts)
