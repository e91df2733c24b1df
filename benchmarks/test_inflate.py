"""Inflating a feed's messages one by one: the engine's inflater against zlib.decompressobj, both by their Python faces.

Both make a bytes object of each message, which the receive path does not; Python's zlib is given payload and tail in one
call, as `websockets` does. The messages are recorded ones, and trades of our own making, compressed here as a server would.
"""

import zlib

import pytest

from wsengine.engine.inflate import MessageInflater
from wsengine.testing.wire import ServerDeflate


@pytest.fixture(params=[True, False], ids=["context takeover", "no context takeover"])
def takeover(request):
    return request.param


def sent(payloads, takeover):
    server = ServerDeflate(takeover=takeover)
    return [server.compress(payload) for payload in payloads]


def note(benchmark, payloads, messages):
    benchmark.extra_info["ratio"] = sum(map(len, payloads)) / sum(map(len, messages))
    if benchmark.stats:
        benchmark.extra_info["ns_per_message"] = benchmark.stats.stats.median / len(messages) * 1e9


def test_messages_inflated_by_the_engine(benchmark, payloads, takeover):
    messages = sent(payloads, takeover)

    def inflate():
        inflater = MessageInflater(15, takeover)
        feed = inflater.feed
        return [feed(message) for message in messages]

    assert benchmark(inflate) == payloads
    note(benchmark, payloads, messages)


def test_messages_inflated_by_zlib(benchmark, payloads, takeover):
    messages = sent(payloads, takeover)
    tail = ServerDeflate.TAIL

    def inflate():
        stream = zlib.decompressobj(-15)
        out = []
        for message in messages:
            if not takeover:
                stream = zlib.decompressobj(-15)
            out.append(stream.decompress(message + tail))
        return out

    assert benchmark(inflate) == payloads
    note(benchmark, payloads, messages)
