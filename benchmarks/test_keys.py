"""Finding the key of a message for its partition: JSONField and ByteSlice, beside json.loads and a slice in Python.

Each call is one from Python, which the engine's own are not: what a call costs is told by "no key", of an empty message. A
round is 1,000 calls.
"""

import json

import pytest

from wsengine.engine.keys import ByteSlice, JSONField, hash_key

CALLS = 1000
FIELDS = {
    "near": ({"sym": "BTC-USD", "px": "65000.10", "qty": 3, "id": "a" * 80}, ("sym",)),
    "far": ({"id": "a" * 80, "px": "65000.10", "qty": 3, "sym": "BTC-USD"}, ("sym",)),
    "deep": ({"topic": "trade", "data": [{"px": "65000.10", "qty": 3, "s": "BTC-USD"}], "id": "a" * 60}, ("data", 0, "s")),
    "behind an object": ({"data": {f"k{i}": [i, {"a": "b"}] for i in range(40)}, "sym": "BTC-USD"}, ("sym",)),
}


def record(benchmark):
    if benchmark.stats:
        benchmark.extra_info["ns_per_call"] = benchmark.stats.stats.median * 1e9 / CALLS


def repeated(function, *arguments):
    def run():
        for _ in range(CALLS):
            function(*arguments)

    return run


@pytest.mark.parametrize(("document", "path"), FIELDS.values(), ids=FIELDS)
def test_a_field_found_by_the_engine(benchmark, document, path):
    payload, field = json.dumps(document).encode(), JSONField(*path)
    assert field.key(payload) == hash_key("BTC-USD")
    benchmark(repeated(field.key, payload))
    record(benchmark)


@pytest.mark.parametrize(("document", "path"), FIELDS.values(), ids=FIELDS)
def test_a_field_found_by_json_loads(benchmark, document, path):
    payload = json.dumps(document).encode()

    def find():
        value = json.loads(payload)
        for one in path:
            value = value[one]
        return value

    assert find() == "BTC-USD"
    benchmark(repeated(find))
    record(benchmark)


@pytest.mark.parametrize("size", [7, 64], ids=lambda size: f"{size}B")
def test_a_slice_found_by_the_engine(benchmark, size):
    payload, where = bytes(128), ByteSlice(32, 32 + size)
    assert where.key(payload) == hash_key(bytes(size))
    benchmark(repeated(where.key, payload))
    record(benchmark)


def test_no_key_in_an_empty_message_by_the_engine(benchmark):
    field = JSONField("sym")
    assert field.key(b"") is None
    benchmark(repeated(field.key, b""))
    record(benchmark)
