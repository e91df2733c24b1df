"""Compressing what a client sends, message by message: the engine's deflater against zlib.compressobj, set alike.

Python's zlib is used as `websockets` does: a call for the message, one for the flush, and the tail cut off. With the context
taken over both make the same bytes, so that is checked.
"""

import zlib

import pytest

from wsengine.engine.deflate import Deflater

WINDOW, LEVEL, MEMORY = 15, 6, 5


@pytest.fixture(params=[True, False], ids=["context takeover", "no context takeover"])
def takeover(request):
    return request.param


def by_engine(payloads, takeover):
    compress = Deflater(window_bits=WINDOW, takeover=takeover, level=LEVEL, memory_level=MEMORY).compress
    return [compress(payload) for payload in payloads]


def by_zlib(payloads, takeover):
    stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW, MEMORY)
    out = []
    for payload in payloads:
        if not takeover:
            stream = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW, MEMORY)
        out.append((stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4])
    return out


def note(benchmark, payloads, messages):
    benchmark.extra_info["ratio"] = sum(map(len, payloads)) / sum(map(len, messages))
    if benchmark.stats:
        benchmark.extra_info["ns_per_message"] = benchmark.stats.stats.median / len(messages) * 1e9


def test_messages_compressed_by_the_engine(benchmark, payloads, takeover):
    messages = benchmark(by_engine, payloads, takeover)
    assert messages == by_zlib(payloads, takeover)
    note(benchmark, payloads, messages)


def test_messages_compressed_by_zlib(benchmark, payloads, takeover):
    note(benchmark, payloads, benchmark(by_zlib, payloads, takeover))
