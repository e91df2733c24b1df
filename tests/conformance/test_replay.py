"""Recorded exchange feeds, replayed by a real server: every payload exactly once, and in order with one processor."""

from __future__ import annotations

from collections import Counter

import pytest

from wsengine import Backoff, Processors, WebSocketProducer
from wsengine.testing import Collector, Feed, load_recording

pytestmark = [pytest.mark.recording, pytest.mark.usefixtures("no_leaks")]

MESSAGES = {"coinbase": 9946, "kraken": 4321, "bitfinex": 1693}


def replay(path, concurrency, speed):
    """Feed the recording through a pipeline; what was handled, and what the server says it sent."""
    count = len(load_recording(path))
    with Feed.recording(path, speed=speed) as feed:
        pipeline = Collector(WebSocketProducer(feed.url), processors=Processors(concurrency=concurrency))
        with pipeline:
            pipeline.wait(count, 30)
            result = pipeline.stop()
        log = feed.log()
    assert (result.drained, result.successful, result.failed, result.discarded) == (True, count, 0, 0)
    assert log.messages == count
    assert len(log.connections) == 1
    return [(one.seq, one.data) for one in pipeline.received]


@pytest.mark.parametrize("speed", [None, 200.0], ids=["flat out", "200 times its pace"])
@pytest.mark.parametrize("concurrency", [1, 2, 4, 8])
def test_every_coinbase_payload_arrives_exactly_once(recordings, concurrency, speed):
    path = recordings / "coinbase.jsonl.gz"
    sent = load_recording(path).payloads
    assert len(sent) == MESSAGES["coinbase"]
    received = replay(path, concurrency, speed)
    assert Counter(data for _, data in received) == Counter(sent)
    assert sorted(received) == list(enumerate(sent))
    if concurrency == 1:
        assert received == list(enumerate(sent))


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("exchange", ["kraken", "bitfinex"])
def test_every_payload_of_the_other_exchanges_arrives_exactly_once(recordings, exchange, concurrency):
    path = recordings / f"{exchange}.jsonl.gz"
    sent = load_recording(path).payloads
    assert len(sent) == MESSAGES[exchange]
    received = replay(path, concurrency, None)
    assert sorted(received) == list(enumerate(sent))
    if concurrency == 1:
        assert received == list(enumerate(sent))


def test_a_replay_that_is_cut_and_resumed_loses_nothing(recordings):
    """The server ends connections between two messages by FIN and goes on with the next: the sum is the recording."""
    path = recordings / "kraken.jsonl.gz"
    sent = load_recording(path).payloads
    with Feed.recording(path, speed=60.0) as feed:
        pipeline = Collector(WebSocketProducer(feed.url, retry=Backoff(0.001, maximum=0.001)))
        with pipeline:
            for cut in range(5):
                feed.wait(lambda log, cut=cut: len(log.connections) > cut and log.messages >= (cut + 1) * 300)
                feed.cut()
            pipeline.wait(len(sent), 30)
        assert len(feed.log().connections) == 6
    assert [one.data for one in pipeline.received] == list(sent)
