"""`FrameFinder` on frames of a builder that shares no code with it, right and wrong, in every cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wsengine.cli.frames import CLOSE, KEPT, TEXT, Frame, FrameFinder
from wsengine.testing import build_server_frame

FRAMES = st.tuples(st.integers(0, 15), st.binary(max_size=200) | st.sampled_from([b"x" * 126, b"y" * 65535, b"z" * 65536]),
                   st.booleans(), st.integers(0, 7), st.none() | st.binary(min_size=4, max_size=4))


def expected(built):
    text = False
    for opcode, payload, fin, rsv, mask in built:
        if 0 < opcode < CLOSE:
            text = opcode == TEXT and rsv < 4
        yield Frame(opcode, fin, rsv, mask is not None, len(payload), len(payload), payload[:KEPT], opcode < CLOSE and text)


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 2000), max_size=8))
def test_it_finds_each_frame_however_the_bytes_are_cut(built, cuts):
    data = b"".join(build_server_frame(*one) for one in built)
    finder, found, at = FrameFinder(), [], 0
    for cut in (*cuts, len(data)):
        found += finder.feed(data[at: at + cut])
        at += cut
    assert found == list(expected(built))
    assert finder.unfinished() is None


def test_it_finds_a_frame_byte_by_byte():
    finder = FrameFinder()
    data = build_server_frame(1, b"a" * 300, True, 0, b"mask")
    assert [finder.feed(data[at: at + 1]) for at in range(len(data) - 1)] == [[]] * (len(data) - 1)
    assert finder.feed(data[-1:]) == [Frame(1, True, 0, True, 300, 300, b"a" * KEPT, True)]


def test_what_is_begun_is_told():
    finder = FrameFinder()
    assert finder.unfinished() is None
    finder.feed(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff")
    assert finder.unfinished() == 10
    assert finder.feed(b"\x01\x01\x01\x01abc") == []
    assert finder.unfinished() == Frame(2, True, 0, True, 2**64 - 1, 3, b"`cb", False)
