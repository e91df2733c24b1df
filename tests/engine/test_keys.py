"""Behaviour of `wsengine.engine.keys`: the key that `json.loads` would show, the same hash for the same key, and never a
byte beyond the payload.

What a partition is, and what becomes of a payload without a key, is tested with the pipeline. Nothing here walks JSON: the
standard library does. Payloads that may be broken lie between two pages that must not be touched, so that a read outside
ends the process.
"""

import contextlib
import copy
import ctypes
import itertools
import json
import mmap
import os
import pickle
import random
import struct
import threading
from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsengine.engine.keys import ByteSlice, JSONField, KeyExtractor, hash_key
from wsengine.errors import ConfigurationError

#: What is generated: ten times as much with WSENGINE_LONG=1.
LONG = 10 if os.environ.get("WSENGINE_LONG") == "1" else 1
TRADE = b'{"seq":12345,"sym":"BTC-USD","px":"65000.10","qty":3,"side":"buy","ok":true,"none":null,"deep":[{"a":[1,2]}]}'


# ---------------------------------------------------------------------------------------------------------- the oracle

class Number(NamedTuple):
    """A number as it is written."""

    text: str


def no_constant(name):
    raise ValueError(f"{name} is no JSON")


def first_members(pairs):
    """An object in which the first of several members of one name counts."""
    return dict(reversed(pairs))


def loaded(document):
    """What the standard library makes of a payload; ValueError if that is no JSON."""
    return json.loads(document.decode(), parse_int=Number, parse_float=Number, parse_constant=no_constant,
                      object_pairs_hook=first_members)


def value_at(value, path):
    """The value there, None where there is none."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def key_of(value):
    """The key that stands for a value; for all but strings, by its plainest document."""
    if isinstance(value, str):
        return hash_key(value)
    if isinstance(value, (bool, Number)):
        text = json.dumps(value) if isinstance(value, bool) else value.text
        return JSONField(0).key(f"[{text}]")
    return None


def expected(document, path):
    return key_of(value_at(loaded(document), path))


# ------------------------------------------------------------------------------------------------------- the documents

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "BTC-USD", 'a"b', "[", "]", "{", "}", '\\"', "\\", "é", "価格", "😀", "\x00", "\x1f\x7f", "x" * 40, "\ud83d",
     "\ude00x"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    STRINGS | NUMBERS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(STRINGS, inner, max_size=5), max_leaves=20)


def escaped(text, chance):
    """A string of JSON, in which what may be escaped sometimes is."""
    short = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    out = []
    for one in text:
        if one in short and chance.random() < 0.5:
            out.append(short[one])
        elif one in '"\\' or one < " " or "\ud800" <= one < "\ue000" or chance.random() < 0.2:
            units = struct.unpack(f">{len(one.encode('utf-16-be', 'surrogatepass')) // 2}H",
                                  one.encode("utf-16-be", "surrogatepass"))
            out.extend(chance.choice(["\\u{:04x}", "\\u{:04X}"]).format(unit) for unit in units)
        else:
            out.append(one)
    return f'"{"".join(out)}"'


def written(value, chance):
    """A document of this value, with white space wherever it may be."""
    space = "".join(chance.choices(" \t\r\n", k=chance.choice([0, 0, 0, 1, 9])))
    if isinstance(value, dict):
        inner = ",".join(f"{space}{escaped(name, chance)}{space}:{written(one, chance)}" for name, one in value.items())
        text = f"{{{inner}{space}}}"
    elif isinstance(value, list):
        text = f"[{','.join(written(one, chance) for one in value)}{space}]"
    else:
        text = escaped(value, chance) if isinstance(value, str) else json.dumps(value)
    return space + text + space


def paths_into(value, path=()):
    """The path of every value within, the outermost left out."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, one in inner:
        yield from paths_into(one, (*path, step))


@st.composite
def documents(draw):
    """(document, a path in it or beside it)."""
    value = draw(st.lists(VALUES, max_size=5) | st.dictionaries(STRINGS, VALUES, max_size=5))
    chance = random.Random(draw(st.integers(0, 2**32)))
    there = [path for path in paths_into(value) if len(path) <= 16]
    path = draw(st.sampled_from(there)) if there and draw(st.integers(0, 9)) else draw(
        st.lists(STRINGS | st.integers(0, 6), min_size=1, max_size=4).map(tuple))
    return written(value, chance).encode("utf-8"), path


class Fence:
    """Memory between two pages that must not be touched; payloads lie at its very beginning or at its very end."""

    def __init__(self, pages=16):
        page = mmap.PAGESIZE
        self.memory = mmap.mmap(-1, (pages + 2) * page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert protect(address, page, 0) == 0
        assert protect(address + (pages + 1) * page, page, 0) == 0
        self.room = memoryview(self.memory)[page:-page]

    def key(self, extractor, payload):
        """The key, wherever the payload lies."""
        assert len(payload) <= len(self.room)
        self.room[:len(payload)] = payload
        first = extractor.key(self.room[:len(payload)])
        self.room[len(self.room) - len(payload):] = payload
        assert extractor.key(self.room[len(self.room) - len(payload):]) == first
        return first


FENCE = Fence()


# ---------------------------------------------------------------------------------------------- JSONField: what it finds

@pytest.mark.parametrize(("path", "value"), [
    (("sym",), "BTC-USD"), (("px",), "65000.10"), (("seq",), Number("12345")), (("ok",), True), (("none",), None),
    (("deep",), None), (("deep", 0), None), (("deep", 0, "a"), None), (("deep", 0, "a", 1), Number("2")),
    (("deep", 0, "a", 2), None), (("deep", 1), None), (("deep", "0"), None), ((0,), None), (("SYM",), None), (("",), None),
    (("sym", 0), None),
    (("sym", "BTC-USD"), None), (("se",), None), (("seqq",), None),
])
def test_the_value_at_the_path_is_the_key(path, value):
    assert JSONField(*path).key(TRADE) == key_of(value)
    assert (JSONField(*path).key(TRADE) is None) is (value is None)
    assert expected(TRADE, path) == key_of(value)


@given(documents())
@settings(max_examples=200 * LONG, deadline=None)
def test_the_key_of_any_document_is_that_of_the_value_that_the_standard_library_finds(given_):
    document, path = given_
    assert FENCE.key(JSONField(*path), document) == expected(document, path)


def test_the_documents_of_these_tests_have_keys_of_all_kinds_and_often_none():
    kinds = Counter()

    @given(documents())
    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    def count(given_):
        value = value_at(loaded(given_[0]), given_[1])
        kinds[type(value).__name__, b"\\u" in given_[0]] += 1
    count()
    assert {name for name, _ in kinds} >= {"str", "Number", "bool", "NoneType", "dict", "list"}
    assert kinds["str", True] > 0


@pytest.mark.parametrize("text", [
    "A", "BTC-USD", "é", "価格", "😀", "\U0010ffff", "\ud7ff\ue000", "\x7f\x80\u07ff\u0800\uffff", '"\\/\b\f\n\r\t',
    "a" * 7 + "😀" + "b" * 9, "\ud83d", "x\ude00", "\ud83d\ud83d", "\udbff-", "\ud83d\ue000", "y\ude00\ude00"])
def test_a_string_is_one_key_however_it_is_written(text):
    units = [unit for one in text for unit in struct.iter_unpack(">H", one.encode("utf-16-be", "surrogatepass"))]
    forms = [json.dumps(text), '"' + "".join(f"\\u{unit:04X}" for unit, in units) + '"',
             '"' + "".join(f"\\u{unit:04x}" for unit, in units) + '"']
    if not any("\ud800" <= one < "\ue000" for one in text):
        forms.append(json.dumps(text, ensure_ascii=False))
    assert {FENCE.key(JSONField(0), f"[{form}]".encode()) for form in forms} == {hash_key(text)}
    assert {FENCE.key(JSONField(text), f'{{"x":1,{form}:"found"}}'.encode()) for form in forms} == {hash_key("found")}


@pytest.mark.parametrize("size", range(40))
def test_a_string_is_one_key_wherever_in_it_something_is_escaped(size):
    text = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"[:size]
    for at in range(size):
        form = f'["{text[:at]}\\u{ord(text[at]):04x}{text[at + 1:]}"]'
        assert FENCE.key(JSONField(0), form.encode()) == hash_key(text)
        assert FENCE.key(JSONField(0), form.replace("\\u", "\\\\u").encode()) != hash_key(text)


def test_names_are_compared_whole_and_by_content():
    document = rb'{"a\"b":"1","a":"2","ab":"3","\u0061bc":"4","":"5","\ud83d\ude00":"6","a\\":"7"}'
    for name, value in [('a"b', "1"), ("a", "2"), ("ab", "3"), ("abc", "4"), ("", "5"), ("😀", "6"), ("a\\", "7")]:
        assert JSONField(name).key(document) == hash_key(value), name
    for name in ["a\\", "b", "abcd", '"', "\\u0061bc", "\ud83d"]:
        assert JSONField(name).key(document.replace(b',"a\\\\":"7"', b"")) is None, name


def test_the_first_of_several_members_of_one_name_counts():
    assert JSONField("a").key(b'{"a":"1","a":"2"}') == hash_key("1")
    assert JSONField("a").key(rb'{"\u0061":"1","a":"2"}') == hash_key("1")
    assert JSONField("a", "b").key(b'{"a":{},"a":{"b":"2"}}') is None


def test_kinds_of_values_are_kinds_of_keys():
    texts = ["1", "1.0", "1e0", "1E0", "1E+0", "-1", "-0", "0", "10", "true", "false", '"1"', '"1.0"', '"true"', '"false"',
             '""', '"null"', '" 1"', '"1\\u0000"', '"\\u0000"', '"\\u0000\\u0000"']
    keys = {JSONField(0).key(f"[{text}]") for text in texts} | {hash_key(b"1"), hash_key(b"true"), hash_key(b"")}
    assert None not in keys
    assert len(keys) == len(texts) + 3


# ---------------------------------------------------------------------------------------- JSONField: broken documents

#: Documents of which nothing has the key "k".
BROKEN = [
    "", " ", "x", '"k"', "k", "{", "[", "{}", "[]", '{"k"', '{"k":', '{"k":}', '{"k" "v"}', '{"k":"v', '{"k":"v\\"}',
    '{k:"v"}', "{'k':'v'}", '{"a":1 "k":"v"}', '{"a":1;"k":"v"}', '{"a":,"k":"v"}', '{,"k":"v"}', '{"a":1,,"k":"v"}',
    '{"a","k":"v"}', '{"a":[1,2,"k":"v"}', '{"a":"x,"k":"v"}', '{"a":tru,"k":"v"}', '{"a":truex,"k":"v"}',
    '{"a":nul,"k":"v"}', '{"a":NaN,"k":"v"}', '{"a":-Infinity,"k":"v"}', '{"a":01,"k":"v"}', '{"a":1.,"k":"v"}',
    '{"a":.5,"k":"v"}', '{"a":+1,"k":"v"}', '{"a":1e,"k":"v"}', '{"a":1e+,"k":"v"}', '{"a":-,"k":"v"}', '{"a":0x1,"k":"v"}',
    '{"a":1 2,"k":"v"}', '{"a":"\n","k":"v"}', '{"a":"\\x","k":"v"}', '{"a":"\\u12g4","k":"v"}', '{"a":"\\u123","k":"v"}',
    '{"a":["\\q"],"k":"v"}', '{"a":1}"k":"v"}', '["k":"v"]', '{"a":1],"k":"v"}', '\ufeff{"k":"v"}', '\x00{"k":"v"}',
    '{"k":"v\x00"}', '{"k":"\\ud83"}', '{"k":tru}', '{"k":True}', '{"k":nul}', '{"k":1', '{"k":1x}', '{"k":01}', '{"k":-}',
    '{"k":1.}', '{"k":true', '{"k":truefalse}', '{"k":NaN}', '{"k":"\t"}', '{"k":1:2}', '{"k":1"}', "//\n{}",
    '{/**/"k":"v"}', '{"a":1/**/,"k":"v"}', '{"k":\x0b"v"}', '{"k":\u00a0"v"}', '{"k":"\\ud83d\\u"}',
    '{"k":"\\ud83d\\u00"}', '{"a":1,"k":"v\\', '{"a":1,"k":"v\\u',
]


@pytest.mark.parametrize("document", BROKEN)
def test_there_is_no_key_behind_what_is_broken(document):
    assert FENCE.key(JSONField("k"), document.encode()) is None


@pytest.mark.parametrize("byte", [*range(0x20), 0x7F])
def test_a_control_character_breaks_a_string_wherever_it_is(byte):
    for at in range(20):
        text = "a" * at + chr(byte) + "b" * (20 - at)
        key = FENCE.key(JSONField("k"), f'{{"k":"{text}"}}'.encode())
        assert key == (hash_key(text) if byte == 0x7F else None)
        assert FENCE.key(JSONField("k"), f'{{"a":["{text}"],"k":"v"}}'.encode()) == (hash_key("v") if key else None)


@pytest.mark.parametrize("document", BROKEN)
def test_what_is_called_broken_is_so_for_the_standard_library_or_has_no_such_key(document):
    with contextlib.suppress(ValueError):
        assert expected(document.encode(), ("k",)) is None


@pytest.mark.parametrize("document", [
    '{"k":"v"', '{"k":"v",', '{"k":"v"x', '{"k":"v"}}', '{"k":"v","a":tru}', '{"a":[1 2,],"k":"v"}', '{"a":[1},"k":"v"}',
    '{"a":{[:]tru},"k":"v"}', '{"k":"v"\x00'])
def test_what_follows_and_what_is_in_skipped_values_is_not_checked(document):
    with pytest.raises(ValueError):
        json.loads(document)
    assert JSONField("k").key(document) == hash_key("v")


@pytest.mark.parametrize("path", [("sym",), ("px",), ("seq",), ("ok",), ("none",), ("deep", 0, "a", 0), ("deep", 0, "a", 1)])
def test_a_payload_that_was_cut_has_the_key_of_the_whole_or_none(path):
    extractor, whole = JSONField(*path), JSONField(*path).key(TRADE)
    keys = [FENCE.key(extractor, TRADE[:size]) for size in range(len(TRADE) + 1)]
    assert set(keys) <= {None, whole}
    assert keys == sorted(keys, key=lambda key: key is not None)     # once it is there, more bytes do not take it away
    assert keys[0] is None
    assert keys[-1] == whole


@given(documents())
@settings(max_examples=100 * LONG, deadline=None)
def test_any_document_that_was_cut_has_the_key_of_the_whole_or_none(given_):
    document, path = given_
    extractor = JSONField(*path)
    whole = extractor.key(document)
    assert {FENCE.key(extractor, document[:size]) for size in range(min(len(document), 600))} <= {None, whole}


@given(documents(), st.lists(st.tuples(st.integers(0, 2**16), st.sampled_from(b'"\\{}[],: u0d\x00\x1f\x80\xff1-e')),
                             min_size=1, max_size=4), st.booleans())
@settings(max_examples=200 * LONG, deadline=None)
@example((b'{"a":"b"}', ("a",)), [(8, ord("\\"))], False)
def test_a_document_with_wrong_bytes_is_read_in_its_bounds_and_as_the_standard_library_does_if_that_reads_it(
        given_, changes, inserted):
    document, path = bytearray(given_[0]), given_[1]
    for at, byte in changes:
        at %= len(document)
        document[at:at if inserted else at + 1] = bytes([byte])
    key = FENCE.key(JSONField(*path), bytes(document))
    try:
        wanted = expected(bytes(document), path)
    except ValueError:
        return
    assert key == wanted


@given(st.binary(max_size=200), st.lists(st.sampled_from(["", "a", 0, 1, 5]), min_size=1, max_size=3))
@settings(max_examples=200 * LONG, deadline=None)
def test_bytes_of_any_kind_are_read_in_their_bounds(payload, path):
    for before in (b"", b"[", b'{"', b'{"a":', b'["', b'["\\', b'["\\u', b"[-", b"[t", b'{"a":"\\ud83d\\u'):
        FENCE.key(JSONField(*path), before + payload)


# ------------------------------------------------------------------------------------------------ JSONField: skipping

@pytest.mark.parametrize("skipped", [
    '"]"', '"}"', '"["', '"{"', '"\\""', '"\\\\"', '"\\\\\\""', '"],["', '["]"]', '["\\"]"]', '{"}":"{"}',
    '[[],[[]],{"a":{}}]', '["\\\\"]', '{"a\\"":["]",{"}":[]}]}',
    '"' + "x" * 100 + '\\"' + "y" * 100 + '"', '[" \\u005d ]"]', "[]", "{}", '["k"]',
    '{"k":"w"}', "-12.5e-7", "true", "null"])
@pytest.mark.parametrize("pad", range(9))
def test_brackets_and_quotes_in_strings_do_not_mislead(skipped, pad):
    space = " " * pad
    document = f'{{"a":{space}{skipped}{space},"k":"v"}}'.encode()
    assert json.loads(document)["k"] == "v"
    assert FENCE.key(JSONField("k"), document) == hash_key("v")
    assert FENCE.key(JSONField(1), f"[{skipped}{space},\"v\"]".encode()) == hash_key("v")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"x":["]",', "0]}]")])
def test_values_nested_without_bound_are_skipped_in_a_small_stack(opening, closing):
    depth = 100_000
    nested = opening * depth + "1" + closing * depth
    found = []

    def walk():
        found.append(JSONField("k").key(f'{{"a":{nested},"k":"v"}}'))
        found.append(JSONField("k").key(f'{{"a":{nested[:-1]},"k":"v"}}'))
        found.append(JSONField("k").key(f'{{"a":{nested},"k":{nested}}}'))
        found.append(JSONField("k").key(f'{{"a":{nested}'))
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=walk)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert found == [hash_key("v"), None, None, None]


def test_an_element_is_found_behind_many():
    document = json.dumps([*range(1000), "v"])
    assert JSONField(1000).key(document) == hash_key("v")
    assert JSONField(999).key(document) == key_of(Number("999"))
    assert JSONField(1001).key(document) is None
    assert JSONField(2**40).key(document) is None


def test_a_path_may_have_sixteen_parts():
    path = ["a", 0] * 8
    document = '{"a":[' * 8 + '"v"' + "]}" * 8
    assert JSONField(*path).key(document) == hash_key("v")
    assert JSONField(*path[:15]).key(document) is None


# ----------------------------------------------------------------------------------------------------------- ByteSlice

def always_empty(start, stop):
    """Whether there is no payload from which the slice takes anything."""
    return not any(bytes(size)[start:stop] for size in range(40))


def test_a_slice_is_what_python_takes_from_a_payload_that_holds_all_of_it():
    bounds = range(-6, 7)
    payloads = [bytes(range(1, size + 1)) for size in range(15)]
    for start, stop in itertools.product(bounds, [*bounds, None]):
        if always_empty(start, stop):
            with pytest.raises(ConfigurationError) as error:
                ByteSlice(start, stop)
            assert (error.value.path, error.value.value) == ("partition_by.stop", stop)
            continue
        extractor = ByteSlice(start, stop)
        for payload in payloads:
            size = len(payload)
            holds = all(-size <= bound <= size for bound in (start, stop) if bound is not None)
            part = payload[start:stop] if holds else b""
            assert FENCE.key(extractor, payload) == (hash_key(part) if part else None), (extractor, payload)


def test_the_bounds_of_a_slice_may_be_far_off():
    far = 2**40
    for extractor in (ByteSlice(far), ByteSlice(-far), ByteSlice(0, far), ByteSlice(-far, far), ByteSlice(0, -far)):
        assert extractor.key(bytes(100)) is None


# ------------------------------------------------------------------------------------------------------------ the hash

def reference(data, kind):
    """The hash once more, by the formulas; one that is found elsewhere must stay."""
    mask = 2**64 - 1
    state = kind * 0xD6E8FEB86659FD93 & mask
    for at in range(0, len(data) // 8 * 8 + 1, 8):
        state = (state ^ int.from_bytes(data[at:at + 8], "little")) * 0x9E3779B97F4A7C15 & mask
        state ^= state >> 32
    state ^= len(data)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        state = (state ^ state >> 33) * factor & mask
    return state ^ state >> 33


@pytest.mark.parametrize("size", range(70))
def test_the_hash_is_the_same_in_every_process(size):
    data = bytes(range(33, 33 + size))
    assert hash_key(data) == reference(data, 4)
    assert hash_key(data.decode()) == reference(data, 1)


def test_some_hashes_as_they_have_always_been():
    assert hash_key(b"BTC-USD") == 14830269549549996376
    assert hash_key("") == 4042729137056912570
    assert hash_key(b"") == 8928931664405938742


@given(STRINGS)
def test_the_hash_of_a_str_is_that_of_the_string_in_json(text):
    assert hash_key(text) == JSONField("k").key(json.dumps({"k": text}))
    assert hash_key(text) != hash_key(text.encode("utf-8", "surrogatepass"))


def test_whatever_is_like_bytes_is_hashed_alike():
    assert len({hash_key(kind(b"BTC")) for kind in (bytes, bytearray, memoryview)}) == 1
    assert hash_key(memoryview(b"xBTCx")[1:4]) == hash_key(b"BTC") == ByteSlice(1, 4).key(b"xBTCx")


@pytest.mark.parametrize("key", [None, 1, 1.5, True, ("a",), ["a"], object()])
def test_nothing_else_has_a_hash_or_a_key(key):
    with pytest.raises(TypeError, match="bytes-like"):
        hash_key(key)
    with pytest.raises(TypeError, match="bytes-like"):
        JSONField("a").key(key)


def assert_even(keys):
    """Assert that each of 2 to 16 partitions gets its share, within 15 %."""
    for partitions in range(2, 17):
        counts = Counter(key % partitions for key in keys)
        shares = [counts[i] * partitions / len(keys) for i in range(partitions)]
        assert 0.85 < min(shares) <= max(shares) < 1.15, (partitions, counts)


@pytest.mark.parametrize("symbol", [
    "SYM{}".format, "{:05d}".format, "{}-USD".format, "{:x}".format, lambda i: chr(65 + i % 26) * (1 + i // 26),
    "WITH-A-LONG-PREFIX-{}".format, "😀{}".format])
def test_symbols_spread_evenly_over_a_few_partitions(symbol):
    symbols = [symbol(i) for i in range(10_000)]
    assert_even([JSONField("s").key(json.dumps({"s": one})) for one in symbols])


def test_numbers_and_slices_spread_evenly_too():
    assert_even([JSONField(0).key(f"[{i}]") for i in range(10_000)])
    assert_even([ByteSlice(4, 8).key(struct.pack("<IIQ", 7, i, i)) for i in range(10_000)])


def test_every_bit_of_a_key_changes_half_of_the_bits_of_its_hash():
    data = bytes(range(20))
    changes = [bin(hash_key(data) ^ hash_key((int.from_bytes(data, "big") ^ 1 << bit).to_bytes(20, "big"))).count("1")
               for bit in range(160)]
    assert 30 < sum(changes) / len(changes) < 34
    assert min(changes) > 12


# --------------------------------------------------------------------------------------------------------- as an object

@pytest.mark.parametrize(("make", "path", "value"), [
    (lambda: JSONField(), "partition_by.path", ()),
    (lambda: JSONField(*"a" * 17), "partition_by.path", ("a",) * 17),
    (lambda: JSONField("a", -1), "partition_by.path", -1),
    (lambda: JSONField("a", True), "partition_by.path", True),
    (lambda: JSONField(1.0), "partition_by.path", 1.0),
    (lambda: JSONField(None), "partition_by.path", None),
    (lambda: JSONField(b"a"), "partition_by.path", b"a"),
    (lambda: JSONField(("a", "b")), "partition_by.path", ("a", "b")),
    (lambda: JSONField(2**64), "partition_by.path", 2**64),
    (lambda: ByteSlice("0"), "partition_by.start", "0"),
    (lambda: ByteSlice(None), "partition_by.start", None),
    (lambda: ByteSlice(False), "partition_by.start", False),
    (lambda: ByteSlice(2**63), "partition_by.start", 2**63),
    (lambda: ByteSlice(-2**63), "partition_by.start", -2**63),
    (lambda: ByteSlice(0, 1.5), "partition_by.stop", 1.5),
    (lambda: ByteSlice(0, True), "partition_by.stop", True),
    (lambda: ByteSlice(0, 2**64), "partition_by.stop", 2**64),
    (lambda: ByteSlice(3, 3), "partition_by.stop", 3),
    (lambda: ByteSlice(3, 2), "partition_by.stop", 2),
    (lambda: ByteSlice(-2, -2), "partition_by.stop", -2),
    (lambda: ByteSlice(-2, 0), "partition_by.stop", 0),
])
def test_what_cannot_be_is_refused_by_name_and_value_with_a_remedy(make, path, value):
    with pytest.raises(ConfigurationError, match="give ") as error:
        make()
    assert (error.value.path, error.value.value) == (path, value)


def test_there_is_no_extractor_but_these_two():
    with pytest.raises(TypeError, match=r"a JSONField\(\.\.\.\) or a ByteSlice"):
        KeyExtractor()
    with pytest.raises(TypeError, match=r"a JSONField\(\.\.\.\) or a ByteSlice"):
        type("Mine", (KeyExtractor,), {})()
    for one in (JSONField, ByteSlice):
        assert issubclass(one, KeyExtractor)
        with pytest.raises(TypeError):
            type("Mine", (one,), {})


EXTRACTORS = [JSONField("a"), JSONField("b"), JSONField(0), JSONField("0"), JSONField("a", 0), JSONField("a", 0, "é\ud800"),
              ByteSlice(0), ByteSlice(1), ByteSlice(0, 1), ByteSlice(0, -1), ByteSlice(-4), ByteSlice(-4, 8)]


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=repr)
def test_an_extractor_is_equal_by_its_arguments_and_survives_copies(extractor):
    again = eval(repr(extractor))
    for one in (again, copy.copy(extractor), copy.deepcopy(extractor),
                *(pickle.loads(pickle.dumps(extractor, version)) for version in range(pickle.HIGHEST_PROTOCOL + 1))):
        assert type(one) is type(extractor)
        assert one == extractor
        assert (one != extractor) is False
        assert hash(one) == hash(extractor)
        assert repr(one) == repr(extractor)
        assert one.key(b'{"a":["x"]}') == extractor.key(b'{"a":["x"]}')


def test_different_extractors_are_not_equal():
    for one, other in itertools.combinations(EXTRACTORS, 2):
        assert one != other
    assert len(set(EXTRACTORS)) == len(EXTRACTORS)
    assert JSONField("a") != "a"
    assert ByteSlice(0) != 0


@pytest.mark.parametrize(("extractor", "names"), [(JSONField("a", 0), ["path"]), (ByteSlice(1, 2), ["start", "stop"])])
def test_an_extractor_cannot_be_changed(extractor, names):
    before = repr(extractor)
    for name in [*names, "other"]:
        with pytest.raises(AttributeError):
            setattr(extractor, name, 1)
    extractor.__init__()
    assert repr(extractor) == before


def test_an_extractor_keeps_what_it_was_given_whoever_else_lets_go_of_it():
    extractors = [JSONField("".join(["name", str(i)]), i) for i in range(1000)]
    for i, one in enumerate(extractors):
        assert one.key(json.dumps({f"name{i}": [*range(i), "v"]})) == hash_key("v")


def test_subclasses_of_str_and_int_leave_nothing_of_their_own():
    class Name(str):
        def encode(self, *args):
            raise AssertionError("of the user's")

        __repr__ = __str__ = encode

    class Index(int):
        __repr__ = __index__ = __int__ = Name.encode

    field = JSONField(Name("a"), Index(1))
    assert [type(one) for one in field.path] == [str, int]
    assert field == JSONField("a", 1)
    assert type(ByteSlice(Index(1), Index(3)).stop) is int
    assert hash_key(Name("a")) == hash_key("a")


def test_threads_may_share_an_extractor():
    extractor, wrong = JSONField("s"), []

    def look(name):
        payload, key = json.dumps({"x": [name] * 50, "s": name}).encode(), hash_key(name)
        wrong.extend(name for _ in range(5000) if extractor.key(payload) != key)
    threads = [threading.Thread(target=look, args=(f"S{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
