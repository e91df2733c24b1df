"""Behaviour of `build_frame`: what a client sends can be taken apart again, and its masking keys cannot be foreseen.

The frames are read back twice, by hand after RFC 6455 §5.2 and by a server of wsproto. What servers send is tested with
the parser.
"""

import itertools
from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Message, Ping, Pong, TextMessage

from wsengine.engine.frames import FrameParser, build_frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: Lengths around the changes of the head's form, and with every remainder of the masking's steps of 8 bytes.
LENGTHS = [*range(300), *range(1015, 1034), *range(65527, 65545), 100_003]

KEYS = 10_000


class Taken(NamedTuple):
    """A frame taken apart."""

    fin: bool
    opcode: int
    key: bytes
    payload: bytes


def taken_apart(frame):
    """Read one masked frame that must fill the bytes, with a length in its shortest form."""
    assert frame[1] & 0x80, "not masked"
    size, at = frame[1] & 0x7F, 2
    if size >= 126:
        at = 4 if size == 126 else 10
        size = int.from_bytes(frame[2:at], "big")
        assert size > (125 if at == 4 else 65535), "length is not minimal"
    key, masked = frame[at:at + 4], frame[at + 4:]
    assert len(masked) == size
    payload = bytes(byte ^ key[place % 4] for place, byte in enumerate(masked))
    return Taken(frame[0] >= 0x80, frame[0] & 0x7F, key, payload)


def received_by_a_server(*frames):
    """What a server of wsproto makes of the frames, fragments put together: (kind, data) or ("close", code, reason)."""
    server = Connection(ConnectionType.SERVER)
    server.receive_data(b"".join(frames))
    received, parts = [], []
    for event in server.events():
        match event:
            case Message():
                parts.append(event.data)
                if event.message_finished:
                    kind, nothing = ("text", "") if isinstance(event, TextMessage) else ("binary", b"")
                    received.append((kind, nothing.join(parts)))
                    parts = []
            case Ping() | Pong():
                received.append((type(event).__name__.lower(), bytes(event.payload)))
            case CloseConnection():
                received.append(("close", event.code, event.reason))
    assert parts == []
    return received


def sample(size):
    """Bytes without a period that the mask has."""
    return bytes((at * 7 + at // 251) % 256 for at in range(size))


def test_the_masked_example_of_rfc_6455_5_7_is_built():
    assert build_frame(TEXT, b"Hello", mask=b"\x37\xfa\x21\x3d") == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"


@pytest.mark.parametrize("mask", [b"\x01\x02\x03\x04", b"\xff\x00\x80\x7f", None], ids=["1234", "mixed", "drawn"])
def test_unmasking_gives_back_the_payload_of_any_length(mask):
    for size in LENGTHS:
        payload = sample(size)
        taken = taken_apart(build_frame(BINARY, payload, mask=mask))
        assert taken == (True, BINARY, taken.key if mask is None else mask, payload), size


@pytest.mark.parametrize(("size", "head"), [
    (0, b"\x82\x80"), (1, b"\x82\x81"), (125, b"\x82\xfd"), (126, b"\x82\xfe\x00\x7e"), (65535, b"\x82\xfe\xff\xff"),
    (65536, b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00"), (2**24 + 1, b"\x82\xff\x00\x00\x00\x00\x01\x00\x00\x01"),
])
def test_the_head_announces_the_length_in_its_shortest_form(size, head):
    payload = sample(1024) * (size // 1024) + sample(size % 1024)
    frame = build_frame(BINARY, payload, mask=bytes(4))
    assert frame == head + bytes(4) + payload


@pytest.mark.parametrize("fin", [True, False])
def test_opcode_and_fin_are_written_as_given(fin):
    for opcode in range(16):
        for size in (0, 5, 126, 65536):
            taken = taken_apart(build_frame(opcode, bytes(size), fin=fin))
            assert (taken.fin, taken.opcode) == (fin, opcode)


def test_fin_is_set_where_it_is_not_said():
    assert taken_apart(build_frame(TEXT, b"x")).fin is True


def test_each_byte_of_the_key_masks_its_own_places():
    for place in range(4):
        key = bytes(0xFF if at == place else 0 for at in range(4))
        for size in range(40):
            masked = build_frame(BINARY, bytes(size), mask=key)[6:]
            assert masked == bytes(0xFF if at % 4 == place else 0 for at in range(size))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_payload_and_mask_may_be_any_bytes_and_are_left_alone(kind):
    payload = bytearray(sample(50))
    before = bytes(payload)
    frame = build_frame(TEXT, kind(payload), mask=b"abcd")
    assert taken_apart(frame) == (True, TEXT, b"abcd", before)
    assert payload == before
    assert type(frame) is bytes


def test_the_place_of_the_payload_in_memory_does_not_matter():
    data = sample(100)
    for start, stop in itertools.combinations(range(0, 40), 2):
        part = memoryview(data)[start:stop]
        assert taken_apart(build_frame(BINARY, part, mask=b"\x11\x22\x33\x44")).payload == bytes(part)


@pytest.mark.parametrize("mask", [b"", b"abc", b"abcde", bytes(8)])
def test_a_mask_that_is_not_four_bytes_is_an_error_that_shows_it(mask):
    with pytest.raises(ValueError, match="four bytes") as caught:
        build_frame(TEXT, b"x", mask=mask)
    assert repr(mask) in str(caught.value)


@pytest.mark.parametrize("arguments", [{"payload": "text"}, {"payload": None}, {"payload": b"x", "mask": "abcd"},
                                       {"payload": b"x", "mask": 1234}, {"opcode": "1", "payload": b"x"}], ids=repr)
def test_an_argument_of_a_wrong_type_is_a_type_error(arguments):
    with pytest.raises(TypeError):
        build_frame(**{"opcode": TEXT, **arguments})


# ---- as a server reads it


def test_a_server_of_wsproto_reads_messages_of_any_length():
    for size in [0, 1, 7, 8, 9, 124, 125, 126, 127, 65535, 65536, 65537]:
        assert received_by_a_server(build_frame(BINARY, sample(size))) == [("binary", sample(size))]
        assert received_by_a_server(build_frame(TEXT, b"t" * size)) == [("text", "t" * size)]


def test_a_server_of_wsproto_reads_fragments_and_control_frames():
    frames = [
        build_frame(TEXT, "é".encode()[:1], fin=False),
        build_frame(PING, b"p" * 125),
        build_frame(CONTINUATION, "é".encode()[1:], fin=False),
        build_frame(PONG, b""),
        build_frame(CONTINUATION, b"end"),
        build_frame(BINARY, b"\xff"),
        build_frame(CLOSE, b"\x03\xe8bye"),
    ]
    assert received_by_a_server(*frames) == [
        ("ping", b"p" * 125), ("pong", b""), ("text", "éend"), ("binary", b"\xff"), ("close", 1000, "bye")]


@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])
def test_a_client_refuses_the_frames_of_a_client(opcode):
    assert FrameParser().feed(build_frame(opcode, b"x"))[0][:2] == ("fail", 1002)


@settings(deadline=None, max_examples=200)
@given(payload=st.one_of(st.binary(max_size=200), st.integers(0, 70_000).map(sample)),
       key=st.binary(min_size=4, max_size=4))
def test_any_payload_under_any_key_reaches_a_server(payload, key):
    assert received_by_a_server(build_frame(BINARY, payload, mask=key)) == [("binary", payload)]


# ---- drawn keys (RFC 6455 §5.3)
#
# The bounds are so far out that a sound source never meets them: the chance is given with each.


def drawn_keys():
    return [taken_apart(build_frame(PING, b"")).key for _ in range(KEYS)]


def chi_square(values):
    """How far the counts of 256 values are from equal ones; about 255 ± 23 for random ones."""
    counts, expected = Counter(values), len(values) / 256
    return sum((counts[value] - expected) ** 2 / expected for value in range(256))


def looks_random(values):
    """Neither too uneven (chance below 1e-15) nor, as a counter would be, too even (below 1e-17)."""
    return 100 < chi_square(values) < 500


def test_what_is_not_random_does_not_look_so():
    assert not looks_random([at % 256 for at in range(KEYS)])
    assert not looks_random([at % 240 for at in range(KEYS)])
    assert not looks_random([at * at % 256 for at in range(KEYS)])
    assert not looks_random([0] * KEYS)


def test_drawn_keys_do_not_repeat():
    # 10,000 of 2**32 keys: 0.012 equal pairs are expected, five or more have a chance below 1e-11
    assert len(set(drawn_keys())) > KEYS - 5


def test_drawn_keys_are_uniform_in_each_of_their_bytes():
    keys = drawn_keys()
    for place in range(4):
        assert looks_random([key[place] for key in keys]), place
    assert looks_random([byte for key in keys for byte in key])


def test_a_drawn_key_says_nothing_of_the_next():
    pairs = list(itertools.pairwise(drawn_keys()))
    for here, there in itertools.product(range(4), repeat=2):
        assert looks_random([one[here] ^ two[there] for one, two in pairs]), (here, there)
        assert looks_random([(two[there] - one[here]) % 256 for one, two in pairs]), (here, there)


def test_the_bytes_within_a_drawn_key_are_independent():
    keys = drawn_keys()
    for one, two in itertools.combinations(range(4), 2):
        assert looks_random([key[one] ^ key[two] for key in keys]), (one, two)


@pytest.mark.parametrize("opcode", [0, 1, 2, 9])
@pytest.mark.parametrize("fin", [True, False])
def test_rsv1_is_set_where_it_is_asked_for_and_changes_nothing_else(opcode, fin):
    for payload in (b"", b"payload", bytes(200), bytes(70_000)):
        plain = build_frame(opcode, payload, fin=fin, mask=b"abcd")
        marked = build_frame(opcode, payload, fin=fin, mask=b"abcd", rsv1=True)
        assert marked == bytes([plain[0] | 0x40]) + plain[1:]
        assert not plain[0] & 0x70
