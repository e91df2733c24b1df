"""Behaviour of `wsengine.engine.utf8`: the same verdicts as `bytes.decode`, in any cut, and refusal at the first byte.

What a parser does with a refusal is tested with the frames. Nothing here knows the grammar of UTF-8: what can begin a
text is derived from what the standard library encodes and decodes.
"""

import codecs
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsengine.engine.utf8 import Utf8Validator, is_utf8

SCALARS = [*range(0xD800), *range(0xE000, 0x110000)]

#: Every beginning of a character that is not yet the whole: one to three bytes. The last byte of a character runs
#: through 64 values in step with its number, so that one number in 64 shows every beginning.
UNFINISHED = {chr(scalar).encode()[:size]
              for scalar in SCALARS[0x80::64] for size in range(1, len(chr(scalar).encode()))}

BYTES = [bytes([value]) for value in range(256)]

#: Around the steps of 8 and of 64 bytes in which ASCII is skipped.
STEPS = [0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 71, 72, 73, 127, 128, 129]

#: (bytes, how many of them it takes to see that they are not UTF-8)
BROKEN = [
    (b"\x80", 1), (b"\xbf", 1),                                     # continuation without a lead
    (b"\xc0\x80", 1), (b"\xc1\xbf", 1),                             # overlong in two bytes
    (b"\xc3\x28", 2), (b"\xc3\xc3\xa9", 2),                         # lead without its continuation
    (b"\xe0\x80\x80", 2), (b"\xe0\x9f\xbf", 2),                     # overlong in three
    (b"\xed\xa0\x80", 2), (b"\xed\xbf\xbf", 2),                     # surrogates
    (b"\xe2\x82\x28", 3), (b"\xe2\x82\xe2", 3),
    (b"\xf0\x80\x80\x80", 2), (b"\xf0\x8f\xbf\xbf", 2),             # overlong in four
    (b"\xf4\x90\x80\x80", 2), (b"\xf5\x80\x80\x80", 1),             # above U+10FFFF
    (b"\xf0\x9f\x98\x28", 4), (b"\xf0\x9f\x28\x80", 3),
    (b"\xf8\x88\x80\x80\x80", 1), (b"\xfe", 1), (b"\xff", 1),       # never in UTF-8
]

TEXTS = ["", "a", "κόσμε", "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff", "x" * 9 + "é" + "y" * 70,
         "naïve 価格 😀 end", "\ufeff\ufffe\uffff"]


def decodes(data: bytes) -> bool:
    """Whether the standard library takes the bytes as a whole text."""
    try:
        data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    return True


def can_begin_text(data: bytes) -> bool:
    """Whether some continuation makes a text of the bytes: whole characters, and then at most one unfinished."""
    if decodes(data):
        return True
    return any(data[-size:] in UNFINISHED and decodes(data[:-size]) for size in (1, 2, 3))


def fed(*pieces: bytes) -> tuple[bool, bool]:
    """What the validator says at the end: (can still become a text, is one)."""
    validator = Utf8Validator()
    verdict = True
    for piece in pieces:
        verdict = validator.feed(piece)
    return verdict, validator.complete


def check(data: bytes) -> None:
    """Compare all verdicts on these bytes, given whole, with those of the standard library."""
    valid = decodes(data)
    assert is_utf8(data) is valid, data
    assert fed(data) == (can_begin_text(data), valid), data


def test_the_beginnings_of_characters_are_as_many_as_unicode_has():
    three_bytes, four_bytes = 0x10000 - 0x800 - 0x800, 0x110000 - 0x10000
    assert [sum(len(one) == size for one in UNFINISHED) for size in (1, 2, 3)] == [
        30 + 16 + 5, three_bytes // 64 + four_bytes // 64**2, four_bytes // 64]


def test_nothing_is_a_text_already():
    assert is_utf8(b"")
    assert Utf8Validator().complete
    assert fed(b"") == (True, True)
    assert fed(b"\xc3", b"", b"\xa9") == (True, True)


def test_every_sequence_of_one_or_two_bytes_is_judged_as_the_standard_library_does():
    for one in BYTES:
        check(one)
    for first, second in itertools.product(BYTES, BYTES):
        check(first + second)


def test_every_sequence_of_two_bytes_is_judged_alike_when_it_is_cut():
    for first in BYTES:
        opened = can_begin_text(first)
        for second in BYTES:
            expected = opened and can_begin_text(first + second), decodes(first + second)
            assert fed(first, second) == expected, first + second


@pytest.mark.parametrize("size", [1, 2])
def test_every_byte_after_every_beginning_of_a_character_is_judged_at_once(size):
    for start in sorted(one for one in UNFINISHED if len(one) == size):
        for last in BYTES:
            data = start + last
            valid = decodes(data)
            assert is_utf8(data) is valid, data
            assert fed(start, last) == (valid or data in UNFINISHED, valid), data


def test_every_character_of_four_bytes_is_taken_and_no_other_fourth_byte():
    for start in sorted(one for one in UNFINISHED if len(one) == 3):
        taken = {last for last in range(256) if is_utf8(start + BYTES[last])}
        assert taken == set(range(0x80, 0xC0)), start
        assert decodes(b"".join(start + BYTES[last] for last in sorted(taken))), start
        assert not decodes(start + b"\x7f"), start
        assert not decodes(start + b"\xc0"), start


@pytest.mark.parametrize("size", [1, 7, 64, 65, 4096, 10**7])
def test_all_characters_there_are_pass_as_one_text_in_pieces_of_any_size(size):
    step = 16 if size == 1 else 1       # a call for each byte of all would take seconds
    data = "".join(map(chr, SCALARS[::step])).encode()
    validator = Utf8Validator()
    assert all(validator.feed(data[at:at + size]) for at in range(0, len(data), size))
    assert validator.complete
    assert is_utf8(data)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_in_any_two_and_three_pieces(text):
    data = text.encode()
    for one, two in itertools.combinations_with_replacement(range(len(data) + 1), 2):
        assert fed(data[:one], data[one:two], data[two:]) == (True, True)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_complete_exactly_between_characters(text):
    data = text.encode()
    validator = Utf8Validator()
    for at in range(len(data)):
        assert validator.feed(data[at:at + 1])
        assert validator.complete is decodes(data[:at + 1])
        assert is_utf8(data[:at + 1]) is decodes(data[:at + 1])


@pytest.mark.parametrize(("data", "seen"), BROKEN)
def test_what_is_broken_is_refused_at_the_first_byte_that_nothing_can_mend(data, seen):
    assert can_begin_text(data[:seen - 1])
    assert not can_begin_text(data[:seen])
    for before in ("", "a", "é", "x" * 64, "😀" * 3):
        start = before.encode()
        validator = Utf8Validator()
        verdicts = [validator.feed(bytes([byte])) for byte in start + data]
        assert verdicts.index(False) == len(start) + seen - 1
        assert fed(start + data[:seen]) == (False, False)
        assert fed(start + data[:seen - 1])[0] is True


@pytest.mark.parametrize(("data", "seen"), BROKEN)
def test_what_is_refused_stays_refused(data, seen):
    validator = Utf8Validator()
    assert not validator.feed(data)
    for more in (b"", b"a", b"\x80", b"text", "é".encode()):
        assert validator.feed(more) is False
        assert validator.complete is False


def test_the_incremental_decoder_of_the_standard_library_is_never_earlier_and_later_only_for_surrogates():
    later = set()
    for start in sorted(one for one in UNFINISHED if len(one) < 3):
        for last in BYTES:
            decoder = codecs.getincrementaldecoder("utf-8")("strict")
            try:
                for byte in start + last:
                    decoder.decode(bytes([byte]))
                theirs = True
            except UnicodeDecodeError:
                theirs = False
            ours = fed(start, last)[0]
            if ours is not theirs:
                assert theirs, (start, last)
                later.add(start + last)
    # it waits for the third byte, in which an error handler such as surrogatepass would take part
    assert later == {b"\xed" + bytes([second]) for second in range(0xA0, 0xC0)}


@pytest.mark.parametrize("after", [0, 1, 7, 8, 63, 64])
def test_what_follows_a_run_of_ascii_of_any_length_is_judged(after):
    tail = b"t" * after
    for before in range(140):
        head = b"h" * before
        for character in ("\x7f", "é", "€", "😀"):
            whole = head + character.encode() + tail
            assert is_utf8(whole)
            assert fed(whole) == (True, True)
        for broken, seen in BROKEN:
            assert not is_utf8(head + broken + tail)
            assert fed(head + broken[:seen] + tail) == (False, False)


@pytest.mark.parametrize("size", STEPS)
def test_a_byte_above_ascii_is_seen_at_every_place(size):
    for at in range(size):
        data = bytearray(b"a" * size)
        assert is_utf8(data)
        for byte in (0x80, 0xC3, 0xF4, 0xFF):
            data[at] = byte
            assert not is_utf8(data), (size, at, byte)
            # a lead byte at the end is the one thing that more could mend
            assert fed(data)[0] is (at == size - 1 and byte in (0xC3, 0xF4)), (size, at, byte)


def test_an_unfinished_character_is_mended_only_by_its_own_continuation_behind_any_run():
    for run in STEPS:
        for start in (b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"):
            assert fed(b"a" * run + start) == (True, False)
            assert fed(b"a" * run + start, b"\xa9") == (True, True)
            assert fed(b"a" * run + start, b"a" * max(run, 1)) == (False, False)


def test_the_place_of_the_bytes_in_memory_does_not_matter():
    good = bytearray(("a" * 70 + "é" + "b" * 70).encode() * 2)
    bad = bytearray(good)
    bad[-3] = 0xFF
    for start in range(17):
        for stop in range(len(good) - 17, len(good) + 1):
            for data in (good, bad):
                assert is_utf8(memoryview(data)[start:stop]) is decodes(bytes(data[start:stop]))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_contiguous_buffer_of_bytes_is_taken(kind):
    assert is_utf8(kind(b"\xc3\xa9"))
    assert not is_utf8(kind(b"\xc3"))
    assert fed(kind(b"\xc3"), kind(b"\xa9")) == (True, True)


@pytest.mark.parametrize("wrong", ["text", None, 3])
def test_what_is_no_buffer_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        is_utf8(wrong)
    with pytest.raises(TypeError):
        Utf8Validator().feed(wrong)


def test_a_buffer_with_gaps_is_refused():
    with pytest.raises(BufferError):
        is_utf8(memoryview(b"abcd")[::2])


NEARLY_TEXT = st.lists(st.one_of(st.text(max_size=9).map(str.encode),
                                 st.sampled_from([broken for broken, _ in BROKEN]),
                                 st.integers(0, 130).map(lambda size: b"a" * size),
                                 st.sampled_from(sorted(UNFINISHED)), st.binary(max_size=4)), max_size=6).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(data=NEARLY_TEXT, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_any_bytes_in_any_cut_are_judged_as_the_standard_library_does(data, cuts):
    places = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[start:stop] for start, stop in itertools.pairwise([0, *places, len(data)])]
    assert fed(*pieces) == (can_begin_text(data), decodes(data))
    assert is_utf8(data) is decodes(data)
